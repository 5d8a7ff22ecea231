//! Where control groups can be made on this machine, found by making them.
//!
//! A server holds a lock on its groups, so that the next one knows those of the dead.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::cgroup::remove_tree;

/// How the names of servers' groups begin.
pub(super) const PREFIX: &str = "inspect-daytona-";

/// Controllers of version 2 that containers inside of a sandbox may use, beside those that limit sandboxes.
const ALSO_DELEGATED: [&str; 2] = ["cpuset", "io"];

/// A controller that limits of sandboxes need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Controller {
    /// Memory.
    Memory,
    /// Cores.
    Cpu,
    /// Processes.
    Pids,
}

impl Controller {
    const ALL: [Self; 3] = [Self::Memory, Self::Cpu, Self::Pids];

    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Pids => "pids",
        }
    }

    /// The file that a group has if, and only if, the controller works in it.
    fn file(self, unified: bool) -> &'static str {
        match (self, unified) {
            (Self::Memory, false) => "memory.limit_in_bytes",
            (Self::Memory, true) => "memory.max",
            (Self::Cpu, false) => "cpu.cfs_quota_us",
            (Self::Cpu, true) => "cpu.max",
            (Self::Pids, _) => "pids.max",
        }
    }
}

/// A group of the server's own in which groups of sandboxes can be made.
#[derive(Debug)]
pub(super) struct Hierarchy {
    /// The server's group.
    pub(super) directory: PathBuf,
    /// Whether it is version 2.
    pub(super) unified: bool,
    /// The controllers that groups in it have, of those that limit sandboxes.
    pub(super) controllers: Vec<Controller>,
    /// All of its controllers as the kernel writes them, `cpu,cpuacct`, or `name=systemd` where it has none; empty for
    /// version 2.
    pub(super) names: String,
    _lock: File,
}

/// A mounted hierarchy and the group of this process in it.
#[derive(Debug, PartialEq, Eq)]
struct Mounted {
    mount_point: PathBuf,
    own: PathBuf,
    unified: bool,
    /// Of version 1, as in `cpu,cpuacct`; `name=systemd` where there are no controllers.
    names: String,
}

/// Makes a group `name` in each hierarchy with controllers, where that is possible.
pub(super) fn find(name: &str) -> Vec<Hierarchy> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut found: Vec<Hierarchy> = Vec::new();
    let mut mounts = mounted(&mounts, &groups);
    // what dead servers have left is thawed first, or it could not die and would hold its other groups
    mounts.sort_by_key(|mounted| mounted.names != "freezer");
    for mounted in mounts {
        let wanted: Vec<Controller> = Controller::ALL
            .into_iter()
            .filter(|one| mounted.unified || mounted.names.split(',').any(|name| name == one.name()))
            .filter(|one| !found.iter().any(|known| known.controllers.contains(one)))
            .collect();
        // containers inside of a sandbox need the other hierarchies of version 1 too
        let known = found.iter().any(|known| known.names == mounted.names);
        if wanted.is_empty() && (mounted.names.is_empty() || known) {
            continue;
        }
        found.extend(if mounted.unified {
            open_unified(&mounted, name, &wanted)
        } else {
            open(&mounted, name, wanted)
        });
    }
    found
}

/// Version 1: below our own group, so that the server's own limits hold for its sandboxes.
fn open(mounted: &Mounted, name: &str, controllers: Vec<Controller>) -> Option<Hierarchy> {
    sweep(&mounted.own);
    let directory = mounted.own.join(name);
    let lock = make(&directory)?;
    let usable = controllers.iter().all(|one| directory.join(one.file(false)).exists());
    if !usable {
        let _ = fs::remove_dir(&directory);
        return None;
    }
    Some(Hierarchy { directory, unified: false, controllers, names: mounted.names.clone(), _lock: lock })
}

