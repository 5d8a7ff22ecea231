//! The provider on a local Daytona: real HTTP, real processes, real files, and faults where a network has them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod files;
mod fixture;
mod leaks;
mod once;
mod round_trips;
mod sandboxes;
