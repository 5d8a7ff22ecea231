//! Volumes.

use serde::{Deserialize, Serialize};

/// A volume to mount, in create requests (id or name) and answers (id).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeMount {
    /// Id, or in a request also the name.
    pub volume_id: String,
    /// Absolute path in the sandbox, outside of system directories.
    pub mount_path: String,
    /// Mount only this part of the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subpath: Option<String>,
}

/// A volume.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// Id (UUID).
    pub id: String,
    /// Name, unique in the organization.
    pub name: String,
    /// Owner.
    #[serde(default)]
    pub organization_id: String,
    /// `pending_create`, `creating`, `ready`, `pending_delete`, `deleting`, `deleted` or `error`.
    pub state: String,
    /// RFC 3339.
    #[serde(default)]
    pub created_at: String,
    /// RFC 3339.
    #[serde(default)]
    pub updated_at: String,
    /// RFC 3339.
    #[serde(default)]
    pub last_used_at: Option<String>,
    /// Why it is in state `error`.
    #[serde(default)]
    pub error_reason: Option<String>,
}

/// `POST /volumes`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CreateVolume {
    /// The name.
    pub name: String,
}
