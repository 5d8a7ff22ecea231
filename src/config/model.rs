//! The compose file that is written into a sandbox with several services.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::node::{Entry, Mapping, Node, Value};
use super::plan::{ImageSource, Service};
use super::secrets::Used;
use super::typed::typed;

/// Keys that have no meaning inside the sandbox, or that are resolved here.
const LEFT_OUT: [&str; 8] =
    ["profiles", "env_file", "environment", "develop", "attach", "x_default", "extends", "label_file"];

/// The file for `docker compose`: only the services that run and what they use of `secrets` and `configs`, with the
/// environment of this machine resolved, and dollar signs escaped, since Compose interpolates once more. The values of
/// secrets are not in it.
pub(crate) fn render(top: &Mapping, active: &[&Entry], services: &[Service], used: &Used<'_>) -> Json {
    let mut model = Map::new();
    for entry in top.iter() {
        if matches!(entry.key.as_str(), "networks" | "volumes") {
            model.insert(entry.key.clone(), json(&entry.value));
        }
    }
    for (section, entries) in &used.entries {
        if !entries.is_empty() {
            let entries = entries.iter().map(|entry| (entry.key.clone(), without_environment(entry, used)));
            model.insert((*section).to_owned(), Json::Object(entries.collect()));
        }
    }
    let services = active.iter().zip(services).map(|(entry, service)| {
        let mut rendered = Map::new();
        if let Value::Mapping(mapping) = &entry.value.value {
            for field in mapping.iter() {
                let name = field.key.as_str();
                let says_something = field.value.value != Value::Null;
                if says_something && !LEFT_OUT.contains(&name) && !name.starts_with("x-") {
                    rendered.insert(field.key.clone(), below(&field.value, &mut vec![name]));
                }
            }
        }
        if let Some(Json::Object(dependencies)) = rendered.get_mut("depends_on") {
            // those that are not required and do not run, of which Compose would not know here
            dependencies.retain(|name, _| active.iter().any(|entry| entry.key == *name));
        }
        if let Some(labels) = &service.labels {
            rendered.insert("labels".to_owned(), texts(labels));
        }
        if !service.environment.is_empty() {
            rendered.insert("environment".to_owned(), texts(&service.environment));
        }
        if let ImageSource::Build(build) = &service.image
            && !build.args.is_empty()
            && let Some(Json::Object(section)) = rendered.get_mut("build")
        {
            section.insert("args".to_owned(), texts(&build.args));
        }
        (entry.key.clone(), Json::Object(rendered))
    });
    model.insert("services".to_owned(), Json::Object(services.collect()));
    Json::Object(model)
}

/// A secret or config without the variable that its value was looked up in. A config has it as its content.
fn without_environment(entry: &Entry, used: &Used<'_>) -> Json {
    let mut rendered = json(&entry.value);
    if let Json::Object(fields) = &mut rendered
        && fields.remove("environment").is_some()
        && let Some(value) = used.configs.get(&entry.key)
    {
        fields.insert("content".to_owned(), Json::String(escape(value)));
    }
    rendered
}

fn texts(values: &BTreeMap<String, String>) -> Json {
    values
        .iter()
        .map(|(name, value)| (name.clone(), Json::String(escape(value))))
        .collect::<Map<_, _>>()
        .into()
}

fn json(node: &Node) -> Json {
    rendered(node, None)
}

/// The same at a path below a service.
fn below<'a>(node: &'a Node, path: &mut Vec<&'a str>) -> Json {
    rendered(node, Some(path))
}

fn rendered<'a>(node: &'a Node, mut path: Option<&mut Vec<&'a str>>) -> Json {
    let mut inner = |key: &'a str, node: &'a Node| match path.as_deref_mut() {
        Some(path) => {
            path.push(key);
            let json = below(node, path);
            path.pop();
            json
        }
        None => json(node),
    };
    match &node.value {
        Value::Null => Json::Null,
        Value::Sequence(items) => items.iter().map(|item| inner("[]", item)).collect(),
        Value::Mapping(mapping) => mapping
            .iter()
            .map(|entry| (entry.key.clone(), inner(&entry.key, &entry.value)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Scalar(text) => {
            let number = match path.as_deref() {
                Some(path) => typed(node, path),
                None if node.plain => as_written(text),
                None => None,
            };
            number.unwrap_or_else(|| Json::String(escape(text)))
        }
    }
}

/// A number or boolean, where its JSON form is exactly what was written; `3.10` stays a text.
fn as_written(text: &str) -> Option<Json> {
    match text {
        "true" => Some(Json::Bool(true)),
        "false" => Some(Json::Bool(false)),
        _ if text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) => {
            let value: Json = serde_json::from_str(text).ok()?;
            let written = value.to_string();
            (value.is_number() && written == text).then_some(value)
        }
        _ => None,
    }
}

fn escape(text: &str) -> String {
    text.replace('$', "$$")
}
