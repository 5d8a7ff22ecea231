//! A websocket client.

use axum::http::HeaderName;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::UnixStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::server::{PATIENCE, Server};

pub(crate) struct Socket {
    stream: WebSocketStream<UnixStream>,
    /// The subprotocol that the server chose.
    pub(crate) protocol: Option<String>,
}

/// All that came until the close.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    pub(crate) bytes: Vec<u8>,
    pub(crate) texts: Vec<String>,
    pub(crate) code: u16,
    pub(crate) reason: String,
    /// Of the binary messages.
    pub(crate) longest: usize,
}

impl Socket {
    /// Connects; the error is the status of a refused upgrade.
    pub(crate) async fn open(
        server: &Server,
        path: &str,
        headers: &[(&'static str, &str)],
        protocols: &[&str],
    ) -> Result<Self, u16> {
        let mut request = format!("ws://toolbox{path}").into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        if !protocols.is_empty() {
            request.headers_mut().insert("sec-websocket-protocol", protocols.join(", ").parse().unwrap());
        }
        match tokio_tungstenite::client_async(request, server.connect().await).await {
            Ok((stream, answer)) => {
                let protocol = answer.headers().get("sec-websocket-protocol");
                Ok(Self { stream, protocol: protocol.map(|value| value.to_str().unwrap().to_owned()) })
            }
            Err(Error::Http(answer)) => Err(answer.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) async fn send(&mut self, message: Message) {
        self.stream.send(message).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Option<Message> {
        let message = tokio::time::timeout(PATIENCE, self.stream.next()).await.expect("a message");
        message.and_then(Result::ok)
    }

    /// Reads until a condition on all bytes so far holds.
    pub(crate) async fn until(&mut self, condition: impl Fn(&str) -> bool) -> String {
        let mut bytes = Vec::new();
        while !condition(&String::from_utf8_lossy(&bytes)) {
            let message = tokio::time::timeout(PATIENCE, self.stream.next()).await;
            let shown = String::from_utf8_lossy(&bytes);
            match message.unwrap_or_else(|_| panic!("only {shown:?}")).and_then(Result::ok) {
                Some(Message::Binary(piece)) => bytes.extend_from_slice(&piece),
                Some(Message::Close(_)) | None => {
                    panic!("closed after {shown:?}")
                }
                Some(_) => {}
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(crate) async fn drain(mut self) -> Ended {
        let mut ended = Ended::default();
        while let Some(message) = self.next().await {
            match message {
                Message::Binary(piece) => {
                    ended.longest = ended.longest.max(piece.len());
                    ended.bytes.extend_from_slice(&piece);
                }
                Message::Text(text) => ended.texts.push(text.to_string()),
                Message::Close(Some(close)) => {
                    (ended.code, ended.reason) = (close.code.into(), close.reason.to_string());
                }
                _ => {}
            }
        }
        ended
    }
}
