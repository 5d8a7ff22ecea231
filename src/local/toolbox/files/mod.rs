//! `/files`: everything is done in this process, with its user's permissions; links are followed.
//!
//! Failures have a status and an empty body, except in the bulk routes.

mod bulk_download;
mod change;
mod download;
mod entries;
mod glob;
mod search;
mod upload;

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post};

use super::state::Toolbox;

/// The routes below `/files`.
pub(super) fn routes() -> Router<Arc<Toolbox>> {
    Router::new()
        .route("/files", get(entries::list).delete(change::delete))
        .route("/files/", get(entries::list).delete(change::delete))
        .route("/files/info", get(entries::info))
        .route("/files/folder", post(change::folder))
        .route("/files/move", post(change::rename))
        .route("/files/permissions", post(change::permissions))
        .route("/files/upload", post(upload::upload))
        .route("/files/upload-v2", post(upload::upload_v2))
        .route("/files/bulk-upload", post(upload::bulk_upload))
        .route("/files/download", get(download::download))
        .route("/files/bulk-download", post(bulk_download::bulk_download))
        .route("/files/search", get(search::search))
        .route("/files/find", get(search::find))
        .route("/files/replace", post(search::replace))
}

/// How much of a file is in memory at a time.
const CHUNK: usize = 64 * 1024;

/// The path of an entry below a directory, as Go joins them: without `.` in the directory's path.
fn join(directory: &Path, name: &OsStr) -> PathBuf {
    let parts = directory.components().filter(|part| *part != Component::CurDir);
    parts.chain([Component::Normal(name)]).collect()
}

/// Opens a file to be read. Not blocking, so that a FIFO without a writer is an empty file rather than a request
/// that hangs.
fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// Opens a file to be written, creating or emptying it. A FIFO without a reader is an error.
fn create(path: &Path) -> io::Result<File> {
    File::options().write(true).create(true).truncate(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// Runs what may take long (walks, copies) off the thread that serves everything else.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StatusCode> {
    // a panic in there is a defect, not an answer
    tokio::task::spawn_blocking(work).await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}
