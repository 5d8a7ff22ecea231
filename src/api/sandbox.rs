//! Sandboxes: states, create requests, answers and lists.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::lenient;
use super::snapshot::BuildInfo;
use super::volume::VolumeMount;

/// The state of a sandbox. Unknown values of newer servers read as [`SandboxState::Unknown`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the platform's own words; the transitions are in docs/local-daytona.md")]
pub enum SandboxState {
    Creating,
    Restoring,
    Destroyed,
    Destroying,
    Started,
    Stopped,
    Starting,
    Stopping,
    Error,
    BuildFailed,
    PendingBuild,
    BuildingSnapshot,
    PullingSnapshot,
    Archived,
    Archiving,
    Resizing,
    Snapshotting,
    Forking,
    Pausing,
    Paused,
    Resuming,
    #[default]
    #[serde(other)]
    Unknown,
}

impl SandboxState {
    /// Whether a sandbox in this state cannot become `started` without somebody asking for it.
    pub fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Destroyed
                | Self::Destroying
                | Self::Stopped
                | Self::Stopping
                | Self::Error
                | Self::BuildFailed
                | Self::Archived
                | Self::Archiving
                | Self::Paused
                | Self::Pausing
        )
    }

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Restoring => "restoring",
            Self::Destroyed => "destroyed",
            Self::Destroying => "destroying",
            Self::Started => "started",
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Stopping => "stopping",
            Self::Error => "error",
            Self::BuildFailed => "build_failed",
            Self::PendingBuild => "pending_build",
            Self::BuildingSnapshot => "building_snapshot",
            Self::PullingSnapshot => "pulling_snapshot",
            Self::Archived => "archived",
            Self::Archiving => "archiving",
            Self::Resizing => "resizing",
            Self::Snapshotting => "snapshotting",
            Self::Forking => "forking",
            Self::Pausing => "pausing",
            Self::Paused => "paused",
            Self::Resuming => "resuming",
            Self::Unknown => "unknown",
        }
    }
}

/// What the platform is working towards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the platform's own words")]
pub enum DesiredState {
    Destroyed,
    Started,
    Stopped,
    Resized,
    Archived,
    Paused,
    #[serde(other)]
    Other,
}

/// A sandbox, as answered by the control plane. Servers of different ages omit different fields.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "the wire format has them")]
pub struct Sandbox {
    /// Id (UUID). The only stable handle: the name changes when deletion is requested.
    pub id: String,
    /// Owner.
    #[serde(default)]
    pub organization_id: String,
    /// Name, unique in the organization; equals the id where none was given.
    #[serde(default)]
    pub name: String,
    /// Name of the snapshot; none for builds.
    #[serde(default)]
    pub snapshot: Option<String>,
    /// User whose name is in `DAYTONA_SANDBOX_USER`.
    #[serde(default)]
    pub user: String,
    /// Environment.
    #[serde(default, deserialize_with = "lenient::null_default")]
    pub env: BTreeMap<String, String>,
    /// Labels.
    #[serde(default, deserialize_with = "lenient::null_default")]
    pub labels: BTreeMap<String, String>,
    /// Whether preview URLs need no token.
    #[serde(default)]
    pub public: bool,
    /// Whether all network access is blocked.
    #[serde(default)]
    pub network_block_all: bool,
    /// Whether it has `/dev/kvm`.
    #[serde(default)]
    pub kvm: bool,
    /// Comma-separated IPv4 CIDRs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_allow_list: Option<String>,
    /// Comma-separated host names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain_allow_list: Option<String>,
    /// Region id.
    #[serde(default)]
    pub target: String,
    /// Cores.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub cpu: i64,
    /// Devices.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub gpu: i64,
    /// GiB.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub memory: i64,
    /// GiB.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub disk: i64,
    /// State, derived from the stored and the desired one.
    #[serde(default)]
    pub state: SandboxState,
    /// What the platform is working towards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_state: Option<DesiredState>,
    /// Why the state is `error` or `build_failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_reason: Option<String>,
    /// Whether `recover` may help.
    #[serde(default)]
    pub recoverable: bool,
    /// `None`, `Pending`, `InProgress`, `Completed` or `Error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_state: Option<String>,
    /// Minutes of inactivity before it stops; 0 never.
    #[serde(
        default,
        deserialize_with = "lenient::optional_integer",
        skip_serializing_if = "Option::is_none"
    )]
    pub auto_stop_interval: Option<i64>,
    /// Minutes of inactivity before it pauses; 0 never.
    #[serde(
        default,
        deserialize_with = "lenient::optional_integer",
        skip_serializing_if = "Option::is_none"
    )]
    pub auto_pause_interval: Option<i64>,
    /// Minutes stopped before it is archived.
    #[serde(
        default,
        deserialize_with = "lenient::optional_integer",
        skip_serializing_if = "Option::is_none"
    )]
    pub auto_archive_interval: Option<i64>,
    /// Minutes stopped before it is deleted; negative never, 0 at once.
    #[serde(
        default,
        deserialize_with = "lenient::optional_integer",
        skip_serializing_if = "Option::is_none"
    )]
    pub auto_delete_interval: Option<i64>,
    /// When its time-to-live destroys it, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_destroy_at: Option<String>,
    /// Minutes that it may wait for a free machine.
    #[serde(
        default,
        deserialize_with = "lenient::optional_integer",
        skip_serializing_if = "Option::is_none"
    )]
    pub queue_timeout: Option<i64>,
    /// When it was given up because no machine was free in time, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_timed_out_at: Option<String>,
    /// Mounted volumes.
    #[serde(default, deserialize_with = "lenient::null_default")]
    pub volumes: Vec<VolumeMount>,
    /// What it was built from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_info: Option<BuildInfo>,
    /// RFC 3339, milliseconds, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// RFC 3339, milliseconds, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<String>,
    /// RFC 3339, milliseconds, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_activity_at: Option<String>,
    /// `container`, `linux-vm`, `windows`, ….
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_class: Option<String>,
    /// Version of the toolbox inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daemon_version: Option<String>,
    /// The machine that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_id: Option<String>,
    /// Base of its toolbox URLs; the id is appended. Absent from some answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toolbox_proxy_url: Option<String>,
    /// Local Daytona only: how the sandbox is isolated, for example `namespaces/root-idmap`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<String>,
}

