//! Operations that Python awaits, on a tokio runtime that outlives every event loop.
//!
//! `pyo3-async-runtimes` owns the runtime. Its own future conversion knows asyncio alone, so an operation instead calls
//! back once, from a thread of its own that enters Python for as many finished operations as there are; the Python
//! side (`_bridge.py`) wakes the waiting task of whichever event loop.

use std::panic::AssertUnwindSafe;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, channel};

use futures_util::FutureExt;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use tokio::runtime::Runtime;
use tokio::task::AbortHandle;

use super::errors::to_exception;
use crate::error::{Error, ErrorKind, Result};

/// The process that the runtime was started in: threads do not survive a fork.
static OWNER: OnceLock<u32> = OnceLock::new();
static FINISHED: OnceLock<Sender<Finished>> = OnceLock::new();

/// Turns a result into its Python value, with the GIL.
type Convert = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

/// An operation's end, on its way to Python.
struct Finished {
    callback: Py<PyAny>,
    result: Result<Convert>,
}

/// The runtime, started at first use.
///
/// # Errors
///
/// `RuntimeError` in a process that was forked after that.
pub(super) fn runtime() -> PyResult<&'static Runtime> {
    let process = std::process::id();
    let owner = *OWNER.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.enable_all().worker_threads(2).thread_name("inspect-daytona");
        pyo3_async_runtimes::tokio::init(builder);
        process
    });
    if owner != process {
        return Err(PyRuntimeError::new_err(format!(
            "inspect-daytona was used in process {owner} and cannot go on in its fork {process}; use the \"spawn\" start \
             method, or use it in one of the two only"
        )));
    }
    Ok(pyo3_async_runtimes::tokio::get_runtime())
}

/// An operation under way.
#[pyclass(frozen, module = "inspect_daytona._core")]
#[derive(Debug)]
pub(super) struct Operation(AbortHandle);

#[pymethods]
impl Operation {
    /// Ends the operation if it still runs; its compensation goes on in the background. Never blocks.
    fn abort(&self) {
        self.0.abort();
    }
}

/// Starts `future`; `callback(value, None)` or `callback(None, exception)` is called once when it ends, from a thread
/// of the native module. Not called after an abort.
pub(super) fn start<T, F, C>(callback: Py<PyAny>, future: F, convert: C) -> PyResult<Operation>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
    C: FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
{
    let runtime = runtime()?;
    let finished = finished_channel()?;
    let task = runtime.spawn(async move {
        // a defect must fail the call, not leave its caller waiting for ever
        let result = AssertUnwindSafe(future).catch_unwind().await.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Unexpected,
                "an operation of inspect-daytona panicked; please report it",
            ))
        });
        let result = result.map(|value| -> Convert { Box::new(move |py| convert(py, value)) });
        // the receiver lives as long as the process
        let _sent = finished.send(Finished { callback, result });
    });
    Ok(Operation(task.abort_handle()))
}

/// The way to the thread that calls back.
fn finished_channel() -> PyResult<Sender<Finished>> {
    if let Some(sender) = FINISHED.get() {
        return Ok(sender.clone());
    }
    let (sender, receiver) = channel();
    std::thread::Builder::new()
        .name("inspect-daytona-callbacks".to_owned())
        .spawn(move || call_back(&receiver))
        .map_err(|error| PyRuntimeError::new_err(format!("cannot start a thread: {error}")))?;
    Ok(FINISHED.get_or_init(|| sender).clone())
}

/// Hands finished operations to Python until the process ends, entering it once for all that wait.
fn call_back(receiver: &Receiver<Finished>) {
    while let Ok(first) = receiver.recv() {
        // an interpreter that shuts down takes no more callbacks, and waits for none
        let attached = Python::try_attach(|py| {
            deliver(py, first);
            while let Ok(next) = receiver.try_recv() {
                deliver(py, next);
            }
        });
        if attached.is_none() {
            return;
        }
    }
}

fn deliver(py: Python<'_>, finished: Finished) {
    let outcome = match finished.result {
        Ok(convert) => convert(py),
        Err(error) => Err(to_exception(py, &error)),
    };
    let called = match outcome {
        Ok(value) => finished.callback.call1(py, (value, py.None())),
        Err(error) => finished.callback.call1(py, (py.None(), error.into_value(py))),
    };
    if let Err(error) = called {
        error.write_unraisable(py, None);
    }
}

/// Finishes what still runs in the background, then the embedded Daytona with every sandbox in it. Waits at most
/// `seconds`. Returns `(name, id)` of sandboxes that may be left. Called when Python exits.
#[pyfunction]
pub(super) fn shutdown(py: Python<'_>, seconds: f64) -> Vec<(String, Option<String>)> {
    if OWNER.get() != Some(&std::process::id()) {
        return Vec::new();
    }
    let limit = std::time::Duration::from_secs_f64(seconds.clamp(0.0, 600.0));
    py.detach(|| {
        pyo3_async_runtimes::tokio::get_runtime().block_on(async {
            let left = super::provider::settle_runs(limit).await;
            let _in_time = tokio::time::timeout(limit, super::local::shutdown_all()).await;
            left.into_iter().map(|left| (left.name, left.id)).collect()
        })
    })
}
