//! The control plane of local Daytona over real sockets. The engine is a fixture: each of its sandboxes is a small
//! HTTP server on a Unix socket, in this process; only [`whole`] goes all the way down.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says why it is skipped"
)]

mod account;
mod automation;
mod builds;
mod client;
mod docker;
#[path = "../shared/docker.rs"]
mod docker_base;
mod engine;
mod faults;
mod lifecycle;
mod lists;
mod nesting;
mod proxying;
mod settings;
mod snapshots;
mod storage;
mod whole;
