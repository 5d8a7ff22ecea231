//! Which exception an error becomes. Exceptions are written in Python (`errors.py`, Inspect, builtins).

use pyo3::exceptions::{PyOSError, PyPermissionError, PyRuntimeError, PyTimeoutError, PyValueError};
use pyo3::import_exception;
use pyo3::prelude::*;

use crate::error::{Error, ErrorKind};

import_exception!(inspect_daytona.errors, DaytonaError);
import_exception!(inspect_daytona.errors, DaytonaConfigError);
import_exception!(inspect_daytona.errors, OutputLimitError);
import_exception!(inspect_ai.util, SandboxUnavailableError);
import_exception!(inspect_ai.util, SandboxUserUnsupportedError);

/// The exception for an error. Builtins are used only where the sandbox's operating system said so, since Inspect shows
/// those to the model: a transport error must not look like a missing file.
///
/// What an error came from becomes the exception's cause: the user finds it in the traceback, the model, which sees the
/// message alone, does not.
pub(super) fn to_exception(py: Python<'_>, error: &Error) -> PyErr {
    let exception = without_cause(py, error);
    if let Some(source) = std::error::Error::source(error) {
        let mut words = vec![source.to_string()];
        let mut source = source.source();
        while let Some(cause) = source {
            words.push(cause.to_string());
            source = cause.source();
        }
        exception.set_cause(py, Some(PyRuntimeError::new_err(words.join(": "))));
    }
    exception
}

fn without_cause(py: Python<'_>, error: &Error) -> PyErr {
    // the file's name as the caller wrote it is the whole message of these kinds
    let file = error.message().to_owned();
    match error.kind() {
        ErrorKind::FileNotFound => os_error(py, error, "ENOENT"),
        ErrorKind::PermissionDenied => os_error(py, error, "EACCES"),
        ErrorKind::IsADirectory => os_error(py, error, "EISDIR"),
        ErrorKind::FileSystem => os_error(py, error, "EIO"),
        ErrorKind::InvalidArgument => PyValueError::new_err(file),
        ErrorKind::FileTimeout => PyTimeoutError::new_err(error.to_string()),
        ErrorKind::OutputLimit => OutputLimitError::new_err(arguments(error)),
        ErrorKind::SandboxUnavailable => SandboxUnavailableError::new_err(error.to_string()),
        ErrorKind::UserUnsupported => SandboxUserUnsupportedError::new_err(error.to_string()),
        ErrorKind::InvalidConfig | ErrorKind::Unauthenticated | ErrorKind::Unsupported => {
            DaytonaConfigError::new_err(arguments(error))
        }
        ErrorKind::InvalidRequest
        | ErrorKind::Forbidden
        | ErrorKind::NotFound
        | ErrorKind::AlreadyExists
        | ErrorKind::Conflict
        | ErrorKind::RateLimited
        | ErrorKind::QuotaExceeded
        | ErrorKind::LimitExceeded
        | ErrorKind::NoCapacity
        | ErrorKind::CreationFailed
        | ErrorKind::BuildFailed
        | ErrorKind::DeadlineExceeded
        | ErrorKind::Transport
        | ErrorKind::Server
        | ErrorKind::Protocol
        | ErrorKind::System
        | ErrorKind::Unexpected => DaytonaError::new_err(arguments(error)),
    }
}

/// The `OSError`, of the class that Python has for it, that says what the sandbox's operating system said: the error's
/// code, or `usual` where nothing else is known. By name, since numbers differ between systems.
fn os_error(py: Python<'_>, error: &Error, usual: &str) -> PyErr {
    let made = || {
        let names = py.import("errno")?;
        let code = error.code().filter(|code| code.starts_with('E'));
        let number: i32 = match code.map(|code| names.getattr(code)) {
            Some(Ok(number)) => number,
            _ => names.getattr(usual)?,
        }
        .extract()?;
        let said: String = py.import("os")?.call_method1("strerror", (number,))?.extract()?;
        let arguments = (number, said, error.message().to_owned());
        // a read-only file system has no class of its own; to a caller it is one more way of not being allowed to write
        let denied = error.kind() == ErrorKind::PermissionDenied;
        Ok(if denied { PyPermissionError::new_err(arguments) } else { PyOSError::new_err(arguments) })
    };
    made().unwrap_or_else(|failed: PyErr| failed)
}

/// `(message, kind, sandbox, http_status)`, as `errors.DaytonaError` takes them.
fn arguments(error: &Error) -> (String, String, Option<String>, Option<u16>) {
    let mut kind = String::new();
    for character in format!("{:?}", error.kind()).chars() {
        if character.is_ascii_uppercase() && !kind.is_empty() {
            kind.push('_');
        }
        kind.push(character.to_ascii_lowercase());
    }
    (error.to_string(), kind, error.sandbox().map(str::to_owned), error.http_status())
}
