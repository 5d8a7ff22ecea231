//! The control plane of local Daytona over real sockets. The engine is a fixture: each of its sandboxes is a small
//! HTTP server on a Unix socket, in this process.

mod account;
mod automation;
mod client;
mod engine;
mod faults;
mod lifecycle;
mod lists;
mod proxying;
mod settings;
mod snapshots;
