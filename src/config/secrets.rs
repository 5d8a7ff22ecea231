//! Top-level `secrets` and `configs`: the values among them that are this machine's.
//!
//! Compose in the sandbox sees neither the environment nor the files of this machine, so values are looked up here.
//! Files are left to whoever makes the archive.

use std::collections::BTreeMap;

use super::node::{Entry, Mapping, Node, Value};
use super::prepared::METADATA_PREFIX;
use super::problem::{Problem, Read};
use super::reading::Reading;
use super::values::Variables;

/// What services use of the two sections.
#[derive(Debug, Default)]
pub(crate) struct Used<'a> {
    /// The entries that running services use, by section and in the order of the file.
    pub(crate) entries: BTreeMap<&'static str, Vec<&'a Entry>>,
    /// Values of secrets whose `environment` names a variable, by the secret's name.
    pub(crate) secrets: Variables,
    /// Values of configs whose `environment` names a variable.
    pub(crate) configs: Variables,
}

/// Looks up what the running services use. Entries that none uses are left out, as Compose does, and need no value.
pub(crate) fn read<'a>(reading: &Reading<'_>, top: &'a Mapping, active: &[&'a Entry]) -> Read<Used<'a>> {
    let mut used = Used::default();
    for (section, what) in [("secrets", "secret"), ("configs", "config")] {
        let defined = top.get(section).map(|node| node.mapping(section)).transpose()?;
        let names = references(active, section)?;
        for (name, places) in &names {
            let Some(entry) = defined.and_then(|defined| defined.entry(name)) else {
                return Err(places[0].problem(format!("the {what} `{name}` is not defined in this file")));
            };
            let value = value(reading, entry, what)?;
            if section == "configs" {
                used.configs.extend(value.map(|value| (name.clone(), value)));
            } else if let Some(value) = value {
                places.iter().try_for_each(|place| check_reference(place, name))?;
                used.secrets.insert(name.clone(), value);
            }
        }
        let is_used = |entry: &&Entry| names.contains_key(&entry.key);
        let entries = defined.into_iter().flat_map(Mapping::iter).filter(is_used).collect();
        used.entries.insert(section, entries);
    }
    Ok(used)
}

/// Who uses an entry of the section: services, and builds for secrets.
fn references<'a>(active: &[&'a Entry], section: &str) -> Read<BTreeMap<String, Vec<&'a Node>>> {
    let mut names: BTreeMap<String, Vec<&Node>> = BTreeMap::new();
    for entry in active {
        let service = entry.value.mapping(&entry.key)?;
        let build = match service.get("build").map(|node| &node.value) {
            Some(Value::Mapping(build)) => build.get(section),
            _ => None,
        };
        for list in service.get(section).into_iter().chain(build) {
            for item in list.sequence(section)? {
                let name = match &item.value {
                    Value::Mapping(long) => match long.get("source") {
                        Some(source) => source.name("source")?,
                        None => return Err(item.problem(format!("an entry of `{section}` needs a `source`"))),
                    },
                    _ => item.name(section)?,
                };
                names.entry(name.to_owned()).or_default().push(item);
            }
        }
    }
    Ok(names)
}

/// The value of the variable that `environment` names, if there is such a key.
fn value(reading: &Reading<'_>, entry: &Entry, what: &str) -> Read<Option<String>> {
    let name = &entry.key;
    let options = entry.value.mapping(name)?;
    if let Some(node) = options.get("external").filter(|node| !node.is_void()) {
        return Err(node
            .problem(format!("the {what} `{name}` is external: a sandbox has none of its own"))
            .hint("Give it a `file`, or an `environment` variable of this machine"));
    }
    let Some(node) = options.get("environment") else { return Ok(None) };
    if let Some(other) = ["file", "content"].iter().find_map(|key| options.entry(key)) {
        let message = format!("`environment` and `{}` of the {what} `{name}` exclude each other", other.key);
        return Err(Problem::at(&other.place, message));
    }
    let variable = node.name("environment")?;
    match (reading.lookup)(variable) {
        Some(value) => Ok(Some(value)),
        // before any sample there is none that could be wanting
        None if reading.context.metadata.is_empty() && variable.starts_with(METADATA_PREFIX) => {
            Ok(Some(String::new()))
        }
        None => Err(node.problem(format!("the variable `{variable}` of the {what} `{name}` is not set"))),
    }
}

/// A secret of a variable is mounted as a file, of which Compose changes neither owner nor permissions.
fn check_reference(reference: &Node, name: &str) -> Read<()> {
    let Value::Mapping(long) = &reference.value else { return Ok(()) };
    match ["uid", "gid", "mode"].iter().find_map(|key| long.entry(key)) {
        Some(entry) => {
            let message =
                format!("`{}` of the secret `{name}` is not possible: its value is a variable", entry.key);
            Err(Problem::at(&entry.place, message)
                .hint("Use a `file` with the permissions that it is to have"))
        }
        None => Ok(()),
    }
}