impl Sandbox {
    /// Whether its deletion was asked for: it is on its way out, whatever its state.
    pub fn is_being_deleted(&self) -> bool {
        self.desired_state == Some(DesiredState::Destroyed)
            || matches!(self.state, SandboxState::Destroying | SandboxState::Destroyed)
    }
}

/// `POST /sandbox`. Older servers drop fields that they do not know without a word.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateSandbox {
    /// Name; the id is used where it is absent or empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Snapshot id or name; excludes `build_info` and resources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Default `daytona`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Environment.
    #[serde(default, deserialize_with = "lenient::null_default")]
    pub env: BTreeMap<String, String>,
    /// Labels.
    #[serde(default, deserialize_with = "lenient::null_default")]
    pub labels: BTreeMap<String, String>,
    /// Whether preview URLs need no token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<bool>,
    /// Whether all network access is blocked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_block_all: Option<bool>,
    /// At most ten comma-separated IPv4 CIDRs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_allow_list: Option<String>,
    /// At most ten comma-separated host names, `*.` allowed in front.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain_allow_list: Option<String>,
    /// Region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Cores; builds only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// Devices; builds only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<u32>,
    /// GiB; builds only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u32>,
    /// GiB; builds only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<u32>,
    /// Acceptable GPU types in order of preference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_type: Option<Vec<String>>,
    /// Minutes of inactivity before it stops; 0 never; server default 15.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_stop_interval: Option<i64>,
    /// Minutes of inactivity before it pauses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_pause_interval: Option<i64>,
    /// Minutes stopped before it is archived; server default 10080.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_archive_interval: Option<i64>,
    /// Minutes stopped before it is deleted; negative never (default), 0 makes it ephemeral.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_delete_interval: Option<i64>,
    /// Minutes until it is destroyed whatever its state; 0 never. Servers before 0.205 ignore it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_minutes: Option<i64>,
    /// Minutes to wait for a free runner. Servers before 0.226 ignore it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_timeout: Option<i64>,
    /// Volumes to mount.
    #[serde(default, deserialize_with = "lenient::null_default")]
    pub volumes: Vec<VolumeMount>,
    /// A declarative build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_info: Option<BuildInfo>,
    /// Environment variable to name of an organization secret, one pair per object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Vec<BTreeMap<String, String>>>,
}

/// A page of `GET /sandbox`. Items lack some fields of [`Sandbox`] (`env`, `volumes`, `buildInfo`, …).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxPage {
    /// The sandboxes.
    pub items: Vec<Sandbox>,
    /// Where the next page begins; `null` on the last.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// `PUT /sandbox/{s}/labels`: replaces all labels.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Labels {
    /// The labels.
    pub labels: BTreeMap<String, String>,
}

/// `POST /sandbox/{s}/network-settings`: at least one must be present; an empty string clears a list.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkSettings {
    /// Block everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_block_all: Option<bool>,
    /// Comma-separated IPv4 CIDRs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_allow_list: Option<String>,
    /// Comma-separated host names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain_allow_list: Option<String>,
}

/// `GET /sandbox/{id}/toolbox-proxy-url`, and build log URLs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Url {
    /// The URL, without a trailing slash.
    pub url: String,
}

/// `GET /sandbox/{s}/ports/{port}/preview-url` and its signed form.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreviewUrl {
    /// The sandbox.
    pub sandbox_id: String,
    /// The URL.
    pub url: String,
    /// Sent as `X-Daytona-Preview-Token`; for a signed URL the token in its host name.
    pub token: String,
    /// Signed URLs only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// `POST /sandbox/{s}/ssh-access`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SshAccess {
    /// Id.
    pub id: String,
    /// The sandbox.
    pub sandbox_id: String,
    /// The user name to give to `ssh`.
    pub token: String,
    /// RFC 3339.
    pub expires_at: String,
    /// RFC 3339.
    #[serde(default)]
    pub created_at: String,
    /// RFC 3339.
    #[serde(default)]
    pub updated_at: String,
    /// The whole command.
    #[serde(default)]
    pub ssh_command: String,
}
