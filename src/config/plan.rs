//! What a configuration means, in types: the output of this layer.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::extension::XDaytona;
use super::values::Variables;

/// How an eval's sandboxes are to be made.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Plan {
    /// One sandbox that is the environment.
    Single(Box<SandboxPlan>),
    /// One sandbox with a Docker daemon, in which Compose runs the services.
    Multi(Box<ComposeProject>),
}

impl Plan {
    /// The `x-daytona` settings.
    pub fn settings(&self) -> &XDaytona {
        match self {
            Self::Single(plan) => &plan.settings,
            Self::Multi(plan) => &plan.settings,
        }
    }

    /// What was ignored and why, each said once, with its place.
    pub fn warnings(&self) -> &[String] {
        match self {
            Self::Single(plan) => &plan.warnings,
            Self::Multi(plan) => &plan.warnings,
        }
    }
}

/// One sandbox that is the environment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SandboxPlan {
    /// The service, with `x-daytona` already laid over it: `env_vars`, `os_user`, `snapshot`, `resources` and network
    /// settings are final here.
    pub service: Service,
    /// The `x-daytona` settings.
    pub settings: XDaytona,
    /// What was ignored and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// One sandbox with a Docker daemon, in which Compose runs the services.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ComposeProject {
    /// The directory that relative paths of the file start from.
    pub directory: PathBuf,
    /// The services that run, in the order of the file; those of inactive profiles are left out.
    pub services: Vec<Service>,
    /// The name of the default service.
    pub default: String,
    /// The whole file for `docker compose`, interpolated, without `x-daytona`; dollar signs are escaped again. JSON is
    /// YAML, so it can be written as it is.
    pub model: ComposeModel,
    /// Values of secrets that are variables of this machine, by the secret's name in the model. No JSON shows them.
    #[serde(skip)]
    pub secrets: Variables,
    /// Files and directories of this machine that the services need in the sandbox.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub local_paths: Vec<LocalPath>,
    /// The sandbox's resources: `x-daytona.resources`, or the sum of all services plus one core and 1 GiB.
    pub resources: Resources,
    /// Environment of the sandbox itself (`x-daytona.env_vars`); services do not see it.
    #[serde(skip_serializing_if = "Variables::none")]
    pub environment: Variables,
    /// The snapshot to start from: `x-daytona.snapshot`, or the name derived from the resources.
    pub snapshot: String,
    /// Whether the user named the snapshot, so that it must exist and is never created.
    pub snapshot_is_given: bool,
    /// The `x-daytona` settings.
    pub settings: XDaytona,
    /// What was ignored and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A compose file as JSON. It holds environments, so `Debug` does not show it.
#[derive(Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct ComposeModel(pub serde_json::Value);

impl fmt::Debug for ComposeModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ComposeModel(..)")
    }
}

/// A file or directory of this machine that a service needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LocalPath {
    /// The service.
    pub service: String,
    /// What for.
    pub purpose: Purpose,
    /// As written.
    pub written: String,
    /// Where it is.
    pub path: PathBuf,
}

/// What a local path is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// A build context.
    Build,
    /// A bind mount.
    Bind,
    /// A seccomp profile of `security_opt`.
    Seccomp,
}

/// One service.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Service {
    /// Its name in the file; `default` where there is no compose file.
    pub name: String,
    /// What it runs.
    pub image: ImageSource,
    /// Replaces the image's command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Replaces the image's entrypoint; an empty list removes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// The entrypoint of the image that is built, where it is given `command` as its arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_entrypoint: Option<Vec<String>>,
    /// Environment: `env_file`, then `environment`, then `x-daytona.env_vars`, later ones winning.
    #[serde(skip_serializing_if = "Variables::none")]
    pub environment: Variables,
    /// User for commands, as `name`, `uid`, or either with `:group`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Where commands run and what relative paths start from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Additional lines of `/etc/hosts`: name and address.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_hosts: Vec<(String, String)>,
    /// What must succeed before the sandbox counts as started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Network access.
    pub network: Network,
    /// Cores, memory, disk and GPUs; `None` is the platform's default.
    pub resources: Resources,
    /// Ports that the service listens on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// Size of `/dev/shm` in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<u64>,
    /// Paths held in memory.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tmpfs: Vec<Tmpfs>,
    /// Paths of volumes, which are directories of the sandbox's own disk. Of several services, Compose makes them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// Labels of the container, where files hold some of them: `label_file`, then `labels`, later ones winning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Limits of processes, by name without `RLIMIT_`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ulimits: BTreeMap<String, Ulimit>,
}

impl Service {
    /// Whether something else runs than the image's own entrypoint by itself.
    pub fn replaces_entrypoint(&self) -> bool {
        self.entrypoint.is_some() || self.image_entrypoint.is_some()
    }
}

/// What a service runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageSource {
    /// The platform's default snapshot.
    #[default]
    Default,
    /// A snapshot by its name.
    Snapshot(String),
    /// An image of a registry.
    Image(String),
    /// An image to build.
    Build(Build),
}

/// An image to build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Build {
    /// The directory that `COPY` reads from.
    pub context: PathBuf,
    /// The Dockerfile.
    pub dockerfile: DockerfileSource,
    /// Build arguments.
    #[serde(skip_serializing_if = "Variables::none")]
    pub args: Variables,
    /// The stage to build; the last where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Build every layer anew.
    pub no_cache: bool,
    /// Look for a newer base image.
    pub pull: bool,
}

/// Where a Dockerfile is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DockerfileSource {
    /// A file.
    Path(PathBuf),
    /// The text itself (`dockerfile_inline`).
    Inline(String),
}

/// What must succeed before a sandbox counts as started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Healthcheck {
    /// The command; success is exit code 0.
    pub test: HealthTest,
    /// Time between checks; 30 s by default.
    #[serde(serialize_with = "seconds")]
    pub interval: Duration,
    /// Time for one check; 30 s by default.
    #[serde(serialize_with = "seconds")]
    pub timeout: Duration,
    /// Failures in a row that mean unhealthy; 3 by default.
    pub retries: u32,
    /// Time in which failures do not count; 0 by default.
    #[serde(serialize_with = "seconds")]
    pub start_period: Duration,
    /// Time between checks within the start period; 5 s by default.
    #[serde(serialize_with = "seconds")]
    pub start_interval: Duration,
}

/// How health is tested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthTest {
    /// A program with its arguments.
    Command(Vec<String>),
    /// A line for the image's shell.
    Shell(String),
}

/// Network access.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// What the account allows.
    #[default]
    Default,
    /// None.
    Blocked,
    /// Only these IPv4 networks, at most ten.
    AllowCidrs(Vec<String>),
    /// Only these host names, at most ten; `*.` in front stands for every name below.
    AllowDomains(Vec<String>),
}

/// Resources; `None` is the platform's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Resources {
    /// Cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u32>,
    /// GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<u32>,
    /// Devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<u32>,
    /// Acceptable types, in order of preference.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gpu_types: Vec<String>,
}

/// A port that a service listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Port {
    /// The port inside the sandbox.
    pub port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

/// A path held in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tmpfs {
    /// Absolute path.
    pub path: String,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Permissions, in octal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Other options of mount(8), such as `uid=1000` and `exec`; later ones win. Without any it is `noexec`, `nosuid` and
    /// `nodev`, as in Docker.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// A limit of processes; -1 is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ulimit {
    /// What applies.
    pub soft: i64,
    /// What a process may raise it to.
    pub hard: i64,
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}
