//! The other end of the wire: an embedded Daytona on this machine.
//!
//! - [`spec`]: what a sandbox is to be, as the control plane tells the runner
//! - [`wire`]: what an engine and the runner say to each other
//! - [`engine`]: how sandboxes are isolated; a trait, chosen by trial (feature `local`)
//! - `gateway`: how sandboxes with a network of their own reach others (feature `local`)
//! - [`control`]: the REST API, the state machine and the toolbox proxy (feature `local`)
//! - [`runner`]: the program that makes sandboxes, exec'd once per server (feature `runner`)
//! - [`toolbox`]: the API inside a sandbox, served by its first process (feature `runner`)
//!
//! It protects the host from the accidents of an agent; it is no boundary against code that attacks the kernel.

pub mod spec;
pub mod wire;

#[cfg(feature = "local")]
pub mod control;
#[cfg(feature = "local")]
pub mod engine;
#[cfg(feature = "local")]
mod gateway;
#[cfg(feature = "runner")]
pub mod runner;
#[cfg(feature = "runner")]
pub mod toolbox;
