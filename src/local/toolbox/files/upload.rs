//! Uploads: bodies go to the file as they arrive, so memory does not grow with them. None is atomic.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{FromRequest as _, Multipart, Request, State};
use axum::http::{StatusCode, header};
use axum::response::Response;
use futures_util::StreamExt as _;

use super::create;
use crate::api::toolbox::{BulkUploadResult, UploadedFile, UploadedItem};
use crate::local::toolbox::error::words;
use crate::local::toolbox::json;
use crate::local::toolbox::query::Query;
use crate::local::toolbox::state::Toolbox;

/// One file in a form's part `file`; every failure is a 400.
pub(super) async fn upload(
    State(toolbox): State<Arc<Toolbox>>,
    query: Query,
    request: Request,
) -> Result<StatusCode, StatusCode> {
    let path = query.path("path").ok_or(StatusCode::BAD_REQUEST)?;
    form_file(&toolbox, &path, 0o750, request).await.map_err(|()| StatusCode::BAD_REQUEST)?;
    Ok(StatusCode::OK)
}

/// One file as a form or as the raw body.
pub(super) async fn upload_v2(
    State(toolbox): State<Arc<Toolbox>>,
    query: Query,
    request: Request,
) -> Result<Response, StatusCode> {
    let path = query.path("path").ok_or(StatusCode::BAD_REQUEST)?;
    let kind = request.headers().get(header::CONTENT_TYPE);
    if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"multipart/form-data")) {
        form_file(&toolbox, &path, 0o755, request).await.map_err(|()| StatusCode::BAD_REQUEST)?;
    } else {
        raw_file(&toolbox, &path, request.into_body()).await.map_err(|()| StatusCode::BAD_REQUEST)?;
    }
    let name = Path::new(&path).file_name().unwrap_or(&path).to_string_lossy().into_owned();
    let path = path.to_string_lossy().into_owned();
    Ok(json::response(StatusCode::OK, &UploadedItem { name, path, kind: "file".to_owned() }))
}

async fn raw_file(toolbox: &Toolbox, path: &OsString, body: Body) -> Result<(), ()> {
    let mut target = Target::open(toolbox, path, 0o755);
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        target.write(&chunk.map_err(drop)?);
    }
    target.finish()
}

async fn form_file(toolbox: &Toolbox, path: &OsString, parents: u32, request: Request) -> Result<(), ()> {
    let mut form = Multipart::from_request(request, &()).await.map_err(drop)?;
    let mut result = Err(());
    while let Some(mut field) = form.next_field().await.map_err(drop)? {
        if field.name() == Some("file") && result.is_err() {
            let mut target = Target::open(toolbox, path, parents);
            while let Some(chunk) = field.chunk().await.map_err(drop)? {
                target.write(&chunk);
            }
            result = target.finish();
        }
    }
    result
}

/// Where an upload goes. A body is read to its end even if it cannot be written, since a client that is still
/// sending would see a broken connection instead of the answer.
struct Target(Option<File>);

impl Target {
    fn open(toolbox: &Toolbox, path: &OsString, parents: u32) -> Self {
        let path = toolbox.resolve(path);
        Self(make_parents(&path, parents).and_then(|()| create(&path)).ok())
    }

    fn write(&mut self, chunk: &[u8]) {
        if self.0.as_mut().is_some_and(|file| file.write_all(chunk).is_err()) {
            self.0 = None;
        }
    }

    fn finish(self) -> Result<(), ()> {
        self.0.map(drop).ok_or(())
    }
}

/// Many files: parts `files[i].path` and `files[i].file`, in this order for each i. Files fail one by one; the whole
/// body is read before the answer.
pub(super) async fn bulk_upload(
    State(toolbox): State<Arc<Toolbox>>,
    request: Request,
) -> Result<Response, StatusCode> {
    let mut form = Multipart::from_request(request, &()).await.map_err(|_| StatusCode::BAD_REQUEST)?;
    let mut destinations = HashMap::new();
    let mut result = BulkUploadResult::default();
    loop {
        match next_part(&toolbox, &mut form, &mut destinations).await {
            Ok(None) => break,
            Ok(Some(file)) => result.files.extend(file),
            Err(PartFailure::File(message)) => result.errors.push(message),
            Err(PartFailure::Form(message)) => {
                result.errors.push(message);
                break;
            }
        }
    }
    let status = if result.errors.is_empty() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    Ok(json::response(status, &result))
}

