//! An eval run, as the provider's Python class uses it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;

use super::provider::{Provider, read_settings, tell};
use super::runtime::{Operation, runtime, start};
use super::sandbox::Sandbox;
use crate::provider;

/// Runs by id: those that Python still has, and those that have sandboxes left, so that the process's end leaves none.
static RUNS: Mutex<BTreeMap<String, provider::Run>> = Mutex::new(BTreeMap::new());

/// Finishes what a second Ctrl-C kept the eval from finishing; returns what is left.
pub(super) async fn settle_runs(limit: Duration) -> Vec<provider::Left> {
    let runs = std::mem::take(&mut *RUNS.lock().unwrap_or_else(PoisonError::into_inner));
    let settling = futures_util::future::join_all(runs.values().map(provider::Run::settle));
    let _in_time = tokio::time::timeout(limit, settling).await;
    runs.values().filter(|run| !run.is_kept()).flat_map(provider::Run::left).collect()
}

/// An eval run.
#[pyclass(frozen, module = "inspect_daytona._core")]
#[derive(Debug)]
pub(super) struct Run {
    run: provider::Run,
    local: bool,
}

impl Run {
    /// Remembers a run until it is over.
    pub(super) fn begin(run: provider::Run, local: bool) -> Self {
        RUNS.lock().unwrap_or_else(PoisonError::into_inner).insert(run.id().to_owned(), run.clone());
        Self { run, local }
    }
}

/// Nobody can create sandboxes in it any more.
impl Drop for Run {
    fn drop(&mut self) {
        if self.run.is_kept() || self.run.left().is_empty() {
            RUNS.lock().unwrap_or_else(PoisonError::into_inner).remove(self.run.id());
        }
    }
}

#[pymethods]
impl Run {
    /// The run's id, in the label `inspect_run_id`.
    #[getter]
    fn id(&self) -> &str {
        self.run.id()
    }

    /// Whether its Daytona is inside this process, and ends with it.
    #[getter]
    fn is_local(&self) -> bool {
        self.local
    }

    /// How many sandboxes were created.
    #[getter]
    fn created(&self) -> u64 {
        self.run.counts().created
    }

    /// How many sandboxes were deleted.
    #[getter]
    fn deleted(&self) -> u64 {
        self.run.counts().deleted
    }

    /// Whether `provider` made this run, or one just like it.
    fn belongs_to(&self, provider: &Provider) -> bool {
        self.run.client().is_same(provider.client())
    }

    /// A fresh name for a sandbox.
    #[staticmethod]
    fn sandbox_name(task: Option<&str>, sample: Option<&str>) -> String {
        provider::names::sandbox_name(task, sample)
    }

    /// Creates a sandbox; ends with a list with a `Sandbox` for each of its services, the default one first.
    /// `on_note(is_warning, line)` is called with what the user should know or wait for, from a thread of this module.
    fn create(
        &self,
        py: Python<'_>,
        name: String,
        settings: &str,
        on_note: Py<PyAny>,
        on_done: Py<PyAny>,
    ) -> PyResult<Operation> {
        let (run, local) = (self.run.clone(), self.local);
        let settings = read_settings(py, settings)?;
        let future = async move {
            let services = run.create_services_told(name, settings, listener(on_note)).await?;
            Ok(services.into_iter().map(|(service, inner)| Sandbox::new(service, inner, local)).collect())
        };
        start(on_done, future, |py, sandboxes: Vec<Sandbox>| {
            Ok(sandboxes.into_pyobject(py)?.into_any().unbind())
        })
    }

    /// Gives up a sandbox that may or may not exist. Never waits.
    fn abandon(&self, name: &str) -> PyResult<()> {
        let _in_runtime = runtime()?.enter();
        self.run.abandon(name);
        Ok(())
    }

    /// Ends the run; ends with a list of `(name, id, reason)` of sandboxes that are left.
    fn finish(&self, cleanup: bool, on_done: Py<PyAny>) -> PyResult<Operation> {
        let run = self.run.clone();
        let future = async move { Ok(run.finish(cleanup).await) };
        start(on_done, future, |py, left: Vec<provider::Left>| {
            Ok(left.into_iter().map(left_row).collect::<Vec<_>>().into_pyobject(py)?.into_any().unbind())
        })
    }

    /// `(name, id, reason)` of the sandboxes on the run's account now.
    fn left(&self) -> Vec<LeftRow> {
        self.run.left().into_iter().map(left_row).collect()
    }
}

type LeftRow = (String, Option<String>, String);

fn left_row(left: provider::Left) -> LeftRow {
    (left.name, left.id, left.reason)
}

fn listener(on_note: Py<PyAny>) -> provider::Listener {
    provider::Listener::new(move |note, line| tell(&on_note, (note == provider::Note::Warning, line)))
}
