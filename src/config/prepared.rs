//! Which of a sample's metadata decides what is prepared before samples start.

use std::collections::BTreeSet;

use super::include::Included;
use super::interpolate::Template;
use super::node::{Node, Value};
use super::problem::Place;

/// In front of the names of variables that carry a sample's metadata.
pub(crate) const METADATA_PREFIX: &str = "SAMPLE_METADATA_";

/// Variables of a sample's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Used {
    /// These.
    These(BTreeSet<String>),
    /// Any of them, since files that cannot be known without a sample may use it.
    Any,
}

/// The variables that change what must be prepared: those in the values that decide it, here and in included files; and
/// all that files of variables use, since any value may go through those.
pub(crate) fn variables(root: &Node, dotenv: Option<&str>, included: &Included) -> Used {
    if included.unknown {
        return Used::Any;
    }
    let mut names = BTreeSet::new();
    for root in included.roots.iter().chain([root]) {
        collect(root, &mut Vec::new(), is_prepared, &mut names);
    }
    for text in included.variables.iter().map(String::as_str).chain(dotenv) {
        names.extend(mentioned(text));
    }
    Used::These(names)
}

/// All variables of a sample's metadata in a file, without what it includes.
pub(crate) fn all_variables(root: &Node) -> Vec<String> {
    let mut names = BTreeSet::new();
    collect(root, &mut Vec::new(), |_| true, &mut names);
    names.into_iter().collect()
}

/// Whether a value decides what is prepared before samples start.
fn is_prepared(path: &[&str]) -> bool {
    match path {
        ["services", _, key, ..] => matches!(
            *key,
            "image" | "build" | "deploy" | "cpus" | "mem_limit" | "mem_reservation" | "gpus" | "platform"
        ),
        ["x-daytona", key, ..] => {
            matches!(*key, "snapshot" | "resources" | "disk" | "gpu_type" | "class" | "target" | "prepare")
        }
        _ => false,
    }
}

fn collect<'a>(
    node: &'a Node,
    path: &mut Vec<&'a str>,
    concerns: fn(&[&str]) -> bool,
    names: &mut BTreeSet<String>,
) {
    match &node.value {
        Value::Scalar(text) if text.contains(METADATA_PREFIX) && concerns(path) => {
            // A text that cannot be parsed is refused when the plan is made.
            if let Ok(template) = Template::parse(text, &Place::Model("".into())) {
                template.variables(&mut |name| {
                    if name.starts_with(METADATA_PREFIX) {
                        names.insert(name.to_owned());
                    }
                });
            }
        }
        Value::Sequence(items) => items.iter().for_each(|item| collect(item, path, concerns, names)),
        Value::Mapping(mapping) => {
            for entry in mapping.iter() {
                path.push(&entry.key);
                collect(&entry.value, path, concerns, names);
                path.pop();
            }
        }
        Value::Null | Value::Scalar(_) => {}
    }
}

/// The names of such variables in a text, whatever they do there.
fn mentioned(text: &str) -> impl Iterator<Item = String> + '_ {
    text.match_indices(METADATA_PREFIX).map(|(start, _)| {
        let rest = &text[start..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        rest[..end].to_owned()
    })
}
