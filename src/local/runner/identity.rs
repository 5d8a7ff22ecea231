//! Which ids of this machine the ids of a sandbox are.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, getgid, getuid};

use super::{accounts, system};
use crate::local::wire::{Context, Failure, Level};

/// The last range of ids that systemd sets aside for containers: no account of the machine has one of them.
pub(super) const BASE: u32 = 0x6FFF_0000;
/// Ids of a sandbox: 0 to 65535.
const COUNT: u32 = 0x1_0000;

/// The ids of sandboxes, seen from the runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// What the runner calls uid 0 of a sandbox.
    base: u32,
    /// How many ids a sandbox has from there on.
    count: u32,
    /// The texts of a sandbox's `uid_map` and `gid_map`.
    maps: [String; 2],
}

impl Identity {
    /// Of a level, once the runner is in its user namespace.
    pub(super) fn of(level: Level) -> Result<Self, Failure> {
        let contiguous = |base: u32, count: u32| {
            let map = format!("0 {base} {count}\n");
            Self { base, count, maps: [map.clone(), map] }
        };
        match level {
            Level::RootIdmap => Ok(contiguous(BASE, COUNT)),
            Level::SingleUid | Level::Process => Ok(contiguous(0, 1)),
            Level::Subuid => {
                let own = |name: &str| {
                    fs::read_to_string(format!("/proc/self/{name}"))
                        .step(|| format!("read the runner's {name}"))
                };
                let (uids, gids) = (own("uid_map")?, own("gid_map")?);
                let count = ids_in(&uids).min(ids_in(&gids));
                Ok(Self { base: 0, count, maps: [identical(&uids), identical(&gids)] })
            }
        }
    }

    /// Whether users other than root exist inside.
    pub(super) fn has_users(&self) -> bool {
        self.count > 1
    }

    /// What the runner calls an id of the sandbox; ids that do not exist inside become `nobody` or, with one id, root.
    pub(super) fn outside(&self, id: u32) -> u32 {
        const NOBODY: u32 = 65534;
        match id {
            id if id < self.count => self.base + id,
            _ if NOBODY < self.count => self.base + NOBODY,
            _ => self.base,
        }
    }

    /// Writes the maps of a child's new user namespace.
    pub(super) fn write_maps(&self, pid: Pid) -> io::Result<()> {
        if !self.has_users() {
            fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
        }
        let [uids, gids] = &self.maps;
        fs::write(format!("/proc/{pid}/uid_map"), uids)?;
        fs::write(format!("/proc/{pid}/gid_map"), gids)
    }

    /// A user namespace with these maps and nobody in it, for id-mapped mounts.
    pub(super) fn user_namespace(&self) -> io::Result<OwnedFd> {
        let (mut ready, tell) = io::pipe()?;
        match system::fork()? {
            ForkResult::Child => {
                let unshared = unshare(CloneFlags::CLONE_NEWUSER).is_ok();
                let _ = (&tell).write_all(&[u8::from(unshared)]);
                loop {
                    nix::unistd::pause();
                }
            }
            ForkResult::Parent { child } => {
                drop(tell);
                let mut unshared = [0];
                let made = ready.read_exact(&mut unshared).and_then(|()| {
                    if unshared == [0] {
                        return Err(io::Error::from_raw_os_error(libc::EPERM));
                    }
                    self.write_maps(child)?;
                    fs::File::open(format!("/proc/{child}/ns/user"))
                });
                kill(child, Signal::SIGKILL)?;
                waitpid(child, None)?;
                made.map(OwnedFd::from)
            }
        }
    }
}

/// The lines of a map: first id inside, first id outside, count.
fn extents(map: &str) -> impl Iterator<Item = (u32, u32)> {
    map.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        Some((fields.next()?.parse().ok()?, fields.nth(1)?.parse().ok()?))
    })
}

/// How many ids a map has from 0 on.
fn ids_in(map: &str) -> u32 {
    extents(map).map(|(_, count)| count).sum::<u32>().min(COUNT)
}

/// A map of a child namespace that changes nothing. The kernel wants each line within one line of the parent's.
fn identical(map: &str) -> String {
    let lines: Vec<String> =
        extents(map).map(|(first, count)| format!("{first} {first} {count}\n")).collect();
    lines.concat()
}

