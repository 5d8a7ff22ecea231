//! Ports: which are open, and a reverse proxy to them.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use axum::body::Body;
use axum::extract::{Path, Request};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::json;
use crate::api::toolbox::{PortInUse, PortList};

/// Ports that a caller may ask about.
const ASKABLE: std::ops::RangeInclusive<u16> = 3000..=9999;

pub(super) async fn ports() -> Response {
    json::response(StatusCode::OK, &PortList { ports: listening().into_iter().collect() })
}

pub(super) async fn in_use(Path(port): Path<String>) -> Result<Response, StatusCode> {
    let port = port.parse().ok().filter(|port| ASKABLE.contains(port)).ok_or(StatusCode::BAD_REQUEST)?;
    Ok(json::response(StatusCode::OK, &PortInUse { is_in_use: listening().contains(&port) }))
}

/// TCP ports in the state LISTEN, of this network namespace.
fn listening() -> BTreeSet<u16> {
    let tables =
        ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let lines = tables.iter().flat_map(|table| table.lines());
    lines
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (_, port) = fields.nth(1)?.rsplit_once(':')?;
            (fields.nth(1)? == "0A").then(|| u16::from_str_radix(port, 16).ok())?
        })
        .collect()
}

/// Hands a request below `/proxy/{port}` to that port. Whatever keeps it from an answer is an empty 502.
pub(super) async fn proxy(request: Request) -> Response {
    match forward(request).await {
        Ok(answer) => answer,
        Err(status) => status.into_response(),
    }
}

async fn forward(mut request: Request) -> Result<Response, StatusCode> {
    let (port, target) = target(request.uri()).ok_or(StatusCode::BAD_REQUEST)?;
    let stream = connect(port).await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    tokio::spawn(connection.with_upgrades());

    *request.uri_mut() = target;
    let upgrade = request.headers().get(header::UPGRADE).cloned();
    remove_hop_headers(request.headers_mut());
    let fields = request.headers_mut();
    fields.insert(
        header::HOST,
        HeaderValue::try_from(format!("localhost:{port}")).map_err(|_| StatusCode::BAD_REQUEST)?,
    );
    if let Some(protocol) = upgrade {
        fields.insert(header::UPGRADE, protocol);
        fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    let client = hyper::upgrade::on(&mut request);
    let mut answer = sender.send_request(request).await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let server = hyper::upgrade::on(&mut answer);
        tokio::spawn(async move {
            if let Ok((client, server)) = tokio::try_join!(client, server) {
                // either side may hang up at any time
                let _ =
                    tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(server)).await;
            }
        });
    } else {
        remove_hop_headers(answer.headers_mut());
    }
    Ok(answer.map(Body::new))
}

/// The port and what follows it, percent-encoding kept.
fn target(uri: &Uri) -> Option<(u16, Uri)> {
    let below = uri.path_and_query()?.as_str().strip_prefix("/proxy/")?;
    let end = below.find(['/', '?']).unwrap_or(below.len());
    let (port, rest) = below.split_at_checked(end)?;
    let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
    Some((port.parse().ok()?, Uri::from(PathAndQuery::try_from(rest).ok()?)))
}

async fn connect(port: u16) -> std::io::Result<TcpStream> {
    match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        Ok(stream) => Ok(stream),
        Err(error) => TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.map_err(|_| error),
    }
}

/// Headers that concern one connection only. `Content-Length` and `Transfer-Encoding` are set anew by each side.
fn remove_hop_headers(headers: &mut HeaderMap) {
    let hop =
        ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];
    for name in hop {
        headers.remove(name);
    }
}
