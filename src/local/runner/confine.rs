//! The `process` level: no namespaces, but Landlock, a system call filter and no capabilities.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};
use nix::unistd::{Pid, getgid, getuid};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use super::accounts::{self, Account};
use crate::local::spec::{Network, RootFs, SandboxSpec};
use crate::local::wire::{Context, Failure};

/// What programs need to run, and nothing where people or services keep what is theirs.
const READABLE: [&str; 12] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc",
    "/opt",
    "/proc",
    "/sys",
    // where /etc/resolv.conf may lead
    "/run/systemd/resolve",
];
const DEVICES: [&str; 8] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/ptmx",
    "/dev/pts",
];

/// Directory for temporary files of a sandbox.
pub(super) fn temporary(spec: &SandboxSpec) -> PathBuf {
    spec.directory.join("tmp")
}

/// Makes the runner the parent of what sandboxes leave behind.
pub(super) fn adopt_orphans() -> Result<(), Failure> {
    nix::sys::prctl::set_child_subreaper(true).step(|| "adopt orphans (PR_SET_CHILD_SUBREAPER)".into())
}

/// The children of this process.
pub(super) fn children() -> io::Result<Vec<Pid>> {
    let own = nix::unistd::getpid();
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // a process may end while we look
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // `pid (name) state parent …`, and the name may contain anything
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        if parent == Some(own.as_raw()) {
            children.push(Pid::from_raw(pid));
        }
    }
    Ok(children)
}

/// Confines this process, and everything that it will start, to the sandbox's directory. `program` may be exec'd.
pub(super) fn confine(spec: &SandboxSpec, program: &File) -> Result<Account, Failure> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let own = accounts::account(&passwd, &format!("#{}", getuid()))
        .ok_or_else(|| Failure::new("find out who we are", "the user has no account"))?;
    if spec.user != "daytona" && spec.user != own.name {
        let message = "process sandboxes have the server's user only";
        return Err(Failure::new(format!("run as user {}", spec.user), message));
    }
    if spec.root != RootFs::Host {
        return Err(Failure::new("use a root file system", "process sandboxes have the machine's only"));
    }
    adopt_orphans()?;
    let home = spec.directory.join("home");
    for directory in [&home, &temporary(spec)] {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.step(|| format!("make {}", directory.display()))?;
    }
    confine_files(spec, program)?;
    filter_system_calls(spec)?;
    drop_capabilities()?;
    let shell = if Path::new("/bin/bash").exists() { "/bin/bash" } else { "/bin/sh" };
    let gid = getgid().as_raw();
    Ok(Account { home, gid, shell: shell.into(), ..own })
}

fn landlock_failure(error: &dyn std::fmt::Display) -> Failure {
    Failure::new("confine files with Landlock", error.to_string())
}

fn confine_files(spec: &SandboxSpec, program: &File) -> Result<(), Failure> {
    let failed = |error: landlock::RulesetError| landlock_failure(&error);
    let abi = ABI::V6;
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .map_err(failed)?
        .scope(Scope::Signal | Scope::AbstractUnixSocket)
        .map_err(failed)?
        .create()
        .map_err(failed)?;
    let mut rules = Rules { ruleset };
    for path in READABLE {
        rules.allow(Path::new(path), AccessFs::from_read(abi))?;
    }
    for path in DEVICES {
        rules.allow(Path::new(path), AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev)?;
    }
    rules.allow(&spec.directory, AccessFs::from_all(abi))?;
    // refused for a program in memory, which needs no rule
    let _ = (&mut rules.ruleset).add_rule(PathBeneath::new(program, AccessFs::Execute | AccessFs::ReadFile));
    let status = rules.ruleset.restrict_self().map_err(failed)?;
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err(landlock_failure(&"this kernel has none (5.13 and later, with landlock among its lsm=)"));
    }
    Ok(())
}

struct Rules {
    ruleset: RulesetCreated,
}

impl Rules {
    /// Allows access below a path, if it exists.
    fn allow(&mut self, path: &Path, access: landlock::BitFlags<AccessFs>) -> Result<(), Failure> {
        let Ok(directory) = PathFd::new(path) else { return Ok(()) };
        let access = if path.is_dir() { access } else { access & AccessFs::from_file(ABI::V6) };
        (&mut self.ruleset)
            .add_rule(PathBeneath::new(directory, access))
            .map(drop)
            .map_err(|error| landlock_failure(&error))
    }
}

/// Without a network namespace, a blocked network is one in which no socket but a local one can be made.
fn filter_system_calls(spec: &SandboxSpec) -> Result<(), Failure> {
    if spec.network == Network::Host {
        return Ok(());
    }
    let failed =
        |error: &dyn std::fmt::Display| Failure::new("block the network with seccomp", error.to_string());
    let domain = u64::try_from(libc::AF_UNIX).unwrap_or(1);
    let other = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, domain)
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(|error| failed(&error))?;
    let errno = |number: i32| SeccompAction::Errno(number.cast_unsigned());
    let architecture = std::env::consts::ARCH.try_into().map_err(|_| failed(&"unknown architecture"))?;
    let sockets = SeccompFilter::new(
        [(libc::SYS_socket, vec![other])].into(),
        SeccompAction::Allow,
        errno(libc::ENETUNREACH),
        architecture,
    );
    // a ring makes sockets without the system call
    let rings = SeccompFilter::new(
        [(libc::SYS_io_uring_setup, Vec::new())].into(),
        SeccompAction::Allow,
        errno(libc::ENOSYS),
        architecture,
    );
    for filter in [sockets, rings] {
        let program: BpfProgram =
            filter.and_then(TryInto::try_into).map_err(|error: seccompiler::BackendError| failed(&error))?;
        seccompiler::apply_filter(&program).map_err(|error| failed(&error))?;
    }
    Ok(())
}

/// A server that runs as root must not lend its powers.
fn drop_capabilities() -> Result<(), Failure> {
    let failed = |error: caps::errors::CapsError| Failure::new("drop capabilities", error.to_string());
    if caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_SETPCAP).map_err(failed)? {
        for capability in caps::read(None, caps::CapSet::Bounding).map_err(failed)? {
            caps::drop(None, caps::CapSet::Bounding, capability).map_err(failed)?;
        }
    }
    for set in
        [caps::CapSet::Ambient, caps::CapSet::Inheritable, caps::CapSet::Effective, caps::CapSet::Permitted]
    {
        caps::clear(None, set).map_err(failed)?;
    }
    Ok(())
}