/// Takes an ordinary user's runner into a user namespace of its own, in which it is root.
pub(super) fn enter_user_namespace(level: Level) -> Result<(), Failure> {
    let runner = nix::unistd::getpid();
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    let maps = if level == Level::Subuid {
        Some([
            ("newuidmap", subordinate("/etc/subuid", uid)?),
            ("newgidmap", subordinate("/etc/subgid", uid)?),
        ])
    } else {
        None
    };
    let (mut unshared, tell) = io::pipe().step(|| "make a pipe".into())?;
    // the programs that write ranges must run outside of the namespace
    let outside = match &maps {
        None => None,
        Some(maps) => match system::fork().step(|| "fork".into())? {
            ForkResult::Parent { child } => Some(child),
            ForkResult::Child => {
                drop(tell);
                let told = unshared.read_exact(&mut [0]).is_ok();
                let written = told
                    && maps.iter().zip([uid, gid]).all(|((program, (start, count)), own)| {
                        Command::new(program)
                            .args([runner.to_string(), "0".into(), own.to_string(), "1".into()])
                            .args(["1".into(), start.to_string(), count.to_string()])
                            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                            .status()
                            .is_ok_and(|status| status.success())
                    });
                super::leave(i32::from(!written));
            }
        },
    };
    drop(unshared);
    unshare(CloneFlags::CLONE_NEWUSER).step(|| "make a user namespace (unshare CLONE_NEWUSER)".into())?;
    if let Some(child) = outside {
        (&tell).write_all(&[1]).step(|| "tell the helper that writes the id maps".into())?;
        let status = waitpid(child, None).step(|| "wait for the helper that writes the id maps".into())?;
        if !matches!(status, WaitStatus::Exited(_, 0)) {
            return Err(Failure::new("write the id maps with newuidmap and newgidmap", "they failed"));
        }
        return Ok(());
    }
    let write = |file: &str, text: String| {
        fs::write(Path::new("/proc/self").join(file), text).step(|| format!("write {file}"))
    };
    write("setgroups", "deny".into())?;
    write("uid_map", format!("0 {uid} 1\n"))?;
    write("gid_map", format!("0 {gid} 1\n"))
}

/// The first range that a file of subordinate ids gives to the user.
fn subordinate(file: &str, uid: u32) -> Result<(u32, u32), Failure> {
    let text = fs::read_to_string(file).step(|| format!("read {file}"))?;
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let account = accounts::account(&passwd, &format!("#{uid}"));
    range_of(&text, account.as_ref().map(|account| account.name.as_str()), uid).ok_or_else(|| {
        Failure::new(format!("use subordinate ids of {file}"), format!("no range for uid {uid}"))
    })
}

/// Lines are `name-or-uid:start:count`.
fn range_of(text: &str, name: Option<&str>, uid: u32) -> Option<(u32, u32)> {
    let uid = uid.to_string();
    text.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        if owner != uid && Some(owner) != name {
            return None;
        }
        let start = fields.next()?.parse().ok()?;
        let count: u32 = fields.next()?.parse().ok()?;
        // id 0 is the user's own
        (count >= 1000).then(|| (start, count.min(COUNT - 1)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_found_by_name_or_number_and_cut_to_what_a_sandbox_has() {
        let text = "other:1:65536\nme:100000:65536\n4711:200000:70000\nsmall:5:10\n";
        assert_eq!(range_of(text, Some("me"), 1), Some((100_000, 65535)));
        assert_eq!(range_of(text, None, 4711), Some((200_000, 65535)));
        assert_eq!(range_of(text, Some("small"), 1), None);
        assert_eq!(range_of(text, Some("absent"), 1), None);
    }

    #[test]
    fn the_map_of_a_child_has_the_lines_of_its_parents() {
        let own = "         0      65534          1\n         1     100000      65535\n";
        assert_eq!(identical(own), "0 0 1\n1 1 65535\n");
        assert_eq!(ids_in(own), 65536);
    }

    #[test]
    fn ids_that_a_sandbox_lacks_become_nobody_or_root() {
        let full = Identity::of(Level::RootIdmap).unwrap();
        assert_eq!(full.outside(1000), BASE + 1000);
        assert_eq!(full.outside(70_000), BASE + 65534);
        assert_eq!(Identity::of(Level::SingleUid).unwrap().outside(1000), 0);
    }
}
