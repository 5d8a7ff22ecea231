//! Volumes: directories that sandboxes share and that outlive them.
//!
//! All sandboxes of a server have the same ids on the machine, so an owner in one is the same owner in another.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::FchmodatFlags;
use nix::sys::stat::{Mode, fchmodat, mkdirat};
use nix::unistd::{Gid, Uid, fchownat};

use super::setup::Workshop;
use super::system;
use crate::local::spec::Mount;
use crate::local::wire::{Context, Failure};

/// Opens what is to be mounted, made where it is missing, as mounts that are attached nowhere.
pub(super) fn open(workshop: &Workshop, mounts: &[Mount]) -> Result<Vec<OwnedFd>, Failure> {
    mounts.iter().map(|mount| open_one(workshop, mount)).collect()
}

fn open_one(workshop: &Workshop, mount: &Mount) -> Result<OwnedFd, Failure> {
    let step = || {
        let subpath = mount.subpath.as_deref().unwrap_or(Path::new("the whole"));
        format!("open {} of the volume for {}", subpath.display(), mount.target.display())
    };
    let root = workshop.identity.outside(0);
    let (parent, name) = (mount.source.parent(), mount.source.file_name());
    let (Some(parent), Some(name)) = (parent, name) else {
        return Err(Failure::new(step(), "the volume has no directory"));
    };
    fs::create_dir_all(parent).step(step)?;
    let parent = OwnedFd::from(File::open(parent).step(step)?);
    let mut directory = enter(&parent, Path::new(name), root).step(step)?;
    for component in mount.subpath.iter().flat_map(|subpath| subpath.components()) {
        // whoever wrote the volume may have put links there
        let Component::Normal(name) = component else {
            return Err(Failure::new(step(), "a part of it is no plain name"));
        };
        directory = enter(&directory, Path::new(name), root).step(step)?;
    }
    // the path of a descriptor leads to what it is open on, wherever that is now
    let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    let tree = system::open_tree(&path, false).step(step)?;
    system::forbid_privileges(tree.as_fd()).step(step)?;
    Ok(tree)
}

/// Opens a directory, never through a link. A new one is everybody's, since nobody knows who will use it.
fn enter(parent: &OwnedFd, name: &Path, owner: u32) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match openat(parent, name, flags, Mode::empty()) {
        Err(Errno::ENOENT) => {}
        opened => return Ok(opened?),
    }
    match mkdirat(parent, name, Mode::S_IRWXU) {
        // another sandbox was faster
        Err(Errno::EEXIST) => return Ok(openat(parent, name, flags, Mode::empty())?),
        made => made?,
    }
    let (uid, gid) = (Uid::from_raw(owner), Gid::from_raw(owner));
    fchownat(parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let directory = openat(parent, name, flags, Mode::empty())?;
    // through the descriptor's path, since a mode cannot be set without following links
    let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
    fchmodat(parent, path.as_str(), Mode::from_bits_truncate(0o777), FchmodatFlags::FollowSymlink)?;
    Ok(directory)
}

/// Attaches what was opened, in the sandbox that this process is the root of: its links lead nowhere else.
pub(super) fn attach(trees: &[OwnedFd], mounts: &[Mount]) -> Result<(), Failure> {
    for (tree, mount) in trees.iter().zip(mounts) {
        let step = || format!("mount a volume on {}", mount.target.display());
        fs::create_dir_all(&mount.target).step(step)?;
        system::attach(tree.as_fd(), &mount.target).step(step)?;
    }
    Ok(())
}
