//! The config layer: recorded outcomes, documentation held against the code, and inputs that nobody would write.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test by panicking")]

mod differential;
mod docker_compose;
mod documented;
mod golden;
mod models;
mod robust;
mod sources;
