//! One error type for the whole crate: what happened, to which sandbox, after how many tries.
//!
//! Whether a failure may be retried is part of the error ([`Status`]), decided where the failure is understood
//! and never guessed again by a caller.

use std::fmt;
use std::time::Duration;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in the distinctions an eval needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A setting or a configuration file is wrong or missing; nothing was created.
    InvalidConfig,
    /// The server refused the request as malformed (HTTP 400 or 422 without a better kind).
    InvalidRequest,
    /// The API key or token was refused (HTTP 401).
    Unauthenticated,
    /// The key lacks a permission, or the organization is suspended (HTTP 403).
    Forbidden,
    /// The named object does not exist (HTTP 404).
    NotFound,
    /// The name is taken (HTTP 409 on a create).
    AlreadyExists,
    /// Another operation on the same object is under way (HTTP 409 otherwise).
    Conflict,
    /// Too many requests (HTTP 429).
    RateLimited,
    /// An account limit is reached; it may clear when other sandboxes end.
    QuotaExceeded,
    /// The request can never fit the account's per-sandbox limit.
    LimitExceeded,
    /// The platform has no free runner.
    NoCapacity,
    /// A sandbox or snapshot ended in an error state.
    CreationFailed,
    /// An image build failed.
    BuildFailed,
    /// The sandbox is not running any more, or never answered.
    SandboxUnavailable,
    /// The sandbox cannot run commands as the requested user.
    UserUnsupported,
    /// One of our own deadlines for a platform operation passed. Never a command's timeout.
    DeadlineExceeded,
    /// The connection failed before a whole answer was read.
    Transport,
    /// The server failed (HTTP 5xx).
    Server,
    /// The answer could not be understood; this is not the server that we expected, or a newer one.
    Protocol,
    /// A file does not exist inside the sandbox.
    FileNotFound,
    /// The sandbox's operating system denied access to a file or program.
    PermissionDenied,
    /// A directory is where a file was expected.
    IsADirectory,
    /// The sandbox's operating system refused a file operation for another reason, whose name (`ENOSPC`) is the code.
    FileSystem,
    /// An argument of a call is wrong, for example a NUL byte in a command.
    InvalidArgument,
    /// Reading or writing a file took longer than its deadline.
    FileTimeout,
    /// A limit on the size of an output or file was exceeded.
    OutputLimit,
    /// This machine, or the chosen isolation, cannot do what was asked.
    Unsupported,
    /// The operating system of this machine failed (local Daytona).
    System,
    /// A defect of this crate.
    Unexpected,
}

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// The same request fails the same way.
    Permanent,
    /// The same request may succeed later.
    Temporary,
    /// It was temporary, and the retries are used up.
    Persistent,
}

/// An error of this crate. One pointer wide; the parts are behind accessors.
pub struct Error(Box<Parts>);

