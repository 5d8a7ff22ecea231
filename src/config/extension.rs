//! `x-daytona`: settings of the platform.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::allow_list::{cidrs, domains};
use super::environment::text_map;
use super::node::{Mapping, Node, Value};
use super::plan::Resources;
use super::platform_volume::{PlatformVolume, volumes};
use super::problem::{Problem, Read};
use super::reading::unknown_key;
use super::values::Variables;

/// The longest interval that the platform keeps before it archives: 30 days.
const LONGEST_ARCHIVE_INTERVAL: u32 = 43_200;
/// Ten years in minutes: what is longer is a mistake.
const MOST_MINUTES: u32 = 5_256_000;

/// A setting, for the documentation and for messages.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its key.
    pub name: &'static str,
    /// What it takes.
    pub takes: &'static str,
    /// What holds without it.
    pub default: &'static str,
}

const fn setting(name: &'static str, takes: &'static str, default: &'static str) -> Setting {
    Setting { name, takes, default }
}

/// Every setting.
pub const SETTINGS: &[Setting] = &[
    setting("auto_stop_interval", "minutes", "0 (never)"),
    setting("auto_pause_interval", "minutes", "never"),
    setting("auto_archive_interval", "minutes", "10080 (7 days)"),
    setting("auto_delete_interval", "minutes", "never"),
    setting("ttl_minutes", "minutes", "none"),
    setting("queue_timeout", "minutes", "the platform's"),
    setting("timeout", "seconds", "60"),
    setting("network_block_all", "true or false", "false"),
    setting("network_allow_list", "CIDRs", "none"),
    setting("domain_allow_list", "host names", "none"),
    setting("language", "python, typescript or javascript", "none"),
    setting("os_user", "name", "daytona"),
    setting("public", "true or false", "false"),
    setting("ephemeral", "true or false", "false"),
    setting("snapshot", "name", "none"),
    setting("prepare", "true or false", "true"),
    setting("resources", "cpu, memory, disk, gpu, gpu_type", "the services'"),
    setting("disk", "GiB", "the platform's"),
    setting("gpu_type", "name or list", "any"),
    setting("class", "container or linux-vm", "container"),
    setting("target", "region", "the account's"),
    setting("env_vars", "mapping", "none"),
    setting("labels", "mapping", "none"),
    setting("secrets", "mapping", "none"),
    setting("volumes", "list", "none"),
];

/// The class of sandboxes that have a kernel of their own.
pub(crate) const VIRTUAL_MACHINE: &str = "linux-vm";

/// The settings of `x-daytona`, checked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct XDaytona {
    /// Minutes of inactivity before the sandbox stops; 0 never (default).
    pub auto_stop_interval: u32,
    /// Minutes of inactivity before it pauses; virtual machines only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_pause_interval: Option<u32>,
    /// Minutes stopped before it is archived; 10080 by default.
    pub auto_archive_interval: u32,
    /// Minutes stopped before it is deleted; negative or absent never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_delete_interval: Option<i64>,
    /// Minutes until it is destroyed whatever it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_minutes: Option<u32>,
    /// Minutes that the platform may wait for a free machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_timeout: Option<u32>,
    /// Time for the call that creates the sandbox; 60 s by default.
    #[serde(serialize_with = "seconds")]
    pub timeout: Duration,
    /// Whether all network access is blocked; absent where the compose file decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_block_all: Option<bool>,
    /// The only networks that may be reached.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub network_allow_list: Vec<String>,
    /// The only host names that may be reached.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub domain_allow_list: Vec<String>,
    /// `python`, `typescript` or `javascript`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// User for commands; wins over a service's `user`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os_user: Option<String>,
    /// Whether preview URLs need no token.
    pub public: bool,
    /// Whether the sandbox is deleted when it stops.
    pub ephemeral: bool,
    /// A snapshot to start from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Whether images are prepared once per task (default) instead of built with each sandbox.
    pub prepare: bool,
    /// Resources that win over the services'. `disk` and `gpu_type` at the top are folded in.
    pub resources: Resources,
    /// `container` (default) or `linux-vm`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Environment of the sandbox.
    #[serde(skip_serializing_if = "Variables::none")]
    pub env_vars: Variables,
    /// Labels; the provider's own win.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Environment variables and the organization secrets that fill them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, String>,
    /// The platform's volumes to mount.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<PlatformVolume>,
}

