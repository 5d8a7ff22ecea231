//! The platform's object storage (S3), for the files that image builds read.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use reqwest::{Method, StatusCode, Url};
use rusty_s3::actions::{
    AbortMultipartUpload, CompleteMultipartUpload, CreateMultipartUpload, HeadObject, PutObject, UploadPart,
};
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use super::retry::{Failure, Random, retry};
use super::transport::{Transport, authority, disconnected};
use super::{CONTROL_DEADLINE, Client};
use crate::api::object_storage::PushAccess;
use crate::api::routes;
use crate::{Error, ErrorKind, Result};

/// Bytes of one part of an upload: S3 wants at least 5 MiB and at most 10 000 parts.
pub const PART: usize = 8 << 20;
/// What one part may take: a link of half a megabit per second passes.
const PART_DEADLINE: Duration = Duration::from_secs(150);
/// How long a signature is valid; clocks differ.
const VALIDITY: Duration = Duration::from_secs(900);
/// Where the server names none, as the official SDK assumes.
const REGION: &str = "us-east-1";
const UPLOAD: &str = "upload the build context";

/// The platform's object storage, with credentials for an hour.
pub struct ObjectStorage {
    client: Client,
    http: reqwest::Client,
    access: PushAccess,
    bucket: Bucket,
    credentials: Credentials,
}

impl fmt::Debug for ObjectStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStorage").field("access", &self.access).finish_non_exhaustive()
    }
}

impl ObjectStorage {
    /// Asks the server for credentials.
    pub(super) async fn open(client: &Client) -> Result<Self> {
        let access: PushAccess = client.json(&routes::account::push_access(), CONTROL_DEADLINE).await?;
        let malformed = || Error::new(ErrorKind::Protocol, "the server gave a malformed object storage URL");
        // without the slash a path would lose its last part
        let base = format!("{}/", access.storage_url.trim_end_matches('/'));
        let endpoint = Url::parse(&base).map_err(|error| malformed().with_source(error))?;
        let http = Transport::stranger(&endpoint)?;
        let region = access.region.clone().unwrap_or_else(|| REGION.to_owned());
        let bucket = Bucket::new(endpoint, UrlStyle::Path, access.bucket.clone(), region)
            .map_err(|error| malformed().with_source(error))?;
        let credentials = Credentials::new_with_token(
            access.access_key.clone(),
            access.secret.clone(),
            access.session_token.clone(),
        );
        Ok(Self { client: client.clone(), http, access, bucket, credentials })
    }

    /// Whether the archive of a context is there.
    ///
    /// # Errors
    /// Whatever keeps the storage from saying so.
    pub async fn has(&self, context_hash: &str) -> Result<bool> {
        let key = self.access.key(context_hash);
        let answer = self
            .send(CONTROL_DEADLINE, Method::HEAD, Bytes::new(), || {
                HeadObject::new(&self.bucket, Some(&self.credentials), &key).sign(VALIDITY)
            })
            .await;
        match answer {
            // a key that may not list is told 403 instead of 404; the upload says whether it may write
            Err(error) if matches!(error.http_status(), Some(404 | 403)) => Ok(false),
            answer => answer.map(|_| true),
        }
    }

