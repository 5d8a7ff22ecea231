//! Snapshots: named images that sandboxes start from.

use serde::{Deserialize, Serialize};

use super::lenient;

/// The state of a snapshot. Unknown values of newer servers read as [`SnapshotState::Other`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotState {
    /// The image is being built.
    Building,
    /// Accepted, not begun.
    Pending,
    /// The image is being fetched.
    Pulling,
    /// Usable.
    Active,
    /// Unused for weeks; must be activated before use.
    Inactive,
    /// Failed; see `error_reason`.
    Error,
    /// The image build failed; see `error_reason` and the build log.
    BuildFailed,
    /// Being deleted.
    Removing,
    /// Being made from a sandbox.
    Snapshotting,
    /// A state that this version does not know.
    #[serde(other)]
    Other,
}

/// What to build an image from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildInfo {
    /// The Dockerfile's text.
    #[serde(default)]
    pub dockerfile_content: String,
    /// Hashes of the uploaded context archives, in order of appearance.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub context_hashes: Vec<String>,
    /// RFC 3339; answers only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// RFC 3339; answers only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<String>,
    /// Image reference on the platform; answers only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_ref: Option<String>,
}

/// A snapshot. Answers say `mem` where requests say `memory`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Id (UUID).
    pub id: String,
    /// Name, unique in the organization.
    pub name: String,
    /// Whether everybody may use it.
    #[serde(default)]
    pub general: bool,
    /// State.
    pub state: SnapshotState,
    /// Image, where it was not built.
    #[serde(default)]
    pub image_name: Option<String>,
    /// GB.
    #[serde(default)]
    pub size: Option<f64>,
    /// The entrypoint's argv.
    #[serde(default)]
    pub entrypoint: Option<Vec<String>>,
    /// Cores.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub cpu: i64,
    /// Devices.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub gpu: i64,
    /// GiB.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub mem: i64,
    /// GiB.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub disk: i64,
    /// Why it failed.
    #[serde(default)]
    pub error_reason: Option<String>,
    /// RFC 3339.
    #[serde(default)]
    pub created_at: String,
    /// RFC 3339.
    #[serde(default)]
    pub updated_at: String,
    /// RFC 3339.
    #[serde(default)]
    pub last_used_at: Option<String>,
    /// What it was built from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_info: Option<BuildInfo>,
    /// The class of the sandboxes that start from it. Absent from answers of old servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_class: Option<String>,
}

/// `POST /snapshots`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateSnapshot {
    /// The name.
    pub name: String,
    /// An image with a tag other than `latest`, or with a digest; excludes `build_info`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_name: Option<String>,
    /// A build; excludes `image_name` and `entrypoint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_info: Option<BuildInfo>,
    /// argv of the entrypoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// Devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<u32>,
    /// The type of the devices; at most one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpu_type: Vec<String>,
    /// GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u32>,
    /// GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<u32>,
    /// Region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region_id: Option<String>,
    /// The class of the sandboxes that start from it; the server's default is `container`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_class: Option<String>,
}

/// A page of `GET /snapshots`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotPage {
    /// The snapshots.
    pub items: Vec<Snapshot>,
    /// How many there are on all pages.
    #[serde(default)]
    pub total: u64,
    /// This page, from 1.
    #[serde(default)]
    pub page: u64,
    /// How many pages.
    #[serde(default)]
    pub total_pages: u64,
}
