//! The archive of a project's files.

use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::provider::images::archive::Exactly;

/// A file of the archive. All belong to root, since users of this machine mean nothing in a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// Its path in the archive, relative, with slashes.
    pub(super) path: String,
    pub(super) content: Content,
    /// Permissions; a link has none.
    pub(super) mode: u32,
    /// When it was changed, in seconds since 1970. Some programs refuse what seems to be older than they are.
    pub(super) modified: u64,
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

impl Item {
    /// With the permissions and the time of a file of this machine.
    pub(super) fn of(path: String, content: Content, found: &Metadata) -> Self {
        let modified = u64::try_from(found.mtime()).unwrap_or_default();
        Self { path, content, mode: found.permissions().mode() & 0o7777, modified }
    }

    /// One that is made now.
    pub(super) fn new(path: String, content: Content, mode: u32) -> Self {
        let modified = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self { path, content, mode, modified }
    }
}

/// The whole archive in memory, since it is sent many times: an uncompressed tar, in the order of `items`, but with
/// directories last: whatever unpacks it then changes no directory after its time was set.
pub(super) fn bytes(items: &[Item]) -> io::Result<Bytes> {
    let mut archive = tar::Builder::new(Vec::new());
    let (directories, others): (Vec<_>, Vec<_>) =
        items.iter().partition(|item| item.content == Content::Directory);
    for item in others.into_iter().chain(directories) {
        let mut header = tar::Header::new_gnu();
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(item.modified);
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
