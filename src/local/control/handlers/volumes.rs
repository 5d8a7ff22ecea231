//! Volumes, as records: they can be made and listed, not mounted.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;

use super::super::error::{ApiError, ApiResult};
use super::super::extract::{Body, Pairs};
use super::super::state::{Control, uuid};
use super::super::timestamp;
use crate::api::volume::{CreateVolume, Volume};

const DELETED: &str = "deleted";

pub(super) async fn list(State(control): State<Control>, query: Pairs) -> ApiResult<Json<Vec<Volume>>> {
    let deleted = query.boolean("includeDeleted")?.unwrap_or(false);
    let store = control.store();
    Ok(Json(store.volumes.values().filter(|volume| deleted || volume.state != DELETED).cloned().collect()))
}

/// The answer says `pending_create`, as on the real server, where a new volume must be waited for.
pub(super) async fn create(
    State(control): State<Control>,
    Body(request): Body<CreateVolume>,
) -> ApiResult<Json<Volume>> {
    let now = timestamp::format(control.now());
    let id = uuid();
    let name = if request.name.is_empty() { id.clone() } else { request.name };
    let mut store = control.store();
    if store.volumes.values().any(|volume| volume.name == name) {
        return Err(ApiError::bad_request(format!("Volume with name {name} already exists")));
    }
    let volume = Volume {
        id: id.clone(),
        name,
        organization_id: control.organization.clone(),
        state: "ready".to_owned(),
        created_at: now.clone(),
        updated_at: now,
        last_used_at: None,
        error_reason: None,
    };
    store.volumes.insert(id, volume.clone());
    Ok(Json(Volume { state: "pending_create".to_owned(), ..volume }))
}

pub(super) async fn get(State(control): State<Control>, Path(id): Path<String>) -> ApiResult<Json<Volume>> {
    let volume = control.store().volumes.get(&id).cloned();
    volume.map(Json).ok_or_else(|| ApiError::not_found(format!("Volume with ID {id} not found")))
}

pub(super) async fn get_by_name(
    State(control): State<Control>,
    Path(name): Path<String>,
) -> ApiResult<Json<Volume>> {
    let volume = control.store().volumes.values().find(|volume| volume.name == name).cloned();
    let volume = volume.filter(|volume| volume.state != DELETED);
    volume.map(Json).ok_or_else(|| ApiError::not_found(format!("Volume with name {name} not found")))
}

pub(super) async fn delete(State(control): State<Control>, Path(id): Path<String>) -> ApiResult<StatusCode> {
    let now = timestamp::format(control.now());
    let mut store = control.store();
    let volume = store
        .volumes
        .get_mut(&id)
        .ok_or_else(|| ApiError::not_found(format!("Volume with ID {id} not found")))?;
    if volume.state == DELETED {
        return Err(ApiError::bad_request(format!(
            "Volume must be in 'ready' or 'error' state, it is {DELETED}"
        )));
    }
    DELETED.clone_into(&mut volume.state);
    volume.name = format!("{}-deleted", volume.name);
    volume.updated_at = now;
    Ok(StatusCode::OK)
}