/// Why a part came to nothing.
enum PartFailure {
    /// Its file could not be written; the next parts may do better.
    File(String),
    /// The body is cut or malformed; nothing follows.
    Form(String),
}

impl PartFailure {
    fn form(error: &MultipartError) -> Self {
        Self::Form(format!("reading part: {}", error.body_text()))
    }
}

/// Takes the next part: `None` at the end, `Some(None)` for a part that is no file.
async fn next_part(
    toolbox: &Toolbox,
    form: &mut Multipart,
    destinations: &mut HashMap<u32, OsString>,
) -> Result<Option<Option<UploadedFile>>, PartFailure> {
    let Some(field) = form.next_field().await.map_err(|error| PartFailure::form(&error))? else {
        return Ok(None);
    };
    match field.name().and_then(part) {
        // the next part is reached by reading over this one
        None => Ok(Some(None)),
        Some((index, Part::Path)) => {
            let path = field.bytes().await.map_err(|error| PartFailure::form(&error))?;
            destinations.insert(index, OsString::from_vec(path.trim_ascii().to_vec()));
            Ok(Some(None))
        }
        Some((index, Part::File)) => {
            let missing = || PartFailure::File(format!("file[{index}]: missing .path metadata"));
            let destination = destinations.get(&index).ok_or_else(missing)?;
            write_part(toolbox, destination, field).await.map(|file| Some(Some(file)))
        }
    }
}

enum Part {
    Path,
    File,
}

/// Reads `files[3].path`.
fn part(name: &str) -> Option<(u32, Part)> {
    let (index, kind) = name.strip_prefix("files[")?.split_once("].")?;
    let kind = match kind {
        "path" => Part::Path,
        "file" => Part::File,
        _ => return None,
    };
    Some((index.parse().ok()?, kind))
}

/// Writes a part to its destination; the error says which step failed, in the daemon's words.
async fn write_part(
    toolbox: &Toolbox,
    destination: &OsString,
    mut field: Field<'_>,
) -> Result<UploadedFile, PartFailure> {
    let shown = destination.display();
    let failure = |step: String| PartFailure::File(format!("{shown}: {step}"));
    if destination.is_empty() {
        return Err(failure("create: open : no such file or directory".to_owned()));
    }
    let path = toolbox.resolve(destination);
    make_parents(&path, 0o755)
        .map_err(|error| failure(format!("mkdir: {}", mkdir_failure(toolbox, destination, &error))))?;
    let mut file =
        create(&path).map_err(|error| failure(format!("create: open {shown}: {}", words(&error))))?;
    let mut bytes = 0;
    while let Some(chunk) = field.chunk().await.map_err(|error| PartFailure::form(&error))? {
        file.write_all(&chunk)
            .map_err(|error| failure(format!("write: write {shown}: {}", words(&error))))?;
        bytes += chunk.len() as u64;
    }
    Ok(UploadedFile { path: shown.to_string(), bytes: bytes.cast_signed() })
}

/// Names the parent that could not be made: the first that is no directory.
fn mkdir_failure(toolbox: &Toolbox, destination: &OsString, error: &io::Error) -> String {
    let parents: Vec<_> = Path::new(destination).ancestors().skip(1).collect();
    let culprit = parents.into_iter().rev().find(|parent| !toolbox.resolve(parent).is_dir());
    let Some(culprit) = culprit else { return words(error) };
    let reason = if toolbox.resolve(culprit).exists() { "not a directory".to_owned() } else { words(error) };
    format!("mkdir {}: {reason}", culprit.display())
}

fn make_parents(path: &Path, mode: u32) -> io::Result<()> {
    match path.parent() {
        Some(parent) => DirBuilder::new().recursive(true).mode(mode).create(parent),
        None => Ok(()),
    }
}
