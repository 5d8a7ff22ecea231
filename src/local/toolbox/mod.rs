//! The toolbox: the HTTP API inside each sandbox, served by its first process, as Daytona's daemon does.
//!
//! Wire behaviour is that of daemon 0.190 (statuses, shapes, empty error bodies), with the routes that newer SDKs
//! need. Everything runs as the user and with the permissions of this process: there is no authentication here,
//! the proxy in front has it.
//!
//! - `execute` and `code_run`: one command, one answer
//! - `session`: a long-lived shell that runs commands one after another
//! - `pty`: terminals over websockets
//! - `files`: upload, download, list, change
//! - `proxy` and `info`: ports, directories, version
//! - `reaper`: every child of this process is started and waited for there

mod code_run;
mod error;
mod execute;
mod files;
mod info;
mod json;
mod limits;
mod processes;
mod proxy;
mod pty;
mod query;
mod random;
mod reaper;
mod router;
mod session;
mod settled;
mod shell;
mod spawn;
mod state;
mod time;
mod websocket;

use std::io;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

/// What a toolbox is told when it starts.
#[derive(Clone, Debug)]
pub struct Options {
    /// The user that this process runs as; a name of `/etc/passwd` or a numeric id.
    pub user: String,
    /// Where relative paths begin and commands start. Absolute.
    pub work_dir: PathBuf,
    /// The whole environment of commands; of this process's own, nothing is passed on. `HOME` and `PATH` are
    /// filled in where absent.
    pub env: Vec<(String, String)>,
    /// What is started beside the toolbox, in the session `entrypoint`; nothing where empty.
    pub entrypoint: Vec<String>,
    /// What `GET /version` says, with a leading `v`.
    pub version: String,
}

/// Serves the toolbox on `listener` until the process ends.
///
/// Where this process is a pid namespace's first, or a child subreaper, it reaps every orphan as well: it must then
/// be the only one in the process that starts children.
///
/// # Errors
///
/// The operating system's, where the listener or the signal handler cannot be set up.
pub async fn serve(listener: UnixListener, options: Options) -> io::Result<()> {
    limits::raise_open_files();
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let app = app(options)?;
    axum::serve(listener, app).await
}

/// The toolbox's routes, without a socket. To be called inside a tokio runtime, which gets the reaper's task.
///
/// # Errors
///
/// The operating system's, where the signal handler cannot be set up.
pub fn app(options: Options) -> io::Result<axum::Router> {
    let entrypoint = options.entrypoint.clone();
    let toolbox = state::Toolbox::new(options)?;
    session::run_entrypoint(&toolbox, &entrypoint);
    Ok(router::routes(toolbox))
}
