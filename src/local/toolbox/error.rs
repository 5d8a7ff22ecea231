//! Failures as the daemon words them: typed ones with a code and a prefix, untyped ones without, and empty bodies.

use std::io;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use nix::errno::Errno;

use super::{json, time};
use crate::api::error::ErrorBody;

/// Why a request failed. Path, method and time are added by [`describe`].
#[derive(Clone, Debug)]
pub(super) struct Failure {
    status: StatusCode,
    message: String,
    /// Empty: an untyped error.
    code: &'static str,
}

impl Failure {
    pub(super) fn bad_request(message: impl std::fmt::Display) -> Self {
        Self::typed(StatusCode::BAD_REQUEST, "BAD_REQUEST", format!("bad request: {message}"))
    }

    pub(super) fn not_found(message: impl std::fmt::Display) -> Self {
        Self::typed(StatusCode::NOT_FOUND, "NOT_FOUND", format!("not found: {message}"))
    }

    pub(super) fn conflict(message: impl std::fmt::Display) -> Self {
        Self::typed(StatusCode::CONFLICT, "CONFLICT", format!("conflict: {message}"))
    }

    pub(super) fn gone(message: impl std::fmt::Display) -> Self {
        Self::typed(StatusCode::GONE, "GONE", format!("gone: {message}"))
    }

    pub(super) fn invalid_body(message: impl std::fmt::Display) -> Self {
        let message = format!("bad request: invalid request body: {message}");
        Self::typed(StatusCode::BAD_REQUEST, "INVALID_REQUEST_BODY", message)
    }

    pub(super) fn request_timeout(message: impl std::fmt::Display) -> Self {
        Self::typed(StatusCode::REQUEST_TIMEOUT, "REQUEST_TIMEOUT", format!("request timeout: {message}"))
    }

    /// A route that newer or larger daemons have and this one does not.
    pub(super) fn not_implemented(what: &str) -> Self {
        let message = format!("{what} is not implemented in the local toolbox");
        Self::typed(StatusCode::NOT_IMPLEMENTED, "NOT_IMPLEMENTED", message)
    }

    /// An error that the daemon has no type for: status 500, no code, no path, the zero time.
    pub(super) fn untyped(message: impl std::fmt::Display) -> Self {
        Self::typed(StatusCode::INTERNAL_SERVER_ERROR, "", message.to_string())
    }

    pub(super) fn typed(status: StatusCode, code: &'static str, message: String) -> Self {
        Self { status, message, code }
    }

    fn body(self, path: String, method: String) -> ErrorBody {
        let untyped = self.code.is_empty();
        ErrorBody {
            status_code: Some(self.status.as_u16()),
            message: Some(self.message),
            code: (!untyped).then(|| self.code.to_owned()),
            timestamp: Some(if untyped { "0001-01-01T00:00:00Z".to_owned() } else { time::now() }),
            path: Some(if untyped { String::new() } else { path }),
            method: Some(if untyped { String::new() } else { method }),
            ..ErrorBody::default()
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut answer = self.status.into_response();
        answer.extensions_mut().insert(self);
        answer
    }
}

/// Writes the bodies of failures, which need the request's path and method.
pub(super) async fn describe(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let method = request.method().as_str().to_owned();
    let mut answer = next.run(request).await;
    match answer.extensions_mut().remove::<Failure>() {
        Some(failure) => json::response(failure.status, &failure.body(path, method)),
        None => answer,
    }
}

/// The status of a failed file operation; such answers have no body.
pub(super) fn file_status(error: &io::Error) -> StatusCode {
    match error.kind() {
        io::ErrorKind::NotFound => StatusCode::NOT_FOUND,
        io::ErrorKind::PermissionDenied => StatusCode::FORBIDDEN,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// An operating system error in Go's words.
pub(super) fn words(error: &io::Error) -> String {
    let Some(code) = error.raw_os_error() else {
        return match error.kind() {
            // a NUL in a path, an argument or a variable
            io::ErrorKind::InvalidInput => "invalid argument".to_owned(),
            _ => error.to_string(),
        };
    };
    let errno = Errno::from_raw(code);
    let text = match errno {
        Errno::E2BIG => "argument list too long",
        Errno::EAGAIN => "resource temporarily unavailable",
        Errno::EBUSY => "device or resource busy",
        Errno::ELOOP => "too many levels of symbolic links",
        Errno::ENXIO => "no such device or address",
        Errno::ETXTBSY => "text file busy",
        Errno::EXDEV => "invalid cross-device link",
        _ => errno.desc(),
    };
    let mut characters = text.chars();
    characters
        .next()
        .map_or_else(String::new, |first| first.to_ascii_lowercase().to_string() + characters.as_str())
}
