//! Names, contents, replacements.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};

use super::{blocking, glob, join, open};
use crate::api::toolbox::{Match, ReplaceRequest, ReplaceResult, SearchFilesResponse};
use crate::local::toolbox::error::words;
use crate::local::toolbox::json;
use crate::local::toolbox::query::Query;
use crate::local::toolbox::state::Toolbox;

/// The longest line that is searched; a longer one ends the search of its file.
const LONGEST_LINE: u64 = 64 * 1024;
/// A NUL in this many bytes at the start makes a file binary.
const PROBE: usize = 512;

/// Paths whose base name matches a pattern.
pub(super) async fn search(
    State(toolbox): State<Arc<Toolbox>>,
    query: Query,
) -> Result<Response, StatusCode> {
    let (root, pattern) = parameters(&query)?;
    let files = blocking(move || {
        let mut files = Vec::new();
        walk(&toolbox.resolve(&root), Path::new(&root), &mut |_, shown| {
            let name = shown.file_name().unwrap_or(shown.as_os_str()).to_string_lossy();
            if glob::matches(&pattern, &name) {
                files.push(shown.to_string_lossy().into_owned());
            }
        });
        files
    })
    .await?;
    Ok(json::response(StatusCode::OK, &SearchFilesResponse { files }))
}

/// Lines that contain a text.
pub(super) async fn find(State(toolbox): State<Arc<Toolbox>>, query: Query) -> Result<Response, StatusCode> {
    let (root, pattern) = parameters(&query)?;
    let found = blocking(move || {
        let mut found = Vec::new();
        walk(&toolbox.resolve(&root), Path::new(&root), &mut |path, shown| {
            if path.is_file() {
                let pattern = pattern.as_bytes();
                // unreadable files are passed over
                let _ = find_in(path, pattern, |line, content| {
                    found.push(Match { file: shown.to_string_lossy().into_owned(), line, content });
                });
            }
        });
        found
    })
    .await?;
    Ok(json::response(StatusCode::OK, &found))
}

/// Replaces a text in files, each on its own.
pub(super) async fn replace(
    State(toolbox): State<Arc<Toolbox>>,
    body: Bytes,
) -> Result<Response, StatusCode> {
    let request: ReplaceRequest = json::from_body(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
    if request.files.is_empty() || request.pattern.is_empty() {
        return Err(StatusCode::BAD_REQUEST);
    }
    let results = blocking(move || {
        let ReplaceRequest { files, pattern, new_value } = request;
        let change = |file: String| {
            let result = replace_in(&toolbox.resolve(&file), pattern.as_bytes(), new_value.as_bytes());
            let error =
                result.err().map(|(operation, error)| format!("{operation} {file}: {}", words(&error)));
            ReplaceResult { file, success: error.is_none(), error }
        };
        files.into_iter().map(change).collect::<Vec<_>>()
    })
    .await?;
    Ok(json::response(StatusCode::OK, &results).into_response())
}

fn parameters(query: &Query) -> Result<(std::ffi::OsString, String), StatusCode> {
    query.path("path").zip(query.text("pattern")).ok_or(StatusCode::BAD_REQUEST)
}

/// Visits a path and all below it in the order of names, without following links; errors are passed over.
fn walk(path: &Path, shown: &Path, visit: &mut impl FnMut(&Path, &Path)) {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return };
    visit(path, shown);
    if !metadata.is_dir() {
        return;
    }
    let Ok(entries) = std::fs::read_dir(path) else { return };
    let mut names: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
    names.sort_unstable();
    for name in names {
        walk(&path.join(&name), &join(shown, &name), visit);
    }
}

fn find_in(path: &Path, pattern: &[u8], mut found: impl FnMut(u64, String)) -> std::io::Result<()> {
    let mut reader = BufReader::new(open(path)?);
    if reader.fill_buf()?.iter().take(PROBE).any(|byte| *byte == 0) {
        return Ok(());
    }
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)?;
        if read == 0 || (read as u64 == LONGEST_LINE && line.last() != Some(&b'\n')) {
            break;
        }
        if line.last() == Some(&b'\n') {
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
        }
        if position(&line, pattern).is_some() {
            found(number, json::text(line.clone()));
        }
    }
    Ok(())
}

fn replace_in(path: &Path, pattern: &[u8], value: &[u8]) -> Result<(), (&'static str, std::io::Error)> {
    let mut content = Vec::new();
    open(path).and_then(|mut file| file.read_to_end(&mut content)).map_err(|error| ("open", error))?;
    let mut replaced = Vec::with_capacity(content.len());
    let mut rest = content.as_slice();
    while let Some(at) = position(rest, pattern) {
        let (before, after) = rest.split_at(at);
        replaced.extend_from_slice(before);
        replaced.extend_from_slice(value);
        rest = after.get(pattern.len()..).unwrap_or_default();
    }
    replaced.extend_from_slice(rest);
    std::fs::write(path, replaced).map_err(|error| ("write", error))
}

fn position(text: &[u8], pattern: &[u8]) -> Option<usize> {
    if pattern.is_empty() {
        return Some(0);
    }
    text.windows(pattern.len()).position(|window| window == pattern)
}
