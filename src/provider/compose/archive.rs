//! The archive of a project's files.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::PathBuf;

use bytes::Bytes;

use crate::config::context::ContextEntry;
use crate::provider::images::archive::Exactly;

/// A file of the archive. All belong to root, since users of this machine mean nothing in a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// Its path in the archive, relative, with slashes.
    pub(super) path: String,
    pub(super) content: Content,
    /// Permissions; a link has none.
    pub(super) mode: u32,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Content {
    Directory,
    /// The bytes of this file.
    File(PathBuf),
    /// These bytes, which may be a secret.
    Bytes(Bytes),
    /// A link to this path.
    Link(PathBuf),
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory => f.write_str("Directory"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Bytes(_) => f.write_str("Bytes(..)"),
            Self::Link(path) => f.debug_tuple("Link").field(path).finish(),
        }
    }
}

impl From<ContextEntry> for Item {
    fn from(entry: ContextEntry) -> Self {
        let mode = if entry.directory || entry.executable { 0o755 } else { 0o644 };
        let content = if entry.directory { Content::Directory } else { Content::File(entry.source) };
        Self { path: entry.path, content, mode }
    }
}

/// The whole archive in memory, since it is sent many times: an uncompressed tar, in the order of `items`.
pub(super) fn bytes(items: &[Item]) -> io::Result<Bytes> {
    let mut archive = tar::Builder::new(Vec::new());
    for item in items {
        let mut header = tar::Header::new_gnu();
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_mode(item.mode);
        header.set_size(0);
        match &item.content {
            Content::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                archive.append_data(&mut header, &item.path, io::empty())?;
            }
            Content::Link(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                archive.append_link(&mut header, &item.path, target)?;
            }
            Content::Bytes(bytes) => {
                header.set_entry_type(tar::EntryType::Regular);
                header.set_size(bytes.len() as u64);
                archive.append_data(&mut header, &item.path, &bytes[..])?;
            }
            Content::File(source) => {
                let explain =
                    |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", source.display()));
                let file = File::open(source).map_err(explain)?;
                let size = file.metadata().map_err(explain)?.len();
                header.set_entry_type(tar::EntryType::Regular);
                header.set_size(size);
                let mut contents = Exactly { file, left: size };
                archive.append_data(&mut header, &item.path, &mut contents).map_err(explain)?;
            }
        }
    }
    archive.into_inner().map(Bytes::from)
}
