//! Looking at a terminal: websockets.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::terminal::Terminal;
use super::{add, error};
use crate::api::toolbox::PtyCreateRequest;
use crate::local::toolbox::query::Query;
use crate::local::toolbox::reaper::Exit;
use crate::local::toolbox::settled::settled;
use crate::local::toolbox::state::Toolbox;
use crate::local::toolbox::websocket;

/// The largest message of a client.
const INPUT: usize = 64 * 1024;
/// A client that offers it gets a control message when the shell ends.
const EXIT_CONTROL: &str = "X-Daytona-Pty-Exit-Control";
/// With it, variables come as base64url of a JSON object.
const ENVS: &str = "X-Daytona-Pty-Envs~";

/// Attaches to a terminal. An unknown one is told after the upgrade.
pub(super) async fn connect(
    State(toolbox): State<Arc<Toolbox>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let terminal = toolbox.terminals.get(&id);
    let (exit_control, upgrade) = negotiate(&headers, upgrade);
    upgrade.on_upgrade(async move |mut socket| match terminal {
        None => {
            let message =
                json!({"type": "control", "status": "error", "error": format!("PTY session {id} not found")});
            if say(&mut socket, &message).await {
                websocket::close(socket, close_code::NORMAL, "").await;
            }
        }
        Some(terminal) => attend(socket, &toolbox, terminal, exit_control).await,
    })
}

/// Makes a terminal and attaches to it before its shell says anything.
pub(super) async fn create_connect(
    State(toolbox): State<Arc<Toolbox>>,
    query: Query,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let number = |name: &str| query.text(name).map(|value| value.parse::<u16>()).transpose();
    let (Ok(cols), Ok(rows)) = (number("cols"), number("rows")) else {
        return error(StatusCode::BAD_REQUEST, "cols and rows must be numbers");
    };
    let Ok(envs) = offered_envs(&headers) else {
        return error(StatusCode::BAD_REQUEST, "invalid environment variables");
    };
    let id = query.text("id").unwrap_or_default();
    let request = PtyCreateRequest { id, cwd: query.text("cwd"), envs, cols, rows, lazy_start: None };
    let terminal = match add(&toolbox, request) {
        Ok(terminal) => terminal,
        Err((status, message)) => return error(status, &message),
    };
    let (exit_control, upgrade) = negotiate(&headers, upgrade);
    let (state, failed) = (Arc::clone(&toolbox), Arc::clone(&terminal));
    upgrade
        .on_failed_upgrade(move |_| drop(state.terminals.remove(&failed.id)))
        .on_upgrade(async move |socket| attend(socket, &toolbox, terminal, exit_control).await)
}

/// The protocols that a client offers.
fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).into_iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',').map(str::trim))
}

fn negotiate(headers: &HeaderMap, upgrade: WebSocketUpgrade) -> (bool, WebSocketUpgrade) {
    let exit_control = offered(headers).any(|protocol| protocol == EXIT_CONTROL);
    let known = offered(headers)
        .find(|protocol| *protocol == EXIT_CONTROL || protocol.starts_with("X-Daytona-SDK-Version~"));
    (exit_control, upgrade.max_message_size(INPUT).protocols(known.map(str::to_owned)))
}

fn offered_envs(headers: &HeaderMap) -> Result<Option<BTreeMap<String, String>>, ()> {
    let Some(encoded) = offered(headers).find_map(|protocol| protocol.strip_prefix(ENVS)) else {
        return Ok(None);
    };
    let json = URL_SAFE_NO_PAD.decode(encoded).map_err(drop)?;
    serde_json::from_slice(&json).map(Some).map_err(drop)
}

/// Connects a client and a terminal until one of them ends.
async fn attend(mut socket: WebSocket, toolbox: &Arc<Toolbox>, terminal: Arc<Terminal>, exit_control: bool) {
    let mut output = terminal.output();
    let mut exit = terminal.exit();
    if let Err(failure) = terminal.start(toolbox) {
        toolbox.terminals.remove(&terminal.id);
        let message = json!({"type": "control", "status": "error", "error": failure.to_string()});
        if say(&mut socket, &message).await {
            websocket::close(socket, close_code::ERROR, "").await;
        }
        return;
    }
    if !say(&mut socket, &json!({"type": "control", "status": "connected"})).await {
        return;
    }
    let ended = loop {
        tokio::select! {
            biased;
            piece = output.recv() => match piece {
                Ok(piece) => {
                    if socket.send(Message::Binary(piece)).await.is_err() {
                        return;
                    }
                }
                Err(RecvError::Lagged(_)) => return websocket::close(socket, close_code::POLICY, "slow consumer").await,
                Err(RecvError::Closed) => return,
            },
            ended = settled(&mut exit) => break ended,
            message = socket.recv() => {
                let input: Bytes = match message {
                    Some(Ok(Message::Text(text))) => text.into(),
                    Some(Ok(Message::Binary(bytes))) => bytes,
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                };
                // a shell that has ended is seen in the next round
                let _ = terminal.type_in(&input).await;
            }
        }
    };
    if flush(&mut socket, &mut output).await {
        end(socket, ended, exit_control).await;
    }
}

/// Sends what is left; whether the client is still there.
async fn flush(socket: &mut WebSocket, output: &mut broadcast::Receiver<Bytes>) -> bool {
    while let Ok(piece) = output.try_recv() {
        if socket.send(Message::Binary(piece)).await.is_err() {
            return false;
        }
    }
    true
}

/// Tells how the shell ended, in the close frame and, if asked for, before it.
async fn end(mut socket: WebSocket, exit: Option<Exit>, exit_control: bool) {
    let code = exit.map_or(-1, Exit::shell_code);
    let mut told = json!({ "exitCode": code });
    if code != 0 {
        told["exitReason"] = Value::from(if code > 128 { "terminated by signal" } else { "non-zero exit" });
    }
    if exit_control {
        let mut message = told.clone();
        message["type"] = Value::from("control");
        message["status"] = Value::from("exited");
        if !say(&mut socket, &message).await {
            return;
        }
    }
    let status = if code == 0 { close_code::NORMAL } else { close_code::ERROR };
    websocket::close(socket, status, &told.to_string()).await;
}

/// Sends a control message; whether the client is still there.
async fn say(socket: &mut WebSocket, message: &Value) -> bool {
    socket.send(Message::Text(message.to_string().into())).await.is_ok()
}
