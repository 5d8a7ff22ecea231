//! `GET /files` and `GET /files/info`.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::{blocking, join};
use crate::api::toolbox::FileInfo;
use crate::local::toolbox::error::file_status;
use crate::local::toolbox::json;
use crate::local::toolbox::query::Query;
use crate::local::toolbox::state::Toolbox;
use crate::local::toolbox::time::Timestamp;

pub(super) async fn info(State(toolbox): State<Arc<Toolbox>>, query: Query) -> Result<Response, StatusCode> {
    let given = query.path("path").ok_or(StatusCode::BAD_REQUEST)?;
    let path = toolbox.resolve(&given);
    let metadata = std::fs::metadata(&path).map_err(|error| file_status(&error))?;
    let name = Path::new(&given)
        .file_name()
        .map_or_else(|| given.to_string_lossy().into_owned(), |name| name.to_string_lossy().into_owned());
    Ok(json::response(StatusCode::OK, &describe(name, &metadata)))
}

/// Lists a directory, `depth` levels deep; with `depth`, entries have their path.
pub(super) async fn list(State(toolbox): State<Arc<Toolbox>>, query: Query) -> Result<Response, StatusCode> {
    let depth = match query.text("depth") {
        None => None,
        Some(depth) => match depth.parse::<u32>() {
            Ok(depth) if depth > 0 => Some(depth),
            _ => return Err(StatusCode::BAD_REQUEST),
        },
    };
    let given = query.path("path").unwrap_or_else(|| ".".into());
    let path = toolbox.resolve(&given);
    let found = blocking(move || {
        let mut found = Vec::new();
        read_directory(&path, Path::new(&given), depth.unwrap_or(1), depth.is_some(), &mut found)?;
        Ok(found)
    })
    .await?
    .map_err(|error: io::Error| file_status(&error))?;
    Ok(json::response(StatusCode::OK, &found))
}

/// Adds the entries of a directory in the order of their names; those that cannot be looked at are left out.
fn read_directory(
    path: &Path,
    shown: &Path,
    depth: u32,
    with_path: bool,
    found: &mut Vec<FileInfo>,
) -> io::Result<()> {
    let mut names: Vec<_> =
        std::fs::read_dir(path)?.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
    names.sort_unstable();
    for name in names {
        let entry = path.join(&name);
        let Ok(metadata) = std::fs::metadata(&entry) else { continue };
        let shown = join(shown, &name);
        let mut info = describe(name.to_string_lossy().into_owned(), &metadata);
        if with_path {
            info.path = Some(shown.to_string_lossy().into_owned());
        }
        found.push(info);
        // links to directories are not entered, since they may form a circle
        if depth > 1 && metadata.is_dir() && !entry.is_symlink() {
            // an unreadable directory is listed without its entries
            let _ = read_directory(&entry, &shown, depth - 1, with_path, found);
        }
    }
    Ok(())
}

fn describe(name: String, metadata: &Metadata) -> FileInfo {
    let modified = Timestamp {
        seconds: metadata.mtime(),
        nanoseconds: u32::try_from(metadata.mtime_nsec()).unwrap_or_default(),
    };
    FileInfo {
        name,
        size: metadata.size().cast_signed(),
        mode: mode(metadata.mode()),
        mod_time: modified.go(),
        modified_at: Some(modified.rfc3339()),
        is_dir: metadata.is_dir(),
        owner: metadata.uid().to_string(),
        group: metadata.gid().to_string(),
        permissions: format!("{:04o}", metadata.mode() & 0o777),
        path: None,
    }
}

/// A mode as Go prints it: letters of the kind and the special bits, or `-`, then nine permissions.
fn mode(mode: u32) -> String {
    let mut text = String::new();
    text.push_str(match mode & libc::S_IFMT {
        libc::S_IFDIR => "d",
        libc::S_IFLNK => "L",
        libc::S_IFBLK | libc::S_IFCHR => "D",
        libc::S_IFIFO => "p",
        libc::S_IFSOCK => "S",
        _ => "",
    });
    for (bit, letter) in [(libc::S_ISUID, 'u'), (libc::S_ISGID, 'g')] {
        if mode & bit != 0 {
            text.push(letter);
        }
    }
    if mode & libc::S_IFMT == libc::S_IFCHR {
        text.push('c');
    }
    if mode & libc::S_ISVTX != 0 {
        text.push('t');
    }
    if text.is_empty() {
        text.push('-');
    }
    for (shift, letter) in (0..9).rev().zip("rwxrwxrwx".chars()) {
        text.push(if mode >> shift & 1 == 1 { letter } else { '-' });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::mode;

    #[test]
    fn modes_are_printed_as_in_go() {
        assert_eq!(mode(0o100_644), "-rw-r--r--");
        assert_eq!(mode(0o041_777), "dtrwxrwxrwx");
        assert_eq!(mode(0o104_755), "urwxr-xr-x");
        assert_eq!(mode(0o020_666), "Dcrw-rw-rw-");
    }
}