impl XDaytona {
    /// Whether it asks for a machine with a kernel of its own.
    pub(crate) fn is_virtual_machine(&self) -> bool {
        self.class.as_deref() == Some(VIRTUAL_MACHINE)
    }
}

impl Default for XDaytona {
    fn default() -> Self {
        Self {
            auto_stop_interval: 0,
            auto_pause_interval: None,
            auto_archive_interval: 10_080,
            auto_delete_interval: None,
            ttl_minutes: None,
            queue_timeout: None,
            timeout: Duration::from_secs(60),
            network_block_all: None,
            network_allow_list: Vec::new(),
            domain_allow_list: Vec::new(),
            language: None,
            os_user: None,
            public: false,
            ephemeral: false,
            snapshot: None,
            prepare: true,
            resources: Resources::default(),
            class: None,
            target: None,
            env_vars: Variables::default(),
            labels: BTreeMap::new(),
            secrets: BTreeMap::new(),
            volumes: Vec::new(),
        }
    }
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// Reads the settings.
pub(crate) fn read(node: &Node) -> Read<XDaytona> {
    let mapping = node.mapping("x-daytona")?;
    let mut settings = XDaytona::default();
    for entry in mapping.iter() {
        let known = SETTINGS.iter().map(|setting| setting.name);
        if !known.clone().any(|name| name == entry.key) {
            return Err(unknown_key(&entry.key, &entry.place, "x-daytona", known));
        }
        if entry.value.value != Value::Null {
            set(&mut settings, &entry.key, &entry.value)?;
        }
    }
    check(&settings, mapping)?;
    Ok(settings)
}

fn set(settings: &mut XDaytona, key: &str, node: &Node) -> Read<()> {
    let minutes = |least| node.integer(key, least, MOST_MINUTES);
    let name = || node.name(key).map(|text| Some(text.to_owned()));
    match key {
        "auto_stop_interval" => settings.auto_stop_interval = minutes(0)?,
        "auto_pause_interval" => settings.auto_pause_interval = Some(minutes(0)?),
        "auto_archive_interval" => {
            settings.auto_archive_interval = node.integer(key, 0, LONGEST_ARCHIVE_INTERVAL)?;
        }
        "auto_delete_interval" => {
            settings.auto_delete_interval = Some(node.integer(key, -1, i64::from(MOST_MINUTES))?);
        }
        "ttl_minutes" => settings.ttl_minutes = Some(minutes(0)?),
        "queue_timeout" => settings.queue_timeout = Some(minutes(1)?),
        "timeout" => settings.timeout = timeout(node)?,
        "network_block_all" => settings.network_block_all = Some(node.boolean(key)?),
        "network_allow_list" => settings.network_allow_list = cidrs(node)?,
        "domain_allow_list" => settings.domain_allow_list = domains(node)?,
        "language" => settings.language = one_of(node, key, &["python", "typescript", "javascript"])?,
        "os_user" => settings.os_user = name()?,
        "public" => settings.public = node.boolean(key)?,
        "ephemeral" => settings.ephemeral = node.boolean(key)?,
        "snapshot" => settings.snapshot = name()?,
        "prepare" => settings.prepare = node.boolean(key)?,
        "resources" => resources(node, &mut settings.resources)?,
        "disk" => put(&mut settings.resources.disk, Some(node.integer(key, 1, 1_000_000)?), node, key)?,
        "gpu_type" => put(&mut settings.resources.gpu_types, node.texts(key)?, node, key)?,
        "class" => settings.class = one_of(node, key, &["container", VIRTUAL_MACHINE])?,
        "target" => settings.target = name()?,
        "env_vars" => settings.env_vars = Variables(text_map(node, key)?),
        "labels" => settings.labels = labels(node)?,
        "secrets" => settings.secrets = text_map(node, key)?,
        "volumes" => settings.volumes = volumes(node)?,
        _ => return Err(node.problem(format!("`{key}` is known but not read; this is a defect"))),
    }
    Ok(())
}

/// `resources`, whose `disk` and `gpu_type` may also stand at the top, but not differ.
fn resources(node: &Node, into: &mut Resources) -> Read<()> {
    let known = ["cpu", "memory", "disk", "gpu", "gpu_type"];
    for entry in node.mapping("resources")?.iter() {
        let (key, node) = (entry.key.as_str(), &entry.value);
        if !known.contains(&key) {
            return Err(unknown_key(key, &entry.place, "resources", known));
        }
        if node.value == Value::Null {
            continue;
        }
        match key {
            "cpu" => into.cpu = Some(node.integer(key, 1, 100_000)?),
            "memory" => into.memory = Some(node.integer(key, 1, 1_000_000)?),
            "disk" => put(&mut into.disk, Some(node.integer(key, 1, 1_000_000)?), node, key)?,
            "gpu" => into.gpu = Some(node.integer(key, 0, 64)?),
            _ => put(&mut into.gpu_types, node.texts(key)?, node, key)?,
        }
    }
    Ok(())
}

/// Stores a value that may be written in two places.
fn put<T: Default + PartialEq>(slot: &mut T, value: T, node: &Node, key: &str) -> Read<()> {
    if *slot != T::default() && *slot != value {
        return Err(node.problem(format!("`{key}` is written twice, with different values")));
    }
    *slot = value;
    Ok(())
}

fn timeout(node: &Node) -> Read<Duration> {
    match node.text("timeout")?.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 86_400.0 => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(node.problem(format!(
            "`timeout` must be a number of seconds above 0 and up to 86400, not {}",
            node.describe()
        ))),
    }
}

