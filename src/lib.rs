//! Runs Inspect AI evals in Daytona sandboxes, in the cloud or on a local Daytona.
//!
//! | layer | what it is | may use |
//! |---|---|---|
//! | [`error`] | the one error type | nothing |
//! | `api` | the wire: serde types and routes, no I/O | `error` |
//! | `config` | what the user wrote, as a typed plan; pure | `error` |
//! | `client` | how we talk: one HTTP client, one retry rule | `api` |
//! | `provider` | what an eval needs: names, lifecycle, exec, files | `client`, `config`, `shim::protocol` |
//! | `local` | an embedded Daytona: control plane, engines, toolbox | `api` |
//! | `shim` | the program that runs one command exactly once, inside a sandbox | nothing |
//! | `python` | the Python face | `provider`, `local` |
//!
//! Each layer is a cargo feature of the same name, so a wrong import does not compile when layers are built one by
//! one (`make check`).

pub mod error;

#[cfg(feature = "api")]
pub mod api;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "config")]
pub mod config;
#[cfg(any(feature = "local", feature = "runner"))]
pub mod local;
#[cfg(feature = "provider")]
pub mod provider;
#[cfg(feature = "python")]
mod python;
#[cfg(feature = "shim-protocol")]
pub mod shim;

pub use error::{Error, ErrorKind, Result, Status};
