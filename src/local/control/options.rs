//! How a local Daytona is set up, from code or from the environment.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `INSPECT_DAYTONA_LOCAL_HOST` | address to listen on | `127.0.0.1` |
//! | `INSPECT_DAYTONA_LOCAL_PORT` | port; 0 picks a free one | `0` |
//! | `INSPECT_DAYTONA_LOCAL_ALLOW_REMOTE` | `true` permits an address that other machines reach | `false` |
//! | `INSPECT_DAYTONA_LOCAL_API_KEY` | the key that clients must send | random |
//! | `INSPECT_DAYTONA_LOCAL_ENGINE` | `auto` (the strongest isolation that works here) or `process` (none to speak of) | `auto` |
//! | `INSPECT_DAYTONA_LOCAL_DIRECTORY` | below which directory sandboxes keep their files | in the user's data directory |
//! | `INSPECT_DAYTONA_LOCAL_IMAGES` | `name=directory`, `name=file.tar[.gz]` or `name=host`, comma-separated: root file systems by image name | none |
//! | `INSPECT_DAYTONA_LOCAL_DOCKER` | `auto` (a Docker Engine that answers serves other images and Dockerfiles) or `off` | `auto` |
//! | `INSPECT_DAYTONA_LOCAL_NETWORK` | `auto` (each sandbox has a network of its own where that works), `gateway` (or else no server) or `machine` | `auto` |
//! | `INSPECT_DAYTONA_LOCAL_DNS` | name servers for sandboxes with a network of their own: `address` or `address:port`, comma-separated | the machine's |
//! | `INSPECT_DAYTONA_LOCAL_CPU` | cores of a sandbox from a snapshot that says nothing | `1` |
//! | `INSPECT_DAYTONA_LOCAL_MEMORY` | its memory in GiB | `1` |
//! | `INSPECT_DAYTONA_LOCAL_DISK` | its disk in GiB | `3` |
//! | `INSPECT_DAYTONA_LOCAL_PIDS` | processes per sandbox; 0 is unlimited | `4096` |
//! | `INSPECT_DAYTONA_LOCAL_TOTAL_CPU`, `…_TOTAL_MEMORY`, `…_TOTAL_DISK` | quota over all sandboxes | unlimited |
//! | `INSPECT_DAYTONA_LOCAL_MAX_CPU`, `…_MAX_MEMORY`, `…_MAX_DISK` | quota of one sandbox | unlimited |
//! | `INSPECT_DAYTONA_LOCAL_RATE_LIMIT` | requests per minute: `general`, or `general,create,lifecycle` | `100000,10000,100000` |
//! | `INSPECT_DAYTONA_LOCAL_FAULTS` | fault rules as a JSON array, see [`FaultRule`] | none |
//!
//! An empty variable counts as absent; any other variable with this prefix is an error.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use secrecy::SecretString;

use super::faults::FaultRule;
use crate::error::{Error, ErrorKind, Result};
use crate::local::engine::{EngineChoice, NetworkChoice, NetworkOptions};

/// What the names of all variables begin with.
const PREFIX: &str = "INSPECT_DAYTONA_LOCAL_";

/// Everything that can be chosen when a local Daytona starts.
#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// Address to listen on.
    pub host: IpAddr,
    /// Port; 0 picks a free one.
    pub port: u16,
    /// Whether an address that other machines reach may be used.
    pub allow_remote: bool,
    /// The key that clients must send; random where absent.
    pub api_key: Option<SecretString>,
    /// How sandboxes are isolated.
    pub engine: EngineChoice,
    /// Below which directory sandboxes keep their files; see [`crate::local::engine::StateDirectory::open`].
    pub directory: Option<PathBuf>,
    /// Root file systems by image name. Each is a general snapshot as well.
    pub images: BTreeMap<String, ImageSource>,
    /// Whether a Docker Engine is used for other images and for Dockerfiles.
    pub docker: DockerChoice,
    /// Which network sandboxes have.
    pub network: NetworkOptions,
    /// Resources of a sandbox whose snapshot says nothing.
    pub resources: Resources,
    /// Processes per sandbox.
    pub pids: Option<u32>,
    /// Quotas.
    pub quota: Quota,
    /// Rate limits.
    pub rate_limits: RateLimits,
    /// Faults that are in force from the beginning.
    pub faults: Vec<FaultRule>,
}