/// Version 2: a group with processes in it, as our own, can have no groups with controllers below it. So the nearest
/// ancestor that we may use and that passes controllers on.
fn open_unified(mounted: &Mounted, name: &str, wanted: &[Controller]) -> Option<Hierarchy> {
    let ancestors = mounted.own.ancestors().skip(usize::from(mounted.own != mounted.mount_point));
    for parent in ancestors.take_while(|parent| parent.starts_with(&mounted.mount_point)) {
        sweep(parent);
        let directory = parent.join(name);
        let Some(lock) = make(&directory) else { continue };
        for controller in wanted.iter().map(|one| one.name()).chain(ALSO_DELEGATED) {
            // each alone, since one that is missing makes the whole line fail
            let enable = format!("+{controller}");
            if parent == mounted.mount_point {
                // only the root of a hierarchy may have both processes and groups with controllers
                let _ = fs::write(parent.join("cgroup.subtree_control"), &enable);
            }
            let _ = fs::write(directory.join("cgroup.subtree_control"), enable);
        }
        let enabled = fs::read_to_string(directory.join("cgroup.subtree_control")).unwrap_or_default();
        let controllers: Vec<Controller> = wanted
            .iter()
            .copied()
            .filter(|one| enabled.split_whitespace().any(|name| name == one.name()))
            .filter(|one| directory.join(one.file(true)).exists())
            .collect();
        if !controllers.is_empty() && may_move_to(parent) {
            return Some(Hierarchy {
                directory,
                unified: true,
                controllers,
                names: String::new(),
                _lock: lock,
            });
        }
        let _ = fs::remove_dir(&directory);
    }
    None
}

/// Makes a group and locks it. `None` where we may not.
fn make(directory: &Path) -> Option<File> {
    const TRIES: usize = 3;
    for _ in 0..TRIES {
        fs::create_dir(directory).ok()?;
        let lock = File::open(directory).ok()?;
        lock.lock().ok()?;
        // another server may have taken it for a dead one's before it was locked
        let there = fs::metadata(directory).is_ok_and(|found| {
            lock.metadata().is_ok_and(|locked| (found.dev(), found.ino()) == (locked.dev(), locked.ino()))
        });
        if there {
            return Some(lock);
        }
    }
    None
}

/// Removes the groups of dead servers.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let Ok(lock) = File::open(entry.path()) else { continue };
        if lock.try_lock().is_ok()
            && let Err(error) = remove_tree(&entry.path())
        {
            // perhaps of another user's server
            tracing::debug!("cannot remove the cgroup {} of a dead server: {error}", entry.path().display());
        }
    }
}

/// Moving a process takes write access to the common ancestor of its old and its new group.
fn may_move_to(ancestor: &Path) -> bool {
    fs::OpenOptions::new().write(true).open(ancestor.join("cgroup.procs")).is_ok()
}

/// `mountinfo`: `id parent dev root mount-point options … - type source super-options`;
/// `cgroup`: `number:controllers:path`.
fn mounted(mounts: &str, groups: &str) -> Vec<Mounted> {
    let mut found = Vec::new();
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let left: Vec<&str> = left.split_whitespace().collect();
        let right: Vec<&str> = right.split_whitespace().collect();
        let (Some(root), Some(mount_point), Some(kind)) = (left.get(3), left.get(4), right.first()) else {
            continue;
        };
        let unified = match *kind {
            "cgroup" => false,
            "cgroup2" => true,
            _ => continue,
        };
        let options: Vec<String> =
            right.get(2).unwrap_or(&"").split(',').map(str::to_owned).filter(|one| !one.is_empty()).collect();
        let path = groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (number, names, path) = (fields.next()?, fields.next()?, fields.next()?);
            let same = if unified {
                number == "0" && names.is_empty()
            } else {
                !names.is_empty() && names.split(',').all(|name| options.iter().any(|option| option == name))
            };
            same.then_some((names, path))
        });
        let Some((names, path)) = path else { continue };
        // in a container, the mount shows a part of the hierarchy only
        let relative = Path::new(path).strip_prefix(root).unwrap_or(Path::new(path));
        let mount_point = PathBuf::from(mount_point);
        let own = mount_point.join(relative.strip_prefix("/").unwrap_or(relative));
        let own = if own.is_dir() || cfg!(test) { own } else { mount_point.clone() };
        found.push(Mounted { mount_point, own, unified, names: names.to_owned() });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_found_with_the_group_of_this_process() {
        let mounts = "30 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      31 25 0:27 /docker/abc /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      32 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                      33 25 0:29 / /proc rw - proc proc rw\n";
        let groups = "4:memory:/a/b\n1:cpu,cpuacct:/docker/abc\n0::/c\n";
        let found = mounted(mounts, groups);
        assert_eq!(found.len(), 3);
        assert_eq!(found[0].own, Path::new("/sys/fs/cgroup/memory/a/b"));
        assert_eq!(found[1].own, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(found[1].names, "cpu,cpuacct");
        assert!(found[2].unified && found[2].names.is_empty());
        assert_eq!(found[2].own, Path::new("/sys/fs/cgroup/unified/c"));
    }
}
