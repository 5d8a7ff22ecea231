//! The first process of a sandbox, from its birth to the exec of [`super::init`].
//!
//! It holds capabilities in its own user namespace only.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{PipeReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, pivot_root, sethostname};

use super::accounts::{self, Account};
use super::setup::Workshop;
use super::{confine, nesting, system, volumes};
use crate::local::spec::{Network, RootFs, SandboxSpec};
use crate::local::wire::{Context, Delegation, Failure, Level};

/// Where programs are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the first process starts with.
pub(super) struct Entry<'a> {
    /// What sandboxes are made from.
    pub(super) workshop: &'a Workshop,
    /// What it is to be.
    pub(super) spec: &'a SandboxSpec,
    /// What containers inside keep their files in, where there are to be any: a detached mount.
    pub(super) storage: Option<OwnedFd>,
    /// Its volumes, in the order of its mounts.
    pub(super) volumes: Vec<OwnedFd>,
    /// The control groups that the sandbox may divide.
    pub(super) delegation: Option<&'a Delegation>,
    /// One byte comes when ids and cgroups are set; the end of the stream means that the worker has failed.
    pub(super) gate: PipeReader,
    /// Where a failure is told.
    pub(super) status: OwnedFd,
    /// Where the toolbox is to serve.
    pub(super) listener: BorrowedFd<'a>,
    /// Closed when the runner has ended.
    pub(super) life: BorrowedFd<'a>,
}

/// Enters the sandbox and never returns.
pub(super) fn run(entry: &Entry<'_>) -> ! {
    let Err(failure) = become_first(entry);
    let text = serde_json::to_vec(&failure).unwrap_or_default();
    if let Ok(status) = entry.status.try_clone() {
        let _ = File::from(status).write_all(&text);
    }
    super::leave(1)
}

fn become_first(entry: &Entry<'_>) -> Result<Infallible, Failure> {
    (&entry.gate).read_exact(&mut [0]).step(|| "wait for the worker".into())?;
    system::join_new_keyring().step(|| "join a new session keyring".into())?;
    nix::unistd::setsid().step(|| "make a session".into())?;
    let program = File::open("/proc/self/exe").step(|| "open this program".into())?;
    let spec = entry.spec;
    let account = if entry.workshop.level == Level::Process {
        confine::confine(spec, &program)?
    } else {
        enter_namespaces(entry)?;
        let account = find_account(spec)?;
        if let Some(work_dir) = &spec.work_dir {
            // as a Dockerfile's WORKDIR does; whoever cannot use it is told below
            let _ = fs::create_dir_all(work_dir);
        }
        let has_users = entry.workshop.identity.has_users();
        let group = fs::read_to_string("/etc/group").unwrap_or_default();
        let groups = accounts::groups(&group, &account);
        // where there is one user only, it is root under every name
        let (uid, gid) = if has_users { (account.uid, account.gid) } else { (0, 0) };
        system::become_user(uid, gid, has_users.then_some(&groups[..]))
            .step(|| format!("become the user {}", account.name))?;
        account
    };
    let work_dir = spec.work_dir.as_ref().unwrap_or(&account.home);
    chdir(work_dir).step(|| format!("change to the working directory {}", work_dir.display()))?;
    // a change of the user id has undone an earlier request
    system::die_with_parent().step(|| "ask to be killed with the runner".into())?;
    if has_ended(entry.life) {
        return Err(Failure::new("start the sandbox", "the runner has ended"));
    }
    system::reset_signals().step(|| "reset the signal mask".into())?;
    let mut variables = environment(spec, &account);
    if entry.workshop.level == Level::Process {
        variables.push(("TMPDIR".into(), confine::temporary(spec).to_string_lossy().into_owned()));
    }
    let environment = c_strings(&variables)?;
    let user = CString::new(account.name.as_str())
        .map_err(|_| Failure::new("pass on the user's name", "it contains NUL"))?;
    // at 3, 4 and 5, as `init` expects
    system::place(&[entry.listener, entry.status.as_fd(), program.as_fd()])
        .step(|| "arrange the file descriptors".into())?;
    let word = |word: &String| {
        CString::new(word.as_str()).map_err(|_| Failure::new("pass on the entrypoint", "it contains NUL"))
    };
    let entrypoint = spec.entrypoint.iter().map(word).collect::<Result<Vec<_>, _>>()?;
    let mut arguments = vec![c"inspect-daytona-toolbox", c"init", &user];
    arguments.extend(entrypoint.iter().map(CString::as_c_str));
    system::exec_placed(5, &arguments, &environment).step(|| "exec the toolbox".into())
}

