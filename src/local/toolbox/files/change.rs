//! Folders, moves, deletions and permissions.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;

use super::blocking;
use crate::local::toolbox::error::file_status;
use crate::local::toolbox::query::Query;
use crate::local::toolbox::state::{Toolbox, id_of};

/// Makes a directory and its parents; one that is there already is fine.
pub(super) async fn folder(
    State(toolbox): State<Arc<Toolbox>>,
    query: Query,
) -> Result<StatusCode, StatusCode> {
    let path = toolbox.resolve(query.path("path").ok_or(StatusCode::BAD_REQUEST)?);
    let mode = match query.text("mode") {
        None => 0o755,
        Some(mode) => octal(&mode)?,
    };
    let result = DirBuilder::new().recursive(true).mode(mode & 0o777).create(path);
    result.map(|()| StatusCode::CREATED).map_err(|_| StatusCode::BAD_REQUEST)
}

/// Moves to a path that must not exist, never into a directory.
pub(super) async fn rename(
    State(toolbox): State<Arc<Toolbox>>,
    query: Query,
) -> Result<StatusCode, StatusCode> {
    let source = toolbox.resolve(query.path("source").ok_or(StatusCode::BAD_REQUEST)?);
    let destination = toolbox.resolve(query.path("destination").ok_or(StatusCode::BAD_REQUEST)?);
    fs::metadata(&source).map_err(|error| file_status(&error))?;
    match fs::metadata(&destination) {
        Ok(_) => return Err(StatusCode::CONFLICT),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(file_status(&error)),
    }
    blocking(move || match fs::rename(&source, &destination) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            copy(&source, &destination)?;
            remove(&source)
        }
        result => result,
    })
    .await?
    .map(|()| StatusCode::OK)
    .map_err(|error| file_status(&error))
}

/// Deletes. A directory, or a link to one, only with `recursive=true`.
pub(super) async fn delete(
    State(toolbox): State<Arc<Toolbox>>,
    query: Query,
) -> Result<StatusCode, StatusCode> {
    let path = toolbox.resolve(query.path("path").ok_or(StatusCode::BAD_REQUEST)?);
    let recursive = query.text("recursive").is_some_and(|value| value == "true");
    let metadata = fs::metadata(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => StatusCode::NOT_FOUND,
        _ => StatusCode::BAD_REQUEST,
    })?;
    if metadata.is_dir() && !recursive {
        return Err(StatusCode::BAD_REQUEST);
    }
    let removed = blocking(move || remove(&path)).await?;
    removed.map(|()| StatusCode::NO_CONTENT).map_err(|_| StatusCode::BAD_REQUEST)
}

/// Sets mode (without the special bits), owner and group; each only if given.
pub(super) async fn permissions(
    State(toolbox): State<Arc<Toolbox>>,
    query: Query,
) -> Result<StatusCode, StatusCode> {
    let path = toolbox.resolve(query.path("path").ok_or(StatusCode::BAD_REQUEST)?);
    let mode = query.text("mode").map(|mode| octal(&mode)).transpose()?;
    let id = |parameter: &str, database: &str| match query.text(parameter) {
        None => Ok(None),
        Some(name) => id_of(database, &name).map(Some).ok_or(StatusCode::BAD_REQUEST),
    };
    fs::metadata(&path).map_err(|error| file_status(&error))?;
    let (owner, group) = (id("owner", "/etc/passwd")?, id("group", "/etc/group")?);
    if let Some(mode) = mode {
        let permissions = Permissions::from_mode(mode & 0o777);
        fs::set_permissions(&path, permissions).map_err(|error| file_status(&error))?;
    }
    if owner.is_some() || group.is_some() {
        chown(&path, owner, group).map_err(|_| StatusCode::BAD_REQUEST)?;
    }
    Ok(StatusCode::OK)
}

fn octal(mode: &str) -> Result<u32, StatusCode> {
    u32::from_str_radix(mode, 8).map_err(|_| StatusCode::BAD_REQUEST)
}

/// Removes a file, a link, or a whole directory.
fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

/// Copies to another file system, following links, as the daemon does.
fn copy(source: &Path, destination: &Path) -> io::Result<()> {
    let metadata = fs::metadata(source)?;
    if !metadata.is_dir() {
        return fs::copy(source, destination).map(drop);
    }
    fs::create_dir(destination)?;
    for entry in fs::read_dir(source)? {
        let name = entry?.file_name();
        copy(&source.join(&name), &destination.join(&name))?;
    }
    fs::set_permissions(destination, metadata.permissions())
}
