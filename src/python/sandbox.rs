//! A running sandbox, as the provider's Python class uses it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use super::runtime::{Operation, start};
use crate::error::{Error, ErrorKind, Result};
use crate::provider;

/// A running sandbox.
#[pyclass(frozen, module = "inspect_daytona._core")]
#[derive(Debug)]
pub(super) struct Sandbox {
    service: String,
    inner: provider::Sandbox,
    local: bool,
}

impl Sandbox {
    pub(super) fn new(service: String, inner: provider::Sandbox, local: bool) -> Self {
        Self { service, inner, local }
    }
}

#[pymethods]
impl Sandbox {
    /// The service's name in a compose file; `default` where there is none.
    #[getter]
    fn service(&self) -> &str {
        &self.service
    }

    /// The sandbox's name.
    #[getter]
    fn name(&self) -> &str {
        self.inner.name()
    }

    /// The sandbox's id.
    #[getter]
    fn id(&self) -> &str {
        self.inner.id()
    }

    /// Whether this run has deleted it, or is about to.
    #[getter]
    fn is_deleted(&self) -> bool {
        self.inner.is_deleted()
    }

    /// A shell command that opens a shell in the sandbox, or in the container that this is, as `user`; `None` where there is
    /// no way in from outside.
    fn connection_command(&self, user: Option<&str>) -> Option<String> {
        (!self.local).then(|| self.inner.shell_command(user))
    }

    /// Runs a command; ends with `(returncode, stdout, stderr, timed_out)`.
    #[expect(clippy::too_many_arguments, reason = "they are Inspect's, in its order")]
    fn exec(
        &self,
        argv: Vec<String>,
        input: Option<PyBackedBytes>,
        cwd: Option<String>,
        env: BTreeMap<String, String>,
        user: Option<String>,
        timeout: Option<f64>,
        output_limit: u64,
        on_done: Py<PyAny>,
    ) -> PyResult<Operation> {
        let sandbox = self.inner.clone();
        let timeout = timeout.map(duration).transpose();
        let future = async move {
            let input = input.map(Bytes::from_owner);
            let timeout = timeout?;
            sandbox.exec(provider::Command { argv, input, cwd, env, user, timeout, output_limit }).await
        };
        start(on_done, future, |py, outcome: provider::Outcome| {
            let values = (outcome.returncode, outcome.stdout, outcome.stderr, outcome.timed_out);
            Ok(values.into_pyobject(py)?.into_any().unbind())
        })
    }

    /// Writes a file.
    fn write_file(&self, path: String, contents: PyBackedBytes, on_done: Py<PyAny>) -> PyResult<Operation> {
        let sandbox = self.inner.clone();
        let future = async move { sandbox.write_file(&path, Bytes::from_owner(contents)).await };
        start(on_done, future, |py, ()| Ok(py.None()))
    }

    /// Reads a file of at most `limit` bytes; ends with `bytes`.
    fn read_file(&self, path: String, limit: u64, on_done: Py<PyAny>) -> PyResult<Operation> {
        let sandbox = self.inner.clone();
        let future = async move { sandbox.read_file(&path, limit).await };
        start(on_done, future, |py, bytes: Bytes| Ok(PyBytes::new(py, &bytes).into_any().unbind()))
    }

    /// Deletes the sandbox.
    fn delete(&self, on_done: Py<PyAny>) -> PyResult<Operation> {
        let sandbox = self.inner.clone();
        let future = async move { sandbox.delete().await };
        start(on_done, future, |py, ()| Ok(py.None()))
    }
}

/// A timeout in seconds.
fn duration(seconds: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(|_| {
        Error::new(ErrorKind::InvalidArgument, format!("a timeout of {seconds} seconds is not possible"))
    })
}