fn enter_namespaces(entry: &Entry<'_>) -> Result<(), Failure> {
    let spec = entry.spec;
    let root = entry.workshop.root();
    // after the worker has put us into our cgroups, which become the root of what we see
    unshare(CloneFlags::CLONE_NEWCGROUP).step(|| "make a cgroup namespace".into())?;
    sethostname(&spec.hostname).step(|| "set the host name".into())?;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(&root), &root, None::<&str>, flags, None::<&str>).step(|| "bind the root".into())?;
    chdir(&root).step(|| "change to the root".into())?;
    let has_users = entry.workshop.identity.has_users();
    system::become_user(0, 0, has_users.then_some(&[])).step(|| "become the sandbox's root".into())?;
    mount_own(spec, has_users)?;
    if spec.network != Network::Host {
        let mounted = own_system_information();
        // the machine's view is there already; where the machine hides parts of its own, the kernel allows no other one
        if entry.workshop.level == Level::RootIdmap {
            mounted.step(|| "mount a /sys of its own".into())?;
        }
    }
    pivot_root(".", ".").step(|| "pivot_root".into())?;
    umount2(".", MntFlags::MNT_DETACH).step(|| "leave the old root".into())?;
    chdir("/").step(|| "change to the new root".into())?;
    if let Some(storage) = &entry.storage {
        nesting::furnish(storage, entry.delegation)?;
    }
    volumes::attach(&entry.volumes, &spec.mounts)?;
    if spec.network != Network::Host {
        system::interface_up(c"lo").step(|| "switch the loopback interface on".into())?;
    }
    Ok(())
}

/// A view of the kernel that shows the network interfaces of the sandbox.
fn own_system_information() -> nix::Result<()> {
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("sysfs"), "sys", Some("sysfs"), flags, None::<&str>)
}

/// What belongs to the sandbox's own namespaces. The current directory is its root.
fn mount_own(spec: &SandboxSpec, has_users: bool) -> Result<(), Failure> {
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let quiet = safe | MsFlags::MS_NOEXEC;
    let terminals = format!("newinstance,ptmxmode=0666,mode=0620{}", if has_users { ",gid=5" } else { "" });
    let mut file_systems = vec![
        ("proc", "proc", quiet, ""),
        ("devpts", "dev/pts", MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, terminals.as_str()),
        ("tmpfs", "dev/shm", safe, "mode=1777"),
        ("mqueue", "dev/mqueue", quiet, ""),
    ];
    if spec.root == RootFs::Host {
        file_systems.push(("tmpfs", "run", safe, "mode=0755"));
    }
    for (kind, target, flags, options) in file_systems {
        let options = (!options.is_empty()).then_some(options);
        mount(Some(kind), target, Some(kind), flags, options)
            .step(|| format!("mount {kind} on /{target}"))?;
    }
    if spec.root == RootFs::Host {
        fs::create_dir("run/lock").step(|| "make /run/lock".into())?;
        system::set_mode(Path::new("run/lock"), 0o1777).step(|| "make /run/lock".into())?;
    }
    Ok(())
}

fn find_account(spec: &SandboxSpec) -> Result<Account, Failure> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let (user, group) =
        spec.user.split_once(':').map_or((spec.user.as_str(), None), |(user, group)| (user, Some(group)));
    let mut account = accounts::account(&passwd, user)
        .ok_or_else(|| Failure::new(format!("run as user {user}"), "the sandbox has no such user"))?;
    if let Some(group) = group.filter(|group| !group.is_empty()) {
        let groups = fs::read_to_string("/etc/group").unwrap_or_default();
        account.gid = accounts::group_id(&groups, group)
            .ok_or_else(|| Failure::new(format!("run in group {group}"), "the sandbox has no such group"))?;
    }
    if !account.home.is_dir() {
        account.home = PathBuf::from("/");
    }
    Ok(account)
}

/// What is set for every user, unless the sandbox's own variables say otherwise.
fn environment(spec: &SandboxSpec, account: &Account) -> Vec<(String, String)> {
    let own = [
        ("PATH", PATH.to_owned()),
        ("HOME", account.home.to_string_lossy().into_owned()),
        ("USER", account.name.clone()),
        ("LOGNAME", account.name.clone()),
        ("SHELL", account.shell.clone()),
        ("HOSTNAME", spec.hostname.clone()),
        ("LANG", "C.UTF-8".to_owned()),
    ];
    let own = own.into_iter().filter(|(name, _)| !spec.env.contains_key(*name));
    own.map(|(name, value)| (name.to_owned(), value))
        .chain(spec.env.iter().map(|(name, value)| (name.clone(), value.clone())))
        .collect()
}

fn c_strings(variables: &[(String, String)]) -> Result<Vec<CString>, Failure> {
    let one = |(name, value): &(String, String)| {
        CString::new(format!("{name}={value}"))
            .map_err(|_| Failure::new(format!("set the variable {name}"), "it contains NUL"))
    };
    variables.iter().map(one).collect()
}

fn has_ended(life: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(life, PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}
