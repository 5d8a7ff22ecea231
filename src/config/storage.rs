//! Volumes, file systems in memory and limits of processes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::files::normalize;
use super::node::{Entry, Mapping, Node, Value};
use super::plan::{LocalPath, Purpose, Tmpfs, Ulimit};
use super::platform_volume::PlatformVolume;
use super::problem::{Place, Read};
use super::reading::{Reading, unknown_key};
use super::units::bytes;

/// A mount in either notation.
struct Mount {
    kind: String,
    source: Option<String>,
    target: String,
    tmpfs: Tmpfs,
}

/// Reads `volumes`. A single sandbox needs none of its own; what comes from outside is refused there, and becomes a
/// local path where Compose mounts it.
pub(crate) fn volumes(
    reading: &mut Reading<'_>,
    service: &Mapping,
    service_name: &str,
    named: Option<&Mapping>,
    platform: &[PlatformVolume],
    local: &mut Vec<LocalPath>,
) -> Read<Vec<Tmpfs>> {
    let Some(node) = service.get("volumes") else { return Ok(Vec::new()) };
    let mut in_memory = Vec::new();
    for item in node.sequence("volumes")? {
        let mount = mount(item)?;
        match mount.kind.as_str() {
            "tmpfs" => in_memory.push(mount.tmpfs),
            "volume" => named_volume(reading, item, mount.source.as_deref(), named)?,
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
    Ok(in_memory)
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
            let Some(source) = mount(item)?.source else { continue };
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
    let outside =
        ["external", "driver_opts"].iter().any(|key| options.get(key).is_some_and(|node| !node.is_void()));
    let driver = options.get("driver").map(|node| node.text("driver")).transpose()?;
    if outside || driver.is_some_and(|driver| driver != "local") {
        return Err(node
            .problem(format!("the volume `{name}` lives outside of the sandbox"))
            .hint("Use a volume of the platform: `x-daytona.volumes`"));
    }
    Ok(())
}

fn mount(node: &Node) -> Read<Mount> {
    let Value::Mapping(mapping) = &node.value else {
        return short_mount(node);
    };
    let known = ["type", "source", "target", "read_only", "consistency", "bind", "volume", "tmpfs", "image"];
    for entry in mapping.iter() {
        if !known.contains(&entry.key.as_str()) && !entry.key.starts_with("x-") {
            return Err(unknown_key(&entry.key, &entry.place, "volumes", known));
        }
    }
    let Some(target) = mapping.get("target") else {
        return Err(node.problem("a volume needs a `target`"));
    };
    let target = absolute(target, target.text("target")?)?;
    let mut tmpfs = Tmpfs { path: target.clone(), size: None, mode: None };
    if let Some(options) = mapping.get("tmpfs") {
        let options = options.mapping("tmpfs")?;
        tmpfs.size = options.get("size").map(|node| bytes(node, "size")).transpose()?;
        tmpfs.mode = options.get("mode").map(|node| node.text("mode")).transpose()?.map(str::to_owned);
    }
    let text = |key: &str| mapping.get(key).map(|node| node.text(key)).transpose();
    let kind = text("type")?.unwrap_or("volume").to_owned();
    Ok(Mount { kind, source: text("source")?.map(str::to_owned), target, tmpfs })
}

/// `[source:]target[:options]`. A source that begins like a path is a bind mount.
fn short_mount(node: &Node) -> Read<Mount> {
    let text = node.name("volumes")?;
    let mut parts = text.split(':');
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
    let tmpfs = Tmpfs { path: target.clone(), size: None, mode: None };
    Ok(Mount { kind: kind.to_owned(), source: source.map(str::to_owned), target, tmpfs })
}

fn absolute(node: &Node, path: &str) -> Read<String> {
    if path.starts_with('/') {
        Ok(path.to_owned())
    } else {
        Err(node.problem(format!("`{path}` must be an absolute path inside the sandbox")))
    }
}

/// Reads `tmpfs`: `/path` or `/path:size=64m,mode=1777`.
pub(crate) fn tmpfs(service: &Mapping) -> Read<Vec<Tmpfs>> {
    let Some(node) = service.get("tmpfs") else { return Ok(Vec::new()) };
    let items = match &node.value {
        Value::Sequence(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let mut all = Vec::new();
    for item in items {
        let text = item.name("tmpfs")?;
        let (path, options) = text.split_once(':').unwrap_or((text, ""));
        let mut tmpfs = Tmpfs { path: absolute(item, path)?, size: None, mode: None };
        for option in options.split(',') {
            match option.split_once('=') {
                Some(("size", size)) => {
                    let value = Value::Scalar(size.to_owned());
                    let size = Node { place: item.place.clone(), value, plain: true };
                    tmpfs.size = Some(bytes(&size, "size")?);
                }
                Some(("mode", mode)) => tmpfs.mode = Some(mode.to_owned()),
                _ => {}
            }
        }
        if let Some(mode) = &tmpfs.mode
            && !mode.bytes().all(|digit| (b'0'..=b'7').contains(&digit))
        {
            return Err(item.problem(format!("the mode `{mode}` of a tmpfs is not octal")));
        }
        all.push(tmpfs);
    }
    Ok(all)
}

/// Reads `ulimits`: one number, or `soft` and `hard`.
pub(crate) fn ulimits(service: &Mapping) -> Read<BTreeMap<String, Ulimit>> {
    /// What Linux knows (getrlimit(2)), in Docker's spelling.
    const KNOWN: [&str; 15] = [
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
