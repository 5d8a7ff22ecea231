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
use super::gate;
use crate::error::{Error, ErrorKind, Result};

/// The process that the runtime was started in: threads do not survive a fork.
static OWNER: OnceLock<u32> = OnceLock::new();
static FINISHED: OnceLock<Sender<Finished>> = OnceLock::new();

/// Enough for thousands of requests, and little enough for programs that go through all possible descriptors.
const OPEN_FILES: u64 = 65_536;

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
        raise_open_files();
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

/// Raises the number of open files as far as this process may: every command under way has a connection.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let wanted = hard.min(OPEN_FILES);
        if soft < wanted {
            // it was enough until now; a request that has none left says so
            let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard);
        }
    }
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
    if gate::is_closed() {
        return Err(PyRuntimeError::new_err("inspect-daytona has ended with this process's exit handlers"));
    }
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
        let entered = gate::enter(|py| {
            deliver(py, first);
            while let Ok(next) = receiver.try_recv() {
                deliver(py, next);
            }
        });
        if entered.is_none() {
            return;
        }
    }
}

/// Calls back, whatever happens: a defect must not leave this operation's caller, and those after it, waiting for ever.
fn deliver(py: Python<'_>, finished: Finished) {
    let Finished { callback, result } = finished;
    let outcome = unpanicked(|| match result {
        Ok(convert) => convert(py),
        Err(error) => {
            let exception = to_exception(py, &error);
            // made here and now, since its class is looked up in Python, which may fail as well
            exception.value(py);
            Err(exception)
        }
    });
    let called = unpanicked(|| match outcome {
        Ok(value) => callback.call1(py, (value, py.None())),
        Err(error) => callback.call1(py, (py.None(), error.into_value(py))),
    });
    if let Err(error) = called {
        error.write_unraisable(py, None);
    }
}

/// What `work` returns, or an error in place of its panic, which Python's `except Exception` would not catch.
pub(super) fn unpanicked<T>(work: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(PyRuntimeError::new_err("a result of inspect-daytona was lost to a panic; please report it"))
    })
}

/// Finishes what still runs in the background, then the embedded Daytona with every sandbox in it. Waits at most
/// `seconds` for each. Returns `(name, id)` of sandboxes that may be left. Called when Python exits; from then on no thread
/// of this module enters Python, and no operation can be started.
#[pyfunction]
pub(super) fn shutdown(py: Python<'_>, seconds: f64) -> Vec<(String, Option<String>)> {
    if OWNER.get() != Some(&std::process::id()) {
        return Vec::new();
    }
    let limit = std::time::Duration::from_secs_f64(seconds.clamp(0.0, 600.0));
    let left = py.detach(|| {
        pyo3_async_runtimes::tokio::get_runtime().block_on(async {
            let left = super::run::settle_runs(limit).await;
            let _in_time = tokio::time::timeout(limit, super::local::shutdown_all()).await;
            left.into_iter().map(|left| (left.name, left.id)).collect()
        })
    });
    gate::close(py);
    left
}
