//! `include`: the services, networks and volumes of other compose files join this one.
//!
//! As in Compose, an included file has its own directory for relative paths and its own `.env`, whose values lose to
//! those of the file that includes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::dotenv;
use super::files::normalize;
use super::interpolate::{Lookup, interpolate};
use super::keys::{TOP, find};
use super::node::{Entry, Mapping, Node, Value};
use super::prepared::METADATA_PREFIX;
use super::problem::{Place, Problem, Read};
use super::reading::unknown_key;
use super::{FileKind, Files, yaml};

/// The deepest nesting of includes; more is a loop in disguise.
const DEEPEST: usize = 16;
/// The parts of a file that join the file that includes it.
const SECTIONS: [&str; 5] = ["services", "networks", "volumes", "secrets", "configs"];

/// Replaces `include` by what it names. `chain` holds the files that led here, the innermost last; the variables that had
/// no value are added to `unset`.
pub(crate) fn expand(
    root: &mut Node,
    files: &dyn Files,
    lookup: &Lookup<'_>,
    chain: &mut Vec<PathBuf>,
    unset: &mut BTreeMap<String, Place>,
) -> Read<()> {
    let Value::Mapping(top) = &mut root.value else { return Ok(()) };
    let Some(index) = top.0.iter().position(|entry| entry.key == "include") else { return Ok(()) };
    let include = top.0.remove(index).value;
    if include.value == Value::Null {
        return Ok(());
    }
    let directory = chain.last().and_then(|file| file.parent()).unwrap_or(Path::new("/")).to_path_buf();
    for item in include.sequence("include")? {
        let wanted = Wanted::read(item, &directory)?;
        if chain.len() > DEEPEST || chain.contains(&wanted.path) {
            return Err(item.problem(format!("{} includes itself", wanted.path.display())));
        }
        let mut included = wanted.load(item, files)?;
        let defaults = wanted.environment(item, files, lookup)?;
        let inner = |name: &str| lookup(name).or_else(|| defaults.get(name).cloned());
        unset.extend(interpolate(&mut included, &inner)?);
        chain.push(wanted.path.clone());
        expand(&mut included, files, &inner, chain, unset)?;
        chain.pop();
        let Value::Mapping(other) = &mut included.value else {
            return Err(item.problem(format!("{} is not a compose file", wanted.path.display())));
        };
        anchor_paths(other, &wanted.directory);
        join(top, std::mem::take(other))?;
    }
    Ok(())
}

/// What a file includes, also by way of others, as far as that can be told without a sample.
#[derive(Clone, Debug, Default)]
pub(crate) struct Included {
    /// The compose files, not interpolated.
    pub(crate) roots: Vec<Node>,
    /// The texts of their files of variables.
    pub(crate) variables: Vec<String>,
    /// The paths of all of them, also of files of variables that could exist.
    pub(crate) paths: Vec<PathBuf>,
    /// Whether there may be others: variables name some, or one cannot be read.
    pub(crate) unknown: bool,
}

/// Looks for what the file at `path` includes. What is wrong with it is said when a plan is made.
pub(crate) fn survey(root: &Node, path: &Path, files: &dyn Files) -> Included {
    let mut included = Included::default();
    follow(root, files, &mut vec![path.to_path_buf()], &mut included);
    included
}

fn follow(root: &Node, files: &dyn Files, chain: &mut Vec<PathBuf>, included: &mut Included) {
    let Value::Mapping(top) = &root.value else { return };
    let Some(include) = top.get("include") else { return };
    let directory = chain.last().and_then(|file| file.parent()).unwrap_or(Path::new("/")).to_path_buf();
    let Ok(items) = include.sequence("include") else { return };
    for item in items {
        let Ok(wanted) = Wanted::read(item, &directory) else {
            included.unknown = true;
            continue;
        };
        let beside = || vec![wanted.directory.join(".env")];
        let variables = wanted.env_files.clone().unwrap_or_else(beside);
        let paths = || [&wanted.path, &wanted.directory].into_iter().chain(&variables);
        let holds = |text: &str| paths().any(|path| path.to_string_lossy().contains(text));
        let is_loop = chain.len() > DEEPEST || chain.contains(&wanted.path);
        if is_loop || holds(METADATA_PREFIX) {
            included.unknown = true;
            continue;
        }
        if holds("$") {
            // a file that this machine's variables name is not looked into: it is the same for all samples
            continue;
        }
        let texts = variables.iter().filter_map(|path| read_text(path, item, files).ok());
        included.variables.extend(texts);
        included.paths.push(wanted.path.clone());
        included.paths.extend(variables);
        match wanted.load(item, files) {
            Ok(root) => {
                chain.push(wanted.path);
                follow(&root, files, chain, included);
                chain.pop();
                included.roots.push(root);
            }
            Err(_) => included.unknown = true,
        }
    }
}

/// One entry of `include`.
struct Wanted {
    path: PathBuf,
    /// Where the included file's relative paths start.
    directory: PathBuf,
    /// Files of variables; the `.env` of the directory where absent.
    env_files: Option<Vec<PathBuf>>,
}

