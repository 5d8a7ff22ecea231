//! The proxy in front of the toolboxes: `/toolbox/{id}/…` and the preview URLs of user ports.
//!
//! Bodies are streamed both ways, upgrades are passed through, nothing here has a time limit, and each request has a
//! connection of its own, so that no stale one is ever met. If the client goes away, so does the connection.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, LOCATION, UPGRADE};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::auth;
use super::automation::Activity;
use super::error::ApiError;
use super::state::Control;
use crate::api::headers;
use crate::api::sandbox::SandboxState;

/// Headers that concern one hop only.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
];

/// `/toolbox/{id}/…`.
pub(super) async fn toolbox(
    State(control): State<Control>,
    Path((id, _)): Path<(String, String)>,
    request: Request,
) -> Response {
    if let Err(error) = auth::check_proxied(&control, &id, request.headers(), request.uri().query()) {
        return error.into_response();
    }
    // the path as it was sent, since decoding it once would change what the toolbox decodes
    let path = request.uri().path().splitn(4, '/').nth(3).unwrap_or_default();
    let path = format!("/{path}");
    forward(&control, &id, &path, &format!("/toolbox/{id}"), request).await
}

/// `/toolbox` without an id or a path.
pub(super) async fn no_route() -> ApiError {
    ApiError::not_found("not found: not found").with_code("NOT_FOUND")
}

/// Sends a request to a sandbox's toolbox under another path, and its answer back.
pub(super) async fn forward(
    control: &Control,
    id: &str,
    path: &str,
    location_prefix: &str,
    mut request: Request,
) -> Response {
    let running = control.with(id, |record, _| {
        // what is resized runs on
        let serves = matches!(record.state, SandboxState::Started | SandboxState::Resizing);
        Ok(record.running.clone().filter(|_| serves))
    });
    let Ok(Some(running)) = running else {
        return ApiError::bad_request(
            "bad request: failed to resolve container IP after 3 attempts: no IP address found. Is the Sandbox \
             started?",
        )
        .with_code("BAD_REQUEST")
        .into_response();
    };
    let counts = request.headers().get(headers::SKIP_ACTIVITY).is_none_or(|skip| skip != "true");
    let activity = counts.then(|| control.activity(id));
    let query = request.uri().query().map(without_preview_token).filter(|query| !query.is_empty());
    let target = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let Ok(uri) = Uri::try_from(target) else { return StatusCode::BAD_REQUEST.into_response() };
    let client_upgrade = request.headers().contains_key(UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let (mut parts, body) = request.into_parts();
    parts.uri = uri;
    parts.version = http::Version::HTTP_11;
    parts.extensions.clear();
    clean(&mut parts.headers);
    for secret in [AUTHORIZATION.as_str(), headers::PREVIEW_TOKEN] {
        parts.headers.remove(secret);
    }
    match send(&running.toolbox, Request::from_parts(parts, body)).await {
        Ok((response, connection)) => {
            answer(control, response, connection, activity, client_upgrade, location_prefix)
        }
        Err(error) => {
            tracing::debug!(sandbox = %id, "toolbox does not answer: {error}");
            // what Daytona's proxies answer for a dead daemon: no body at all
            StatusCode::BAD_GATEWAY.into_response()
        }
    }
}

/// Ends the task that drives a connection, and so the connection.
struct Connection(tokio::task::JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn send(
    socket: &std::path::Path,
    request: Request,
) -> Result<(http::Response<Incoming>, Connection), Box<dyn std::error::Error + Send + Sync>> {
    let stream = UnixStream::connect(socket).await?;
    let builder = hyper::client::conn::http1::Builder::new();
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let connection = Connection(tokio::spawn(async move {
        let _ = connection.with_upgrades().await;
    }));
    Ok((sender.send_request(request).await?, connection))
}

fn answer(
    control: &Control,
    mut response: http::Response<Incoming>,
    connection: Connection,
    activity: Option<Activity>,
    client_upgrade: Option<hyper::upgrade::OnUpgrade>,
    location_prefix: &str,
) -> Response {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client) = client_upgrade else { return StatusCode::BAD_GATEWAY.into_response() };
        let toolbox = hyper::upgrade::on(&mut response);
        control.spawn(async move {
            let guard = (activity, connection);
            if let (Ok(client), Ok(toolbox)) = (client.await, toolbox.await) {
                let (mut client, mut toolbox) = (TokioIo::new(client), TokioIo::new(toolbox));
                // either side may just go away
                let _ = tokio::io::copy_bidirectional(&mut client, &mut toolbox).await;
            }
            drop(guard);
        });
        return response.map(|_| Body::empty());
    }
    clean(response.headers_mut());
    if let Some(location) = response.headers().get(LOCATION).and_then(|location| location.to_str().ok())
        && location.starts_with('/')
        && let Ok(location) = HeaderValue::try_from(format!("{location_prefix}{location}"))
    {
        response.headers_mut().insert(LOCATION, location);
    }
    response.map(|body| Body::new(Forwarded { body, _connection: connection, _activity: activity }))
}

/// Removes what concerns one hop, except what asks for an upgrade.
fn clean(headers: &mut HeaderMap) {
    let upgrade = headers.get(UPGRADE).cloned();
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    if let Some(upgrade) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, upgrade);
    }
}

fn without_preview_token(query: &str) -> String {
    let pairs = query.split('&').filter(|pair| pair.split('=').next() != Some(auth::PREVIEW_QUERY));
    pairs.collect::<Vec<_>>().join("&")
}

/// An answer's body, with what must live as long as it is being read.
struct Forwarded {
    body: Incoming,
    _connection: Connection,
    _activity: Option<Activity>,
}

impl HttpBody for Forwarded {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preview_token_does_not_reach_the_sandbox() {
        assert_eq!(without_preview_token("a=1&DAYTONA_SANDBOX_AUTH_KEY=x&b"), "a=1&b");
        assert_eq!(without_preview_token("DAYTONA_SANDBOX_AUTH_KEY=x"), "");
    }

    #[test]
    fn headers_of_one_hop_are_removed_unless_they_ask_for_an_upgrade() {
        let mut plain = HeaderMap::from_iter([(CONNECTION, HeaderValue::from_static("close"))]);
        clean(&mut plain);
        assert!(plain.is_empty());
        let mut upgrade = HeaderMap::from_iter([
            (CONNECTION, HeaderValue::from_static("keep-alive, Upgrade")),
            (UPGRADE, HeaderValue::from_static("websocket")),
        ]);
        clean(&mut upgrade);
        assert_eq!(upgrade[CONNECTION], "Upgrade");
        assert_eq!(upgrade[UPGRADE], "websocket");
    }
}
