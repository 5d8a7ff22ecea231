//! Accepts connections and ends them: orderly at shutdown, abruptly where a fault says so.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use futures_util::TryFutureExt;
use hyper::service::Service as _;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::inject::ConnectionReset;
use super::state::closed;

/// Longer than the 70 s for which Daytona's own proxies keep idle connections, so that we never close first.
const IDLE_LIMIT: Duration = Duration::from_secs(90);
/// Answers under way at shutdown may take this long.
const GRACE: Duration = Duration::from_secs(2);
/// After an accept fails for lack of file descriptors, some time must pass for it to succeed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves connections until `closing` becomes true, then lets answers under way end for a moment.
pub(super) async fn accept(listener: TcpListener, router: Router, closing: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, router.clone(), closing.clone()));
                }
                Err(error) => {
                    tracing::warn!("local Daytona cannot accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            () = closed(closing.clone()) => break,
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    // what is left then is aborted by dropping the set
    let _ = tokio::time::timeout(GRACE, all).await;
}

async fn serve(stream: TcpStream, router: Router, closing: watch::Receiver<bool>) {
    // small answers must not wait for the acknowledgement of earlier ones
    let _ = stream.set_nodelay(true);
    let reset = ConnectionReset::default();
    let connection = Connection { stream, reset: reset.clone() };
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(reset.clone());
        let reset = reset.clone();
        router.call(request).map_err(|never| match never {}).and_then(move |response| async move {
            if reset.is_requested() {
                Err(io::Error::from(io::ErrorKind::ConnectionReset))
            } else {
                Ok(response)
            }
        })
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_LIMIT)
        .serve_connection(TokioIo::new(connection), service)
        .with_upgrades();
    let mut served = std::pin::pin!(served);
    tokio::select! {
        // a client that breaks off is its own affair
        _ = served.as_mut() => return,
        () = closed(closing) => {}
    }
    served.as_mut().graceful_shutdown();
    let _ = served.await;
}

/// A TCP connection that ends with a reset instead of an orderly close when that was requested.
struct Connection {
    stream: TcpStream,
    reset: ConnectionReset,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.reset.is_requested() {
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.reset.is_requested() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