impl Wanted {
    fn read(node: &Node, directory: &Path) -> Read<Self> {
        let resolve = |written: &str| normalize(&directory.join(written));
        let known = ["path", "project_directory", "env_file"];
        let empty = Mapping::default();
        let (path, mapping) = match &node.value {
            Value::Mapping(mapping) => {
                if let Some(entry) = mapping.iter().find(|entry| !known.contains(&entry.key.as_str())) {
                    return Err(unknown_key(&entry.key, &entry.place, "include", known));
                }
                let Some(path) = mapping.get("path") else {
                    return Err(node.problem("an `include` needs a `path`"));
                };
                match path.texts("path")?.as_slice() {
                    [path] => (path.clone(), mapping),
                    _ => {
                        return Err(
                            path.problem("an `include` of several files as overrides is not supported")
                        );
                    }
                }
            }
            _ => (node.name("include")?.to_owned(), &empty),
        };
        if path.contains("://") || path.starts_with("oci:") || path.starts_with("git@") {
            return Err(node.problem(format!("`{path}` is not a file of this machine")));
        }
        let path = resolve(&path);
        let beside = path.parent().unwrap_or(Path::new("/")).to_path_buf();
        let directory =
            mapping.get("project_directory").map(|node| node.name("project_directory")).transpose()?;
        let env_files = mapping.get("env_file").map(|node| node.texts("env_file")).transpose()?;
        Ok(Self {
            path,
            directory: directory.map_or(beside, resolve),
            env_files: env_files.map(|names| names.iter().map(|name| resolve(name)).collect()),
        })
    }

    fn load(&self, node: &Node, files: &dyn Files) -> Read<Node> {
        let name = self.path.display().to_string();
        let text = read_text(&self.path, node, files)?;
        let mut root = yaml::parse(&text).map_err(|problem| problem.of_file(&Arc::from(name.as_str())))?;
        root.name_file(&Arc::from(name.as_str()));
        if let Value::Mapping(top) = &root.value {
            for entry in top.iter() {
                if entry.key == "x-daytona" {
                    let message = "`x-daytona` belongs in the file that is not included by another";
                    return Err(Problem::at(&entry.place, message));
                }
                if find(TOP, &entry.key).is_none() && !entry.key.starts_with("x-") {
                    let known = TOP.iter().map(|key| key.name);
                    return Err(unknown_key(&entry.key, &entry.place, "", known));
                }
            }
        }
        Ok(root)
    }

    fn environment(
        &self,
        node: &Node,
        files: &dyn Files,
        lookup: &Lookup<'_>,
    ) -> Read<BTreeMap<String, String>> {
        let beside = self.directory.join(".env");
        let paths = match &self.env_files {
            Some(paths) => paths.clone(),
            None if matches!(files.kind(&beside), Ok(FileKind::File { .. })) => vec![beside],
            None => Vec::new(),
        };
        let mut values = BTreeMap::new();
        for path in paths {
            let text = read_text(&path, node, files)?;
            let name = Arc::from(path.display().to_string());
            values.extend(dotenv::parse(&text, lookup).map_err(|problem| problem.of_file(&name))?);
        }
        Ok(values)
    }
}

fn read_text(path: &Path, node: &Node, files: &dyn Files) -> Read<String> {
    let bytes = files
        .read(path)
        .map_err(|error| node.problem(format!("{} cannot be read: {error}", path.display())))?;
    String::from_utf8(bytes).map_err(|_| node.problem(format!("{} is not UTF-8", path.display())))
}

/// Makes the relative paths of an included file absolute, since the file that includes it may lie elsewhere.
fn anchor_paths(top: &mut Mapping, directory: &Path) {
    let anchor = |node: &mut Node| {
        if let Value::Scalar(path) = &mut node.value
            && !super::build::is_remote(path)
            // the home directory, wherever the file is
            && path != "~"
            && !path.starts_with("~/")
        {
            *path = normalize(&directory.join(&*path)).display().to_string();
        }
    };
    for section in ["secrets", "configs"] {
        for file in fields(top, section).flat_map(|entry| fields_of(&mut entry.value, "file")) {
            anchor(file);
        }
    }
    for volume in fields(top, "volumes") {
        if super::storage::binds_a_directory(&volume.value) {
            fields_of(&mut volume.value, "driver_opts")
                .flat_map(|options| fields_of(options, "device"))
                .for_each(anchor);
        }
    }
    for service in fields(top, "services") {
        let Value::Mapping(service) = &mut service.value.value else { continue };
        for entry in &mut service.0 {
            match (entry.key.as_str(), &mut entry.value.value) {
                ("build" | "env_file" | "label_file", Value::Scalar(_)) => anchor(&mut entry.value),
                ("build", Value::Mapping(build)) => anchor_build(build, &entry.place, anchor),
                ("label_file", Value::Sequence(items)) => items.iter_mut().for_each(anchor),
                ("env_file", Value::Sequence(items)) => {
                    for item in items {
                        match item.value {
                            Value::Mapping(_) => fields_of(item, "path").for_each(anchor),
                            _ => anchor(item),
                        }
                    }
                }
                ("volumes", Value::Sequence(items)) => {
                    for item in items {
                        anchor_mount(item, anchor);
                    }
                }
                _ => {}
            }
        }
    }
}

