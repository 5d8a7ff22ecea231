//! Snapshots.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use super::super::error::{ApiError, ApiResult};
use super::super::extract::{Body, Pairs};
use super::super::list;
use super::super::snapshots::{missing, word};
use super::super::state::Control;
use super::build_logs;
use crate::api::sandbox::Url;
use crate::api::snapshot::{CreateSnapshot, Snapshot, SnapshotPage};

pub(super) async fn create(
    State(control): State<Control>,
    Body(request): Body<CreateSnapshot>,
) -> ApiResult<Json<Snapshot>> {
    control.create_snapshot(request).map(Json)
}

pub(super) async fn list(State(control): State<Control>, query: Pairs) -> ApiResult<Json<SnapshotPage>> {
    let limit = query.number("limit", 1, 200)?.unwrap_or(100);
    let page = query.number("page", 1, usize::MAX)?.unwrap_or(1);
    let part = query.one("name").map(str::to_lowercase);
    let sort = query.one("sort").unwrap_or("lastUsedAt");
    if !["name", "state", "lastUsedAt", "createdAt"].contains(&sort) {
        return Err(ApiError::bad_request(
            "sort must be one of the following values: name, state, lastUsedAt, createdAt",
        ));
    }
    let ascending = query.one("order") == Some("asc");
    let mut items: Vec<Snapshot> = {
        let store = control.store();
        let named = |name: &str| part.as_ref().is_none_or(|part| name.to_lowercase().contains(part.as_str()));
        let all = store.snapshots.all().filter(|snapshot| named(&snapshot.name));
        // no snapshot here comes from a sandbox
        all.filter(|_| query.one("sourceSandboxId").is_none_or(str::is_empty)).cloned().collect()
    };
    let key = |snapshot: &Snapshot| match sort {
        "name" => snapshot.name.clone(),
        "state" => word(snapshot.state).to_owned(),
        "createdAt" => snapshot.created_at.clone(),
        _ => snapshot.last_used_at.clone().unwrap_or_else(list::never),
    };
    items.sort_by(|a, b| {
        let order = (key(a), &a.id).cmp(&(key(b), &b.id));
        let order = if ascending { order } else { order.reverse() };
        a.general.cmp(&b.general).then(order)
    });
    let total = items.len();
    Ok(Json(SnapshotPage {
        items: list::page(items, page, limit),
        total: total as u64,
        page: page as u64,
        total_pages: list::pages(total, limit) as u64,
    }))
}

/// `/snapshots/{snapshot}`, `/snapshots/{snapshot}/build-logs-url` and `/snapshots/{snapshot}/build-logs`.
pub(super) async fn get(
    State(control): State<Control>,
    Path(key): Path<String>,
    query: Pairs,
) -> ApiResult<Response> {
    if let Some(built) = key.strip_suffix("/build-logs") {
        return build_logs::of_snapshot(State(control.clone()), Path(built.to_owned()), query).await;
    }
    let store = control.store();
    if let Some(snapshot) = store.snapshots.find(&key) {
        return Ok(Json(snapshot.clone()).into_response());
    }
    let snapshot = key.strip_suffix("/build-logs-url").and_then(|key| store.snapshots.find(key));
    let snapshot = snapshot.ok_or_else(|| missing(&key))?;
    let url = format!("{}/snapshots/{}/build-logs", control.origin(), snapshot.id);
    Ok(Json(Url { url }).into_response())
}

pub(super) async fn delete(State(control): State<Control>, Path(id): Path<String>) -> ApiResult<StatusCode> {
    control.store().snapshots.delete(&id).map(|()| StatusCode::OK)
}

/// `/snapshots/{snapshot}/activate` and `…/deactivate`.
pub(super) async fn act(State(control): State<Control>, Path(path): Path<String>) -> ApiResult<Response> {
    let now = control.now();
    let mut store = control.store();
    match path.rsplit_once('/') {
        Some((id, "activate")) => Ok(Json(store.snapshots.activate(id, now)?).into_response()),
        Some((id, "deactivate")) => {
            store.snapshots.deactivate(id, now)?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        _ => Err(ApiError::not_found(format!("Cannot POST /api/snapshots/{path}"))),
    }
}
