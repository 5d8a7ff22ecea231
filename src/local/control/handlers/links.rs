//! Ways into a sandbox: URLs of its toolbox, ports and logs; none by ssh.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::super::error::{ApiError, ApiResult};
use super::super::extract::{Pairs, port};
use super::super::preview;
use super::super::state::Control;
use crate::api::sandbox::{PreviewUrl, Sandbox, SshAccess, Url};

pub(super) async fn preview(
    State(control): State<Control>,
    Path((key, text)): Path<(String, String)>,
) -> ApiResult<Json<PreviewUrl>> {
    let port = port(&text)?;
    let (id, token) =
        control.with(&key, |record, _| Ok((record.sandbox.id.clone(), record.preview_token.clone())))?;
    let url = preview::url(&control, port, &id);
    Ok(Json(PreviewUrl { sandbox_id: id, url, token, port: None }))
}

pub(super) async fn signed_preview(
    State(control): State<Control>,
    Path((key, text)): Path<(String, String)>,
    query: Pairs,
) -> ApiResult<Json<PreviewUrl>> {
    let port = port(&text)?;
    let lifetime = Duration::from_secs(query.number("expiresInSeconds", 1, 86_400)?.unwrap_or(60));
    let id = control.with(&key, |record, _| Ok(record.sandbox.id.clone()))?;
    let token = control.store().access.sign(&id, port, lifetime, control.now());
    let url = preview::url(&control, port, &token);
    Ok(Json(PreviewUrl { sandbox_id: id, url, token, port: Some(port) }))
}

pub(super) async fn expire_signed_preview(
    State(control): State<Control>,
    Path((key, text, token)): Path<(String, String, String)>,
) -> ApiResult<()> {
    let port = port(&text)?;
    let id = control.with(&key, |record, _| Ok(record.sandbox.id.clone()))?;
    control.store().access.expire(&id, port, &token);
    Ok(())
}

pub(super) async fn toolbox(State(control): State<Control>, Path(key): Path<String>) -> ApiResult<Json<Url>> {
    control.with(&key, |_, _| Ok(()))?;
    Ok(Json(Url { url: control.toolbox_url() }))
}

pub(super) async fn build_logs(
    State(control): State<Control>,
    Path(key): Path<String>,
) -> ApiResult<Json<Url>> {
    let id = control.with(&key, |record, _| Ok(record.sandbox.id.clone()))?;
    Ok(Json(Url { url: format!("{}/sandboxes/{id}/build-logs", control.origin()) }))
}

/// Nothing listens for ssh here, and a command that reached this machine's own server would be worse than none.
pub(super) async fn create_ssh(
    State(control): State<Control>,
    Path(key): Path<String>,
) -> ApiResult<Json<SshAccess>> {
    control.with(&key, |_, _| Err(ApiError::bad_request("local Daytona has no ssh")))
}

/// There is no token, so nothing is left to revoke.
pub(super) async fn revoke_ssh(
    State(control): State<Control>,
    Path(key): Path<String>,
) -> ApiResult<Json<Sandbox>> {
    control.with(&key, |record, _| Ok(record.view())).map(Json)
}

/// There is no token, so none is valid.
pub(super) async fn validate_ssh() -> Json<Value> {
    Json(json!({ "valid": false, "sandboxId": null }))
}
