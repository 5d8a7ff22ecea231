//! Directories, version and environment.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::error::Failure;
use super::json;
use super::state::Toolbox;
use crate::api::toolbox::{Directory, UpdateEnvRequest, Version};

pub(super) async fn work_dir(State(toolbox): State<Arc<Toolbox>>) -> Response {
    json::response(StatusCode::OK, &Directory { dir: toolbox.work_dir.to_string_lossy().into_owned() })
}

pub(super) async fn home_dir(State(toolbox): State<Arc<Toolbox>>) -> Response {
    json::response(StatusCode::OK, &Directory { dir: toolbox.home.to_string_lossy().into_owned() })
}

pub(super) async fn version(State(toolbox): State<Arc<Toolbox>>) -> Response {
    json::response(StatusCode::OK, &Version { version: toolbox.version.clone() })
}

/// Changes the environment of processes started later.
pub(super) async fn update_env(
    State(toolbox): State<Arc<Toolbox>>,
    body: Bytes,
) -> Result<Response, Failure> {
    let request: UpdateEnvRequest = json::from_body(&body)?;
    let prefix = request.unset_value_prefix.filter(|prefix| !prefix.is_empty());
    toolbox.update_env(|env| {
        env.retain(|(name, value)| {
            let reconciled = prefix.as_ref().is_some_and(|prefix| value.starts_with(prefix.as_str()));
            !request.set.contains_key(name) && !request.unset.contains(name) && !reconciled
        });
        env.extend(request.set);
    });
    Ok(json::response(StatusCode::OK, &serde_json::json!({"message": "environment updated"})))
}