/// The root file system of a mapped image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// This machine's own system directories.
    Host,
    /// A directory that holds a root file system.
    Directory(PathBuf),
    /// A tar archive of a root file system, gzipped or not; unpacked when it is first needed.
    Archive(PathBuf),
}

/// Whether a Docker Engine is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DockerChoice {
    /// If one answers when it is needed.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// Size of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// Cores.
    pub cpu: u32,
    /// GiB.
    pub memory: u32,
    /// GiB. Recorded and counted; not enforced.
    pub disk: u32,
}

/// Limits in cores and GiB; `None` is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Cores of all sandboxes that run.
    pub total_cpu: Option<u32>,
    /// GiB of memory of all sandboxes that run.
    pub total_memory: Option<u32>,
    /// GiB of disk of all sandboxes that are not archived.
    pub total_disk: Option<u32>,
    /// Cores of one sandbox.
    pub max_cpu: Option<u32>,
    /// GiB of memory of one sandbox.
    pub max_memory: Option<u32>,
    /// GiB of disk of one sandbox.
    pub max_disk: Option<u32>,
}

/// Requests per minute and throttler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// Everything that has no throttler of its own (`authenticated`).
    pub general: u64,
    /// Creates and forks (`sandbox-create`).
    pub create: u64,
    /// Start, stop, delete and their like (`sandbox-lifecycle`).
    pub lifecycle: u64,
}

impl Default for LocalOptions {
    fn default() -> Self {
        Self {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 0,
            allow_remote: false,
            api_key: None,
            engine: EngineChoice::Auto,
            directory: None,
            images: BTreeMap::new(),
            docker: DockerChoice::Auto,
            network: NetworkOptions::default(),
            resources: Resources { cpu: 1, memory: 1, disk: 3 },
            // enough for any build, and a fork bomb stays the sandbox's own problem
            pids: Some(4096),
            quota: Quota::default(),
            rate_limits: RateLimits { general: 100_000, create: 10_000, lifecycle: 100_000 },
            faults: Vec::new(),
        }
    }
}

impl LocalOptions {
    /// Options from this process's environment; see the table above.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`] for a value that cannot be understood, and for an unknown variable.
    pub fn from_environment() -> Result<Self> {
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        });
        Self::from_variables(variables)
    }

    /// Options from variables given as names and values; others than ours are passed over.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`] for a value that cannot be understood, and for an unknown variable of ours.
    pub fn from_variables(variables: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        let mut options = Self::default();
        for (name, value) in variables {
            if let Some(option) = name.strip_prefix(PREFIX).filter(|_| !value.is_empty()) {
                options.set(option, &value).map_err(|error| {
                    Error::new(ErrorKind::InvalidConfig, format!("{name}: {error}"))
                        .with_hint("See the documentation of local Daytona for its variables")
                })?;
            }
        }
        Ok(options)
    }

    fn set(&mut self, option: &str, value: &str) -> Result<(), String> {
        match option {
            "HOST" => self.host = read(value, "an IP address")?,
            "PORT" => self.port = read(value, "a port from 0 to 65535")?,
            "ALLOW_REMOTE" => self.allow_remote = read(value, "`true` or `false`")?,
            "API_KEY" => self.api_key = Some(api_key(value)?),
            "ENGINE" => self.engine = engine(value)?,
            "DIRECTORY" => self.directory = Some(absolute(value)?),
            "IMAGES" => self.images = images(value)?,
            "DOCKER" => self.docker = docker(value)?,
            "NETWORK" => self.network.choice = network(value)?,
            "DNS" => self.network.resolvers = resolvers(value)?,
            "CPU" => self.resources.cpu = positive(value)?,
            "MEMORY" => self.resources.memory = positive(value)?,
            "DISK" => self.resources.disk = positive(value)?,
            "PIDS" => self.pids = Some(read(value, "a whole number")?).filter(|pids| *pids > 0),
            "TOTAL_CPU" => self.quota.total_cpu = Some(positive(value)?),
            "TOTAL_MEMORY" => self.quota.total_memory = Some(positive(value)?),
            "TOTAL_DISK" => self.quota.total_disk = Some(positive(value)?),
            "MAX_CPU" => self.quota.max_cpu = Some(positive(value)?),
            "MAX_MEMORY" => self.quota.max_memory = Some(positive(value)?),
            "MAX_DISK" => self.quota.max_disk = Some(positive(value)?),
            "RATE_LIMIT" => self.rate_limits = rate_limits(value)?,
            "FAULTS" => self.faults = faults(value)?,
            _ => return Err("there is no such option".to_owned()),
        }
        Ok(())
    }

    /// Refuses what would open this machine to others without having been asked for.
    pub(super) fn check(&self) -> Result<()> {
        if self.host.is_loopback() {
            return Ok(());
        }
        if !self.allow_remote {
            let message = format!("local Daytona would listen on {}, which other machines reach", self.host);
            return Err(Error::new(ErrorKind::InvalidConfig, message)
                .with_hint(format!("If that is meant, set {PREFIX}ALLOW_REMOTE=true")));
        }
        Ok(())
    }
}