struct Parts {
    kind: ErrorKind,
    status: Status,
    message: String,
    operation: Option<&'static str>,
    sandbox: Option<String>,
    http_status: Option<u16>,
    code: Option<String>,
    attempts: u32,
    elapsed: Duration,
    retry_after: Option<Duration>,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// A permanent error of `kind`; `message` says what happened in words that a user understands.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            kind,
            status: Status::Permanent,
            message: message.into(),
            operation: None,
            sandbox: None,
            http_status: None,
            code: None,
            attempts: 1,
            elapsed: Duration::ZERO,
            retry_after: None,
            hint: None,
            source: None,
        }))
    }

    /// Marks the error as worth retrying.
    #[must_use]
    pub fn temporary(mut self) -> Self {
        self.0.status = Status::Temporary;
        self
    }

    /// Replaces the status.
    #[must_use]
    pub fn with_status(mut self, status: Status) -> Self {
        self.0.status = status;
        self
    }

    /// Replaces the kind, where a later look explains the failure better.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// The same error in other words, for readers who must not see the original; that becomes its source.
    #[must_use]
    pub fn reworded(self, message: impl Into<String>) -> Self {
        let parts = &self.0;
        let reworded = Parts {
            kind: parts.kind,
            status: parts.status,
            message: message.into(),
            operation: parts.operation,
            sandbox: parts.sandbox.clone(),
            http_status: parts.http_status,
            code: parts.code.clone(),
            attempts: parts.attempts,
            elapsed: parts.elapsed,
            retry_after: parts.retry_after,
            hint: parts.hint.clone(),
            source: None,
        };
        Self(Box::new(reworded)).with_source(self)
    }

    /// Names the operation that failed, for example `create sandbox`. The first name given stays.
    #[must_use]
    pub fn with_operation(mut self, operation: &'static str) -> Self {
        self.0.operation.get_or_insert(operation);
        self
    }

    /// Names the sandbox concerned, by name or id. The first one given stays.
    #[must_use]
    pub fn with_sandbox(mut self, sandbox: impl Into<String>) -> Self {
        self.0.sandbox.get_or_insert_with(|| sandbox.into());
        self
    }

    /// Keeps the HTTP status of the answer.
    #[must_use]
    pub fn with_http_status(mut self, status: u16) -> Self {
        self.0.http_status = Some(status);
        self
    }

    /// Keeps the machine-readable code, the server's own or the operating system's.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.0.code = Some(code.into());
        self
    }

    /// Keeps how often and how long it was tried.
    #[must_use]
    pub fn with_attempts(mut self, attempts: u32, elapsed: Duration) -> Self {
        self.0.attempts = attempts;
        self.0.elapsed = elapsed;
        self
    }

    /// Keeps how long the server asked us to wait.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// Adds what the user can do. The first hint stays.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// Keeps the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether trying again can help.
    pub fn status(&self) -> Status {
        self.0.status
    }

    /// What happened, without operation, sandbox, attempts and hint.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The operation that failed.
    pub fn operation(&self) -> Option<&'static str> {
        self.0.operation
    }

    /// The sandbox concerned.
    pub fn sandbox(&self) -> Option<&str> {
        self.0.sandbox.as_deref()
    }

    /// The HTTP status of the answer, if there was one.
    pub fn http_status(&self) -> Option<u16> {
        self.0.http_status
    }

    /// The machine-readable code, the server's own or the operating system's, if there was one.
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// How often it was tried.
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// How long the server asked us to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// What the user can do.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = &self.0;
        match (parts.operation, &parts.sandbox) {
            (Some(operation), Some(sandbox)) => write!(f, "cannot {operation} (sandbox {sandbox}): ")?,
            (Some(operation), None) => write!(f, "cannot {operation}: ")?,
            (None, Some(sandbox)) => write!(f, "sandbox {sandbox}: ")?,
            (None, None) => {}
        }
        // servers end their messages with a full stop, and what follows is of the same sentence
        f.write_str(parts.message.trim_end_matches('.'))?;
        if parts.attempts > 1 {
            write!(f, " (after {} tries in {:.1} s)", parts.attempts, parts.elapsed.as_secs_f64())?;
        }
        if let Some(hint) = &parts.hint {
            write!(f, ". {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{:?}: {self}", self.0.kind, self.0.status)?;
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            write!(f, "\n  caused by: {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_what_to_whom_how_often_and_what_to_do() {
        let error = Error::new(ErrorKind::Server, "the server answered 502")
            .with_operation("create sandbox")
            .with_sandbox("inspect-a-1")
            .with_attempts(3, Duration::from_millis(4200))
            .with_hint("Try again later");
        assert_eq!(
            error.to_string(),
            "cannot create sandbox (sandbox inspect-a-1): the server answered 502 (after 3 tries in 4.2 s). \
             Try again later"
        );
    }

    #[test]
    fn the_innermost_context_wins() {
        let error =
            Error::new(ErrorKind::NotFound, "gone").with_operation("read file").with_operation("exec");
        assert_eq!(error.operation(), Some("read file"));
    }

    #[test]
    fn an_error_is_one_pointer_wide() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
