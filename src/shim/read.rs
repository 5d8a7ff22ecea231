//! `read PATH [OFFSET LENGTH]`: a file for the provider, where the toolbox's own user may not read it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::system;

/// Copies at most `length` bytes of the file at `path`, from `offset` on, to the standard output.
///
/// Root may read everything, but a file whose owner may not read it is refused, as it would be to the owner: that is
/// what whoever took the permission away wants to see.
///
/// # Errors
/// The errno that reading would end with, and what to say about it: `EISDIR` for a directory, `EACCES` for what is
/// not readable or no regular file.
pub(super) fn read(path: &Path, offset: u64, length: u64) -> Result<(), (i32, String)> {
    let refuse = |errno: i32| {
        let what = system::describe(&io::Error::from_raw_os_error(errno));
        (errno, format!("{}: {what}", path.display()))
    };
    let failed = |error: io::Error| refuse(error.raw_os_error().unwrap_or(libc::EIO));
    // A pipe would block the opening for ever.
    let mut file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    if found.is_dir() {
        return Err(refuse(libc::EISDIR));
    }
    if !found.is_file() || found.mode() & 0o400 == 0 {
        return Err(refuse(libc::EACCES));
    }
    if offset > 0 {
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    }
    io::copy(&mut file.take(length), &mut io::stdout()).map(drop).map_err(failed)
}
