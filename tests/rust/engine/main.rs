//! Sandboxes of the local engines, through the trait: real processes, real mounts, HTTP to the toolbox.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "tests"
)]

mod containers;
mod fixture;
mod isolation;
mod levels;
mod lifecycle;
mod limits;
mod nesting;
mod network;
mod process;
mod roots;
mod volumes;
