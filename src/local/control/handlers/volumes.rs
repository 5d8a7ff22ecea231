//! Volumes.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;

use super::super::error::{ApiError, ApiResult};
use super::super::extract::{Body, Pairs};
use super::super::state::Control;
use super::super::volumes::DELETED;
use crate::api::volume::{CreateVolume, Volume};

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
    let volume = control.create_volume(request.name)?;
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
    control.delete_volume(&id)?;
    Ok(StatusCode::OK)
}
