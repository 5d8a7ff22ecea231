//! `POST /files/bulk-download`: many files in one multipart answer, each with its own error.

use std::convert::Infallible;
use std::fs::File;
use std::future::ready;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::vec::IntoIter;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::{StreamExt as _, stream};
use serde_json::json;

use super::download::{file_name, open_file, read_chunk};
use crate::api::error::ErrorBody;
use crate::api::toolbox::FilesDownloadRequest;
use crate::local::toolbox::state::Toolbox;
use crate::local::toolbox::{json, time};

/// Between the parts; a missing closing one is how a reader learns that the answer was cut.
const BOUNDARY: &str = "DAYTONA-FILE-BOUNDARY";

pub(super) async fn bulk_download(State(toolbox): State<Arc<Toolbox>>, body: Bytes) -> Response {
    let paths = match json::from_body::<FilesDownloadRequest>(&body) {
        Ok(request) if !request.paths.is_empty() => request.paths,
        _ => {
            let error = "request body must be {\"paths\": [ ... ]} and non-empty";
            return json::response(StatusCode::BAD_REQUEST, &json!({ "error": error }));
        }
    };
    let parts = Parts { toolbox, paths: paths.into_iter(), state: Next::Part { first: true } };
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    (
        [(header::CONTENT_TYPE, kind)],
        Body::from_stream(stream::unfold(parts, |parts| ready(parts.next())).map(Ok::<_, Infallible>)),
    )
        .into_response()
}

/// What is still to be sent.
struct Parts {
    toolbox: Arc<Toolbox>,
    paths: IntoIter<String>,
    state: Next,
}

enum Next {
    Part { first: bool },
    Content(File),
    Nothing,
}

impl Parts {
    fn next(mut self) -> Option<(Bytes, Self)> {
        if let Next::Content(file) = &mut self.state {
            match read_chunk(file, u64::MAX) {
                Ok(chunk) if !chunk.is_empty() => return Some((chunk, self)),
                Ok(_) => self.state = Next::Part { first: false },
                // the body ends here, without the closing boundary
                Err(_) => return None,
            }
        }
        let Next::Part { first } = self.state else { return None };
        let start = if first { "" } else { "\r\n" };
        let Some(path) = self.paths.next() else {
            self.state = Next::Nothing;
            return Some((format!("{start}--{BOUNDARY}--\r\n").into(), self));
        };
        let part = match self.open(&path) {
            Ok((file, size)) => {
                self.state = Next::Content(file);
                format!("{start}{}", part_header("file", &path, content_type(&path), size))
            }
            Err(error) => {
                self.state = Next::Part { first: false };
                let body = String::from_utf8(json::to_vec(&error)).unwrap_or_default();
                let header = part_header("error", &path, "application/json", body.len() as u64);
                format!("{start}{header}{body}")
            }
        };
        Some((part.into(), self))
    }

    fn open(&self, path: &str) -> Result<(File, u64), Box<ErrorBody>> {
        if path.is_empty() {
            return Err(part_error(
                StatusCode::BAD_REQUEST,
                "INVALID_FILE_PATH",
                "file path is empty".to_owned(),
            ));
        }
        match open_file(&self.toolbox.resolve(path)) {
            Ok((file, metadata)) => Ok((file, metadata.len())),
            Err(error) => Err(match error.kind() {
                io::ErrorKind::NotFound => {
                    part_error(StatusCode::NOT_FOUND, "FILE_NOT_FOUND", format!("file not found: {path}"))
                }
                io::ErrorKind::PermissionDenied => part_error(
                    StatusCode::FORBIDDEN,
                    "FILE_ACCESS_DENIED",
                    format!("permission denied: {path}"),
                ),
                io::ErrorKind::IsADirectory => {
                    let message = format!("path points to a directory: {path}");
                    part_error(StatusCode::BAD_REQUEST, "INVALID_FILE_PATH", message)
                }
                _ => {
                    let message = format!("failed to read file: {path}");
                    part_error(StatusCode::INTERNAL_SERVER_ERROR, "FILE_READ_FAILED", message)
                }
            }),
        }
    }
}

fn part_header(name: &str, path: &str, kind: &str, length: u64) -> String {
    let file_name = file_name(path.as_bytes());
    format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"; {file_name}\r\n\
         Content-Length: {length}\r\nContent-Type: {kind}\r\n\r\n"
    )
}

fn part_error(status: StatusCode, code: &str, message: String) -> Box<ErrorBody> {
    Box::new(ErrorBody {
        status_code: Some(status.as_u16()),
        message: Some(message),
        code: Some(code.to_owned()),
        timestamp: Some(time::now()),
        path: Some("/files/bulk-download".to_owned()),
        method: Some("POST".to_owned()),
        ..ErrorBody::default()
    })
}

/// The type by extension, for the extensions that Go knows by itself.
fn content_type(path: &str) -> &'static str {
    let extension = Path::new(path).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "css" => "text/css; charset=utf-8",
        "gif" => "image/gif",
        "htm" | "html" => "text/html; charset=utf-8",
        "jpeg" | "jpg" => "image/jpeg",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" => "application/json",
        "pdf" => "application/pdf",
        "png" => "image/png",
        "svg" => "image/svg+xml",
        "wasm" => "application/wasm",
        "webp" => "image/webp",
        "xml" => "text/xml; charset=utf-8",
        _ => "application/octet-stream",
    }
}
