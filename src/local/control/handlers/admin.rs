//! Fault injection and request counts; the routes are documented in [`super::super::faults`].

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;

use super::super::error::{ApiError, ApiResult};
use super::super::extract::Body;
use super::super::faults::{FaultRule, Installed};
use super::super::state::Control;

pub(super) async fn faults(State(control): State<Control>) -> Json<Vec<Installed>> {
    Json(control.faults.all())
}

pub(super) async fn add_fault(
    State(control): State<Control>,
    Body(rule): Body<FaultRule>,
) -> ApiResult<(StatusCode, Json<Installed>)> {
    rule.check().map_err(ApiError::bad_request)?;
    Ok((StatusCode::CREATED, Json(control.faults.add(rule))))
}

pub(super) async fn remove_faults(State(control): State<Control>) -> StatusCode {
    control.faults.remove(None);
    StatusCode::NO_CONTENT
}

pub(super) async fn remove_fault(
    State(control): State<Control>,
    Path(id): Path<u64>,
) -> ApiResult<StatusCode> {
    if control.faults.remove(Some(id)) {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(ApiError::not_found(format!("There is no fault {id}")))
}

pub(super) async fn requests(State(control): State<Control>) -> Json<BTreeMap<String, u64>> {
    Json(control.requests.counts())
}

pub(super) async fn reset_requests(State(control): State<Control>) -> StatusCode {
    control.requests.reset();
    StatusCode::NO_CONTENT
}

pub(super) async fn kill(State(control): State<Control>, Path(key): Path<String>) -> ApiResult<StatusCode> {
    control.kill(&key).map(|()| StatusCode::NO_CONTENT)
}
