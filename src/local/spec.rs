//! What a sandbox is to be: sent by the control plane to the runner as JSON.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Everything the runner needs to make one sandbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Id; unique and never reused, since it names the cgroup and the directory.
    pub id: String,
    /// Host name inside.
    pub hostname: String,
    /// The user that the toolbox and commands run as, by name or number, optionally with `:group`. Default images:
    /// `daytona`, with passwordless sudo.
    pub user: String,
    /// Environment of the toolbox, and so of every command, beside what an image sets.
    pub env: BTreeMap<String, String>,
    /// Working directory of the toolbox, made if it is missing; the user's home where absent.
    pub work_dir: Option<PathBuf>,
    /// What the toolbox starts beside itself; nothing where empty.
    #[serde(default)]
    pub entrypoint: Vec<String>,
    /// What the sandbox sees as `/`.
    pub root: RootFs,
    /// Network access.
    pub network: Network,
    /// Whether containers are to run inside: gives the sandbox control groups of its own below its limits, a fresh
    /// `/run`, and a `/var/lib/docker` on which layers can be stacked. Its network must be its own.
    #[serde(default)]
    pub nesting: bool,
    /// Resource limits; what the machine cannot enforce is reported in the engine's `Isolation`.
    pub limits: Limits,
    /// Private directory of this sandbox on the host: its writable layer lives here and survives a stop.
    pub directory: PathBuf,
}

/// What a sandbox sees as `/`, always below a writable layer of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootFs {
    /// This machine's system directories, composed one by one; unknown top-level directories stay hidden.
    #[default]
    Host,
    /// A directory that holds a root file system.
    Directory(PathBuf),
}

/// Network access of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// The machine's network.
    #[default]
    Host,
    /// A loopback interface and nothing else.
    Blocked,
}

/// Resource limits; `None` is unlimited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Cores.
    pub cpus: Option<u32>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Number of processes.
    pub pids: Option<u32>,
}
