//! What the readers of a file share: its name, its surroundings and the warnings so far.

use std::fmt;
use std::path::{Path, PathBuf};

use super::Context;
use super::files::normalize;
use super::interpolate::Lookup;
use super::keys::{Decision, Key, find};
use super::node::{Mapping, Node};
use super::problem::{Place, Problem, Read};
use super::suggest::nearest;

/// What the readers of one file share.
pub(crate) struct Reading<'a> {
    /// The name of the file in messages.
    pub(crate) file: &'a str,
    /// Where relative paths start.
    pub(crate) directory: &'a Path,
    /// The surroundings.
    pub(crate) context: &'a Context<'a>,
    /// Variables: sample metadata, this machine's environment, `.env`.
    pub(crate) lookup: &'a Lookup<'a>,
    /// Whether several services run, so that Compose itself sees most keys.
    pub(crate) multi: bool,
    warnings: Vec<(String, String)>,
}

impl<'a> Reading<'a> {
    /// Begins to read `file`.
    pub(crate) fn new(
        file: &'a str,
        directory: &'a Path,
        context: &'a Context<'a>,
        lookup: &'a Lookup<'a>,
    ) -> Self {
        Self { file, directory, context, lookup, multi: false, warnings: Vec::new() }
    }

    /// Notes that something has no effect. The same message is noted once, where it applied first.
    pub(crate) fn warn(&mut self, place: &Place, message: impl Into<String>) {
        let message = message.into();
        if !self.warnings.iter().any(|(_, known)| *known == message) {
            self.warnings.push((place.within(self.file).to_string(), message));
        }
    }

    /// The warnings, each with its place in front.
    pub(crate) fn into_warnings(self) -> Vec<String> {
        self.warnings.into_iter().map(|(place, message)| format!("{place}: {message}")).collect()
    }

    /// A path of the file, absolute. `~` in front is the home directory, as in Compose.
    pub(crate) fn path(&self, written: &str) -> PathBuf {
        if let Some(rest) = written.strip_prefix('~')
            && (rest.is_empty() || rest.starts_with('/'))
            && let Some(home) = (self.lookup)("HOME")
        {
            return normalize(&Path::new(&home).join(rest.trim_start_matches('/')));
        }
        normalize(&self.directory.join(written))
    }

    /// Refuses unknown keys and those that the table refuses, and warns of those without effect. `section` names the
    /// mapping in messages and is empty for the top of the file.
    pub(crate) fn check_keys(
        &mut self,
        mapping: &Mapping,
        table: &'static [Key],
        section: fmt::Arguments<'_>,
    ) -> Read<()> {
        for entry in mapping.iter() {
            let name = entry.key.as_str();
            let Some(key) = find(table, name) else {
                // `x_default` is what an eval log makes of `x-default`.
                if !name.starts_with("x-") && name != "x_default" {
                    let known = table.iter().map(|key| key.name);
                    return Err(unknown_key(name, &entry.place, &section.to_string(), known));
                }
                continue;
            };
            // Names are put together for those few keys that something is said of.
            let told = || match section.to_string() {
                section if section.is_empty() => format!("`{name}`"),
                section => format!("`{name}` of {section}"),
            };
            match if self.multi { key.multi } else { key.single } {
                Decision::Refused if !entry.value.is_void() => {
                    return Err(Problem::at(&entry.place, format!("{} is not supported", told()))
                        .hint(sentence(key.reason)));
                }
                Decision::Ignored if !is_as_usual(name, &entry.value) => {
                    self.warn(&entry.place, format!("{} has no effect: {}", told(), key.reason));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// An error for a key that nobody knows, with the nearest one that is known.
pub(crate) fn unknown_key<'a>(
    name: &str,
    place: &Place,
    section: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Problem {
    let within = if section.is_empty() { String::new() } else { format!(" in {section}") };
    let problem = Problem::at(place, format!("unknown key `{name}`{within}"));
    match nearest(name, known) {
        Some(meant) => problem.hint(format!("Did you mean `{meant}`?")),
        None => problem,
    }
}

/// Whether the value of an ignored key asks for what a sandbox is anyway.
fn is_as_usual(name: &str, value: &Node) -> bool {
    let usual: &[&str] = match name {
        "restart" => &["no"],
        // whether there are GPUs for NVIDIA's is said elsewhere
        "runtime" => &["nvidia", "runc"],
        "cgroup" => &["private"],
        "ipc" => &["private", "shareable"],
        "isolation" => &["default"],
        _ => &[],
    };
    value.is_void() || value.text(name).is_ok_and(|text| usual.contains(&text))
}

fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}
