//! What object storage says, in XML as S3 does.

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};

/// A refused request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    status: StatusCode,
    pub(super) code: &'static str,
    message: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub(super) fn forbidden(code: &'static str, message: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    pub(super) fn denied(message: &str) -> Self {
        Self::forbidden("AccessDenied", message)
    }

    pub(super) fn not_implemented(message: &str) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message)
    }

    pub(super) fn no_key() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NoSuchKey", "The object does not exist")
    }

    pub(super) fn no_upload() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NoSuchUpload", "The upload does not exist, or has ended")
    }

    /// A file could not be read or written.
    pub(super) fn system(error: &std::io::Error) -> Self {
        tracing::error!("object storage of local Daytona: {error}");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            format!("cannot store the object: {error}"),
        )
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (code, message) = (self.code, escape(&self.message));
        (self.status, xml(&format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>")))
            .into_response()
    }
}

/// An XML document.
pub(super) fn xml(content: &str) -> impl IntoResponse {
    let text = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{content}");
    ([(header::CONTENT_TYPE, "application/xml")], text)
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
