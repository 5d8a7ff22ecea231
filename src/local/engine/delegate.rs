//! Control groups that a sandbox may divide among containers inside of it.
//!
//! They lie below the sandbox's own groups, whose limits it can neither see nor change.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::cgroup::Cgroup;
use super::hierarchy::Hierarchy;
use crate::local::wire::Delegation;

/// The group that a sandbox sees as the root of its hierarchy.
const OWN: &str = "sandbox";
/// Without it, no Docker Engine starts where groups are of version 1.
const REQUIRED: &str = "devices";
/// What a process needs of `cpuset` before it can be put into a group of version 1.
const CPUSET: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// Makes the groups of the sandbox `id` in every hierarchy of one version, and one for the sandbox's own use in each.
pub(super) fn delegate(
    hierarchies: &[Hierarchy],
    id: &str,
    group: &mut Cgroup,
) -> Result<(), (PathBuf, io::Error)> {
    // where both versions have controllers, container engines use the first
    let unified = hierarchies.iter().all(|hierarchy| hierarchy.unified);
    // all of them: an engine finds none of its groups unless it sees each hierarchy that the kernel lists
    let used: Vec<&Hierarchy> = hierarchies.iter().filter(|one| one.unified == unified).collect();
    let has = |name: &str| used.iter().any(|one| one.names.split(',').any(|known| known == name));
    if used.is_empty() || !(unified || has(REQUIRED)) {
        let error = io::Error::new(io::ErrorKind::PermissionDenied, "this server can make no groups here");
        return Err((PathBuf::from("/sys/fs/cgroup"), error));
    }
    for hierarchy in &used {
        let directory = hierarchy.directory.join(id);
        group.make(&directory)?;
        if unified {
            pass_on(&directory);
        }
        let own = directory.join(OWN);
        fs::create_dir(&own).map_err(|error| (own.clone(), error))?;
        if hierarchy.names.split(',').any(|name| name == "cpuset") {
            [&hierarchy.directory, &directory, &own].into_iter().try_for_each(|group| inherit(group))?;
        }
        group.delegated.push(own);
    }
    let names = used.iter().map(|hierarchy| hierarchy.names.clone()).collect();
    group.delegation = Some(if unified { Delegation::Unified } else { Delegation::Split(names) });
    Ok(())
}

/// Lets groups below have the controllers that this one has.
fn pass_on(directory: &Path) {
    let controllers = fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        // each alone; one that cannot be passed on is missing inside
        let _ = fs::write(directory.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// Takes processors and memory nodes from the group above, which a new group lacks.
fn inherit(group: &Path) -> Result<(), (PathBuf, io::Error)> {
    let Some(above) = group.parent() else { return Ok(()) };
    for file in CPUSET {
        let path = group.join(file);
        let own = fs::read_to_string(&path).map_err(|error| (path.clone(), error))?;
        if own.trim().is_empty() {
            let inherited =
                fs::read_to_string(above.join(file)).map_err(|error| (above.join(file), error))?;
            fs::write(&path, inherited.trim()).map_err(|error| (path, error))?;
        }
    }
    Ok(())
}
