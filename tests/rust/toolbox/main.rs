//! The toolbox on a real socket: statuses, bodies and processes, as a client of Daytona's daemon sees them.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and so do its tools"
)]

mod bulk;
mod execute;
mod files;
mod ports;
mod pty;
mod reaping;
mod server;
mod session;
mod socket;
