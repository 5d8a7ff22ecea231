//! Where a server keeps its sandboxes, and the removal of what dead servers have left.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::statfs::{FsType, NFS_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, statfs};

use crate::error::{Error, ErrorKind, Result};

/// A Unix socket's address has 108 bytes; what follows the state directory needs 16 of them.
const LONGEST: usize = 90;
const LOCK: &str = "lock";

/// A directory of one server's own, locked for as long as this value, and so the server, lives.
#[derive(Debug)]
pub struct StateDirectory {
    path: PathBuf,
    stale: Vec<Stale>,
    notes: Vec<String>,
    _lock: File,
}

/// What a dead server has left, locked by us.
#[derive(Debug)]
pub(super) struct Stale {
    /// The directory.
    pub(super) path: PathBuf,
    _lock: File,
}

impl StateDirectory {
    /// Makes a directory for this server below `parent`; by default below the user's data directory, which is rarely
    /// held in memory as temporary directories are. What dead servers have left there is removed once an engine runs.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::System`] where it cannot be made; [`ErrorKind::InvalidConfig`] where its path is too long for the
    /// sockets in it.
    pub fn open(parent: Option<&Path>) -> Result<Self> {
        let mut notes = Vec::new();
        let parent = match parent {
            Some(parent) => std::path::absolute(parent).unwrap_or_else(|_| parent.to_owned()),
            None => default_parent(&mut notes),
        };
        let failed = |error: io::Error| {
            Error::new(ErrorKind::System, format!("cannot use {} for sandboxes: {error}", parent.display()))
                .with_hint("Set another state directory, on a local disk, that this user may write to")
                .with_source(error)
        };
        private(&parent).map_err(failed)?;
        // held while directories are made and found, not while they are removed
        let guard = File::create(parent.join(LOCK)).map_err(failed)?;
        guard.lock().map_err(failed)?;
        let stale = find_stale(&parent).map_err(failed)?;
        let name = format!("{:08x}", uuid::Uuid::new_v4().as_fields().0);
        let path = parent.join(name);
        if path.as_os_str().len() > LONGEST {
            let message = format!("the state directory {} is too long for the sockets in it", path.display());
            return Err(Error::new(ErrorKind::InvalidConfig, message)
                .with_hint(format!("Set one of at most {} characters", LONGEST - 9)));
        }
        for directory in [path.clone(), path.join("sandboxes"), path.join("sockets")] {
            private(&directory).map_err(failed)?;
        }
        let lock = File::create(path.join(LOCK)).map_err(failed)?;
        lock.lock().map_err(failed)?;
        Ok(Self { path, stale, notes, _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The private directory of the sandbox with this id, for [`crate::local::spec::SandboxSpec::directory`].
    pub fn sandbox(&self, id: &str) -> PathBuf {
        self.path.join("sandboxes").join(id)
    }

    /// Its name, unique on this machine.
    pub(super) fn name(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// The socket of the toolbox of a start.
    pub(super) fn socket(&self, number: u64) -> PathBuf {
        self.path.join("sockets").join(number.to_string())
    }

    /// What dead servers have left. Their locks are released with the values.
    pub(super) fn take_stale(&mut self) -> Vec<Stale> {
        std::mem::take(&mut self.stale)
    }

    /// What a user should know about the choice of the directory.
    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// Makes a directory that is ours; in a shared one, somebody else may have been faster.
fn private(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    if fs::metadata(directory)?.uid() == nix::unistd::geteuid().as_raw() {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to another user"))
    }
}

/// Directories whose lock nobody holds.
fn find_stale(parent: &Path) -> io::Result<Vec<Stale>> {
    let mut stale = Vec::new();
    for entry in fs::read_dir(parent)?.flatten() {
        let path = entry.path();
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        // a server makes directory and lock while it holds the parent's, so one without a lock is a ruin
        let lock = match File::create(path.join(LOCK)) {
            Ok(lock) => lock,
            // its server has ended and removed it just now
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(error)) => return Err(error),
        }
        stale.push(Stale { path, _lock: lock });
    }
    Ok(stale)
}

/// Overlays cannot lie on overlays, as in containers, nor on NFS; memory is the next best.
fn default_parent(notes: &mut Vec<String>) -> PathBuf {
    let home =
        || std::env::home_dir().filter(|home| home.is_absolute()).map(|home| home.join(".local/share"));
    let data =
        std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute()).or_else(home);
    let own = |directory: PathBuf| directory.join("inspect-daytona").join("local");
    let user = nix::unistd::geteuid();
    if let Some(data) = data.map(own)
        && private(&data).is_ok()
        && statfs(&data).is_ok_and(|found| can_hold_layers(found.filesystem_type()))
    {
        return data;
    }
    let candidates = [PathBuf::from("/var/tmp"), PathBuf::from("/dev/shm")];
    let chosen = candidates
        .into_iter()
        .find(|path| statfs(path).is_ok_and(|found| can_hold_layers(found.filesystem_type())))
        .unwrap_or_else(std::env::temp_dir);
    if chosen.starts_with("/dev/shm") {
        notes.push(
            "Files of sandboxes are held in memory, since no directory on a disk can hold overlays.".into(),
        );
    }
    chosen.join(format!("inspect-daytona-{user}"))
}

fn can_hold_layers(kind: FsType) -> bool {
    kind != OVERLAYFS_SUPER_MAGIC && kind != NFS_SUPER_MAGIC
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_of_a_live_server_is_not_stale_and_that_of_a_dead_one_is() {
        let parent = tempfile::tempdir().unwrap();
        let first = StateDirectory::open(Some(parent.path())).unwrap();
        let mut second = StateDirectory::open(Some(parent.path())).unwrap();
        assert!(second.take_stale().is_empty());
        let path = first.path().to_owned();
        drop(first);
        let mut third = StateDirectory::open(Some(parent.path())).unwrap();
        let stale = third.take_stale();
        assert_eq!(stale.len(), 1);
        assert_eq!(stale[0].path, path);
    }

    #[test]
    fn a_directory_too_long_for_sockets_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let long = parent.path().join("x".repeat(100));
        let error = StateDirectory::open(Some(&long)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    }
}
