//! `/process/session`: shells that live long and run commands one after another.
//!
//! The daemon's machinery is a script with FIFOs and `read` loops inside the shell; ours labels the streams in this
//! process, so that bytes are exact, `busybox ash` cannot deadlock, and a command that ends the shell ends too. As in
//! the daemon, a command lasts until no process holds its streams.

mod command;
mod follow;
mod log;
mod shell;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};

use self::command::{Command, InputFailure};
use self::log::Shape;
use self::shell::Session;
use super::error::Failure;
use super::query::Query;
use super::settled::settled;
use super::state::Toolbox;
use super::{json, processes, shell as words};
use crate::api::toolbox as wire;

/// The daemon's own session, which runs an image's entrypoint, and exists where there is one.
const ENTRYPOINT: &str = "entrypoint";

/// All sessions, by id.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<BTreeMap<String, Arc<Session>>>);

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Session>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: &str) -> Result<Arc<Session>, Failure> {
        self.lock().get(id).cloned().ok_or_else(|| Failure::not_found("session not found"))
    }

    fn command(&self, session: &str, command: &str) -> Result<Arc<Command>, Failure> {
        let commands = self.get(session)?.commands();
        let found = commands.into_iter().find(|candidate| candidate.id == command);
        found.ok_or_else(|| Failure::not_found("command not found"))
    }
}

/// Starts an image's entrypoint. A sandbox whose entrypoint cannot be started is there all the same, as a container of
/// Daytona's is.
pub(super) fn run_entrypoint(toolbox: &Toolbox, argv: &[String]) {
    if argv.is_empty() {
        return;
    }
    // the toolbox is the first process whatever becomes of this one, so the text must not take its shell away
    let text: Vec<String> = argv.iter().map(|word| words::quote(word)).collect();
    let started = Session::start(toolbox, ENTRYPOINT).map(Arc::new).and_then(|session| {
        session.run(text.join(" "), false, true)?;
        Ok(session)
    });
    if let Ok(session) = started {
        toolbox.sessions.lock().insert(ENTRYPOINT.to_owned(), session);
    }
}

/// The routes below `/process/session`.
pub(super) fn routes() -> Router<Arc<Toolbox>> {
    Router::new()
        .route("/process/session", get(list).post(create))
        .route("/process/session/{session}", get(show).delete(delete))
        .route("/process/session/{session}/exec", post(execute))
        .route("/process/session/{session}/command/{command}", get(show_command))
        .route("/process/session/{session}/command/{command}/logs", get(follow::logs))
        .route("/process/session/{session}/command/{command}/input", post(input))
        .route("/process/session/entrypoint/logs", get(entrypoint_logs))
}

async fn create(State(toolbox): State<Arc<Toolbox>>, body: Bytes) -> Result<StatusCode, Failure> {
    let wire::CreateSessionRequest { session_id } = json::from_body(&body)?;
    if session_id.is_empty() {
        return Err(Failure::invalid_body("sessionId is required"));
    }
    if session_id == ENTRYPOINT {
        return Err(Failure::bad_request("session id 'entrypoint' is reserved"));
    }
    match toolbox.sessions.lock().entry(session_id) {
        Entry::Occupied(_) => return Err(Failure::conflict("session already exists")),
        Entry::Vacant(place) => {
            let session = Session::start(&toolbox, place.key()).map_err(Failure::untyped)?;
            place.insert(Arc::new(session));
        }
    }
    Ok(StatusCode::CREATED)
}

async fn list(State(toolbox): State<Arc<Toolbox>>) -> Response {
    let sessions = toolbox.sessions.lock();
    let shown = sessions.iter().filter(|(id, _)| *id != ENTRYPOINT);
    let records: Vec<_> = shown.map(|(id, session)| record(id, session)).collect();
    json::response(StatusCode::OK, &records)
}