    /// Uploads the archive of a context, which comes in pieces of [`PART`] bytes, the last one smaller. Reports how
    /// many bytes have arrived. Nothing appears in the storage before all of it is there.
    ///
    /// # Errors
    /// What reading or sending failed with.
    pub async fn upload(
        &self,
        context_hash: &str,
        mut pieces: Receiver<std::io::Result<Bytes>>,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<()> {
        let key = self.access.key(context_hash);
        let first = next(&mut pieces).await?.unwrap_or_default();
        if first.len() < PART {
            self.send(PART_DEADLINE, Method::PUT, first.clone(), || {
                PutObject::new(&self.bucket, Some(&self.credentials), &key).sign(VALIDITY)
            })
            .await?;
            progress(first.len() as u64);
            return Ok(());
        }
        let answer = self
            .send(CONTROL_DEADLINE, Method::POST, Bytes::new(), || {
                CreateMultipartUpload::new(&self.bucket, Some(&self.credentials), &key).sign(VALIDITY)
            })
            .await?;
        let upload = CreateMultipartUpload::parse_response(&answer.body)
            .map_err(|error| strange("the object storage began no upload").with_source(error))?;
        let sent = self.parts(&key, upload.upload_id(), first, &mut pieces, progress).await;
        if sent.is_err() {
            // what the storage keeps of it would cost somebody
            let aborted = self
                .send(CONTROL_DEADLINE, Method::DELETE, Bytes::new(), || {
                    AbortMultipartUpload::new(&self.bucket, Some(&self.credentials), &key, upload.upload_id())
                        .sign(VALIDITY)
                })
                .await;
            if let Err(error) = aborted {
                tracing::debug!("a broken upload could not be removed: {error}");
            }
        }
        sent
    }

    async fn parts(
        &self,
        key: &str,
        upload: &str,
        first: Bytes,
        pieces: &mut Receiver<std::io::Result<Bytes>>,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<()> {
        let mut tags: Vec<String> = Vec::new();
        let mut arrived = 0;
        let mut piece = Some(first);
        while let Some(bytes) = piece {
            let number = u16::try_from(tags.len() + 1).ok().filter(|number| *number <= 10_000);
            let number = number.ok_or_else(|| {
                Error::new(ErrorKind::LimitExceeded, "the build context is too large to upload")
            })?;
            let answer = self
                .send(PART_DEADLINE, Method::PUT, bytes.clone(), || {
                    UploadPart::new(&self.bucket, Some(&self.credentials), key, number, upload).sign(VALIDITY)
                })
                .await?;
            tags.push(answer.tag.ok_or_else(|| strange("the object storage gave a part no tag"))?);
            arrived += bytes.len() as u64;
            progress(arrived);
            piece = next(pieces).await?;
        }
        let tags = || tags.iter().map(String::as_str);
        let complete =
            CompleteMultipartUpload::new(&self.bucket, Some(&self.credentials), key, upload, tags());
        let body = Bytes::from(complete.body());
        let answer = self
            .send(PART_DEADLINE, Method::POST, body, || {
                CompleteMultipartUpload::new(&self.bucket, Some(&self.credentials), key, upload, tags())
                    .sign(VALIDITY)
            })
            .await?;
        // S3 answers 200 before it knows
        if String::from_utf8_lossy(&answer.body).contains("<Error>") {
            return Err(strange("the object storage could not put the upload together"));
        }
        Ok(())
    }

    /// One request with retries; each attempt is signed anew. All of them may be repeated.
    async fn send(
        &self,
        deadline: Duration,
        method: Method,
        body: Bytes,
        url: impl Fn() -> Url,
    ) -> Result<Stored> {
        retry(&self.client.options().retry, Random::from_entropy(), true, || async {
            let (url, has_body) = (url(), method != Method::HEAD && method != Method::DELETE);
            let mut request = self.http.request(method.clone(), url.clone());
            if has_body {
                request = request.body(body.clone());
            }
            let exchange = async {
                let response = request.send().await.map_err(|error| disconnected(&url, error))?;
                let status = response.status();
                let tag = response.headers().get("etag").and_then(|tag| Some(tag.to_str().ok()?.to_owned()));
                // what an answer to HEAD says of its length is that of the object
                let body = if method == Method::HEAD {
                    Ok(Bytes::new())
                } else {
                    Transport::read(response, 1 << 20).await
                };
                if status.is_success() {
                    return Ok(Stored { tag, body: body? });
                }
                Err(refused(&url, status, &body.unwrap_or_default()))
            };
            timeout(deadline, exchange).await.unwrap_or_else(|_| {
                let message =
                    format!("the object storage gave no whole answer within {:.0} s", deadline.as_secs_f64());
                Err(Failure::ambiguous(Error::new(ErrorKind::DeadlineExceeded, message).temporary()))
            })
        })
        .await
        .map_err(|error| error.with_operation(UPLOAD))
    }
}

/// What the storage answered.
struct Stored {
    tag: Option<String>,
    body: Bytes,
}

async fn next(pieces: &mut Receiver<std::io::Result<Bytes>>) -> Result<Option<Bytes>> {
    pieces.recv().await.transpose().map_err(|error| {
        Error::new(ErrorKind::InvalidConfig, format!("the build context cannot be read: {error}"))
            .with_source(error)
    })
}

fn refused(url: &Url, status: StatusCode, body: &[u8]) -> Failure {
    let text = String::from_utf8_lossy(body);
    let code = text.split_once("<Code>").and_then(|(_, rest)| Some(rest.split_once("</Code>")?.0.to_owned()));
    let kind = match status.as_u16() {
        404 => ErrorKind::NotFound,
        401 | 403 => ErrorKind::Forbidden,
        429 => ErrorKind::RateLimited,
        408 | 500.. => ErrorKind::Server,
        _ => ErrorKind::InvalidRequest,
    };
    let code = code.map(|code| format!(" ({code})")).unwrap_or_default();
    let message = format!("the object storage at {} answered {}{code}", authority(url), status.as_u16());
    let error = Error::new(kind, message).with_http_status(status.as_u16());
    match kind {
        ErrorKind::RateLimited | ErrorKind::Server => Failure::ambiguous(error.temporary()),
        _ => Failure::refused(error),
    }
}

fn strange(message: &str) -> Error {
    Error::new(ErrorKind::Protocol, message).with_operation(UPLOAD)
}
