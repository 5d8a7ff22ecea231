//! `write PATH`: a file of the provider's, as the user that commands run as.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::system;

/// Copies the standard input to the file at `path`, making its parents. An existing file keeps its owner and mode.
///
/// # Errors
/// The errno that writing ended with, and what to say about it: `EISDIR` for a directory, `EACCES`, `ENOSPC`, ….
pub(super) fn write(path: &Path) -> Result<(), (i32, String)> {
    let failed = |error: io::Error| {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        (errno, format!("{}: {}", path.display(), system::describe(&io::Error::from_raw_os_error(errno))))
    };
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(|error| match error.kind() {
            // a file is in the way of a directory
            io::ErrorKind::AlreadyExists => failed(io::Error::from_raw_os_error(libc::ENOTDIR)),
            _ => failed(error),
        })?;
    }
    // A pipe that nobody reads would block the opening for ever.
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(failed)?;
    io::copy(&mut io::stdin(), &mut file).map(drop).map_err(failed)
}
