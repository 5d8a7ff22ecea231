//! An engine whose sandboxes are HTTP servers on Unix sockets.
//!
//! What a sandbox does when it starts is said by its environment: `TEST_START` is `fail` (the engine refuses), `die`
//! (it has ended when the start is reported) or `wait` (until [`FixtureEngine::release`]).

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use futures_util::future::BoxFuture;
use http::StatusCode;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use inspect_daytona::local::engine::{Engine, Exit, Isolation, Killer, Running};
use inspect_daytona::local::spec::{Limits, Network, SandboxSpec};
use inspect_daytona::{Error, ErrorKind, Result};
use serde_json::json;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

#[derive(Debug)]
pub(crate) struct FixtureEngine {
    isolation: Isolation,
    released: watch::Sender<bool>,
    /// How often each sandbox was started, and with what.
    pub(crate) started: Mutex<Vec<SandboxSpec>>,
    pub(crate) deleted: Mutex<Vec<String>>,
    /// How many deletions are still to fail.
    pub(crate) failing_deletions: AtomicUsize,
    /// Changes of networks that running sandboxes were to make.
    pub(crate) networks: Mutex<Vec<(String, Network)>>,
    /// Whether such changes fail.
    pub(crate) fixed_network: AtomicBool,
    /// Limits that were raised.
    pub(crate) limits: Mutex<Vec<(String, Limits)>>,
    /// Whether raising them waits until [`FixtureEngine::release`].
    pub(crate) slow_limits: AtomicBool,
    /// Whether raising them fails.
    pub(crate) fixed_limits: AtomicBool,
    servers: Mutex<HashMap<String, tokio::task::AbortHandle>>,
    pub(crate) is_shut_down: watch::Sender<bool>,
}

impl FixtureEngine {
    pub(crate) fn new(no_gateway: Option<&str>) -> Arc<Self> {
        Arc::new(Self {
            isolation: Isolation {
                name: "fixture",
                lost: Vec::new(),
                no_gateway: no_gateway.map(str::to_owned),
            },
            released: watch::Sender::new(false),
            started: Mutex::default(),
            deleted: Mutex::default(),
            failing_deletions: AtomicUsize::new(0),
            networks: Mutex::default(),
            fixed_network: AtomicBool::new(false),
            limits: Mutex::default(),
            slow_limits: AtomicBool::new(false),
            fixed_limits: AtomicBool::new(false),
            servers: Mutex::default(),
            is_shut_down: watch::Sender::new(false),
        })
    }

    /// Lets the sandboxes start that wait.
    pub(crate) fn release(&self) {
        self.released.send_replace(true);
    }

    /// Ends a sandbox's toolbox, but not the sandbox.
    pub(crate) fn break_toolbox(&self, id: &str) {
        self.servers.lock().unwrap()[id].abort();
    }

    async fn run(&self, spec: SandboxSpec) -> Result<Running> {
        self.started.lock().unwrap().push(spec.clone());
        let (exit, exited) = watch::channel(None);
        match spec.env.get("TEST_START").map(String::as_str) {
            Some("fail") => return Err(Error::new(ErrorKind::System, "no space left on device")),
            Some("wait") => {
                self.released.subscribe().wait_for(|released| *released).await.unwrap();
            }
            Some("die") => {
                exit.send_replace(Some(Exit { code: 137, out_of_memory: true }));
            }
            _ => {}
        }
        std::fs::create_dir_all(&spec.directory).unwrap();
        let toolbox = spec.directory.join("toolbox");
        let _ = std::fs::remove_file(&toolbox);
        let listener = UnixListener::bind(&toolbox).unwrap();
        let server = tokio::spawn(serve(listener)).abort_handle();
        self.servers.lock().unwrap().insert(spec.id, server.clone());
        let killer = Killer(Arc::new(move || {
            server.abort();
            exit.send_replace(Some(Exit { code: 137, out_of_memory: false }));
        }));
        Ok(Running { toolbox, exit: exited, killer })
    }
}

impl Engine for FixtureEngine {
    fn isolation(&self) -> &Isolation {
        &self.isolation
    }

    fn start(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Running>> {
        Box::pin(self.run(spec))
    }

    fn delete(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let failing = &self.failing_deletions;
            if failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                return Err(Error::new(ErrorKind::System, "device or resource busy"));
            }
            let _ = std::fs::remove_dir_all(&spec.directory);
            self.deleted.lock().unwrap().push(spec.id);
            Ok(())
        })
    }

    fn remove(&self, directory: PathBuf) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let _ = std::fs::remove_dir_all(directory);
            Ok(())
        })
    }

    fn change_network(&self, id: String, network: Network) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            if self.fixed_network.load(Ordering::SeqCst) {
                return Err(Error::new(ErrorKind::Unsupported, "its network is fixed"));
            }
            self.networks.lock().unwrap().push((id, network));
            Ok(())
        })
    }

    fn raise_limits(&self, id: String, limits: Limits) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            if self.slow_limits.load(Ordering::SeqCst) {
                self.released.subscribe().wait_for(|released| *released).await.unwrap();
            }
            if self.fixed_limits.load(Ordering::SeqCst) {
                return Err(Error::new(ErrorKind::System, "invalid argument"));
            }
            self.limits.lock().unwrap().push((id, limits));
            Ok(())
        })
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.is_shut_down.send_replace(true);
        })
    }
}

/// Serves connections that end with the task.
async fn serve(listener: UnixListener) {
    let router = toolbox();
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let service = TowerToHyperService::new(router.clone());
        connections.spawn(async move {
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades()
                .await;
        });
    }
}

type Executions = State<Arc<AtomicUsize>>;

fn toolbox() -> Router {
    Router::new()
        .route("/process/execute", post(execute))
        .route("/echo", post(async |request: Request| Response::new(request.into_body())))
        .route("/headers", any(headers))
        .route("/files/{*path}", any(headers))
        .route(
            "/proxy/{port}/{*path}",
            any(async |Path((port, path)): Path<(u16, String)>| format!("{port} {path}")),
        )
        .route("/zeros/{count}", get(zeros))
        .route("/wait", get(std::future::pending::<String>))
        .route("/redirect", get(async || Redirect::to("/files/elsewhere")))
        .route("/upgrade", get(upgrade))
        .with_state(Arc::default())
}

/// Counts the executions, each of which takes as long as the next one needs to be delivered, if it is.
async fn execute(State(executions): Executions, body: String) -> Json<serde_json::Value> {
    let count = executions.fetch_add(1, Ordering::SeqCst) + 1;
    Json(json!({ "exitCode": 0, "result": format!("{body} {count}") }))
}

async fn headers(request: Request) -> Json<serde_json::Value> {
    let names: Vec<_> = request
        .headers()
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    Json(json!({ "path": request.uri().to_string(), "headers": names }))
}

async fn zeros(Path(count): Path<usize>) -> Response {
    let chunk = bytes::Bytes::from(vec![0; 64 * 1024]);
    let chunks =
        futures_util::stream::iter((0..count / chunk.len()).map(move |_| Ok::<_, Infallible>(chunk.clone())));
    Body::from_stream(chunks).into_response()
}

async fn upgrade(mut request: Request) -> Response {
    let protocol = request.headers()[http::header::UPGRADE].clone();
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgraded.await.unwrap()));
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    });
    let headers = [(http::header::UPGRADE, protocol), (http::header::CONNECTION, "upgrade".parse().unwrap())];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}
