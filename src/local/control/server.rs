//! The server as a whole: [`LocalServer`] for users, [`serve`] and [`app`] below it for tests and programs.

use std::fmt;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::{Router, middleware};
use futures_util::{StreamExt, stream};
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::clock::{Clock, SystemClock};
use super::options::LocalOptions;
use super::state::{Control, ControlPlane, Statistics};
use super::{auth, automation, connection, error, handlers, inject, origin, preview, requests, throttle};
use crate::api::sandbox::SandboxState;
use crate::error::{Error, ErrorKind, Result};
use crate::local::engine::{self, Engine, Isolation, StateDirectory};

/// At shutdown, transitions under way may take this long before their sandboxes are ended regardless.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);
/// Sandboxes that are ended at the same time.
const ENDED_AT_ONCE: usize = 16;

/// A running local Daytona. Dropping it ends the server and every sandbox in it, in the background; prefer
/// [`LocalServer::shutdown`], which waits.
pub struct LocalServer {
    plane: ControlPlane,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
}

impl LocalServer {
    /// Starts a server with the engine that `options` ask for, on the tokio runtime that this is called in.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`] where other machines could reach it without that having been allowed;
    /// [`ErrorKind::Unsupported`] where this machine does not let us isolate sandboxes as asked;
    /// [`ErrorKind::System`] where the address is taken or the state directory cannot be used.
    pub async fn start(options: LocalOptions) -> Result<Self> {
        options.check()?;
        let state = StateDirectory::open(options.directory.as_deref())?;
        let directory = state.path().join("sandboxes");
        let engine = engine::choose(options.engine, &options.network, state).await?;
        let isolation = engine.isolation();
        tracing::info!(isolation = isolation.name, "local Daytona isolates sandboxes");
        for lost in &isolation.lost {
            tracing::warn!(isolation = isolation.name, "{lost}");
        }
        Self::start_with(options, engine, directory, Arc::new(SystemClock)).await
    }

    /// Starts a server with an engine and a clock of the caller's; sandboxes get their directories in `directory`.
    ///
    /// # Errors
    ///
    /// As [`LocalServer::start`], but for the engine's.
    pub async fn start_with(
        options: LocalOptions,
        engine: Arc<dyn Engine>,
        directory: PathBuf,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        options.check()?;
        let address = SocketAddr::new(options.host, options.port);
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|error| system(&format!("cannot listen on {address}"), error))?;
        let address = listener.local_addr().map_err(|error| system("cannot tell the port", error))?;
        if !address.ip().is_loopback() {
            tracing::warn!(
                "local Daytona listens on {address}: other machines reach it by a name or an address of this one, as \
                 DAYTONA_API_URL=http://<this machine>:{}/api, and whoever has its key runs code here",
                address.port()
            );
        }
        let origin = format!("http://{}", reachable(address));
        let plane = ControlPlane::new(engine, clock, options, origin, directory);
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(serve(listener, plane.clone(), async {
            // a dropped sender asks for the same
            let _ = stopped.await;
        }));
        Ok(Self { plane, address, stop: Some(stop), task: Some(task) })
    }

    /// Base URL of the control plane, as `DAYTONA_API_URL` wants it on this machine: `http://127.0.0.1:PORT/api`.
    pub fn url(&self) -> String {
        format!("http://{}/api", reachable(self.address))
    }

    /// The key that clients must send.
    pub fn api_key(&self) -> &SecretString {
        self.plane.api_key()
    }

    /// How many sandboxes were created and deleted, and how many are left.
    pub fn statistics(&self) -> Statistics {
        self.plane.0.store().statistics()
    }

    /// How sandboxes are separated from this machine.
    pub fn isolation(&self) -> &Isolation {
        self.plane.0.engine.isolation()
    }

    /// Ends every sandbox and the server; returns when all is gone.
    pub async fn shutdown(mut self) {
        self.stop.take();
        if let Some(task) = self.task.take() {
            // a task that panicked or was cancelled has nothing left to wait for
            let _ = task.await;
        }
    }
}

impl fmt::Debug for LocalServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalServer").field("url", &self.url()).field("isolation", self.isolation()).finish()
    }
}

/// Serves a control plane on a bound socket until `shutdown` completes, then ends every sandbox.
pub async fn serve(listener: TcpListener, plane: ControlPlane, shutdown: impl Future<Output = ()>) {
    let control = plane.0.clone();
    control.spawn(automation::run(control.clone()));
    let accepting = connection::accept(listener, app(plane), control.closing.subscribe());
    let closing = async {
        shutdown.await;
        control.closing.send_replace(true);
        control.end_all().await;
    };
    tokio::join!(accepting, closing);
    control.abort_tasks();
}

/// All routes, for a server of the caller's or for tests without a socket. Automatic stops and deletions, and the end
/// of the sandboxes, are [`serve`]'s.
pub fn app(plane: ControlPlane) -> Router {
    let control = plane.0;
    let routes = handlers::routes()
        .layer(middleware::from_fn_with_state(control.clone(), throttle::throttle))
        .layer(middleware::from_fn_with_state(control.clone(), auth::authenticate))
        .layer(middleware::from_fn_with_state(control.clone(), inject::inject))
        .layer(middleware::from_fn_with_state(control.clone(), requests::count))
        .layer(middleware::from_fn_with_state(control.clone(), error::envelope))
        .layer(middleware::from_fn(origin::note))
        .with_state(control.clone());
    // around the routes, since a preview host name decides before any path does
    Router::new().fallback_service(routes).layer(middleware::from_fn_with_state(control, preview::route))
}

impl Control {
    /// Ends and removes every sandbox, then the engine.
    async fn end_all(&self) {
        let settling: Vec<_> = {
            let store = self.store();
            let pending = store.sandboxes.values().filter(|record| record.is_pending());
            pending.map(|record| record.watched.subscribe()).collect()
        };
        let settled = stream::iter(settling).for_each_concurrent(None, |mut watched| async move {
            // a sandbox that is forgotten closes its channel, which settles it as well
            let _ = watched.wait_for(|state| is_settled(*state)).await;
        });
        let _ = tokio::time::timeout(SETTLE_LIMIT, settled).await;
        let ids: Vec<_> = self.store().sandboxes.keys().cloned().collect();
        self.images.settle().await;
        stream::iter(ids).for_each_concurrent(ENDED_AT_ONCE, |id| self.clone().destroy(id)).await;
        self.engine.shutdown().await;
    }
}

/// An address at which this machine reaches what listens on `address`.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn is_settled(state: SandboxState) -> bool {
    matches!(
        state,
        SandboxState::Started
            | SandboxState::Stopped
            | SandboxState::Archived
            | SandboxState::Error
            | SandboxState::BuildFailed
            | SandboxState::Destroyed
    )
}

fn system(message: &str, error: std::io::Error) -> Error {
    Error::new(ErrorKind::System, format!("{message}: {error}"))
        .with_operation("start local Daytona")
        .with_source(error)
}
