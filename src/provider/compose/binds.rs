//! The files behind a bind mount, which become files of the sandbox.

use std::fs;
use std::path::Path;

use crate::config::context::ContextEntry;
use crate::error::{Error, ErrorKind, Result};

/// How deep directories may nest; a loop of mounts would end here.
const DEEPEST: usize = 128;
/// The most files; a source with more is a mistake (a home directory).
const MOST: usize = 200_000;

/// Adds the file or directory `source` as `path`, with everything below it. A source that does not exist becomes an
/// empty directory, as Docker would make it.
///
/// # Errors
///
/// [`ErrorKind::InvalidConfig`] for what cannot be read, and for more than 200,000 files.
pub(super) fn collect(
    source: &Path,
    path: &str,
    entries: &mut Vec<ContextEntry>,
    notes: &mut Vec<String>,
) -> Result<()> {
    add(source, path, 0, entries, notes)
}

fn add(
    source: &Path,
    path: &str,
    depth: usize,
    entries: &mut Vec<ContextEntry>,
    notes: &mut Vec<String>,
) -> Result<()> {
    let refused = |what: String| Error::new(ErrorKind::InvalidConfig, what);
    let unreadable = |error: std::io::Error| refused(format!("{} cannot be read: {error}", source.display()));
    if depth > DEEPEST || entries.len() > MOST {
        return Err(refused(format!("{} holds too many files for a bind mount", source.display())));
    }
    let entry = |directory, executable| ContextEntry {
        path: path.to_owned(),
        source: source.to_owned(),
        directory,
        executable,
    };
    let found = match fs::metadata(source) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && depth == 0 => {
            notes.push(format!("{} does not exist: the bind mount is an empty directory", source.display()));
            entries.push(entry(true, false));
            return Ok(());
        }
        // a link into nowhere is of no use in the sandbox either
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            notes.push(format!("{} leads nowhere and is left out of the bind mount", source.display()));
            return Ok(());
        }
        Err(error) => return Err(unreadable(error)),
    };
    if found.is_file() {
        use std::os::unix::fs::PermissionsExt;
        entries.push(entry(false, found.permissions().mode() & 0o100 != 0));
        return Ok(());
    }
    if !found.is_dir() {
        notes.push(format!("{} is no file and is left out of the bind mount", source.display()));
        return Ok(());
    }
    if depth > 0 && fs::symlink_metadata(source).is_ok_and(|found| found.is_symlink()) {
        notes.push(format!("{} links to a directory and is left out of the bind mount", source.display()));
        return Ok(());
    }
    entries.push(entry(true, false));
    let mut names = Vec::new();
    for item in fs::read_dir(source).map_err(unreadable)? {
        let name = item.map_err(unreadable)?.file_name();
        match name.into_string() {
            Ok(name) => names.push(name),
            Err(name) => {
                return Err(refused(format!("{} is no UTF-8 name", source.join(name).display())));
            }
        }
    }
    names.sort_unstable();
    for name in names {
        add(&source.join(&name), &format!("{path}/{name}"), depth + 1, entries, notes)?;
    }
    Ok(())
}
