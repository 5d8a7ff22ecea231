//! Bodies become files: whole ones, and parts that are joined.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use axum::body::Body;
use futures_util::StreamExt;
use http::StatusCode;
use md5::Md5;
use sha2::{Digest, Sha256};
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;

use super::answer::Refusal;
use super::{Object, Storage, hex};
use crate::local::control::state::uuid;

/// Parts of an upload, as in S3.
const MOST_PARTS: u32 = 10_000;

/// A multipart upload that has begun.
#[derive(Debug)]
pub(super) struct Upload {
    hash: String,
    parts: BTreeMap<u32, Object>,
}

impl Storage {
    /// Stores a body as the object of a hash.
    pub(super) async fn put(&self, hash: &str, body: Body, digest: Option<&str>) -> Result<Object, Refusal> {
        let object = self.write(body, digest).await?;
        self.replace(hash, object.clone()).await;
        Ok(object)
    }

    pub(super) fn begin(&self, hash: &str) -> String {
        let id = uuid();
        self.contents().uploads.insert(id.clone(), Upload { hash: hash.to_owned(), parts: BTreeMap::new() });
        id
    }

    pub(super) async fn put_part(
        &self,
        hash: &str,
        id: &str,
        number: u32,
        body: Body,
        digest: Option<&str>,
    ) -> Result<Object, Refusal> {
        if !(1..=MOST_PARTS).contains(&number) {
            return Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "InvalidArgument",
                "partNumber must be from 1 to 10000",
            ));
        }
        self.check_upload(hash, id)?;
        let part = self.write(body, digest).await?;
        let replaced = {
            let mut contents = self.contents();
            match contents.uploads.get_mut(id) {
                Some(upload) => upload.parts.insert(number, part.clone()),
                // aborted meanwhile
                None => Some(part.clone()),
            }
        };
        remove(replaced).await;
        self.check_upload(hash, id).map(|()| part)
    }

    /// Joins the parts that the client names, in its order.
    pub(super) async fn complete(
        &self,
        hash: &str,
        id: &str,
        named: &[(u32, String)],
    ) -> Result<Object, Refusal> {
        self.check_upload(hash, id)?;
        let invalid = |code, message: &str| Refusal::new(StatusCode::BAD_REQUEST, code, message);
        if named.is_empty() {
            return Err(invalid("MalformedXML", "The request names no parts"));
        }
        if !named.is_sorted_by(|(before, _), (after, _)| before < after) {
            return Err(invalid("InvalidPartOrder", "The parts are not in ascending order"));
        }
        let parts: Option<Vec<Object>> = {
            let contents = self.contents();
            let upload = contents.uploads.get(id).ok_or_else(Refusal::no_upload)?;
            let part = |(number, tag): &(u32, String)| {
                upload
                    .parts
                    .get(number)
                    .filter(|part| part.tag.trim_matches('"') == tag.trim_matches('"'))
                    .cloned()
            };
            named.iter().map(part).collect()
        };
        let parts =
            parts.ok_or_else(|| invalid("InvalidPart", "A part was not uploaded, or has another ETag"))?;
        let object = self.join(&parts).await.map_err(|error| Refusal::system(&error))?;
        self.replace(hash, object.clone()).await;
        self.abort(hash, id).await?;
        Ok(object)
    }

    pub(super) async fn abort(&self, hash: &str, id: &str) -> Result<(), Refusal> {
        self.check_upload(hash, id)?;
        let upload = self.contents().uploads.remove(id);
        for part in upload.into_iter().flat_map(|upload| upload.parts.into_values()) {
            remove(Some(part)).await;
        }
        Ok(())
    }

    fn check_upload(&self, hash: &str, id: &str) -> Result<(), Refusal> {
        let contents = self.contents();
        contents
            .uploads
            .get(id)
            .filter(|upload| upload.hash == hash)
            .map(|_| ())
            .ok_or_else(Refusal::no_upload)
    }

    /// An archive that is being read keeps its content, since a new one is another file.
    async fn replace(&self, hash: &str, object: Object) {
        let replaced = self.contents().objects.insert(hash.to_owned(), object);
        remove(replaced).await;
    }

    async fn new_file(&self) -> std::io::Result<Unfinished> {
        fs::create_dir_all(&self.directory).await?;
        Ok(Unfinished(Some(self.directory.join(uuid()))))
    }

    async fn write(&self, body: Body, digest: Option<&str>) -> Result<Object, Refusal> {
        let failed = |error: std::io::Error| Refusal::system(&error);
        let unfinished = self.new_file().await.map_err(failed)?;
        let mut file = File::create(unfinished.path()).await.map_err(failed)?;
        let (mut md5, mut sha256, mut size) = (Md5::new(), Sha256::new(), 0);
        let mut chunks = body.into_data_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| {
                Refusal::new(StatusCode::BAD_REQUEST, "IncompleteBody", "The body ended before its length")
            })?;
            md5.update(&chunk);
            sha256.update(&chunk);
            size += chunk.len() as u64;
            file.write_all(&chunk).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)?;
        if digest.is_some_and(|digest| digest != hex(&sha256.finalize())) {
            let message = "The body is not the one that was signed";
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "XAmzContentSHA256Mismatch", message));
        }
        let tag = format!("\"{}\"", hex(&md5.finalize()));
        Ok(Object { path: unfinished.finish(), size, tag, modified: SystemTime::now() })
    }

    async fn join(&self, parts: &[Object]) -> std::io::Result<Object> {
        let unfinished = self.new_file().await?;
        let mut file = File::create(unfinished.path()).await?;
        let (mut tags, mut size) = (Md5::new(), 0);
        for part in parts {
            size += tokio::io::copy(&mut File::open(&part.path).await?, &mut file).await?;
            tags.update(part.tag.as_bytes());
        }
        file.flush().await?;
        let tag = format!("\"{}-{}\"", hex(&tags.finalize()), parts.len());
        Ok(Object { path: unfinished.finish(), size, tag, modified: SystemTime::now() })
    }
}

/// A file that vanishes unless it is finished.
struct Unfinished(Option<PathBuf>);

impl Unfinished {
    fn path(&self) -> &Path {
        self.0.as_deref().unwrap_or(Path::new(""))
    }

    fn finish(mut self) -> PathBuf {
        self.0.take().unwrap_or_default()
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            // one that was never made is gone as well
            let _ = std::fs::remove_file(path);
        }
    }
}

async fn remove(object: Option<Object>) {
    if let Some(object) = object
        && let Err(error) = fs::remove_file(&object.path).await
    {
        tracing::warn!("cannot remove {}: {error}", object.path.display());
    }
}
