//! The program that runs one command exactly once, inside a sandbox.
//!
//! It is a *shim* in containerd's sense: the process that outlives whoever asked for a command, holds the command's
//! streams and exit status, and hands them over until they are collected. It is uploaded into a sandbox and invoked
//! by the scripts of [`protocol`]. In reading order:
//!
//! - `program`: the command line; `run`: one call from its reading to its answer; `sudo`: the detour for other users;
//! - `state`: claims, results and tombstones in the file system, which is what makes a command run once;
//! - `supervisor`: the detached process behind one command, with `launch`, `user`, `environment` (the start),
//!   `stream`, `waiters` (the middle) and `tree` (the end);
//! - `relay`, `link` and `serve`: the way of a call into a container, whose resident shim answers it; `engine` starts that;
//! - `system`: the system calls that std lacks.

pub mod protocol;

#[cfg(feature = "shim")]
mod engine;
#[cfg(feature = "shim")]
mod environment;
#[cfg(feature = "shim")]
mod launch;
#[cfg(feature = "shim")]
mod link;
#[cfg(feature = "shim")]
mod program;
#[cfg(feature = "shim")]
mod read;
#[cfg(feature = "shim")]
mod relay;
#[cfg(feature = "shim")]
mod run;
#[cfg(feature = "shim")]
mod serve;
#[cfg(feature = "shim")]
mod state;
#[cfg(feature = "shim")]
mod stream;
#[cfg(feature = "shim")]
mod sudo;
#[cfg(feature = "shim")]
mod supervisor;
#[cfg(feature = "shim")]
mod system;
#[cfg(feature = "shim")]
mod tree;
#[cfg(feature = "shim")]
mod user;
#[cfg(feature = "shim")]
mod waiters;
#[cfg(feature = "shim")]
mod write;

#[cfg(feature = "shim")]
pub use program::main;
