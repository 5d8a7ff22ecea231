//! Errors of a sandbox's operating system: by number, as the shim exits with them, and by text, as the toolbox says them.

use crate::{Error, ErrorKind};

/// An error of Linux, whatever this machine runs.
struct Errno {
    number: i32,
    name: &'static str,
    /// Go's words, which are those of the C library in lower case.
    text: &'static str,
}

const fn errno(number: i32, name: &'static str, text: &'static str) -> Errno {
    Errno { number, name, text }
}

/// What opening, making and writing files may end with.
const KNOWN: [Errno; 19] = [
    errno(1, "EPERM", "operation not permitted"),
    errno(2, "ENOENT", "no such file or directory"),
    errno(5, "EIO", "input/output error"),
    errno(6, "ENXIO", "no such device or address"),
    errno(13, "EACCES", "permission denied"),
    errno(16, "EBUSY", "device or resource busy"),
    errno(19, "ENODEV", "no such device"),
    errno(20, "ENOTDIR", "not a directory"),
    errno(21, "EISDIR", "is a directory"),
    errno(22, "EINVAL", "invalid argument"),
    errno(26, "ETXTBSY", "text file busy"),
    errno(27, "EFBIG", "file too large"),
    errno(28, "ENOSPC", "no space left on device"),
    errno(30, "EROFS", "read-only file system"),
    errno(31, "EMLINK", "too many links"),
    errno(36, "ENAMETOOLONG", "file name too long"),
    errno(40, "ELOOP", "too many levels of symbolic links"),
    errno(116, "ESTALE", "stale NFS file handle"),
    errno(122, "EDQUOT", "disk quota exceeded"),
];

impl Errno {
    fn error(&self, message: String) -> Error {
        let kind = match self.name {
            "ENOENT" => ErrorKind::FileNotFound,
            "EPERM" | "EACCES" | "EROFS" => ErrorKind::PermissionDenied,
            "EISDIR" => ErrorKind::IsADirectory,
            _ => ErrorKind::FileSystem,
        };
        Error::new(kind, message).with_code(self.name)
    }
}

/// The error with Linux's `number`, whose code is its name; none for a number that a file operation has no business
/// with.
pub fn file_error(number: i32, message: impl Into<String>) -> Option<Error> {
    KNOWN.iter().find(|known| known.number == number).map(|known| known.error(message.into()))
}

/// The error that `message` ends with, after its last colon.
pub(super) fn file_error_of_text(message: &str) -> Option<Error> {
    let text = message.rsplit(": ").next().unwrap_or_default().trim();
    KNOWN.iter().find(|known| known.text == text).map(|known| known.error(message.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_text_tells_the_error_whatever_the_path_says() {
        for (text, kind, code) in [
            ("/a: create: open /a: is a directory", ErrorKind::IsADirectory, "EISDIR"),
            (
                "/is a directory: create: open /is a directory: permission denied",
                ErrorKind::PermissionDenied,
                "EACCES",
            ),
            (
                "/a: permission denied/b: create: open x: no space left on device",
                ErrorKind::FileSystem,
                "ENOSPC",
            ),
            ("x: mkdir: mkdir /a: not a directory", ErrorKind::FileSystem, "ENOTDIR"),
        ] {
            let error = file_error_of_text(text).unwrap();
            assert_eq!((error.kind(), error.code()), (kind, Some(code)), "{text}");
        }
        assert!(file_error_of_text("file[0]: missing .path metadata").is_none());
    }
}
