//! The files of a build context, as Docker itself would send them: for builds by the machine's own Docker.

use std::fs;
use std::path::Path;

use super::archive::{Content, Item};
use super::binds::{DEEPEST, MOST, listed, refused, unreadable};
use crate::config::context::Selection;
use crate::config::{Build, RealFiles};
use crate::error::Result;

/// The files of the context that the build may read, with paths below `path`: permissions and times as they are, and
/// links as links, whose targets are sent only where the build reads them by themselves.
///
/// # Errors
///
/// `InvalidConfig` for what cannot be read, and for more than 200,000 files.
pub(super) fn collect(build: &Build, path: &str, notes: &mut Vec<String>) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    if let Some(selection) = Selection::of_docker(build, &RealFiles)? {
        Walk { selection, base: path, items: &mut items, notes }.directory(&build.context, "", 0)?;
    }
    let found = fs::metadata(&build.context).map_err(|error| unreadable(&build.context, &error))?;
    items.push(Item { mode: 0o755, ..Item::of(path.to_owned(), Content::Directory, &found) });
    Ok(items)
}

struct Walk<'a> {
    selection: Selection,
    base: &'a str,
    items: &'a mut Vec<Item>,
    notes: &'a mut Vec<String>,
}

impl Walk<'_> {
    /// Adds what is below a directory; `path` is empty for the context itself. Returns whether anything was added.
    fn directory(&mut self, directory: &Path, path: &str, depth: usize) -> Result<bool> {
        if depth > DEEPEST || self.items.len() > MOST {
            let what = format!("{} holds too many files for a build context", directory.display());
            return Err(refused(what).with_hint("Name what is not needed in .dockerignore"));
        }
        let before = self.items.len();
        for name in listed(directory)? {
            let source = directory.join(&name);
            let path = if path.is_empty() { name } else { format!("{path}/{name}") };
            let is_read = !self.selection.ignores(&path) && self.selection.reads(&path);
            let found = match fs::symlink_metadata(&source) {
                Ok(found) => found,
                // files of others come and go beside those that the build reads
                Err(_) if !is_read => continue,
                Err(error) => return Err(unreadable(&source, &error)),
            };
            let content = if found.is_dir() {
                let holds =
                    !self.selection.ignores_all_below(&path) && self.directory(&source, &path, depth + 1)?;
                if !holds && !is_read {
                    continue;
                }
                Content::Directory
            } else if !is_read {
                continue;
            } else if found.is_file() {
                Content::File(source)
            } else if found.is_symlink() {
                Content::Link(fs::read_link(&source).map_err(|error| unreadable(&source, &error))?)
            } else {
                self.notes
                    .push(format!("{} is no file and is left out of the build context", source.display()));
                continue;
            };
            self.items.push(Item::of(format!("{}/{path}", self.base), content, &found));
        }
        Ok(self.items.len() > before)
    }
}

#[cfg(test)]
mod tests;
