//! The connection to Daytona, as the provider's Python class uses it.

use std::collections::BTreeMap;
use std::sync::Arc;

use pyo3::prelude::*;
use tokio::sync::Mutex;

use super::errors::to_exception;
use super::gate;
use super::local;
use super::run::Run;
use super::runtime::{Operation, start, unpanicked};
use crate::api::sandbox::Sandbox as SandboxRecord;
use crate::client::{Client, ClientOptions, Credentials, Environment};
use crate::error::{Error, Result};
use crate::provider;
use crate::provider::cleanup;

/// The process's connection, and the settings that it was made from: a changed environment makes another one.
/// Held while connecting, so that tasks that begin together share one.
static CONNECTED: Mutex<Option<(BTreeMap<String, String>, Provider)>> = Mutex::const_new(None);

/// A connection to Daytona. Cheap to clone.
#[pyclass(frozen, module = "inspect_daytona._core")]
#[derive(Clone, Debug)]
pub(super) struct Provider {
    client: Client,
    images: provider::Images,
    deletions: provider::Deletions,
    local: Option<Arc<local::Shared>>,
}

/// Whether `environ` asks for a Daytona inside this process.
#[pyfunction]
#[expect(clippy::needless_pass_by_value, reason = "values are what Python hands over")]
pub(super) fn is_local(environ: BTreeMap<String, String>) -> bool {
    ClientOptions::is_local(|name| environ.get(name).cloned())
}

/// Connects as `environ` says, once per process and settings. Ends with a `Provider`.
#[pyfunction]
pub(super) fn connect(environ: BTreeMap<String, String>, on_done: Py<PyAny>) -> PyResult<Operation> {
    let future = async move {
        let mut connected = CONNECTED.lock().await;
        if let Some((settings, provider)) = &*connected
            && *settings == environ
        {
            return Ok(provider.clone());
        }
        let provider = make_provider(&environ).await?;
        *connected = Some((environ, provider.clone()));
        Ok(provider)
    };
    start(on_done, future, |py, provider: Provider| Ok(Py::new(py, provider)?.into_any()))
}

async fn make_provider(environ: &BTreeMap<String, String>) -> Result<Provider> {
    let lookup = |name: &str| environ.get(name).cloned();
    match ClientOptions::from_env(lookup)? {
        Environment::Daytona(options) => Ok(Provider::new(Client::new(options)?, None)),
        Environment::Local { target } => {
            let server = local::shared(environ).await?;
            let options = ClientOptions::new(server.url(), Credentials::ApiKey(server.api_key()))?;
            if let Some(target) = target {
                tracing::info!("DAYTONA_TARGET={target} is not used: a local Daytona has one region");
            }
            Ok(Provider::new(Client::new(options)?, Some(server)))
        }
    }
}

impl Provider {
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    fn new(client: Client, local: Option<Arc<local::Shared>>) -> Self {
        Self { client, images: provider::Images::default(), deletions: provider::Deletions::default(), local }
    }
}

/// Settings from their JSON. Here and now, with the GIL: files and the environment are those of the call, and no other
/// thread of Python's can change the environment while it is read.
pub(super) fn read_settings(py: Python<'_>, json: &str) -> PyResult<provider::Settings> {
    unpanicked(|| provider::Settings::from_json(json).map_err(|error| to_exception(py, &error)))
}

/// The variables that a dedicated `task_init` of a sample needs, see [`provider::Settings::task_environment`].
#[pyfunction]
pub(super) fn task_environment(py: Python<'_>, settings: &str) -> PyResult<BTreeMap<String, String>> {
    unpanicked(|| provider::Settings::task_environment(settings).map_err(|error| to_exception(py, &error)))
}

/// What `settings` (JSON) mean, see [`provider::explain()`]; variables are those of `environ`, or of this process.
#[pyfunction]
#[expect(clippy::needless_pass_by_value, reason = "values are what Python hands over")]
pub(super) fn explain(
    py: Python<'_>,
    settings: &str,
    environ: Option<BTreeMap<String, String>>,
) -> PyResult<String> {
    let variable = |name: &str| match &environ {
        Some(environ) => environ.get(name).cloned(),
        None => std::env::var(name).ok(),
    };
    provider::explain(settings, &variable).map_err(|error| to_exception(py, &error))
}

#[pymethods]
impl Provider {
    /// The API's URL.
    #[getter]
    fn api_url(&self) -> String {
        self.client.options().api_url.to_string()
    }

    /// How a Daytona inside this process isolates its sandboxes; `None` for any other.
    #[getter]
    fn isolation(&self) -> Option<String> {
        self.local.as_ref().map(|server| server.isolation_name())
    }

