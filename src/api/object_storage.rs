//! The platform's object storage, which takes the files that image builds read.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `GET /object-storage/push-access`: credentials for an hour, for the objects of one organization.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PushAccess {
    /// Access key.
    pub access_key: String,
    /// Secret key.
    pub secret: String,
    /// Session token.
    pub session_token: String,
    /// Base of the storage's URLs.
    pub storage_url: String,
    /// The organization, which is the first part of every key.
    pub organization_id: String,
    /// The bucket.
    pub bucket: String,
    /// The region that signatures name; servers before 0.205 don't say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

impl PushAccess {
    /// The key of the object that holds the archive of a context.
    pub fn key(&self, context_hash: &str) -> String {
        format!("{}/{context_hash}/context.tar", self.organization_id)
    }
}

/// Credentials are not shown.
impl fmt::Debug for PushAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushAccess")
            .field("storage_url", &self.storage_url)
            .field("bucket", &self.bucket)
            .field("organization_id", &self.organization_id)
            .finish_non_exhaustive()
    }
}
