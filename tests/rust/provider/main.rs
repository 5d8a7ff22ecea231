//! The provider on a local Daytona: real HTTP, real processes, real files, and faults where a network has them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says why it is skipped"
)]

mod builds;
mod compose;
#[path = "../shared/docker.rs"]
#[allow(
    dead_code,
    clippy::print_stderr,
    reason = "shared with the tests of the control plane; a skipped test says why"
)]
mod docker_base;
mod files;
mod fixture;
mod images;
mod leaks;
mod network;
mod once;
mod patience;
mod round_trips;
mod sandboxes;
#[path = "../client/server.rs"]
#[allow(dead_code, reason = "shared with the tests of the client, which use all of it")]
mod scripted;
mod service;
