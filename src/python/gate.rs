//! The way into Python for threads of this module, which closes before the interpreter ends.
//!
//! A thread that enters an interpreter that is being finalized is ended in the middle of its Rust frames (Python 3.11
//! and 3.12) or hangs (later ones). Asking whether it is being finalized is not enough: it may be a moment later, while
//! the thread waits for the GIL. So the exit closes the gate, and waits until who is inside has left.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use log::{LevelFilter, Log, Metadata, Record};
use pyo3::prelude::*;

/// How long the exit waits for somebody inside, who may wait for a lock of Python's that nobody gives back.
const PATIENCE: Duration = Duration::from_secs(5);

static GATE: Gate = Gate { state: Mutex::new(State { closed: false, inside: 0 }), left: Condvar::new() };

struct Gate {
    state: Mutex<State>,
    left: Condvar,
}

struct State {
    closed: bool,
    inside: usize,
}

/// Somebody inside.
struct Visit;

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Visit {
    fn begin() -> Option<Self> {
        let mut state = GATE.state();
        if state.closed {
            return None;
        }
        state.inside += 1;
        Some(Self)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        GATE.state().inside -= 1;
        GATE.left.notify_all();
    }
}

/// Does something in Python, from any thread; not if the interpreter is about to end.
pub(super) fn enter<T>(inside: impl FnOnce(Python<'_>) -> T) -> Option<T> {
    let _visit = Visit::begin()?;
    Python::try_attach(inside)
}

/// Whether nobody may enter any more.
pub(super) fn is_closed() -> bool {
    GATE.state().closed
}

/// Lets nobody in from now on, and waits until everybody has left.
pub(super) fn close(py: Python<'_>) {
    log::set_max_level(LevelFilter::Off);
    py.detach(|| {
        let mut state = GATE.state();
        state.closed = true;
        let _in_time = GATE.left.wait_timeout_while(state, PATIENCE, |state| state.inside > 0);
    });
}

/// Hands records to Python's logging, which decides what is shown. A second call, after a re-import, changes nothing.
pub(super) fn install_logging() {
    let level = LevelFilter::Debug;
    if log::set_boxed_logger(Box::new(Logging(pyo3_log::Logger::default().filter(level)))).is_ok() {
        log::set_max_level(level);
    }
}

struct Logging(pyo3_log::Logger);

impl Log for Logging {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if let Some(_visit) = Visit::begin() {
            self.0.log(record);
        }
    }

    fn flush(&self) {}
}
