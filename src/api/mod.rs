//! The wire: Daytona's REST and toolbox API as serde types and routes, without I/O and without policy.
//!
//! Both ends use these types, so they cannot drift apart: [`crate::client`] as Daytona's customer and
//! [`crate::local`] as the embedded Daytona. Facts are those of Daytona's server 0.190 and the OpenAPI documents of
//! 0.205; fields that only one of them knows are optional when read.
//!
//! - [`sandbox`]: sandboxes, their states, create requests and lists
//! - [`snapshot`]: snapshots and builds
//! - [`volume`]: volumes to mount
//! - [`toolbox`]: what runs inside a sandbox: processes, files, ports
//! - [`object_storage`]: where the files of image builds are uploaded
//! - [`error`]: error bodies of all services
//! - [`account`]: configuration, API keys and regions
//! - [`headers`]: names of the headers that mean something
//! - [`routes`]: requests as plain values

pub mod account;
pub mod error;
pub mod headers;
mod lenient;
pub mod object_storage;
pub mod routes;
pub mod sandbox;
pub mod snapshot;
pub mod toolbox;
pub mod volume;
