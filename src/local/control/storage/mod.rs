//! Object storage for build contexts: as much of S3 as Daytona's clients use, on this server's own port.
//!
//! Objects are `{organization}/{hash}/context.tar` and nothing else. Every request must be signed; signatures, session
//! tokens and signed digests of bodies are checked as S3 does.

mod answer;
mod handlers;
mod signature;
mod uploads;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use axum::Router;
use axum::routing::any;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use self::signature::Credentials;
pub(super) use self::signature::hex;
use super::state::{Control, token};

/// The only bucket, which is the first segment of a path.
const BUCKET: &str = "daytona";

/// Objects and the key to them; kept until the server ends.
#[derive(Debug)]
pub(super) struct Storage {
    credentials: Credentials,
    directory: PathBuf,
    contents: Mutex<Contents>,
}

#[derive(Debug, Default)]
struct Contents {
    /// By hash.
    objects: HashMap<String, Object>,
    uploads: HashMap<String, uploads::Upload>,
}

/// A stored file.
#[derive(Clone, Debug)]
struct Object {
    path: PathBuf,
    size: u64,
    /// The MD5 of the content in quotes, as S3 has it.
    tag: String,
    modified: SystemTime,
}

impl Storage {
    /// An empty one that keeps files in `directory`, which need not exist.
    pub(super) fn new(directory: PathBuf) -> Self {
        let credentials = Credentials {
            access_key: format!("LOCAL{}", token(15).to_uppercase()),
            secret: SecretString::from(token(40)),
            session_token: SecretString::from(token(64)),
        };
        Self { credentials, directory, contents: Mutex::default() }
    }

    /// The answer of `GET /object-storage/push-access`. The credentials hold until the server ends.
    pub(super) fn access(&self, origin: &str, organization: &str) -> Value {
        json!({
            "accessKey": self.credentials.access_key,
            "secret": self.credentials.secret.expose_secret(),
            "sessionToken": self.credentials.session_token.expose_secret(),
            "storageUrl": origin,
            "organizationId": organization,
            "bucket": BUCKET,
            "region": signature::REGION,
        })
    }

    /// The archive that was uploaded for this hash.
    pub(super) fn context(&self, hash: &str) -> Option<PathBuf> {
        self.contents().objects.get(hash).map(|object| object.path.clone())
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The routes of the bucket.
pub(super) fn routes() -> Router<Control> {
    Router::new()
        .route("/daytona", any(handlers::bucket))
        .route("/daytona/", any(handlers::bucket))
        .route("/daytona/{*key}", any(handlers::object))
}
