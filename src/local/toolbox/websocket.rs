//! The end of a websocket.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};

/// How long the other side has to answer a close.
const PATIENCE: Duration = Duration::from_secs(5);

/// Closes with a code and a reason (at most 123 bytes), and waits for the other side to do the same, so that it has
/// read all before the connection ends.
pub(super) async fn close(mut socket: WebSocket, code: u16, reason: &str) {
    let frame = CloseFrame { code, reason: reason.into() };
    if socket.send(Message::Close(Some(frame))).await.is_ok() {
        let answered = async { while let Some(Ok(_)) = socket.recv().await {} };
        // whoever does not answer is cut off
        let _ = tokio::time::timeout(PATIENCE, answered).await;
    }
}
