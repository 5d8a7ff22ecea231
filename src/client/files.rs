//! Files of one sandbox, one request each.

use std::time::Duration;

use bytes::Bytes;

use super::classify::Service;
use super::errno::file_error_of_text;
use super::multipart::Multipart;
use super::retry::Failure;
use super::toolbox::{DEADLINE, Toolbox};
use super::transport::{Answer, Payload};
use super::{Call, Client};
use crate::api::routes::toolbox as routes;
use crate::api::toolbox::{BulkUploadResult, FileInfo};
use crate::{Error, ErrorKind, Result};

/// The slowest transfer that is waited for, in bytes per second: hundreds of samples may share a domestic uplink.
const SLOWEST: u64 = 64 << 10;

/// Enough for `bytes` at the slowest rate.
fn transfer_deadline(bytes: u64) -> Duration {
    DEADLINE + Duration::from_secs(bytes / SLOWEST)
}

impl Toolbox {
    /// Writes a file, replacing the content of an existing one and making parents. The bytes are not copied.
    ///
    /// # Errors
    /// `IsADirectory`, `PermissionDenied`, `FileSystem`; `Unsupported` for paths that the API cannot express (white space at an end).
    pub async fn upload(&self, path: &str, content: Bytes) -> Result<()> {
        self.upload_many([(path, content)]).await
    }

    /// Writes several files by one request. Where some fail the others are written all the same.
    ///
    /// # Errors
    /// Those of [`upload`](Self::upload), for the first file that failed.
    pub async fn upload_many<'a>(
        &self,
        files: impl IntoIterator<Item = (&'a str, Bytes)> + Send,
    ) -> Result<()> {
        let files: Vec<(&str, Bytes)> = files.into_iter().collect();
        if files.is_empty() {
            return Ok(());
        }
        let sizes: Vec<u64> = files.iter().map(|(_, content)| content.len() as u64).collect();
        let first = files[0].0;
        let body = Multipart::new(files.iter().map(|(path, content)| (*path, content.clone())))
            .map_err(|error| error.with_operation("write file").with_sandbox(self.sandbox_id()))?;
        let route = routes::bulk_upload();
        let call = Call {
            service: Service::Files,
            payload: Payload::Files(&body),
            ..self.call(&route, transfer_deadline(body.length()))
        };
        self.repeat(call, || async {
            let result = self.0.client.attempt_upload(call, &sizes).await;
            self.examined(about(first, result)).await
        })
        .await
    }

    /// Reads a file of at most `limit` bytes; a larger one is refused as soon as it shows, and a cut one is read
    /// again.
    ///
    /// # Errors
    /// - `FileNotFound`, `PermissionDenied`, `IsADirectory` where the toolbox says so
    /// - `OutputLimit`: it is larger than `limit`
    /// - `InvalidRequest` with HTTP status 400: older toolboxes say no more of a directory, or of a path through a
    ///   file; [`info`](Self::info) tells
    pub async fn download(&self, path: &str, limit: u64) -> Result<Bytes> {
        let route = routes::download(path);
        let call = Call { service: Service::Files, limit, ..self.call(&route, transfer_deadline(limit)) };
        self.repeat(call, || async {
            let result = self.0.client.attempt(call).await.and_then(whole);
            self.examined(about(path, result)).await
        })
        .await
    }

    /// Describes a file; symbolic links are followed.
    ///
    /// # Errors
    /// `FileNotFound`, `PermissionDenied`.
    pub async fn info(&self, path: &str) -> Result<FileInfo> {
        let route = routes::info(path);
        let call = Call { service: Service::Files, ..self.call(&route, DEADLINE) };
        self.repeat(call, || async {
            self.examined(about(path, self.0.client.attempt_json(call).await)).await
        })
        .await
    }

    /// Makes a directory and its parents; an existing one is fine. `mode` is octal text such as `755`.
    ///
    /// # Errors
    /// `InvalidRequest` with HTTP status 400 for whatever is in the way: older toolboxes say no more.
    pub async fn make_folder(&self, path: &str, mode: &str) -> Result<()> {
        let route = routes::make_folder(path, mode);
        let call = Call { service: Service::Files, ..self.call(&route, DEADLINE) };
        self.repeat(call, || async {
            self.examined(about(path, self.0.client.attempt(call).await.map(drop))).await
        })
        .await
    }
}

impl Client {
    async fn attempt_upload(&self, call: Call<'_>, sizes: &[u64]) -> Result<(), Failure> {
        let answer = self.attempt_any(call).await?;
        let result: Option<BulkUploadResult> = serde_json::from_slice(&answer.body).ok();
        if let Some(text) = result.as_ref().and_then(|result| result.errors.first()) {
            if is_cut(text) {
                let message = format!("the toolbox did not get the whole file ({text})");
                return Err(Failure::ambiguous(Error::new(ErrorKind::Transport, message).temporary()));
            }
            // `<destination>: create: open <destination>: is a directory`, in Go's words for the system's error
            let error =
                file_error_of_text(text).unwrap_or_else(|| Error::new(ErrorKind::InvalidRequest, text));
            return Err(Failure::refused(error.with_http_status(answer.status)));
        }
        self.successful(call, answer)?;
        // toolboxes before 0.178 don't say what they wrote
        let written: Vec<u64> = result
            .into_iter()
            .flat_map(|result| result.files)
            .map(|file| u64::try_from(file.bytes).unwrap_or(0))
            .collect();
        if !written.is_empty() && written != sizes {
            let message = format!("wrote {written:?} bytes instead of {sizes:?}");
            return Err(Failure::ambiguous(Error::new(ErrorKind::Transport, message).temporary()));
        }
        Ok(())
    }
}

/// Whether an upload broke off on its way to the toolbox, in Go's words, while our side of the connection went on.
fn is_cut(text: &str) -> bool {
    text.starts_with("reading part: ") || text.ends_with(": unexpected EOF") || text.ends_with(": EOF")
}

/// The body of a download, unless nobody could tell whether it is whole.
fn whole(answer: Answer) -> Result<Bytes, Failure> {
    if answer.delimited || answer.body.is_empty() {
        return Ok(answer.body);
    }
    let message = "the answer did not say how long it is, so that a cut would go unnoticed";
    Err(Failure::ambiguous(Error::new(ErrorKind::Transport, message).temporary()))
}

/// Names the file in a failure.
fn about<T>(path: &str, result: Result<T, Failure>) -> Result<T, Failure> {
    result.map_err(|Failure { error, effect }| {
        let what = match error.kind() {
            ErrorKind::FileNotFound => "no such file",
            ErrorKind::PermissionDenied => "permission denied",
            ErrorKind::IsADirectory => "is a directory",
            ErrorKind::FileSystem => "the file system refuses it",
            ErrorKind::OutputLimit => "is too large",
            ErrorKind::InvalidRequest => "cannot be used",
            _ => return Failure { error, effect },
        };
        let mut named = Error::new(error.kind(), format!("{path}: {what} ({})", error.message()));
        if let Some(status) = error.http_status() {
            named = named.with_http_status(status);
        }
        if let Some(code) = error.code() {
            named = named.with_code(code);
        }
        Failure { error: named.with_status(error.status()), effect }
    })
}
