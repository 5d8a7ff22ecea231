//! Where the sandbox has what is mounted from this machine. What is mounted twice is one file there as it is here, also
//! where one source lies below another.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::ErrorKind::NotFound;
use std::path::{Path, PathBuf};

use super::{DIRECTORY, unexpected};
use crate::error::Result;
use crate::provider::compose::archive::{Content, Item};
use crate::provider::compose::binds::{self, refused, unreadable};

/// The sources of all mounts of a project. All are added before the first is looked up, since a later one may hold an
/// earlier one.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// Where a source really is, by the path that leads there.
    real: BTreeMap<PathBuf, PathBuf>,
    /// The name of its copy, unless that of another one holds it. Directories come before what is in them.
    names: BTreeMap<PathBuf, String>,
}

impl Sources {
    /// Adds a file or directory, which may not exist; its copy would be called `name`.
    ///
    /// # Errors
    ///
    /// `InvalidConfig` for a path that cannot be followed.
    pub(super) fn add(&mut self, source: &Path, name: impl FnOnce() -> String) -> Result<()> {
        if !self.real.contains_key(source) {
            let real = real(source)?;
            self.names.entry(real.clone()).or_insert_with(name);
            self.real.insert(source.to_owned(), real);
        }
        Ok(())
    }

    /// Where the sandbox has a source that was added.
    pub(super) fn path(&self, source: &Path) -> Result<String> {
        let real = self.real.get(source).ok_or_else(|| unexpected("a source was not added"))?;
        Ok(format!("{DIRECTORY}/{}", self.place(real)?))
    }

    /// Adds the copies to the archive.
    ///
    /// # Errors
    ///
    /// `InvalidConfig` for what cannot be read.
    pub(super) fn collect(&self, items: &mut Vec<Item>, notes: &mut Vec<String>) -> Result<()> {
        let mut made = BTreeSet::new();
        for real in self.names.keys() {
            let place = self.place(real)?;
            let holder = self.holder(real);
            if holder == real {
                binds::collect(real, &place, items, notes)?;
                continue;
            }
            let mut missing = real.as_path();
            if !exists(missing)? {
                notes.push(binds::is_missing(real));
            }
            // as Docker would make it, so that the others see it too
            while missing != holder && !exists(missing)? && made.insert(missing) {
                items.push(Item::new(self.place(missing)?, Content::Directory, 0o755));
                missing = missing.parent().unwrap_or(holder);
            }
        }
        Ok(())
    }

    /// The outermost source that `real` is, or lies in.
    fn holder<'a>(&'a self, real: &'a Path) -> &'a Path {
        let mut ancestors: Vec<_> = real.ancestors().collect();
        ancestors.reverse();
        ancestors.into_iter().find(|path| self.names.contains_key(*path)).unwrap_or(real)
    }

    /// The path in the archive.
    fn place(&self, real: &Path) -> Result<String> {
        let holder = self.holder(real);
        let name = self.names.get(holder).ok_or_else(|| unexpected("a source was not added"))?;
        match real.strip_prefix(holder) {
            Ok(rest) if !rest.as_os_str().is_empty() => match rest.to_str() {
                Some(rest) => Ok(format!("{name}/{rest}")),
                None => Err(refused(format!("{} is no UTF-8 name", real.display()))),
            },
            _ => Ok(name.clone()),
        }
    }
}

fn exists(path: &Path) -> Result<bool> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == NotFound => Ok(false),
        Err(error) => Err(unreadable(path, &error)),
    }
}

/// The path without links, as far as it exists.
fn real(source: &Path) -> Result<PathBuf> {
    let mut existing = source.to_owned();
    let mut rest: Vec<OsString> = Vec::new();
    loop {
        match existing.canonicalize() {
            Ok(found) => return Ok(rest.iter().rev().fold(found, |path, name| path.join(name))),
            Err(error) if error.kind() == NotFound => match existing.file_name() {
                Some(name) => rest.push(name.to_owned()),
                None => return Err(unreadable(source, &error)),
            },
            Err(error) => return Err(unreadable(source, &error)),
        }
        existing.pop();
    }
}
