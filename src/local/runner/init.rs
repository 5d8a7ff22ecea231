//! The first process of a sandbox after its exec: a fresh image of this program, which serves the toolbox.
//!
//! It starts with the sandbox's user, working directory and environment, and inherits two file descriptors.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use super::system;
use crate::local::toolbox::{self, Options};
use crate::local::wire::{Context, Failure};

const LISTENER: i32 = 3;
const STATUS: i32 = 4;

/// Serves until the process is killed.
pub(super) fn run(user: Option<OsString>, entrypoint: Vec<OsString>) -> i32 {
    let listener = UnixListener::from(system::inherited(LISTENER));
    let status = system::inherited(STATUS);
    match serve(user, entrypoint, listener, &status) {
        Ok(()) => 0,
        Err(failure) => {
            let text = serde_json::to_vec(&failure).unwrap_or_default();
            let _ = File::from(status).write_all(&text);
            1
        }
    }
}

fn serve(
    user: Option<OsString>,
    entrypoint: Vec<OsString>,
    listener: UnixListener,
    status: &OwnedFd,
) -> Result<(), Failure> {
    // the name under which the process is listed would be that of a memory file
    nix::sys::prctl::set_name(c"toolbox").step(|| "name the process".into())?;
    // commands of the same user must not read or change what reports on them
    system::forbid_tracing().step(|| "become untraceable".into())?;
    let text = |value: OsString| value.to_string_lossy().into_owned();
    let options = Options {
        user: user.map(text).unwrap_or_default(),
        work_dir: std::env::current_dir().step(|| "find the working directory".into())?,
        env: std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect(),
        entrypoint: entrypoint.into_iter().map(text).collect(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .step(|| "start the toolbox's runtime".into())?;
    let mut ready = File::from(status.try_clone().step(|| "copy a file descriptor".into())?);
    runtime.block_on(async {
        // the listener accepts already, so that whoever is told may connect
        ready.write_all(b"\n").step(|| "tell that the toolbox serves".into())?;
        drop(ready);
        toolbox::serve(listener, options).await.step(|| "serve the toolbox".into())
    })
}
