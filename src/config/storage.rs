//! Volumes and limits of processes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::files::normalize;
use super::keys::{BIND, IMAGE, MOUNT, NAMED, VOLUME};
use super::node::{Entry, Mapping, Node, Value};
use super::plan::{LocalPath, Purpose, Tmpfs, Ulimit};
use super::platform_volume::PlatformVolume;
use super::problem::{Place, Read};
use super::reading::{Reading, unknown_key};
use super::suggest::nearest;
use super::tmpfs;

/// A mount in either notation.
struct Mount {
    kind: String,
    source: Option<String>,
    target: String,
    /// Where its kind is `tmpfs`.
    tmpfs: Option<Tmpfs>,
}

/// What a service mounts.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    /// Paths held in memory.
    pub(crate) tmpfs: Vec<Tmpfs>,
    /// Paths of a single service's volumes, which are directories of its own disk.
    pub(crate) directories: Vec<String>,
}

/// Refuses what nobody knows in top-level `volumes`.
pub(crate) fn check_volumes(reading: &mut Reading<'_>, volumes: &Mapping) -> Read<()> {
    for entry in volumes.iter().filter(|entry| entry.value.value != Value::Null) {
        let volume = entry.value.mapping(&entry.key)?;
        reading.check_keys(volume, VOLUME, format_args!("volume `{}`", entry.key))?;
    }
    Ok(())
}

/// Reads `volumes`. Those of a single sandbox are directories; what comes from outside is refused there, and becomes a
/// local path where Compose mounts it.
pub(crate) fn volumes(
    reading: &mut Reading<'_>,
    service: &Mapping,
    service_name: &str,
    named: Option<&Mapping>,
    platform: &[PlatformVolume],
    local: &mut Vec<LocalPath>,
) -> Read<Mounts> {
    let mut mounts = Mounts::default();
    let Some(node) = service.get("volumes") else { return Ok(mounts) };
    for item in node.sequence("volumes")? {
        let mount = mount(reading, item)?;
        match mount.kind.as_str() {
            "tmpfs" => mounts.tmpfs.extend(mount.tmpfs),
            "volume" => {
                named_volume(reading, item, mount.source.as_deref(), named)?;
                if !reading.multi && !mounts.directories.contains(&mount.target) {
                    mounts.directories.push(mount.target);
                }
            }
            "bind" if reading.multi => {
                let Some(written) = mount.source else {
                    return Err(item.problem("a bind mount needs a `source`"));
                };
                if !is_own(&written, platform) {
                    local.push(LocalPath {
                        service: service_name.to_owned(),
                        purpose: Purpose::Bind,
                        path: reading.path(&written),
                        written,
                    });
                }
            }
            "bind" => {
                return Err(item
                    .problem(format!(
                        "a bind mount at {} is not possible: the sandbox is another machine",
                        mount.target
                    ))
                    .hint("Copy the files in the Dockerfile, or give them with the sample's `files`"));
            }
            "image" | "npipe" | "cluster" if reading.multi => {}
            other => return Err(item.problem(format!("a volume of type `{other}` is not supported"))),
        }
    }
    Ok(mounts)
}

/// Whether a path is the sandbox's own where services ask for it: its Docker socket, devices and kernel, and what the
/// platform mounts into it.
pub fn is_own(path: &str, platform: &[PlatformVolume]) -> bool {
    let path = normalize(Path::new(path));
    ["/var/run/docker.sock", "/run/docker.sock", "/dev", "/proc", "/sys"]
        .into_iter()
        .chain(platform.iter().map(|volume| volume.mount_path.as_str()))
        .any(|own| path.starts_with(own))
}