fn read<T: FromStr>(value: &str, expected: &str) -> Result<T, String> {
    value.trim().parse().map_err(|_| format!("expected {expected}, got {value:?}"))
}

fn positive(value: &str) -> Result<u32, String> {
    read(value, "a positive whole number").and_then(|number: u32| {
        if number == 0 { Err("expected a positive whole number, got 0".to_owned()) } else { Ok(number) }
    })
}

/// A key is sent in a header; its value never appears in a message.
fn api_key(value: &str) -> Result<SecretString, String> {
    if value.len() < 16 || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("expected at least 16 printable ASCII characters without spaces".to_owned());
    }
    Ok(SecretString::from(value))
}

fn engine(value: &str) -> Result<EngineChoice, String> {
    match value {
        "auto" => Ok(EngineChoice::Auto),
        "process" => Ok(EngineChoice::Process),
        _ => Err(format!("expected `auto` or `process`, got {value:?}")),
    }
}

fn docker(value: &str) -> Result<DockerChoice, String> {
    match value {
        "auto" => Ok(DockerChoice::Auto),
        "off" => Ok(DockerChoice::Off),
        _ => Err(format!("expected `auto` or `off`, got {value:?}")),
    }
}

fn network(value: &str) -> Result<NetworkChoice, String> {
    match value {
        "auto" => Ok(NetworkChoice::Auto),
        "gateway" => Ok(NetworkChoice::Gateway),
        "machine" => Ok(NetworkChoice::Machine),
        _ => Err(format!("expected `auto`, `gateway` or `machine`, got {value:?}")),
    }
}

fn resolvers(value: &str) -> Result<Vec<SocketAddr>, String> {
    let resolver = |text: &str| {
        let text = text.trim();
        let address = text.parse().ok().map(|address: IpAddr| SocketAddr::new(address, 53));
        let address = address.or_else(|| text.parse().ok());
        address.ok_or_else(|| format!("expected `address` or `address:port`, got {text:?}"))
    };
    value.split(',').map(resolver).collect()
}

fn absolute(value: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(value);
    if path.is_absolute() { Ok(path) } else { Err(format!("expected an absolute path, got {value:?}")) }
}

fn images(value: &str) -> Result<BTreeMap<String, ImageSource>, String> {
    let mut images = BTreeMap::new();
    for entry in value.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let (name, target) =
            entry.split_once('=').ok_or_else(|| format!("expected name=path, got {entry:?}"))?;
        let root = match target {
            "host" => ImageSource::Host,
            path => {
                let path = absolute(path)?;
                if path.is_dir() {
                    ImageSource::Directory(path)
                } else if path.is_file() {
                    ImageSource::Archive(path)
                } else {
                    return Err(format!("{} is neither a directory nor a file", path.display()));
                }
            }
        };
        if name.is_empty() || images.insert(name.to_owned(), root).is_some() {
            return Err(format!("the image name {name:?} is empty or given twice"));
        }
    }
    Ok(images)
}