async fn show(State(toolbox): State<Arc<Toolbox>>, Path(id): Path<String>) -> Result<Response, Failure> {
    let session = toolbox.sessions.get(&id)?;
    Ok(json::response(StatusCode::OK, &record(&id, &session)))
}

fn record(id: &str, session: &Session) -> wire::Session {
    let commands = session.commands().iter().map(|command| command.record()).collect();
    wire::Session { session_id: id.to_owned(), commands }
}

/// Ends a session with every process that came from its shell.
async fn delete(State(toolbox): State<Arc<Toolbox>>, Path(id): Path<String>) -> Result<StatusCode, Failure> {
    if id == ENTRYPOINT {
        return Err(Failure::bad_request("entrypoint session cannot be deleted"));
    }
    let session =
        toolbox.sessions.lock().remove(&id).ok_or_else(|| Failure::not_found("session not found"))?;
    // a task of its own, so that it is done even if the caller goes away
    let ending = tokio::spawn(async move {
        processes::terminate(session.root).await;
        session.remove_files();
    });
    ending.await.map_err(Failure::untyped)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn execute(
    State(toolbox): State<Arc<Toolbox>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Failure> {
    let request: wire::SessionExecuteRequest = json::from_body(&body)?;
    if request.command.trim().is_empty() {
        return Ok(StatusCode::BAD_REQUEST.into_response());
    }
    let run_async = request.run_async == Some(true) || request.legacy_async == Some(true);
    // the daemon loses the type of this error on its way
    let session =
        toolbox.sessions.lock().get(&id).cloned().ok_or_else(|| Failure::untyped("session not found"))?;
    let suppress_echo = request.suppress_input_echo == Some(true);
    let command = session.run(request.command, run_async, suppress_echo).map_err(Failure::untyped)?;
    let mut answer = wire::SessionExecuteResponse { cmd_id: command.id.clone(), ..Default::default() };
    if run_async {
        return Ok(json::response(StatusCode::ACCEPTED, &answer));
    }
    let code = settled(&mut command.ended()).await;
    let log = read_log(&command)?;
    match Shape::of(&headers) {
        Shape::Split => {
            let logs = log::split(log);
            (answer.output, answer.stdout, answer.stderr) =
                (Some(logs.output), Some(logs.stdout), Some(logs.stderr));
        }
        Shape::Marked => answer.output = Some(json::text(log)),
        Shape::Combined => answer.output = Some(json::text(log::combine(&log))),
    }
    answer.exit_code = code;
    Ok(json::response(StatusCode::OK, &answer))
}

async fn show_command(
    State(toolbox): State<Arc<Toolbox>>,
    Path((session, command)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let command = toolbox.sessions.command(&session, &command)?;
    Ok(json::response(StatusCode::OK, &command.record()))
}

async fn input(
    State(toolbox): State<Arc<Toolbox>>,
    Path((session, command)): Path<(String, String)>,
    body: Bytes,
) -> Result<StatusCode, Failure> {
    let request: wire::SessionInput = json::from_body(&body)?;
    let command = toolbox.sessions.command(&session, &command)?;
    match command.send(&request.data).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(InputFailure::Ended(code)) => {
            Err(Failure::gone(format!("command has already completed with exit code {code}")))
        }
        Err(InputFailure::System(error)) => Err(Failure::untyped(error)),
    }
}

/// What the entrypoint has said, as the logs of any command are.
async fn entrypoint_logs(
    toolbox: State<Arc<Toolbox>>,
    query: Query,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Failure> {
    let command = toolbox.sessions.get(ENTRYPOINT)?.commands().first().map(|command| command.id.clone());
    let command = command.ok_or_else(|| Failure::not_found("command not found"))?;
    follow::logs(toolbox, Path((ENTRYPOINT.to_owned(), command)), query, headers, upgrade).await
}

fn read_log(command: &Command) -> Result<Vec<u8>, Failure> {
    let (path, length) = command.log().reader();
    let length = *length.borrow();
    log::read(&path, 0, length).map_err(Failure::untyped)
}
