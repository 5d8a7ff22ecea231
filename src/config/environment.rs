//! `environment`, `env_file` and other lists of `NAME=value`.

use std::collections::BTreeMap;

use super::dotenv;
use super::node::{Mapping, Node, Value};
use super::problem::{Problem, Read};
use super::reading::{Reading, unknown_key};
use super::values::Variables;

/// The environment of a service: its files, then `environment`.
pub(crate) fn read(reading: &Reading<'_>, service: &Mapping) -> Read<Variables> {
    let mut environment = Variables::default();
    if let Some(node) = service.get("env_file") {
        match &node.value {
            Value::Sequence(items) => {
                for item in items {
                    file(reading, item, &mut environment)?;
                }
            }
            _ => file(reading, node, &mut environment)?,
        }
    }
    if let Some(node) = service.get("environment") {
        for (name, value) in named(node, "environment", &|name| (reading.lookup)(name))? {
            match value {
                Some(value) => environment.insert(name, value),
                // a name that this machine does not know is unset, also where a file has a value for it
                None => environment.remove(&name),
            };
        }
    }
    Ok(environment)
}

/// The labels of a service where files hold some of them; Compose sees the others by itself. Labels of a single service
/// have no effect.
pub(crate) fn labels(reading: &Reading<'_>, service: &Mapping) -> Read<Option<BTreeMap<String, String>>> {
    let Some(node) = service.get("label_file").filter(|node| reading.multi && !node.is_void()) else {
        return Ok(None);
    };
    let mut labels = BTreeMap::new();
    let files = match &node.value {
        Value::Sequence(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    for item in files {
        let written = item.name("label_file")?;
        let file = NamedFile { key: "label_file", written, required: true, raw: false };
        labels.extend(values(reading, item, &file, &BTreeMap::new())?);
    }
    if let Some(node) = service.get("labels") {
        labels.extend(pairs(node, "labels", &|_| Some(String::new()))?);
    }
    Ok(Some(labels))
}

fn file(reading: &Reading<'_>, node: &Node, environment: &mut BTreeMap<String, String>) -> Read<()> {
    let mut required = true;
    let mut raw = false;
    let written = match &node.value {
        Value::Mapping(mapping) => {
            for entry in mapping.iter() {
                match entry.key.as_str() {
                    "path" => {}
                    "required" => required = entry.value.boolean("required")?,
                    "format" if entry.value.text("format")? == "raw" => raw = true,
                    "format" => return Err(entry.value.problem("`format` of `env_file` can only be raw")),
                    other => {
                        let known = ["path", "required", "format"];
                        return Err(unknown_key(other, &entry.place, "env_file", known));
                    }
                }
            }
            match mapping.get("path") {
                Some(path) => path.name("path")?,
                None => return Err(node.problem("an `env_file` entry needs a `path`")),
            }
        }
        _ => node.name("env_file")?,
    };
    let file = NamedFile { key: "env_file", written, required, raw };
    environment.extend(values(reading, node, &file, environment)?);
    Ok(())
}

/// A file of `NAME=value` lines.
struct NamedFile<'a> {
    /// The key that names it.
    key: &'a str,
    written: &'a str,
    required: bool,
    /// Whether values stand for themselves.
    raw: bool,
}

/// The values of a file, in which those of `earlier` files may be used.
fn values(
    reading: &Reading<'_>,
    node: &Node,
    file: &NamedFile<'_>,
    earlier: &BTreeMap<String, String>,
) -> Read<BTreeMap<String, String>> {
    let key = file.key;
    let path = reading.path(file.written);
    let content = match reading.context.files.read(&path) {
        Ok(content) => content,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !file.required => {
            return Ok(BTreeMap::new());
        }
        Err(error) => {
            return Err(node.problem(format!("the {key} {} cannot be read: {error}", path.display())));
        }
    };
    let Ok(text) = String::from_utf8(content) else {
        return Err(node.problem(format!("the {key} {} is not UTF-8", path.display())));
    };
    let parse = if file.raw { dotenv::parse_raw } else { dotenv::parse };
    let lookup = |name: &str| earlier.get(name).cloned().or_else(|| (reading.lookup)(name));
    parse(&text, &lookup).map_err(|problem| {
        let inner = problem.into_error(&path.display().to_string());
        node.problem(format!("the {key} is not valid: {}", inner.message()))
    })
}

/// Pairs in either form, `NAME: value` or `- NAME=value`. A name without a value takes what `inherit` gives and is left
/// out where that is nothing.
pub(crate) fn pairs(
    node: &Node,
    key: &str,
    inherit: &dyn Fn(&str) -> Option<String>,
) -> Read<BTreeMap<String, String>> {
    let named = named(node, key, inherit)?;
    Ok(named.into_iter().filter_map(|(name, value)| Some((name, value?))).collect())
}

/// The same with the names that are left out.
fn named(
    node: &Node,
    key: &str,
    inherit: &dyn Fn(&str) -> Option<String>,
) -> Read<BTreeMap<String, Option<String>>> {
    let mut out = BTreeMap::new();
    let mut put = |name: &str, value: Option<&str>, node: &Node| -> Read<()> {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(node.problem(format!("`{name}` in `{key}` is not the name of a variable")));
        }
        let value = value.map(str::to_owned).or_else(|| inherit(name));
        if value.as_ref().is_some_and(|value| value.contains('\0')) {
            return Err(node.problem(format!("`{name}` in `{key}` contains a NUL byte")));
        }
        out.insert(name.to_owned(), value);
        Ok(())
    };
    match &node.value {
        Value::Sequence(items) => {
            for item in items {
                match item.text(key)?.split_once('=') {
                    Some((name, value)) => put(name, Some(value), item)?,
                    None => put(item.text(key)?, None, item)?,
                }
            }
        }
        _ => {
            for entry in node.mapping(key)?.iter() {
                let value = match entry.value.value {
                    Value::Null => None,
                    _ => Some(entry.value.text(&entry.key)?),
                };
                put(&entry.key, value, &entry.value)?;
            }
        }
    }
    Ok(out)
}

/// A mapping of texts in which every name has a value.
pub(crate) fn text_map(node: &Node, key: &str) -> Read<BTreeMap<String, String>> {
    let mapping = node.mapping(key)?;
    for entry in mapping.iter() {
        if entry.value.value == Value::Null {
            return Err(Problem::at(&entry.place, format!("`{}` in `{key}` has no value", entry.key)));
        }
    }
    pairs(node, key, &|_| None)
}
