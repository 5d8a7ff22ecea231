//! A command's log: as it is now, or as it grows.

use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::ws::{
    Message, WebSocket, WebSocketUpgrade, close_code, rejection::WebSocketUpgradeRejection,
};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use tokio::sync::watch;

use super::command::Command;
use super::log::{self, Shape, version_protocol};
use super::read_log;
use crate::local::toolbox::error::Failure;
use crate::local::toolbox::query::Query;
use crate::local::toolbox::settled::settled;
use crate::local::toolbox::state::Toolbox;
use crate::local::toolbox::{json, websocket};

/// The most bytes of a log in one message.
const FRAME: usize = 1024;

/// The log as JSON or text, or, with an upgrade, as messages: to its end with `follow=true`, else as far as it is.
pub(super) async fn logs(
    State(toolbox): State<Arc<Toolbox>>,
    Path((session, command)): Path<(String, String)>,
    query: Query,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Failure> {
    let command = toolbox.sessions.command(&session, &command)?;
    let shape = Shape::of(&headers);
    let follow = query.text("follow").is_some_and(|follow| follow == "true");
    if let Ok(upgrade) = upgrade {
        let offered = headers.get(header::SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok());
        let version = offered.and_then(version_protocol).map(str::to_owned);
        let reader = Reader::new(&command, follow, shape == Shape::Combined);
        return Ok(upgrade.protocols(version).on_upgrade(|socket| send(socket, reader)));
    }
    if follow {
        let reader = Reader::new(&command, true, true);
        let chunks = stream::unfold(reader, |mut reader| async move {
            let chunk = reader.next().await?;
            Some((Ok::<_, std::io::Error>(chunk), reader))
        });
        let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
        return Ok((kind, Body::from_stream(chunks)).into_response());
    }
    let log = read_log(&command)?;
    let text = match shape {
        Shape::Split => return Ok(json::response(StatusCode::OK, &log::split(log))),
        Shape::Marked => log,
        Shape::Combined => log::combine(&log),
    };
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// Reads a log piece by piece.
struct Reader {
    path: PathBuf,
    position: u64,
    length: watch::Receiver<u64>,
    ended: watch::Receiver<Option<i64>>,
    follow: bool,
    without_markers: bool,
}

impl Reader {
    fn new(command: &Command, follow: bool, without_markers: bool) -> Self {
        let (path, length) = command.log().reader();
        Self { path, position: 0, length, ended: command.ended(), follow, without_markers }
    }

    /// What came since the last call; `None` at the end.
    async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            // in this order, since nothing is written after the end
            let at_end = !self.follow || self.ended.borrow().is_some();
            let length = *self.length.borrow_and_update();
            if length > self.position {
                let piece = log::read(&self.path, self.position, length).ok()?;
                self.position = length;
                return Some(if self.without_markers { log::combine(&piece) } else { piece });
            }
            if at_end {
                return None;
            }
            tokio::select! {
                // an error says that there is no writer any more, as the end does
                changed = self.length.changed() => self.follow &= changed.is_ok(),
                ended = settled(&mut self.ended) => self.follow &= ended.is_some(),
            }
        }
    }
}

async fn send(mut socket: WebSocket, mut reader: Reader) {
    loop {
        tokio::select! {
            piece = reader.next() => {
                let Some(piece) = piece else { break };
                for frame in piece.chunks(FRAME) {
                    if socket.send(Message::Binary(frame.to_vec().into())).await.is_err() {
                        return;
                    }
                }
            }
            // pings are answered while receiving; what else a reader says does not matter
            message = socket.recv() => match message {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            }
        }
    }
    websocket::close(socket, close_code::NORMAL, "").await;
}
