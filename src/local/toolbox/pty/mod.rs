//! `/process/pty`: terminals, made and looked at over websockets. Errors have a shape of their own.

mod connect;
mod device;
mod terminal;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::json;

use self::device::Size;
use self::terminal::Terminal;
use super::json;
use super::state::Toolbox;
use crate::api::toolbox::{PtyCreateRequest, PtyCreateResponse, PtyList, PtyResizeRequest};

/// The most columns and rows.
const LARGEST: u16 = 1000;

/// All terminals whose shells run, or wait for a client.
#[derive(Debug, Default)]
pub(super) struct Terminals(Mutex<BTreeMap<String, Arc<Terminal>>>);

impl Terminals {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Terminal>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: &str) -> Option<Arc<Terminal>> {
        self.lock().get(id).cloned()
    }

    fn remove(&self, id: &str) -> Option<Arc<Terminal>> {
        self.lock().remove(id)
    }
}

/// The routes below `/process/pty`.
pub(super) fn routes() -> Router<Arc<Toolbox>> {
    Router::new()
        .route("/process/pty", get(list).post(create))
        .route("/process/pty/create-connect", get(connect::create_connect))
        .route("/process/pty/{id}", get(show).delete(delete))
        .route("/process/pty/{id}/connect", get(connect::connect))
        .route("/process/pty/{id}/resize", post(resize))
}

async fn create(State(toolbox): State<Arc<Toolbox>>, body: Bytes) -> Response {
    let Ok(request) = json::from_body::<PtyCreateRequest>(&body) else {
        return error(StatusCode::BAD_REQUEST, "invalid request body");
    };
    let lazy = request.lazy_start == Some(true);
    match add(&toolbox, request) {
        Err((status, message)) => error(status, &message),
        Ok(terminal) => {
            if !lazy && let Err(failure) = terminal.start(&toolbox) {
                toolbox.terminals.remove(&terminal.id);
                return error(StatusCode::INTERNAL_SERVER_ERROR, &failure.to_string());
            }
            json::response(StatusCode::CREATED, &PtyCreateResponse { session_id: terminal.id.clone() })
        }
    }
}

/// Adds a terminal whose shell is not started.
fn add(toolbox: &Toolbox, request: PtyCreateRequest) -> Result<Arc<Terminal>, (StatusCode, String)> {
    let PtyCreateRequest { id, cwd, envs, cols, rows, lazy_start } = request;
    if id.is_empty() {
        return Err((StatusCode::BAD_REQUEST, "id is required".to_owned()));
    }
    let size = Size {
        cols: cols.filter(|cols| *cols > 0).unwrap_or(80),
        rows: rows.filter(|rows| *rows > 0).unwrap_or(24),
    };
    if size.cols > LARGEST || size.rows > LARGEST {
        return Err((StatusCode::BAD_REQUEST, format!("cols and rows must be at most {LARGEST}")));
    }
    let cwd =
        cwd.filter(|cwd| !cwd.is_empty()).unwrap_or_else(|| toolbox.work_dir.to_string_lossy().into_owned());
    match toolbox.terminals.lock().entry(id) {
        Entry::Occupied(taken) => {
            Err((StatusCode::CONFLICT, format!("PTY session with ID '{}' already exists", taken.key())))
        }
        Entry::Vacant(place) => {
            let id = place.key().clone();
            let terminal = Terminal::new(id, cwd, envs.unwrap_or_default(), size, lazy_start == Some(true));
            Ok(Arc::clone(place.insert(terminal)))
        }
    }
}

async fn list(State(toolbox): State<Arc<Toolbox>>) -> Response {
    let sessions = toolbox.terminals.lock().values().map(|terminal| terminal.info()).collect();
    json::response(StatusCode::OK, &PtyList { sessions })
}

async fn show(State(toolbox): State<Arc<Toolbox>>, Path(id): Path<String>) -> Response {
    match toolbox.terminals.get(&id) {
        Some(terminal) => json::response(StatusCode::OK, &terminal.info()),
        None => not_found(&id),
    }
}

async fn delete(State(toolbox): State<Arc<Toolbox>>, Path(id): Path<String>) -> Response {
    match toolbox.terminals.remove(&id) {
        Some(terminal) => {
            terminal.kill();
            json::response(StatusCode::OK, &json!({"message": "PTY session deleted"}))
        }
        None => not_found(&id),
    }
}

async fn resize(State(toolbox): State<Arc<Toolbox>>, Path(id): Path<String>, body: Bytes) -> Response {
    let size = match json::from_body::<PtyResizeRequest>(&body) {
        Ok(PtyResizeRequest { cols, rows }) => Size { cols, rows },
        Err(_) => return error(StatusCode::BAD_REQUEST, "invalid request body"),
    };
    let allowed = 1..=LARGEST;
    if !allowed.contains(&size.cols) || !allowed.contains(&size.rows) {
        return error(StatusCode::BAD_REQUEST, &format!("cols and rows must be between 1 and {LARGEST}"));
    }
    let Some(terminal) = toolbox.terminals.get(&id) else {
        return error(StatusCode::GONE, &format!("PTY session {id} not found"));
    };
    match terminal.resize(size) {
        Ok(()) => json::response(StatusCode::OK, &terminal.info()),
        Err(failure) => error(StatusCode::INTERNAL_SERVER_ERROR, &failure.to_string()),
    }
}

fn not_found(id: &str) -> Response {
    error(StatusCode::NOT_FOUND, &format!("PTY session {id} not found"))
}

fn error(status: StatusCode, message: &str) -> Response {
    json::response(status, &json!({ "error": message }))
}
