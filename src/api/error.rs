//! Error bodies: the control plane, the proxies and the toolbox each have a shape; one type reads them all.

use serde::{Deserialize, Serialize};

/// An error body of any Daytona service. Empty and HTML bodies occur as well; they are not of this type.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ErrorBody {
    /// The request path (`/api/...` from the control plane).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// When, as RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
    /// The HTTP status again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u16>,
    /// The reason phrase (control plane), or the message (PTY endpoints).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What happened, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Machine-readable code, for example `REQUEST_TIMEOUT`, `FILE_NOT_FOUND`.
    #[serde(skip_serializing_if = "Option::is_none", alias = "error_code")]
    pub code: Option<String>,
    /// `DAYTONA_API`, `DAYTONA_PROXY` or `DAYTONA_DAEMON`, from newer servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The request's method (proxy and toolbox).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
}

impl ErrorBody {
    /// The text to show: `message`, else `error`.
    pub fn text(&self) -> Option<&str> {
        self.message.as_deref().or(self.error.as_deref()).filter(|text| !text.is_empty())
    }
}
