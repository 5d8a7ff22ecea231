//! The files behind a bind mount, which become files of the sandbox.

use std::fs::{self, Metadata};
use std::path::Path;

use super::archive::{Content, Item};
use crate::config::{Files, RealFiles};
use crate::error::{Error, ErrorKind, Result};

/// How deep directories may nest; a loop of mounts would end here.
pub(super) const DEEPEST: usize = 128;
/// The most files; a source with more is a mistake (a home directory).
pub(super) const MOST: usize = 200_000;
/// Permissions that are kept. Files belong to root in the sandbox, so set-user-id would mean another user than here.
const KEPT: u32 = 0o1777;

/// Adds the file or directory `source` as `path`, with everything below it. Permissions are kept, and links stay links,
/// as a bind mount has them: what they point to outside of `source` is no part of it. A source that does not exist
/// becomes an empty directory, as Docker would make it.
///
/// # Errors
///
/// [`ErrorKind::InvalidConfig`] for what cannot be read, and for more than 200,000 files.
pub(super) fn collect(
    source: &Path,
    path: &str,
    items: &mut Vec<Item>,
    notes: &mut Vec<String>,
) -> Result<()> {
    match fs::metadata(source) {
        Ok(found) => add(source, path, 0, &found, items, notes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            notes.push(is_missing(source));
            items.push(Item::new(path.to_owned(), Content::Directory, 0o755));
            Ok(())
        }
        Err(error) => Err(unreadable(source, &error)),
    }
}

/// What to say of a source that does not exist.
pub(super) fn is_missing(source: &Path) -> String {
    format!("{} does not exist: the bind mount is an empty directory", source.display())
}

fn add(
    source: &Path,
    path: &str,
    depth: usize,
    found: &Metadata,
    items: &mut Vec<Item>,
    notes: &mut Vec<String>,
) -> Result<()> {
    if depth > DEEPEST || items.len() > MOST {
        return Err(refused(format!("{} holds too many files for a bind mount", source.display())));
    }
    let failed = |error: std::io::Error| unreadable(source, &error);
    let content = if found.is_dir() {
        Content::Directory
    } else if found.is_file() {
        Content::File(source.to_owned())
    } else if found.is_symlink() {
        Content::Link(fs::read_link(source).map_err(failed)?)
    } else {
        notes.push(format!("{} is no file and is left out of the bind mount", source.display()));
        return Ok(());
    };
    let item = Item::of(path.to_owned(), content, found);
    items.push(Item { mode: item.mode & KEPT, ..item });
    if !found.is_dir() {
        return Ok(());
    }
    for name in listed(source)? {
        let below = source.join(&name);
        let found = fs::symlink_metadata(&below).map_err(|error| unreadable(&below, &error))?;
        add(&below, &format!("{path}/{name}"), depth + 1, &found, items, notes)?;
    }
    Ok(())
}

/// The names in a directory, sorted.
pub(super) fn listed(directory: &Path) -> Result<Vec<String>> {
    RealFiles.list(directory).map_err(|error| unreadable(directory, &error))
}

pub(super) fn refused(what: String) -> Error {
    Error::new(ErrorKind::InvalidConfig, what)
}

pub(super) fn unreadable(source: &Path, error: &std::io::Error) -> Error {
    refused(format!("{} cannot be read: {error}", source.display()))
}