/// Warns of volumes of the platform that no service mounts: they are in the sandbox around the services, where nothing
/// uses them.
pub(crate) fn warn_of_unused(
    reading: &mut Reading<'_>,
    platform: &[PlatformVolume],
    place: &Place,
    active: &[&Entry],
    named: Option<&Mapping>,
) -> Read<()> {
    let mut sources = Vec::new();
    for entry in active {
        let Some(node) = entry.value.mapping(&entry.key)?.get("volumes") else { continue };
        for item in node.sequence("volumes")? {
            let Some(source) = mount(reading, item)?.source else { continue };
            let device = named.and_then(|named| named.get(&source)).filter(|node| binds_a_directory(node));
            let device = device.and_then(|node| match &node.value {
                Value::Mapping(volume) => {
                    volume.get("driver_opts")?.mapping("driver_opts").ok()?.get("device")
                }
                _ => None,
            });
            let source = device.and_then(|node| node.text("device").ok()).map_or(source, str::to_owned);
            sources.push(normalize(Path::new(&source)));
        }
    }
    for PlatformVolume { volume, mount_path, .. } in platform {
        let is_used =
            |source: &PathBuf| source.starts_with(mount_path) || Path::new(mount_path).starts_with(source);
        // a relative source is no path of the sandbox
        if !sources.iter().filter(|source| source.has_root()).any(is_used) {
            reading.warn(
                place,
                format!(
                    "no service has the volume `{volume}`: give it `volumes: [\"{mount_path}:{mount_path}\"]`"
                ),
            );
        }
    }
    Ok(())
}

/// Whether a volume is a directory of the machine that its options name: Docker's local driver with `o: bind`.
pub(crate) fn binds_a_directory(volume: &Node) -> bool {
    let Value::Mapping(volume) = &volume.value else { return false };
    let text = |mapping: &Mapping, key: &str| -> Option<String> {
        mapping.get(key).and_then(|node| node.text(key).ok()).map(str::to_owned)
    };
    let is_local = text(volume, "driver").is_none_or(|driver| driver == "local");
    let options = match volume.get("driver_opts").map(|node| &node.value) {
        Some(Value::Mapping(options)) => text(options, "o").unwrap_or_default(),
        _ => String::new(),
    };
    is_local && options.split(',').any(|option| matches!(option, "bind" | "rbind"))
}

fn named_volume(
    reading: &Reading<'_>,
    node: &Node,
    source: Option<&str>,
    named: Option<&Mapping>,
) -> Read<()> {
    let Some(name) = source else { return Ok(()) };
    let Some(entry) = named.and_then(|named| named.entry(name)) else {
        return Err(node.problem(format!("the volume `{name}` is not defined in this file")));
    };
    if reading.multi || entry.value.value == Value::Null {
        return Ok(());
    }
    let options = entry.value.mapping("volumes")?;
    let is_external = match options.get("external") {
        Some(node) if matches!(node.value, Value::Scalar(_)) => {
            !node.is_void() && node.boolean("external")?
        }
        Some(_) => true,
        None => false,
    };
    let outside = is_external || options.get("driver_opts").is_some_and(|node| !node.is_void());
    let driver = options.get("driver").map(|node| node.text("driver")).transpose()?;
    if outside || driver.is_some_and(|driver| !matches!(driver, "local" | "")) {
        return Err(node
            .problem(format!("the volume `{name}` lives outside of the sandbox"))
            .hint("Use a volume of the platform: `x-daytona.volumes`"));
    }
    Ok(())
}

fn mount(reading: &mut Reading<'_>, node: &Node) -> Read<Mount> {
    let Value::Mapping(mapping) = &node.value else {
        return short_mount(reading, node);
    };
    let Some(target) = mapping.get("target") else {
        reading.check_keys(mapping, MOUNT, format_args!("volumes"))?;
        return Err(node.problem("a volume needs a `target`"));
    };
    let target = absolute(target, target.text("target")?)?;
    let text = |key: &str| mapping.get(key).map(|node| node.text(key)).transpose();
    let kind = text("type")?.unwrap_or("volume").to_owned();
    let mut mount =
        Mount { kind, source: text("source")?.map(str::to_owned), target: target.clone(), tmpfs: None };
    if mount.kind == "bind" && !reading.multi {
        // refused as a whole, whatever its options
        return Ok(mount);
    }
    reading.check_keys(mapping, MOUNT, format_args!("volumes"))?;
    for (key, table) in [("bind", BIND), ("volume", NAMED), ("image", IMAGE)] {
        if let Some(options) = mapping.get(key) {
            reading.check_keys(options.mapping(key)?, table, format_args!("`{key}` of volumes"))?;
        }
    }
    let in_memory = tmpfs::long(reading, target, mapping.get("tmpfs"))?;
    mount.tmpfs = (mount.kind == "tmpfs").then_some(in_memory);
    Ok(mount)
}

