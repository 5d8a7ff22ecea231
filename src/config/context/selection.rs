//! Which files of a context a build may read: what the Dockerfile names, less what `.dockerignore` leaves out.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Component, Path, PathBuf};

use super::{invalid, read_text};
use crate::config::dockerfile::{ContextUse, Dockerfile};
use crate::config::dockerignore::DockerIgnore;
use crate::config::files::{FileKind, Files};
use crate::config::pattern::Pattern;
use crate::config::plan::{Build, DockerfileSource};
use crate::error::Result;

/// How many links one source may lead through, as in Linux.
const MOST_LINKS: usize = 40;

/// Which files of a context a build may read. Paths are relative to the context, with slashes.
#[derive(Debug)]
pub struct Selection {
    ignore: DockerIgnore,
    /// What the Dockerfile reads; everything where absent.
    sources: Option<Sources>,
}

#[derive(Debug, Default)]
struct Sources {
    /// As the Dockerfile names them.
    patterns: Vec<Pattern>,
    /// Links that they pass through, and where these lead.
    linked: BTreeSet<String>,
}

impl Selection {
    /// What the text of a Dockerfile reads; nothing where it reads nothing.
    ///
    /// # Errors
    /// `InvalidConfig` where an ignore file cannot be read or holds a malformed pattern.
    pub(super) fn new(build: &Build, dockerfile: &Dockerfile, files: &dyn Files) -> Result<Option<Self>> {
        let sources = match dockerfile.context_use(&build.args) {
            ContextUse::Nothing => return Ok(None),
            ContextUse::All => None,
            ContextUse::Some(paths) => {
                // What is no pattern is not understood, so everything is sent and the builder refuses it.
                let patterns = paths.iter().map(|path| Pattern::parse(path)).collect::<Option<Vec<_>>>();
                patterns.map(|patterns| Sources { patterns, linked: BTreeSet::new() })
            }
        };
        Ok(Some(Self { ignore: ignore_file(build, files)?, sources }))
    }

    /// What a build by Docker itself reads: build arguments stay outside of its Dockerfile, and a source that is a link
    /// or lies behind one is taken from where that leads inside the context.
    ///
    /// # Errors
    /// `InvalidConfig` where a file cannot be read, a pattern is malformed, or the target does not exist.
    pub fn of_docker(build: &Build, files: &dyn Files) -> Result<Option<Self>> {
        let text = match &build.dockerfile {
            DockerfileSource::Inline(text) => text.clone(),
            DockerfileSource::Path(path) => read_text(path, files)?,
        };
        // the stages after the target are not built, and read nothing
        let text = Dockerfile::parse(text)
            .specialize(&std::collections::BTreeMap::new(), build.target.as_deref())?;
        let dockerfile = Dockerfile::parse(text);
        let mut selection = Self::new(build, &dockerfile, files)?;
        if let Some(sources) = selection.as_mut().and_then(|selection| selection.sources.as_mut())
            && let ContextUse::Some(paths) = dockerfile.context_use(&build.args)
        {
            for path in paths {
                let parts = path.split('/').map(Part::parse).collect();
                Follow { context: &build.context, files, linked: &mut sources.linked }.walk(
                    String::new(),
                    parts,
                    0,
                );
            }
        }
        Ok(selection)
    }

    /// Whether the build may read this path, if it is not ignored: the Dockerfile names it, or a directory above.
    pub fn reads(&self, path: &str) -> bool {
        let Some(sources) = &self.sources else { return true };
        sources.patterns.iter().any(|pattern| pattern.matches_within(path))
            || sources.linked.contains(path)
            || path.match_indices('/').any(|(end, _)| sources.linked.contains(&path[..end]))
    }

    /// Whether the path is ignored.
    pub fn ignores(&self, path: &str) -> bool {
        self.ignore.excludes(path)
    }

    /// Whether nothing below this directory can be read, whatever is in it.
    pub fn ignores_all_below(&self, path: &str) -> bool {
        self.ignore.excludes(path) && !self.ignore.takes_back()
    }
}

/// The ignore file of the Dockerfile, or else that of the context.
fn ignore_file(build: &Build, files: &dyn Files) -> Result<DockerIgnore> {
    let mut candidates = vec![build.context.join(".dockerignore")];
    if let DockerfileSource::Path(path) = &build.dockerfile {
        let mut name = path.clone().into_os_string();
        name.push(".dockerignore");
        candidates.insert(0, PathBuf::from(name));
    }
    for path in candidates {
        if matches!(files.kind(&path), Ok(FileKind::File { .. })) {
            return DockerIgnore::parse(&read_text(&path, files)?).map_err(|(line, pattern)| {
                invalid(format!("{}:{line}:1: `{pattern}` is not a pattern", path.display()))
            });
        }
    }
    Ok(DockerIgnore::default())
}

/// One name of a source.
#[derive(Clone, Debug)]
enum Part {
    Name(String),
    Pattern(Pattern),
}

impl Part {
    fn parse(text: &str) -> Self {
        match Pattern::parse(text) {
            Some(pattern) if text.contains(['*', '?', '[', '\\']) => Self::Pattern(pattern),
            _ => Self::Name(text.to_owned()),
        }
    }
}

/// Looks for links on the way to a source, as the builder does before it asks for files.
struct Follow<'a> {
    context: &'a Path,
    files: &'a dyn Files,
    linked: &'a mut BTreeSet<String>,
}

impl Follow<'_> {
    /// Goes on from `path`, which holds no link, after `links` of them.
    fn walk(&mut self, path: String, mut rest: VecDeque<Part>, links: usize) {
        let Some(part) = rest.pop_front() else {
            if links > 0 {
                self.linked.insert(path);
            }
            return;
        };
        let names = match part {
            Part::Name(name) => vec![name],
            // what cannot be listed is said where it is read
            Part::Pattern(pattern) => {
                let mut names = self.files.list(&self.context.join(&path)).unwrap_or_default();
                names.retain(|name| pattern.matches(name));
                names
            }
        };
        for name in names {
            let here = if path.is_empty() { name } else { format!("{path}/{name}") };
            let Some(target) = self.files.link(&self.context.join(&here)) else {
                self.walk(here, rest.clone(), links);
                continue;
            };
            // a loop of links leads nowhere, and is sent as it is
            if links < MOST_LINKS {
                let mut next: VecDeque<_> = within(&path, &target).into_iter().map(Part::Name).collect();
                next.extend(rest.iter().cloned());
                self.walk(String::new(), next, links + 1);
            }
            self.linked.insert(here);
        }
    }
}

/// The names that a link in `directory` leads to, from the context's root, above which nothing is.
fn within(directory: &str, target: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        directory.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    for component in target.components() {
        match component {
            Component::RootDir => names.clear(),
            Component::ParentDir => {
                names.pop();
            }
            Component::Normal(name) => names.push(name.to_string_lossy().into_owned()),
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    names
}
