//! Settings of a sandbox that exists.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::super::create::{MAX_AUTO_ARCHIVE, minutes_to_duration};
use super::super::error::{ApiError, ApiResult};
use super::super::extract::{Body, minutes};
use super::super::record::Record;
use super::super::state::Control;
use crate::api::sandbox::{Labels, NetworkSettings, Sandbox};

type Minutes = Path<(String, String)>;

/// Changes a setting and lets the automation look again.
fn change(
    control: &Control,
    key: &str,
    change: impl FnOnce(&mut Record, std::time::SystemTime) -> ApiResult<()>,
) -> ApiResult<Json<Sandbox>> {
    let view = control.with(key, |record, now| {
        change(record, now)?;
        record.updated_at = now;
        Ok(record.view())
    })?;
    control.reschedule.notify_one();
    Ok(Json(view))
}

pub(super) async fn labels(
    State(control): State<Control>,
    Path(key): Path<String>,
    Body(request): Body<Labels>,
) -> ApiResult<Json<Labels>> {
    let labels = request.labels.clone();
    let _ = change(&control, &key, |record, _| {
        record.sandbox.labels = labels;
        Ok(())
    })?;
    Ok(Json(request))
}

pub(super) async fn auto_stop(
    State(control): State<Control>,
    Path((key, text)): Minutes,
) -> ApiResult<Json<Sandbox>> {
    let minutes = minutes(&text, 0, "Auto-stop interval")?;
    change(&control, &key, |record, _| {
        record.sandbox.auto_stop_interval = Some(minutes);
        Ok(())
    })
}

pub(super) async fn auto_pause(
    State(control): State<Control>,
    Path((key, text)): Minutes,
) -> ApiResult<Json<Sandbox>> {
    let minutes = minutes(&text, 0, "Auto-pause interval")?;
    change(
        &control,
        &key,
        |_, _| if minutes == 0 { Ok(()) } else { Err(ApiError::not_for_containers("pause")) },
    )
}

pub(super) async fn auto_archive(
    State(control): State<Control>,
    Path((key, text)): Minutes,
) -> ApiResult<Json<Sandbox>> {
    let minutes = minutes(&text, 0, "Auto-archive interval")?;
    let minutes = if minutes == 0 { MAX_AUTO_ARCHIVE } else { minutes.min(MAX_AUTO_ARCHIVE) };
    change(&control, &key, |record, _| {
        record.sandbox.auto_archive_interval = Some(minutes);
        Ok(())
    })
}

pub(super) async fn auto_delete(
    State(control): State<Control>,
    Path((key, text)): Minutes,
) -> ApiResult<Json<Sandbox>> {
    let minutes = minutes(&text, i64::MIN, "Auto-delete interval")?;
    change(&control, &key, |record, _| {
        record.sandbox.auto_delete_interval = Some(minutes.max(-1));
        Ok(())
    })
}

/// The time-to-live counts from now on; 0 takes it away.
pub(super) async fn time_to_live(
    State(control): State<Control>,
    Path((key, text)): Minutes,
) -> ApiResult<Json<Sandbox>> {
    let minutes = minutes(&text, 0, "ttlMinutes")?;
    change(&control, &key, |record, now| {
        record.destroy_at = (minutes > 0).then(|| now + minutes_to_duration(minutes));
        Ok(())
    })
}

/// Everything but `true` is false, as on the real server.
pub(super) async fn public(
    State(control): State<Control>,
    Path((key, public)): Path<(String, String)>,
) -> ApiResult<Json<Sandbox>> {
    change(&control, &key, |record, _| {
        record.sandbox.public = public == "true";
        Ok(())
    })
}

pub(super) async fn network(
    State(control): State<Control>,
    Path(key): Path<String>,
    Body(request): Body<NetworkSettings>,
) -> ApiResult<Json<Sandbox>> {
    let given = request.network_block_all.is_some()
        || request.network_allow_list.is_some()
        || request.domain_allow_list.is_some();
    if !given {
        return Err(ApiError::bad_request("At least one network setting must be provided"));
    }
    control.change_network(&key, request).await.map(Json)
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Secrets {
    secrets: Vec<Value>,
}

pub(super) async fn secrets(
    State(control): State<Control>,
    Path(key): Path<String>,
    Body(request): Body<Secrets>,
) -> ApiResult<Json<Sandbox>> {
    if !request.secrets.is_empty() {
        return Err(ApiError::bad_request("Local Daytona does not support secrets"));
    }
    change(&control, &key, |_, _| Ok(()))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Resize {
    cpu: Option<u32>,
    memory: Option<u32>,
    disk: Option<u32>,
}

pub(super) async fn resize(
    State(control): State<Control>,
    Path(key): Path<String>,
    Body(request): Body<Resize>,
) -> ApiResult<Json<Sandbox>> {
    control.resize(&key, [request.cpu, request.memory, request.disk]).await.map(Json)
}

/// 201 without a body, whatever kind of activity it is.
pub(super) async fn last_activity(
    State(control): State<Control>,
    Path(key): Path<String>,
    Body(_): Body<Value>,
) -> ApiResult<StatusCode> {
    let id = control.with(&key, |record, _| Ok(record.sandbox.id.clone()))?;
    control.touch(&id);
    Ok(StatusCode::CREATED)
}