/// `[source:]target[:options]`. A source that begins like a path is a bind mount.
fn short_mount(reading: &Reading<'_>, node: &Node) -> Read<Mount> {
    let text = node.name("volumes")?;
    let mut parts = text.splitn(3, ':');
    let (first, second) = (parts.next().unwrap_or_default(), parts.next());
    let (source, target) = match second {
        Some(target) => (Some(first), target),
        None => (None, first),
    };
    let target = absolute(node, target)?;
    let kind = match source {
        Some(source) if source.starts_with(['/', '.', '~']) => "bind",
        _ => "volume",
    };
    if kind == "volume" || reading.multi {
        for option in parts.next().unwrap_or_default().split(',') {
            mount_option(reading, node, option)?;
        }
    }
    Ok(Mount { kind: kind.to_owned(), source: source.map(str::to_owned), target, tmpfs: None })
}

/// An option behind a volume's path. Compose drops those that it does not know, so a misspelt `ro` would be writable.
fn mount_option(reading: &Reading<'_>, node: &Node, option: &str) -> Read<()> {
    /// What a directory of one's own is anyway, or what is for other systems.
    const USUAL: [&str; 7] = ["", "rw", "z", "Z", "cached", "consistent", "delegated"];
    /// How mounts below are seen, which means nothing where there is no mount.
    const PROPAGATION: [&str; 6] = ["private", "rprivate", "rshared", "rslave", "shared", "slave"];
    const NARROW: [&str; 2] = ["ro", "nocopy"];
    if USUAL.contains(&option) || PROPAGATION.contains(&option) {
        return Ok(());
    }
    if NARROW.contains(&option) {
        if reading.multi {
            return Ok(());
        }
        let why = match option {
            "ro" => "A sandbox's disk is writable, so the isolation would be weaker",
            _ => "What the image has at the path stays there",
        };
        return Err(node.problem(format!("the option `{option}` of a volume is not supported")).hint(why));
    }
    let problem = node.problem(format!("unknown option `{option}` of a volume"));
    let known = NARROW.iter().chain(&USUAL[1..]).chain(&PROPAGATION).copied();
    Err(match nearest(option, known) {
        Some(meant) => problem.hint(format!("Did you mean `{meant}`?")),
        None => problem,
    })
}

/// A path inside the sandbox, which stands in a line of its own where it is handed over.
pub(crate) fn absolute(node: &Node, path: &str) -> Read<String> {
    if path.starts_with('/') && !path.contains(char::is_control) {
        Ok(path.to_owned())
    } else {
        let shown = path.escape_debug();
        Err(node.problem(format!("`{shown}` must be an absolute path inside the sandbox")))
    }
}

/// Reads `ulimits`: one number, or `soft` and `hard`.
pub(crate) fn ulimits(service: &Mapping) -> Read<BTreeMap<String, Ulimit>> {
    /// What Linux knows (getrlimit(2)), in Docker's spelling.
    const KNOWN: [&str; 16] = [
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    let Some(node) = service.get("ulimits") else { return Ok(BTreeMap::new()) };
    let mut limits = BTreeMap::new();
    for entry in node.mapping("ulimits")?.iter() {
        if !KNOWN.contains(&entry.key.as_str()) {
            return Err(unknown_key(&entry.key, &entry.place, "ulimits", KNOWN));
        }
        let limit = if let Value::Mapping(pair) = &entry.value.value {
            let read = |key: &str| match pair.get(key) {
                Some(node) => node.integer(key, -1, i64::MAX),
                None => Err(entry.value.problem(format!("`{}` of ulimits needs `{key}`", entry.key))),
            };
            Ulimit { soft: read("soft")?, hard: read("hard")? }
        } else {
            let both = entry.value.integer(&entry.key, -1, i64::MAX)?;
            Ulimit { soft: both, hard: both }
        };
        if limit.hard != -1 && (limit.soft == -1 || limit.soft > limit.hard) {
            return Err(entry
                .value
                .problem(format!("`{}`: the soft limit is above the hard one", entry.key)));
        }
        limits.insert(entry.key.clone(), limit);
    }
    Ok(limits)
}