fn one_of(node: &Node, key: &str, choices: &[&str]) -> Read<Option<String>> {
    let text = node.text(key)?;
    if choices.contains(&text) {
        return Ok(Some(text.to_owned()));
    }
    Err(node.problem(format!("`{key}` must be one of {}, not `{text}`", choices.join(", "))))
}

/// The platform's SDKs refuse to list any sandbox whose language label they do not know.
fn labels(node: &Node) -> Read<BTreeMap<String, String>> {
    let labels = text_map(node, "labels")?;
    if labels.contains_key("code-toolbox-language") {
        let problem = node.problem("the label `code-toolbox-language` belongs to the platform");
        return Err(problem.hint("Use `language`"));
    }
    Ok(labels)
}

/// Settings that contradict each other.
fn check(settings: &XDaytona, mapping: &Mapping) -> Read<()> {
    let at = |key: &str, message: &str| match mapping.entry(key) {
        Some(entry) => Err(Problem::at(&entry.place, message)),
        None => Ok(()),
    };
    let has_cidrs = !settings.network_allow_list.is_empty();
    let has_domains = !settings.domain_allow_list.is_empty();
    if has_cidrs && has_domains {
        at("domain_allow_list", "`network_allow_list` and `domain_allow_list` exclude each other")?;
    }
    if settings.network_block_all == Some(true) && (has_cidrs || has_domains) {
        at("network_block_all", "`network_block_all` and an allow list exclude each other")?;
    }
    let pauses = settings.auto_pause_interval.is_some_and(|minutes| minutes > 0);
    let deleted_on_stop = settings.ephemeral || settings.auto_delete_interval == Some(0);
    if pauses && settings.auto_stop_interval > 0 {
        at("auto_pause_interval", "`auto_pause_interval` and `auto_stop_interval` exclude each other")?;
    }
    if pauses && deleted_on_stop {
        at("auto_pause_interval", "an ephemeral sandbox cannot pause")?;
    }
    if settings.ephemeral && settings.auto_delete_interval.is_some_and(|minutes| minutes != 0) {
        at("auto_delete_interval", "an ephemeral sandbox is deleted when it stops, not later")?;
    }
    if settings.is_virtual_machine() && !settings.prepare {
        at(
            "prepare",
            "the class linux-vm needs an image that is prepared: the platform builds only containers with each sandbox",
        )?;
    }
    if settings.snapshot.is_some() && settings.resources != Resources::default() {
        let message = "a snapshot brings its own resources, so `snapshot` and `resources` exclude each other";
        for key in ["resources", "disk", "gpu_type"] {
            at(key, message)?;
        }
    }
    Ok(())
}
