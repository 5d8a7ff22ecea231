//! What a handler answers when it refuses, and the bodies that tell a client so.
//!
//! A handler knows the status and the message; the path stands in the request. So a refusal travels as an extension
//! of an empty response, and [`envelope`] writes the body on the way out.

use axum::Json;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::state::Control;
use super::timestamp;
use crate::api::error::ErrorBody;
use crate::api::headers;

/// What `X-Daytona-Api-Version` says: the server whose behaviour this one follows.
pub(super) const API_VERSION: &str = "0.190.0";

/// A refusal of the control plane.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) message: String,
    code: Option<&'static str>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// What a handler returns.
pub(super) type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), code: None, headers: Vec::new() }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(super) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    /// 501 for a part of Daytona that is absent here.
    pub(super) fn not_implemented(what: &str) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, format!("{what} is not implemented by local Daytona"))
    }

    /// 422 for what containers can never do.
    pub(super) fn not_for_containers(operation: &str) -> Self {
        let message = format!("Sandbox class container does not support {operation}");
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, message)
    }

    /// 401 of the control plane, the same for a missing and a wrong key.
    pub(super) fn invalid_credentials() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Invalid credentials")
    }

    /// 409 while a transition is under way.
    pub(super) fn busy() -> Self {
        Self::conflict("Sandbox state change in progress")
    }

    /// 404 of a sandbox.
    pub(super) fn no_sandbox(key: &str) -> Self {
        Self::not_found(format!("Sandbox with ID or name {key} not found"))
    }

    /// 429 with the throttler's own header.
    pub(super) fn throttled(throttler: &str, seconds: u64) -> Self {
        let name = format!("{}-{throttler}", headers::RETRY_AFTER_PREFIX);
        let name = HeaderName::try_from(name).unwrap_or(http::header::RETRY_AFTER);
        Self::new(StatusCode::TOO_MANY_REQUESTS, "ThrottlerException: Too Many Requests")
            .with_header(name, HeaderValue::from(seconds))
    }

    /// Adds the code that the toolbox proxy puts into its bodies.
    pub(super) fn with_code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    fn body(&self, path: String, method: &Method, now: String) -> ErrorBody {
        let of_proxy = path.starts_with("/toolbox/");
        ErrorBody {
            timestamp: Some(now),
            status_code: Some(self.status.as_u16()),
            error: (!of_proxy).then(|| self.status.canonical_reason().unwrap_or("Error").to_owned()),
            message: Some(self.message.clone()),
            code: self.code.map(str::to_owned),
            source: None,
            method: of_proxy.then(|| method.to_string()),
            path: Some(path),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(mut self) -> Response {
        let mut response = self.status.into_response();
        response
            .headers_mut()
            .extend(std::mem::take(&mut self.headers).into_iter().map(|(n, v)| (Some(n), v)));
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes the body of a refusal, and the version on every answer of the control plane.
pub(super) async fn envelope(State(control): State<Control>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let of_control_plane = !path.starts_with("/toolbox/");
    let mut response = next.run(request).await;
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        let headers = std::mem::take(response.headers_mut());
        let body = error.body(path, &method, timestamp::format(control.now()));
        response = (error.status, Json(body)).into_response();
        for (name, value) in &headers {
            if name.as_str() != "content-length" {
                response.headers_mut().insert(name.clone(), value.clone());
            }
        }
    }
    if of_control_plane {
        response.headers_mut().insert(headers::API_VERSION, HeaderValue::from_static(API_VERSION));
    }
    response
}