fn faults(value: &str) -> Result<Vec<FaultRule>, String> {
    let rules: Vec<FaultRule> = serde_json::from_str(value).map_err(|error| error.to_string())?;
    rules.iter().try_for_each(FaultRule::check)?;
    Ok(rules)
}

fn rate_limits(value: &str) -> Result<RateLimits, String> {
    let numbers = value.split(',').map(positive).collect::<Result<Vec<_>, _>>()?;
    match *numbers.as_slice() {
        [all] => Ok(RateLimits { general: all.into(), create: all.into(), lifecycle: all.into() }),
        [general, create, lifecycle] => {
            Ok(RateLimits { general: general.into(), create: create.into(), lifecycle: lifecycle.into() })
        }
        _ => Err(format!("expected one number or three, got {value:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(variables: &[(&str, &str)]) -> Result<LocalOptions> {
        let variables =
            variables.iter().map(|(name, value)| (format!("{PREFIX}{name}"), (*value).to_owned()));
        LocalOptions::from_variables(variables)
    }

    #[test]
    fn variables_of_others_and_empty_ones_are_passed_over() {
        let options = LocalOptions::from_variables([
            ("HOME".to_owned(), "/root".to_owned()),
            (format!("{PREFIX}PORT"), String::new()),
        ]);
        assert_eq!(options.unwrap().port, 0);
    }

    #[test]
    fn every_option_is_read() {
        let options = options(&[
            ("HOST", "::1"),
            ("PORT", "4000"),
            ("IMAGES", "python:3.12=host, debian:12=/usr,alpine:3=/etc/passwd"),
            ("DOCKER", "off"),
            ("CPU", "2"),
            ("ENGINE", "process"),
            ("PIDS", "0"),
            ("TOTAL_DISK", "30"),
            ("RATE_LIMIT", "5,6,7"),
            ("FAULTS", r#"[{"path":"/api/sandbox","fault":{"kind":"status","status":503}}]"#),
        ])
        .unwrap();
        assert_eq!(options.host.to_string(), "::1");
        assert_eq!((options.port, options.engine), (4000, EngineChoice::Process));
        assert_eq!(options.images["python:3.12"], ImageSource::Host);
        assert_eq!(options.images["debian:12"], ImageSource::Directory("/usr".into()));
        assert_eq!(options.images["alpine:3"], ImageSource::Archive("/etc/passwd".into()));
        assert_eq!(options.docker, DockerChoice::Off);
        assert_eq!((options.resources.cpu, options.pids, options.quota.total_disk), (2, None, Some(30)));
        assert_eq!(options.rate_limits, RateLimits { general: 5, create: 6, lifecycle: 7 });
        assert_eq!(options.faults.len(), 1);
    }

    #[test]
    fn a_bad_value_is_refused_by_name_and_a_key_is_not_repeated() {
        for (name, value) in [
            ("PORT", "70000"),
            ("HOST", "localhost"),
            ("CPU", "0"),
            ("DIRECTORY", "relative"),
            ("IMAGES", "a=/does/not/exist"),
            ("IMAGES", "a=host,a=host"),
            ("RATE_LIMIT", "1,2"),
            ("FAULTS", "{"),
            ("ENGINE", "strongest"),
            ("DOCKER", "yes"),
            ("NETWORK", "host"),
            ("DNS", "dns.example.org"),
            ("COLOUR", "blue"),
        ] {
            let error = options(&[(name, value)]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.message().starts_with(&format!("{PREFIX}{name}: ")), "{error}");
        }
        assert!(!options(&[("API_KEY", "short key")]).unwrap_err().to_string().contains("short key"));
    }

    #[test]
    fn an_address_that_others_reach_must_be_asked_for() {
        let mut options = options(&[("HOST", "0.0.0.0")]).unwrap();
        assert_eq!(options.check().unwrap_err().kind(), ErrorKind::InvalidConfig);
        options.allow_remote = true;
        options.check().unwrap();
    }
}
