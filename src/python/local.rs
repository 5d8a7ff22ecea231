//! The embedded Daytona: one shared by this process (`DAYTONA_API_URL=local`), or standalone ones.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use pyo3::prelude::*;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;

use super::errors::to_exception;
use super::runtime::{Operation, runtime, start};
use crate::error::{Error, ErrorKind, Result};
use crate::local::control::{LocalOptions, LocalServer as Server};

/// The server that this process's evals share; started once, ended with the process.
static SHARED: Mutex<Option<Arc<Shared>>> = Mutex::const_new(None);

/// A running server.
#[derive(Debug)]
pub(super) struct Shared {
    url: String,
    api_key: SecretString,
    isolation: crate::local::engine::Isolation,
    server: std::sync::Mutex<Option<Server>>,
}

impl Shared {
    async fn start(
        environ: &BTreeMap<String, String>,
        host: Option<String>,
        port: Option<u16>,
    ) -> Result<Arc<Self>> {
        let mut options = LocalOptions::from_variables(environ.clone())?;
        if let Some(host) = host {
            options.host = host.parse().map_err(|_| {
                Error::new(ErrorKind::InvalidConfig, format!("{host} is not an IP address to listen on"))
            })?;
        }
        if let Some(port) = port {
            options.port = port;
        }
        let server = Server::start(options).await?;
        Ok(Arc::new(Self {
            url: server.url(),
            api_key: server.api_key().clone(),
            isolation: server.isolation().clone(),
            server: std::sync::Mutex::new(Some(server)),
        }))
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn api_key(&self) -> SecretString {
        self.api_key.clone()
    }

    pub(super) fn isolation_name(&self) -> String {
        self.isolation.name.to_owned()
    }

    pub(super) fn isolation_lost(&self) -> Vec<String> {
        self.isolation.lost.clone()
    }

    /// `(created, deleted, left)`; nothing is left of a server that has ended.
    fn statistics(&self) -> (u64, u64, u64) {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(statistics) = server.as_ref().map(Server::statistics) else { return (0, 0, 0) };
        (statistics.created, statistics.deleted, statistics.left)
    }

    async fn shutdown(&self) {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(server) = server {
            server.shutdown().await;
        }
    }
}

/// The shared server, started if it does not run.
pub(super) async fn shared(environ: &BTreeMap<String, String>) -> Result<Arc<Shared>> {
    let mut shared = SHARED.lock().await;
    if let Some(server) = &*shared {
        return Ok(Arc::clone(server));
    }
    let server = Shared::start(environ, None, None).await?;
    for lost in server.isolation_lost() {
        tracing::warn!("local Daytona ({}): {lost}", server.isolation.name);
    }
    *shared = Some(Arc::clone(&server));
    Ok(server)
}

/// `(created, deleted, left)`: sandboxes on the shared server's record; `None` if there is no such server.
#[pyfunction]
pub(super) fn local_statistics() -> Option<(u64, u64, u64)> {
    // held only while a server starts, which is over when somebody asks for its figures
    SHARED.try_lock().ok()?.as_ref().map(|server| server.statistics())
}

/// Ends the shared server.
pub(super) async fn shutdown_all() {
    let server = SHARED.lock().await.take();
    if let Some(server) = server {
        server.shutdown().await;
    }
}

/// A standalone local Daytona.
#[pyclass(frozen, module = "inspect_daytona._core")]
#[derive(Debug)]
pub(super) struct LocalServer(Arc<Shared>);

#[pymethods]
impl LocalServer {
    /// The API's URL, for `DAYTONA_API_URL`.
    #[getter]
    fn url(&self) -> &str {
        self.0.url()
    }

    /// The key, for `DAYTONA_API_KEY`.
    #[getter]
    fn api_key(&self) -> &str {
        self.0.api_key.expose_secret()
    }

    /// How sandboxes are isolated, for example `namespaces/root-idmap`.
    #[getter]
    fn isolation(&self) -> String {
        self.0.isolation_name()
    }

    /// What the isolation does not promise on this machine.
    #[getter]
    fn isolation_lost(&self) -> Vec<String> {
        self.0.isolation_lost()
    }

    /// `(created, deleted, left)`: sandboxes on this server's record.
    fn statistics(&self) -> (u64, u64, u64) {
        self.0.statistics()
    }

    /// Ends the server and every sandbox in it. May be called again.
    fn shutdown(&self, on_done: Py<PyAny>) -> PyResult<Operation> {
        let server = Arc::clone(&self.0);
        let future = async move {
            server.shutdown().await;
            Ok(())
        };
        start(on_done, future, |py, ()| Ok(py.None()))
    }

    fn __repr__(&self) -> String {
        format!("LocalServer({})", self.0.url())
    }
}

/// Starts a standalone server; `environ` holds the `INSPECT_DAYTONA_LOCAL_*` settings. Ends with a `LocalServer`.
#[pyfunction]
pub(super) fn start_local(
    environ: BTreeMap<String, String>,
    host: Option<String>,
    port: Option<u16>,
    on_done: Py<PyAny>,
) -> PyResult<Operation> {
    let future = async move { Shared::start(&environ, host, port).await };
    start(on_done, future, |py, server| Ok(Py::new(py, LocalServer(server))?.into_any()))
}

/// Serves in the foreground until Ctrl-C or SIGTERM, then ends every sandbox. `on_ready(url, api_key, isolation, lost)`
/// is called when requests are answered.
#[pyfunction]
#[expect(clippy::needless_pass_by_value, reason = "values are what Python hands over")]
pub(super) fn serve(
    py: Python<'_>,
    environ: BTreeMap<String, String>,
    host: Option<String>,
    port: Option<u16>,
    on_ready: Py<PyAny>,
) -> PyResult<()> {
    let runtime = runtime()?;
    let result: Result<PyResult<()>> = py.detach(|| {
        runtime.block_on(async {
            // before the ready message, so that a signal right after it is not lost
            let stop = stop_signal()?;
            let server = Shared::start(&environ, host, port).await?;
            let told = Python::attach(|py| {
                let (name, lost) = (server.isolation_name(), server.isolation_lost());
                on_ready.call1(py, (server.url(), server.api_key.expose_secret(), name, lost)).map(drop)
            });
            if told.is_ok() {
                stop.await;
            }
            server.shutdown().await;
            Ok(told)
        })
    });
    result.map_err(|error| to_exception(py, &error))?
}

/// Resolves at the first SIGINT or SIGTERM after this call.
fn stop_signal() -> Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| {
        signal(kind).map_err(|error| {
            Error::new(ErrorKind::System, format!("cannot wait for signals: {error}")).with_source(error)
        })
    };
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
