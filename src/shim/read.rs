//! `read PATH [OFFSET LENGTH]`: a file for the provider, where the toolbox's own user may not read it.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::system;

/// An errno, and what to say about it.
pub(super) type Failure = (i32, String);

/// Opens the regular file at `path`.
///
/// Root may read everything, but a file whose owner may not read it is refused, as it would be to the owner: that is
/// what whoever took the permission away wants to see.
///
/// # Errors
/// `EISDIR` for a directory, `EACCES` for what is not readable or no regular file.
pub(super) fn open(path: &Path) -> Result<(File, Metadata), Failure> {
    let failed = |error: io::Error| failure(path, error.raw_os_error().unwrap_or(libc::EIO));
    // A pipe would block the opening for ever.
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    if found.is_dir() {
        return Err(failure(path, libc::EISDIR));
    }
    if !found.is_file() || found.mode() & 0o400 == 0 {
        return Err(failure(path, libc::EACCES));
    }
    Ok((file, found))
}

/// The failure `errno` of an operation on `path`.
pub(super) fn failure(path: &Path, errno: i32) -> Failure {
    let what = system::describe(&io::Error::from_raw_os_error(errno));
    (errno, format!("{}: {what}", path.display()))
}

/// Copies at most `length` bytes of the file at `path`, from `offset` on, to the standard output.
///
/// # Errors
/// As [`open`], and the errno that reading ended with.
pub(super) fn read(path: &Path, offset: u64, length: u64) -> Result<(), Failure> {
    let failed = |error: io::Error| failure(path, error.raw_os_error().unwrap_or(libc::EIO));
    let (mut file, _) = open(path)?;
    if offset > 0 {
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    }
    io::copy(&mut file.take(length), &mut io::stdout()).map(drop).map_err(failed)
}
