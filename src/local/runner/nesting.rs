//! What a sandbox needs so that a container engine works in it: control groups that it may divide, a fresh `/run`, and a
//! `/var/lib/docker` that is no overlay, on which overlays cannot be stacked.
//!
//! Whatever is looked up in the sandbox's files is looked up by its own root, below its own `/`: its links lead nowhere
//! else, and what the machine does not let that root do is refused.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::setup::Workshop;
use super::system;
use crate::local::spec::SandboxSpec;
use crate::local::wire::{Context, Delegation, Failure};

/// Where Docker keeps images and containers.
const STORAGE: &str = "/var/lib/docker";
const GROUPS: &str = "/sys/fs/cgroup";
/// Files through which a group's owner divides it; those with its limits stay the machine's.
const DIVIDING: [&str; 4] = ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "tasks"];
const SAFE: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);

/// The directory for [`STORAGE`], in the sandbox's own on the machine, as a mount that is attached nowhere.
pub(super) fn storage(workshop: &Workshop, spec: &SandboxSpec) -> Result<OwnedFd, Failure> {
    let directory = spec.directory.join("docker");
    let step = || format!("make {}", directory.display());
    if !directory.exists() {
        let root = workshop.identity.outside(0);
        fs::create_dir(&directory).step(step)?;
        lchown(&directory, Some(root), Some(root)).step(step)?;
        fs::set_permissions(&directory, Permissions::from_mode(0o710)).step(step)?;
    }
    system::open_tree(&directory, false).step(|| format!("copy the mount of {}", directory.display()))
}

/// Gives groups, by their `cgroup.procs`, to the sandbox's root.
pub(super) fn hand_over(workshop: &Workshop, groups: &[PathBuf]) -> Result<(), Failure> {
    let root = workshop.identity.outside(0);
    for directory in groups.iter().filter_map(|procs| procs.parent()) {
        let files = DIVIDING.iter().map(|file| directory.join(file)).filter(|file| file.exists());
        for path in files.chain([directory.to_owned()]) {
            lchown(&path, Some(root), Some(root)).step(|| format!("give {} away", path.display()))?;
        }
    }
    Ok(())
}

/// Prepares the sandbox that this process is the root of.
pub(super) fn furnish(storage: &OwnedFd, delegation: Option<&Delegation>) -> Result<(), Failure> {
    fresh_run().step(|| "make a fresh /run".into())?;
    fs::create_dir_all(STORAGE).step(|| format!("make {STORAGE}"))?;
    system::attach(storage.as_fd(), Path::new(STORAGE)).step(|| format!("attach {STORAGE}"))?;
    // every container takes a key of the user who is the root of all sandboxes, and 200 is all that the kernel grants;
    // container runtimes do without where there are none
    without_keyrings().step(|| "hide the kernel's keyrings (seccomp)".into())?;
    match delegation {
        None => Ok(()),
        Some(Delegation::Split(hierarchies)) => mount_split(hierarchies),
        Some(Delegation::Unified) => mount_unified(),
    }
}

/// Lets this process, and all that it starts, find a kernel without keyrings.
fn without_keyrings() -> io::Result<()> {
    #[cfg(target_arch = "x86_64")]
    const ARCHITECTURE: u32 = 0xC000_003E;
    #[cfg(target_arch = "aarch64")]
    const ARCHITECTURE: u32 = 0xC000_00B7;
    /// Offsets in what the kernel shows to a filter.
    const NUMBER_AT: u32 = 0;
    const ARCHITECTURE_AT: u32 = 4;
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let step = |code: u32, value: u32, then: u8, otherwise: u8| libc::sock_filter {
        code: u16::try_from(code).unwrap_or_default(),
        jt: then,
        jf: otherwise,
        k: value,
    };
    let call = |number: libc::c_long| u32::try_from(number).unwrap_or(u32::MAX);
    let missing = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
    system::filter_system_calls(&mut [
        step(LOAD, ARCHITECTURE_AT, 0, 0),
        step(IF_EQUAL, ARCHITECTURE, 0, 4),
        step(LOAD, NUMBER_AT, 0, 0),
        step(IF_EQUAL, call(libc::SYS_add_key), 3, 0),
        step(IF_EQUAL, call(libc::SYS_request_key), 2, 0),
        step(IF_EQUAL, call(libc::SYS_keyctl), 1, 0),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
        step(RETURN, missing, 0, 0),
    ])
}

/// Sockets and process ids of an engine that was killed would keep the next one from starting.
fn fresh_run() -> io::Result<()> {
    fs::create_dir_all("/run")?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), SAFE, Some("mode=0755"))?;
    fs::create_dir("/run/lock")?;
    system::set_mode(Path::new("/run/lock"), 0o1777)?;
    match fs::symlink_metadata("/var/run") {
        Ok(found) if found.is_dir() => {
            Ok(mount(Some("/run"), "/var/run", None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
        }
        Ok(_) => Ok(()),
        Err(_) => {
            fs::create_dir_all("/var")?;
            symlink("/run", "/var/run")
        }
    }
}

fn mount_split(hierarchies: &[String]) -> Result<(), Failure> {
    mount(Some("tmpfs"), GROUPS, Some("tmpfs"), SAFE | MsFlags::MS_NOEXEC, Some("mode=0755"))
        .step(|| format!("mount a tmpfs on {GROUPS}"))?;
    for names in hierarchies {
        let name = names.strip_prefix("name=");
        let directory = Path::new(GROUPS).join(name.unwrap_or(names));
        let step = || format!("mount the control groups {names}");
        fs::create_dir(&directory).step(step)?;
        let flags = SAFE | MsFlags::MS_NOEXEC;
        // one that exists, as all of these do: another one is the machine's to make
        let options = if name.is_some() { format!("none,{names}") } else { names.clone() };
        mount(Some("cgroup"), &directory, Some("cgroup"), flags, Some(options.as_str())).step(step)?;
        for name in names.split(',').filter(|name| name != names) {
            symlink(names, Path::new(GROUPS).join(name)).step(step)?;
        }
    }
    // what looks like a limit must not be a file that somebody has made
    let flags = SAFE | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY | MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    mount(None::<&str>, GROUPS, None::<&str>, flags, None::<&str>).step(|| format!("make {GROUPS} read-only"))
}

/// A group with processes can have no groups with controllers below it, so that this one moves into a leaf first.
fn mount_unified() -> Result<(), Failure> {
    let flags = SAFE | MsFlags::MS_NOEXEC;
    mount(Some("cgroup2"), GROUPS, Some("cgroup2"), flags, None::<&str>)
        .step(|| "mount the control groups".into())?;
    let groups = Path::new(GROUPS);
    let leaf = groups.join("init");
    fs::create_dir(&leaf).step(|| "make a control group".into())?;
    write(&leaf.join("cgroup.procs"), "0").step(|| "move into a control group".into())?;
    let controllers = fs::read_to_string(groups.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        write(&groups.join("cgroup.subtree_control"), &format!("+{controller}"))
            .step(|| format!("let groups have the controller {controller}"))?;
    }
    Ok(())
}

/// Unlike [`fs::write`], asks neither for a new file nor for an empty one.
fn write(path: &Path, text: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}