    /// What the isolation does not promise on this machine.
    #[getter]
    fn isolation_lost(&self) -> Vec<String> {
        self.local.as_ref().map(|server| server.isolation_lost()).unwrap_or_default()
    }

    /// Begins an eval run.
    fn begin_run(&self) -> Run {
        let (client, images) = (self.client.clone(), self.images.clone());
        let run = provider::Run::after_others(client, images, self.deletions.clone());
        Run::begin(run, self.local.is_some())
    }

    /// Checks the key, the server, and that `settings` (JSON) can be met, before anything is created.
    fn check(&self, py: Python<'_>, settings: &str, on_done: Py<PyAny>) -> PyResult<Operation> {
        let client = self.client.clone();
        let settings = read_settings(py, settings)?;
        let future = async move { settings.check(&client).await };
        start(on_done, future, |py, warnings: Vec<String>| {
            Ok(warnings.into_pyobject(py)?.into_any().unbind())
        })
    }

    /// Checks that nothing has to be built for samples of `settings` (JSON).
    fn expect_prebuilt(&self, py: Python<'_>, settings: &str, on_done: Py<PyAny>) -> PyResult<Operation> {
        let (client, images) = (self.client.clone(), self.images.clone());
        let settings = read_settings(py, settings)?;
        let future = async move { settings.expect_prebuilt(&client, &images).await };
        start(on_done, future, |py, ()| Ok(py.None()))
    }

    /// Uploads and builds what samples of `settings` (JSON) start from, once for all of them. `on_progress(line)` is
    /// called with what happens, from a thread of this module.
    fn prepare(
        &self,
        py: Python<'_>,
        settings: &str,
        on_progress: Py<PyAny>,
        on_done: Py<PyAny>,
    ) -> PyResult<Operation> {
        let (client, images) = (self.client.clone(), self.images.clone());
        let settings = read_settings(py, settings)?;
        let future = async move {
            let progress = |line: &str| tell(&on_progress, (line,));
            settings.prepare(&client, &images, &progress).await
        };
        start(on_done, future, |py, ()| Ok(py.None()))
    }

    /// Ends with the command that enters a sandbox, or a container of it, by ssh, with a fresh token.
    fn ssh_command(
        &self,
        sandbox: String,
        container: Option<String>,
        user: Option<String>,
        on_done: Py<PyAny>,
    ) -> PyResult<Operation> {
        let client = self.client.clone();
        let future = async move {
            let container = container.as_deref();
            provider::connection::ssh_command(&client, &sandbox, container, user.as_deref()).await
        };
        start(on_done, future, |py, command: String| Ok(command.into_pyobject(py)?.into_any().unbind()))
    }

    /// Sandboxes of Inspect evals: all, or the one with this id or name.
    fn find_sandboxes(&self, id_or_name: Option<String>, on_done: Py<PyAny>) -> PyResult<Operation> {
        let client = self.client.clone();
        let future = async move {
            match id_or_name {
                None => cleanup::created_by_inspect(&client).await,
                Some(id_or_name) => Ok(vec![cleanup::find(&client, &id_or_name).await?]),
            }
        };
        start(on_done, future, |py, sandboxes: Vec<SandboxRecord>| {
            let rows: Vec<_> = sandboxes.into_iter().map(row).collect();
            Ok(rows.into_pyobject(py)?.into_any().unbind())
        })
    }

    /// Deletes sandboxes by id; ends with a list of `(id, reason)` for those that could not be deleted, or with an error
    /// if the key may delete none.
    fn delete_sandboxes(&self, ids: Vec<String>, on_done: Py<PyAny>) -> PyResult<Operation> {
        let client = self.client.clone();
        let future = async move { cleanup::delete_all(&client, ids).await };
        start(on_done, future, |py, failed: Vec<(String, Error)>| {
            let rows: Vec<_> = failed.into_iter().map(|(id, error)| (id, error.to_string())).collect();
            Ok(rows.into_pyobject(py)?.into_any().unbind())
        })
    }

    fn __repr__(&self) -> String {
        format!("Provider({})", self.client.options().api_url)
    }
}

/// Calls `callback` from a thread of this module; an interpreter that shuts down is told nothing more.
pub(super) fn tell(callback: &Py<PyAny>, arguments: impl for<'a> pyo3::call::PyCallArgs<'a>) {
    let _told = gate::enter(|py| {
        if let Err(error) = callback.call1(py, arguments) {
            error.write_unraisable(py, None);
        }
    });
}

/// `(id, name, state, created, run)` of a sandbox.
fn row(sandbox: SandboxRecord) -> (String, String, &'static str, String, String) {
    let run = sandbox.labels.get(provider::names::RUN_ID).cloned().unwrap_or_default();
    (sandbox.id, sandbox.name, sandbox.state.as_str(), sandbox.created_at.unwrap_or_default(), run)
}
