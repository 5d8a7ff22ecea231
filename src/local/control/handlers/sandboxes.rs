//! Sandboxes: create, read, list, and the transitions.

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::error::{ApiError, ApiResult};
use super::super::extract::{Body, Pairs};
use super::super::list::{self, Cursor, Filter, Order};
use super::super::record::Record;
use super::super::state::Control;
use crate::api::sandbox::Sandbox;

const CURSOR_SORTS: [&str; 6] = ["lastActivityAt", "name", "cpu", "memoryGib", "diskGib", "createdAt"];
const PAGE_SORTS: [&str; 8] =
    ["createdAt", "id", "name", "state", "snapshot", "region", "updatedAt", "lastActivityAt"];

pub(super) async fn create(
    State(control): State<Control>,
    Body(body): Body<Value>,
) -> ApiResult<Json<Sandbox>> {
    control.create(body).await.map(Json)
}

pub(super) async fn get(State(control): State<Control>, Path(key): Path<String>) -> ApiResult<Json<Sandbox>> {
    control.with(&key, |record, _| Ok(record.view())).map(Json)
}

pub(super) async fn delete(
    State(control): State<Control>,
    Path(key): Path<String>,
) -> ApiResult<Json<Sandbox>> {
    control.delete(&key).map(Json)
}

pub(super) async fn list(State(control): State<Control>, query: Pairs) -> ApiResult<Json<Value>> {
    let filter = Filter::read(&query, "regionIds")?;
    let order = Order::read(&query, &CURSOR_SORTS)?;
    let limit = query.number("limit", 1, 200)?.unwrap_or(100);
    let cursor = query.one("cursor").map(Cursor::decode).transpose()?;
    let store = control.store();
    let sorted = order.sort(store.sandboxes.values().filter(|record| filter.shows(record)));
    let skip = cursor.map_or(Ok(0), |cursor| order.skip(&sorted, &cursor))?;
    let rest = sorted.get(skip..).unwrap_or_default();
    let page = rest.get(..limit).unwrap_or(rest);
    let more = page.last().filter(|_| page.len() < rest.len());
    let next = more.map(|last| order.cursor(last).encode());
    let items: Vec<Value> = page.iter().map(|(_, record)| list::item(record)).collect();
    Ok(Json(json!({ "items": items, "nextCursor": next })))
}

pub(super) async fn list_pages(State(control): State<Control>, query: Pairs) -> ApiResult<Json<Value>> {
    let filter = Filter::read(&query, "regions")?;
    let order = Order::read(&query, &PAGE_SORTS)?;
    let limit = query.number("limit", 1, 200)?.unwrap_or(100);
    let page = query.number("page", 1, usize::MAX)?.unwrap_or(1);
    let store = control.store();
    let sorted = order.sort(store.sandboxes.values().filter(|record| filter.shows(record)));
    let total = sorted.len();
    let items: Vec<Sandbox> =
        list::page(sorted, page, limit).into_iter().map(|(_, record): (_, &Record)| record.view()).collect();
    Ok(Json(json!({ "items": items, "total": total, "page": page, "totalPages": list::pages(total, limit) })))
}

pub(super) async fn start(
    State(control): State<Control>,
    Path(key): Path<String>,
) -> ApiResult<Json<Sandbox>> {
    control.start(&key).await.map(Json)
}

/// `force` is read and makes no difference: the engines end a sandbox by killing it.
pub(super) async fn stop(
    State(control): State<Control>,
    Path(key): Path<String>,
    query: Pairs,
) -> ApiResult<Json<Sandbox>> {
    query.boolean("force")?;
    control.stop(&key).map(Json)
}

pub(super) async fn pause(
    State(control): State<Control>,
    Path(key): Path<String>,
) -> ApiResult<Json<Sandbox>> {
    control.with(&key, |_, _| Err(ApiError::not_for_containers("pause")))
}

pub(super) async fn archive(
    State(control): State<Control>,
    Path(key): Path<String>,
) -> ApiResult<Json<Sandbox>> {
    control.archive(&key).map(Json)
}

pub(super) async fn recover(
    State(control): State<Control>,
    Path(key): Path<String>,
    query: Pairs,
) -> ApiResult<Json<Sandbox>> {
    let skip_start = query.boolean("skipStart")?.unwrap_or(false);
    control.recover(&key, skip_start).await.map(Json)
}

pub(super) async fn fork(
    State(control): State<Control>,
    Path(key): Path<String>,
) -> ApiResult<Json<Sandbox>> {
    control.with(&key, |_, _| Err(ApiError::not_for_containers("fork")))
}

/// Forks and ancestors: there are none without forking.
pub(super) async fn no_relatives(
    State(control): State<Control>,
    Path(key): Path<String>,
) -> ApiResult<Json<Vec<Sandbox>>> {
    control.with(&key, |_, _| Ok(Vec::new())).map(Json)
}

pub(super) async fn no_parent(
    State(control): State<Control>,
    Path(key): Path<String>,
) -> ApiResult<Json<Sandbox>> {
    control.with(&key, |_, _| Err(ApiError::not_found(format!("Sandbox {key} has no parent"))))
}

#[derive(Debug, Deserialize)]
pub(super) struct SnapshotRequest {
    name: String,
}

pub(super) async fn snapshot(
    State(control): State<Control>,
    Path(key): Path<String>,
    Body(request): Body<SnapshotRequest>,
) -> ApiResult<Json<Sandbox>> {
    control.with(&key, |_, _| {
        Err(ApiError::bad_request(format!(
            "Local Daytona cannot make snapshots from sandboxes, so there will be none with the name {}",
            request.name
        )))
    })
}
