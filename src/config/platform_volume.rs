//! `x-daytona.volumes`: volumes of the platform, by its rules for where they may be mounted.

use serde::Serialize;

use super::node::{Node, Value};
use super::problem::Read;
use super::reading::unknown_key;

/// A volume of the platform to mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlatformVolume {
    /// Its name or id.
    pub volume: String,
    /// An absolute path in the sandbox.
    pub mount_path: String,
    /// Only this part of the volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subpath: Option<String>,
}

/// Directories that the platform lets nobody mount over.
const SYSTEM: [&str; 9] = ["/proc", "/sys", "/dev", "/boot", "/etc", "/bin", "/sbin", "/lib", "/lib64"];

/// Reads the list: `name:/path`, or `volume`, `mount_path` and `subpath`.
pub(crate) fn volumes(node: &Node) -> Read<Vec<PlatformVolume>> {
    let mut all: Vec<PlatformVolume> = Vec::new();
    for item in node.sequence("volumes")? {
        let volume = volume(item)?;
        if all.iter().any(|known| known.mount_path == volume.mount_path) {
            return Err(item.problem(format!("two volumes are mounted at {}", volume.mount_path)));
        }
        all.push(volume);
    }
    Ok(all)
}

fn volume(node: &Node) -> Read<PlatformVolume> {
    let known = ["volume", "mount_path", "subpath"];
    let (volume, mount_path, subpath) = if let Value::Scalar(text) = &node.value {
        let Some((volume, path)) = text.split_once(':') else {
            return Err(node.problem(format!("a volume needs a path: `name:/path`, not `{text}`")));
        };
        (volume.to_owned(), path.to_owned(), None)
    } else {
        let mapping = node.mapping("volumes")?;
        if let Some(entry) = mapping.iter().find(|entry| !known.contains(&entry.key.as_str())) {
            return Err(unknown_key(&entry.key, &entry.place, "volumes", known));
        }
        let text = |key: &str| match mapping.get(key) {
            Some(node) => Ok(node.name(key)?.to_owned()),
            None => Err(node.problem(format!("a volume needs `{key}`"))),
        };
        let subpath = mapping.get("subpath").map(|node| node.name("subpath")).transpose()?;
        (text("volume")?, text("mount_path")?, subpath.map(str::to_owned))
    };
    if volume.is_empty() {
        return Err(node.problem("a volume needs a name"));
    }
    if !is_mountable(&mount_path) {
        return Err(node
            .problem(format!("`{mount_path}` cannot be a volume's path"))
            .hint(format!("It must be absolute, without `.` and `..`, and not below {}", SYSTEM.join(" "))));
    }
    if let Some(subpath) = &subpath
        && (subpath.starts_with('/') || !has_plain_parts(subpath))
    {
        return Err(node.problem(format!(
            "`{subpath}` cannot be a volume's subpath: it must be relative, without `..`"
        )));
    }
    Ok(PlatformVolume { volume, mount_path, subpath })
}

fn is_mountable(path: &str) -> bool {
    let Some(inside) = path.strip_prefix('/') else { return false };
    let system = SYSTEM.iter().any(|system| std::path::Path::new(path).starts_with(system));
    !system && has_plain_parts(inside.strip_suffix('/').unwrap_or(inside))
}

fn has_plain_parts(path: &str) -> bool {
    path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}
