//! The files of a build context, and what was in them when the context was hashed.
//!
//! They are read a second time when they are uploaded, perhaps minutes later. What is then sent under the hash must be
//! what was hashed: everybody who has those files gets the image that is made of it, for as long as it exists.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use crate::config::context::ContextEntry;
use crate::config::{FileKind, Files, RealFiles};

/// The digest of a file's content.
pub(super) type Content = [u8; 32];

/// What is to be sent.
#[derive(Debug, Default)]
pub(super) struct ContextFiles {
    /// The files and empty directories, in their order.
    pub(super) entries: Vec<ContextEntry>,
    /// What was in the files, by where they are.
    pub(super) contents: HashMap<PathBuf, Content>,
}

/// The files of this machine, remembering the content of each that is read.
#[derive(Default)]
pub(super) struct Witness(Mutex<HashMap<PathBuf, Content>>);

impl Witness {
    /// What was read, last.
    pub(super) fn contents(self) -> HashMap<PathBuf, Content> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Witness").finish_non_exhaustive()
    }
}

impl Files for Witness {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let bytes = RealFiles.read(path)?;
        let mut contents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        contents.insert(path.to_owned(), Sha256::digest(&bytes).into());
        Ok(bytes)
    }

    fn kind(&self, path: &Path) -> io::Result<FileKind> {
        RealFiles.kind(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        RealFiles.list(path)
    }
}