/// The context, which is the included file's own directory where none is named, and the additional ones.
fn anchor_build(build: &mut Mapping, place: &Place, anchor: impl Fn(&mut Node)) {
    if build.get("context").is_none() {
        let value = Node { place: place.clone(), value: Value::Scalar(".".to_owned()), plain: false };
        build.0.retain(|entry| entry.key != "context");
        build.0.push(Entry { key: "context".to_owned(), place: place.clone(), value });
    }
    for entry in &mut build.0 {
        match (entry.key.as_str(), &mut entry.value.value) {
            ("context", _) => anchor(&mut entry.value),
            ("additional_contexts", Value::Mapping(contexts)) => {
                contexts.0.iter_mut().for_each(|context| anchor_additional(&mut context.value, &anchor));
            }
            ("additional_contexts", Value::Sequence(contexts)) => {
                for context in contexts {
                    let Value::Scalar(text) = &context.value else { continue };
                    let Some((name, path)) = text.split_once('=') else { continue };
                    let mut path = Node { value: Value::Scalar(path.to_owned()), ..context.clone() };
                    let name = name.to_owned();
                    anchor_additional(&mut path, &anchor);
                    if let Value::Scalar(path) = path.value {
                        context.value = Value::Scalar(format!("{name}={path}"));
                    }
                }
            }
            _ => {}
        }
    }
}

/// An additional context may also be another service's image.
fn anchor_additional(context: &mut Node, anchor: impl Fn(&mut Node)) {
    if !matches!(&context.value, Value::Scalar(text) if text.starts_with("service:")) {
        anchor(context);
    }
}

/// Only what begins with a dot, or is of a mount that says `bind`, is a relative path; other sources name volumes.
fn anchor_mount(item: &mut Node, anchor: impl Fn(&mut Node)) {
    if let Value::Scalar(text) = &item.value {
        if text.starts_with('.')
            && let Some((source, rest)) = text.split_once(':')
        {
            let mut path = Node { value: Value::Scalar(source.to_owned()), ..item.clone() };
            anchor(&mut path);
            if let Value::Scalar(path) = path.value {
                item.value = Value::Scalar(format!("{path}:{rest}"));
            }
        }
        return;
    }
    let binds =
        fields_of(item, "type").any(|node| matches!(&node.value, Value::Scalar(text) if text == "bind"));
    let is_path =
        |node: &&mut Node| binds || matches!(&node.value, Value::Scalar(text) if text.starts_with('.'));
    fields_of(item, "source").filter(is_path).for_each(anchor);
}

fn fields<'a>(top: &'a mut Mapping, section: &str) -> impl Iterator<Item = &'a mut Entry> {
    let section = top.0.iter_mut().find(|entry| entry.key == section);
    let entries = section.and_then(|entry| match &mut entry.value.value {
        Value::Mapping(mapping) => Some(mapping.0.iter_mut()),
        _ => None,
    });
    entries.into_iter().flatten()
}

fn fields_of<'a>(node: &'a mut Node, key: &str) -> impl Iterator<Item = &'a mut Node> {
    let entries = match &mut node.value {
        Value::Mapping(mapping) => mapping.0.as_mut_slice(),
        _ => &mut [],
    };
    entries.iter_mut().filter(move |entry| entry.key == key).map(|entry| &mut entry.value).take(1)
}

/// Adds the sections of an included file. A name that both define must mean the same.
fn join(top: &mut Mapping, included: Mapping) -> Read<()> {
    for section in included.0 {
        let Some(name) = SECTIONS.into_iter().find(|name| section.key == *name) else { continue };
        let Value::Mapping(entries) = section.value.value else { continue };
        if top.get(name).is_none() {
            top.0.retain(|entry| entry.key != name);
            let place = section.value.place.clone();
            let value = Node { place, value: Value::Mapping(Mapping::default()), plain: false };
            top.0.push(Entry { key: name.to_owned(), place: section.place, value });
        }
        let Some(Entry { value: Node { value: Value::Mapping(own), .. }, .. }) =
            top.0.iter_mut().find(|entry| entry.key == name)
        else {
            // What is no mapping is refused when the plan is made.
            continue;
        };
        for entry in entries.0 {
            match own.entry(&entry.key) {
                None => own.0.push(entry),
                Some(known) if known.value.means(&entry.value) => {}
                Some(_) => {
                    let message =
                        format!("`{}` of {name} is defined twice, with different contents", entry.key);
                    return Err(Problem::at(&entry.place, message));
                }
            }
        }
    }
    Ok(())
}
