//! Who may ask: one organization, one API key.

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use secrecy::ExposeSecret;

use super::error::ApiError;
use super::state::Control;
use crate::api::headers;

/// Query parameter that carries the token of a preview URL.
pub(super) const PREVIEW_QUERY: &str = "DAYTONA_SANDBOX_AUTH_KEY";

/// Whether a route of the control plane needs no key.
pub(super) fn is_public(route: &str) -> bool {
    matches!(route, "/api/config" | "/api/health" | "/api/health/ready" | "/api/shared-regions")
}

/// Lets through what carries the key, what is public, and what does not exist (which is 404 for everybody).
/// The toolbox checks by itself, since it knows other credentials as well.
pub(super) async fn authenticate(State(control): State<Control>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    // the object storage has signatures of its own
    let guarded = route.is_some_and(|route| {
        (route.starts_with("/api/") || route.ends_with("/build-logs")) && !is_public(route)
    });
    if guarded && !has_key(&control, request.headers()) {
        return ApiError::invalid_credentials().into_response();
    }
    next.run(request).await
}

fn has_key(control: &Control, headers: &HeaderMap) -> bool {
    bearer(headers).is_some_and(|token| same(token.as_bytes(), control.api_key.expose_secret().as_bytes()))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Checks a request for a sandbox's toolbox or ports against the key and the sandbox's preview token.
///
/// # Errors
///
/// 401 as Daytona's proxy writes it; a key that is right for a sandbox that does not exist is "invalid" as well.
pub(super) fn check_proxied(
    control: &Control,
    id: &str,
    headers: &HeaderMap,
    query: Option<&str>,
) -> Result<(), ApiError> {
    let preview_token = control
        .store()
        .find(id)
        .filter(|record| record.sandbox.id == id)
        .map(|record| record.preview_token.clone());
    let opens = |token: &str| {
        preview_token
            .as_ref()
            .is_some_and(|right| !right.is_empty() && same(token.as_bytes(), right.as_bytes()))
    };
    let given = headers.get(headers::PREVIEW_TOKEN).and_then(|token| token.to_str().ok());
    let in_query = query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .find_map(|pair| pair.strip_prefix(PREVIEW_QUERY)?.strip_prefix('='));
    let refused = |what: &str| {
        ApiError::new(StatusCode::UNAUTHORIZED, format!("unauthorized: {what}")).with_code("UNAUTHORIZED")
    };
    if bearer(headers).is_some() {
        if has_key(control, headers) && preview_token.is_some() {
            return Ok(());
        }
        return Err(refused("authentication failed: Bearer token is invalid"));
    }
    match given.or(in_query) {
        Some(token) if opens(token) => Ok(()),
        Some(_) => Err(refused("authentication failed: Preview token is invalid")),
        None => Err(refused(
            "missing authentication: provide a Bearer token, a preview token header or a preview token query parameter",
        )),
    }
}

/// Compares without telling by its duration where the difference is.
pub(super) fn same(given: &[u8], right: &[u8]) -> bool {
    given.len() == right.len()
        && given.iter().zip(right).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}
