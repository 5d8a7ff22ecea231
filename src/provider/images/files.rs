//! The files of a build context, and what was in them when the context was hashed.
//!
//! They are read a second time when they are uploaded, perhaps minutes later. What is then sent under the hash must be
//! what was hashed: everybody who has those files gets the image that is made of it, for as long as it exists.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

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

/// The files of this machine, remembering the content of each that is read to its end.
#[derive(Default)]
pub(super) struct Witness(Contents);

/// What was read, by where it is.
type Contents = Arc<Mutex<HashMap<PathBuf, Content>>>;

impl Witness {
    /// What was read, last.
    pub(super) fn contents(&self) -> HashMap<PathBuf, Content> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Witness").finish_non_exhaustive()
    }
}

impl Files for Witness {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        RealFiles.read(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn io::Read>> {
        let file = RealFiles.open(path)?;
        let (path, contents) = (path.to_owned(), Arc::clone(&self.0));
        Ok(Box::new(Watched { file, hash: Sha256::new(), path, contents }))
    }

    fn kind(&self, path: &Path) -> io::Result<FileKind> {
        RealFiles.kind(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        RealFiles.list(path)
    }

    fn link(&self, path: &Path) -> Option<PathBuf> {
        RealFiles.link(path)
    }

    fn real(&self, path: &Path) -> Option<PathBuf> {
        RealFiles.real(path)
    }
}

/// A file that is read.
struct Watched {
    file: Box<dyn io::Read>,
    hash: Sha256,
    path: PathBuf,
    contents: Contents,
}

impl io::Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.hash.update(&buffer[..count]);
        if count == 0 && !buffer.is_empty() {
            let content = self.hash.finalize_reset().into();
            self.contents
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(std::mem::take(&mut self.path), content);
        }
        Ok(count)
    }
}
