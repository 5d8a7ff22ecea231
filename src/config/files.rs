//! The files that a configuration refers to, behind a trait so that tests hold them in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A file, or a symbolic link to one.
    File {
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A directory.
    Directory,
    /// A symbolic link to a directory.
    LinkToDirectory,
    /// A symbolic link that leads nowhere.
    DanglingLink,
    /// Something else, with its name: a socket, a pipe or a device, or a link to one.
    Special(&'static str),
}

/// Read access to the files that a configuration refers to.
pub trait Files: fmt::Debug {
    /// The whole content.
    ///
    /// # Errors
    /// As for [`std::fs::read`]; and where the path is a socket or a pipe, which might never answer.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// The content, to be read piece by piece.
    ///
    /// # Errors
    /// As for [`Files::read`].
    fn open(&self, path: &Path) -> io::Result<Box<dyn io::Read>> {
        Ok(Box::new(io::Cursor::new(self.read(path)?)))
    }

    /// What the path leads to.
    ///
    /// # Errors
    /// `NotFound` where there is nothing.
    fn kind(&self, path: &Path) -> io::Result<FileKind>;

    /// The names in a directory, sorted. Names that are not UTF-8 are an error, since they cannot be sent.
    ///
    /// # Errors
    /// As for [`std::fs::read_dir`].
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// What a symbolic link holds; nothing where the path is none. Where there are no links this is the default.
    fn link(&self, _path: &Path) -> Option<PathBuf> {
        None
    }

    /// The path without links in it; nothing where there is none.
    fn real(&self, path: &Path) -> Option<PathBuf> {
        Some(normalize(path))
    }
}

/// The files of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFiles;

impl Files for RealFiles {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        refuse_to_wait(path)?;
        std::fs::read(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn io::Read>> {
        refuse_to_wait(path)?;
        Ok(Box::new(std::fs::File::open(path)?))
    }

    fn kind(&self, path: &Path) -> io::Result<FileKind> {
        let target = match std::fs::metadata(path) {
            Err(error) if leads_nowhere(path, &error) => return Ok(FileKind::DanglingLink),
            found => found?,
        };
        if target.is_dir() {
            let link = std::fs::symlink_metadata(path)?.is_symlink();
            return Ok(if link { FileKind::LinkToDirectory } else { FileKind::Directory });
        }
        Ok(match special(&target) {
            Some(name) => FileKind::Special(name),
            None => FileKind::File { executable: is_executable(&target) },
        })
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let name = entry?.file_name().into_string().map_err(|name| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("the name {} is not UTF-8", name.display()),
                )
            })?;
            names.push(name);
        }
        names.sort_unstable();
        Ok(names)
    }

    fn link(&self, path: &Path) -> Option<PathBuf> {
        std::fs::read_link(path).ok()
    }

    fn real(&self, path: &Path) -> Option<PathBuf> {
        std::fs::canonicalize(path).ok()
    }
}

/// What a device is called. It may be read where it is named: `/dev/null` is a usual stand-in for an empty file.
const DEVICE: &str = "device";

/// Fails for what might never answer.
fn refuse_to_wait(path: &Path) -> io::Result<()> {
    match special(&std::fs::metadata(path)?) {
        Some(name) if name != DEVICE => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is a {name}")))
        }
        _ => Ok(()),
    }
}

/// Whether a path is a link to what is not there, or to itself.
fn leads_nowhere(path: &Path, error: &io::Error) -> bool {
    // the number of ELOOP on Linux, for which the standard library has no stable name
    let fails_so = error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(40);
    fails_so && std::fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink())
}

/// The name of what is neither a file nor a directory.
#[cfg(unix)]
fn special(found: &std::fs::Metadata) -> Option<&'static str> {
    use std::os::unix::fs::FileTypeExt;
    let kind = found.file_type();
    if kind.is_file() || kind.is_dir() {
        None
    } else if kind.is_socket() {
        Some("socket")
    } else if kind.is_fifo() {
        Some("pipe")
    } else {
        Some(DEVICE)
    }
}

#[cfg(not(unix))]
fn special(_: &std::fs::Metadata) -> Option<&'static str> {
    None
}

#[cfg(unix)]
fn is_executable(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o100 != 0
}

#[cfg(not(unix))]
fn is_executable(_: &std::fs::Metadata) -> bool {
    false
}

/// Files in memory, by absolute path. Their directories exist by themselves.
#[derive(Clone, Debug, Default)]
pub struct MemoryFiles {
    files: BTreeMap<PathBuf, Vec<u8>>,
    directories: Vec<PathBuf>,
}

impl MemoryFiles {
    /// Adds a file.
    #[must_use]
    pub fn with(mut self, path: impl Into<PathBuf>, content: impl Into<Vec<u8>>) -> Self {
        self.files.insert(path.into(), content.into());
        self
    }

    /// Adds an empty directory.
    #[must_use]
    pub fn with_directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.directories.push(path.into());
        self
    }
}

impl Files for MemoryFiles {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match self.kind(path)? {
            FileKind::File { .. } => Ok(self.files[&normalize(path)].clone()),
            _ => Err(io::Error::from_raw_os_error(21)),
        }
    }

    fn kind(&self, path: &Path) -> io::Result<FileKind> {
        let path = normalize(path);
        if self.files.contains_key(&path) {
            return Ok(FileKind::File { executable: false });
        }
        let inside = |file: &PathBuf| file.starts_with(&path);
        if self.files.keys().any(inside) || self.directories.iter().any(inside) {
            return Ok(FileKind::Directory);
        }
        // as the system says it
        Err(io::Error::from_raw_os_error(2))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let path = normalize(path);
        let mut names: Vec<String> = self
            .files
            .keys()
            .chain(&self.directories)
            .filter_map(|file| file.strip_prefix(&path).ok()?.components().next())
            .map(|name| name.as_os_str().to_string_lossy().into_owned())
            .collect();
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }
}

/// The path without `.` and `..`, by its text alone.
pub(crate) fn normalize(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if matches!(out.components().next_back(), Some(Component::Normal(_))) => {
                out.pop();
            }
            Component::ParentDir if out.has_root() => {}
            other => out.push(other),
        }
    }
    out
}
