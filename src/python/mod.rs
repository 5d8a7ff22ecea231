//! The Python face: the native module `inspect_daytona._core`, and the only layer that knows pyo3.
//!
//! - [`runtime`]: the tokio runtime and operations that Python awaits
//! - [`gate`]: the way into Python for threads of this module
//! - [`errors`]: which exception an [`Error`](crate::Error) becomes
//! - [`provider`], [`run`], [`sandbox`]: connection, run and sandbox, as the provider's Python class uses them
//! - [`local`]: the embedded Daytona

mod errors;
mod gate;
mod local;
mod provider;
mod run;
mod runtime;
mod sandbox;

use pyo3::prelude::*;

/// The native module of inspect-daytona. Its interface is private to the package and may change at any time.
#[pymodule]
mod _core {
    #[pymodule_export]
    use super::local::{LocalServer, local_statistics, serve, start_local};
    #[pymodule_export]
    use super::provider::{Provider, connect, explain, is_local, task_environment};
    #[pymodule_export]
    use super::run::Run;
    #[pymodule_export]
    use super::runtime::{Operation, shutdown};
    #[pymodule_export]
    use super::sandbox::Sandbox;

    use super::{Bound, PyModule, PyModuleMethods, PyResult};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        super::gate::install_logging();
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
