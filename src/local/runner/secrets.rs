//! The search for what ordinary users of the machine cannot read, which a sandbox's root could: it sees the files of
//! the machine's root as its own.

use std::collections::VecDeque;
use std::ffi::CString;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::base_layer::{Layer, is_backup_of_accounts};
use super::system;
use crate::local::wire::{Context, Failure};

/// Directories below which the machine may keep secrets. Packages own the rest of `/usr`, which would take too long.
const SEARCHED: [(&str, Rest); 4] =
    [("etc", Rest::Hidden), ("var", Rest::Hidden), ("opt", Rest::Shown), ("usr/local", Rest::Shown)];
/// How long each of them may take; the server waits a minute for the runner.
const PATIENCE: Duration = Duration::from_secs(10);

/// What becomes of directories that the search does not reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// Data, of which a sandbox needs little.
    Hidden,
    /// Programs, of which none may vanish because others are many.
    Shown,
}

impl Rest {
    /// How many entries are looked at.
    fn entries(self) -> usize {
        match self {
            Self::Hidden => 200_000,
            Self::Shown => 2_000_000,
        }
    }
}

/// Hides what sandboxes must not see. Returns what was not searched, and what follows, as sentences.
pub(super) fn hide(layer: &Layer<'_>) -> Result<Vec<String>, Failure> {
    let mut sentences = Vec::new();
    for (top, rest) in SEARCHED {
        let step = || format!("hide what /{top} keeps from its users");
        let Some(search) = Search::below(layer, top).step(step)? else { continue };
        let until = Instant::now() + PATIENCE;
        let whole = search.run(&Bounds { entries: rest.entries(), until, rest }).step(step)?;
        match rest {
            _ if whole => {}
            Rest::Hidden => sentences
                .push(format!("Parts of /{top} are hidden in sandboxes, since it has very many files.")),
            Rest::Shown => sentences.push(format!(
                "Parts of /{top} were not searched for what only some users of this machine may read, since it has \
                 very many files: the root of a sandbox may read it there."
            )),
        }
    }
    Ok(sentences)
}

/// How far a search goes.
struct Bounds {
    entries: usize,
    until: Instant,
    rest: Rest,
}

impl Bounds {
    fn are_passed(&self, entries: usize) -> bool {
        entries > self.entries || Instant::now() > self.until
    }
}

/// A search below one directory of the machine.
struct Search<'a> {
    layer: &'a Layer<'a>,
    /// From the root.
    top: &'static str,
    /// The first part of `top`, and where it is looked at.
    view: (&'static str, PathBuf),
    /// What `view` refers to.
    _tree: Option<OwnedFd>,
}

impl<'a> Search<'a> {
    /// Looks where sandboxes will: at a copy of the mount, without what is mounted below it. So no search enters
    /// another file system, which may be large, far away or hanging, and what a mount covers is searched.
    fn below(layer: &'a Layer<'a>, top: &'static str) -> io::Result<Option<Self>> {
        let first = top.split('/').next().unwrap_or(top);
        let host = Path::new("/").join(first);
        // a link leads to where another search looks, or nowhere that sandboxes see
        if !fs::symlink_metadata(&host).is_ok_and(|found| found.is_dir()) {
            return Ok(None);
        }
        let tree = system::open_tree(&host, false)?;
        // the dot makes it the directory rather than the link to it
        let view = PathBuf::from(format!("/proc/self/fd/{}/.", tree.as_raw_fd()));
        Ok(Some(Self { layer, top, view: (first, view), _tree: Some(tree) }))
    }

    fn host(&self, relative: &Path) -> PathBuf {
        let (first, view) = &self.view;
        view.join(relative.strip_prefix(first).unwrap_or(relative))
    }

    /// Searches the directories that are nearest to the top first. Whether all was looked at.
    fn run(&self, bounds: &Bounds) -> io::Result<bool> {
        let top = Path::new(self.top);
        let mode = match fs::symlink_metadata(self.host(top)) {
            Ok(found) if found.is_dir() => found.mode(),
            _ => return Ok(true),
        };
        // the directory itself cannot be hidden, all that is in it can
        let closed = mode & OPEN != OPEN;
        let mut directories = VecDeque::from([top.to_owned()]);
        let (mut entries, mut whole) = (0, true);
        while let Some(relative) = directories.pop_front() {
            // what vanishes while we look needs no hiding
            let Ok(found) = fs::read_dir(self.host(&relative)) else { continue };
            for entry in found.flatten() {
                if relative != top && bounds.are_passed(entries) {
                    whole = false;
                    if bounds.rest == Rest::Shown {
                        return Ok(false);
                    }
                    present(self.hide_directory(&relative))?;
                    break;
                }
                entries += 1;
                let name = relative.join(entry.file_name());
                let Ok(metadata) = entry.metadata() else { continue };
                present(match verdict(&name, &metadata, closed) {
                    Verdict::Shown => Ok(()),
                    // what sandboxes have of their own in its place hides it already
                    _ if self.has_file(&name) => Ok(()),
                    Verdict::Searched => {
                        directories.push_back(name);
                        Ok(())
                    }
                    // not secret by its mode, but other users' all the same
                    Verdict::Emptied => self.opaque(&name),
                    Verdict::Hidden if metadata.is_dir() => self.hide_directory(&name),
                    Verdict::Hidden => self.hide_file(&name),
                })?;
            }
        }
        Ok(whole)
    }

    fn has_file(&self, relative: &Path) -> bool {
        self.layer.directory.join(relative).symlink_metadata().is_ok_and(|known| !known.is_dir())
    }

    /// A mark that overlayfs takes for the absence of a file.
    fn hide_file(&self, relative: &Path) -> io::Result<()> {
        self.parents(relative)?;
        mknod(&self.layer.directory.join(relative), SFlag::S_IFCHR, Mode::empty(), makedev(0, 0))?;
        Ok(())
    }

    /// An empty directory of the same owner and mode.
    fn hide_directory(&self, relative: &Path) -> io::Result<()> {
        self.parents(relative)?;
        self.like_host(relative)?;
        self.opaque(relative)
    }

    fn opaque(&self, relative: &Path) -> io::Result<()> {
        let path = self.layer.directory.join(relative);
        let path = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
        system::set_attribute(&path, c"trusted.overlay.opaque", b"y")
    }

    /// A merged directory has the mode of its topmost layer, so each parent must be as it is on the host.
    fn parents(&self, relative: &Path) -> io::Result<()> {
        let is_missing = |parent: &&Path| !self.layer.directory.join(parent).exists();
        let mut missing: Vec<&Path> = relative.ancestors().skip(1).take_while(is_missing).collect();
        missing.reverse();
        missing.into_iter().try_for_each(|parent| self.like_host(parent))
    }

    fn like_host(&self, relative: &Path) -> io::Result<()> {
        let metadata = fs::metadata(self.host(relative))?;
        let path = self.layer.directory.join(relative);
        fs::create_dir_all(&path)?;
        let identity = self.layer.identity;
        let (uid, gid) = (identity.outside(metadata.uid()), identity.outside(metadata.gid()));
        std::os::unix::fs::lchown(&path, Some(uid), Some(gid))?;
        fs::set_permissions(&path, Permissions::from_mode(metadata.mode() & 0o7777))
    }
}

/// What has vanished meanwhile is no error.
fn present(hidden: io::Result<()>) -> io::Result<()> {
    match hidden {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        hidden => hidden,
    }
}

/// What sandboxes see of an entry of the machine's directories.
enum Verdict {
    Shown,
    /// A directory, as far as its entries are shown.
    Searched,
    /// The directory that sandboxes have in its place, and nothing of its own.
    Emptied,
    Hidden,
}

/// Who may look into a directory: everybody.
const OPEN: u32 = 0o005;

/// Decides what is seen of an entry; nothing where its directory is `closed`.
fn verdict(name: &Path, metadata: &fs::Metadata, closed: bool) -> Verdict {
    let mode = metadata.mode();
    if name == Path::new("var/tmp") {
        Verdict::Emptied
    } else if closed || is_backup_of_accounts(name) {
        Verdict::Hidden
    } else if metadata.is_dir() {
        // how the machine's Docker Engine is set up is not how one inside is
        let shown = mode & OPEN == OPEN && name != Path::new("etc/docker");
        if shown { Verdict::Searched } else { Verdict::Hidden }
    } else if metadata.is_file() && mode & 0o004 == 0 {
        Verdict::Hidden
    } else {
        Verdict::Shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::runner::identity::Identity;
    use crate::local::wire::Level;

    /// A machine with one shown directory of a program and one that the search comes to too late.
    fn after_one_entry(rest: Rest) -> Option<(tempfile::TempDir, bool)> {
        if !nix::unistd::geteuid().is_root() {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir_all(at("host/bin")).unwrap();
        fs::create_dir_all(at("layers/opt")).unwrap();
        fs::set_permissions(at("host"), Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(at("host/bin"), Permissions::from_mode(0o755)).unwrap();
        fs::write(at("host/bin/program"), "").unwrap();
        fs::write(at("host/key"), "").unwrap();
        fs::set_permissions(at("host/key"), Permissions::from_mode(0o600)).unwrap();
        let identity = Identity::of(Level::RootIdmap).unwrap();
        let layers = at("layers");
        let layer = Layer { directory: &layers, identity: &identity, privileged: true };
        let search = Search { layer: &layer, top: "opt", view: ("opt", at("host")), _tree: None };
        let bounds = Bounds { entries: 1, until: Instant::now() + PATIENCE, rest };
        let whole = search.run(&bounds).unwrap();
        Some((directory, whole))
    }

    #[test]
    fn programs_beyond_the_bound_of_the_search_are_shown() {
        let Some((directory, whole)) = after_one_entry(Rest::Shown) else {
            return eprintln!("skipped: needs root");
        };
        assert!(!whole);
        let layer = directory.path().join("layers/opt");
        assert!(layer.join("key").symlink_metadata().is_ok(), "the top is searched whatever its size");
        assert!(!layer.join("bin").exists());
    }

    #[test]
    fn data_beyond_the_bound_of_the_search_are_hidden() {
        let Some((directory, whole)) = after_one_entry(Rest::Hidden) else {
            return eprintln!("skipped: needs root");
        };
        assert!(!whole);
        let hidden = directory.path().join("layers/opt/bin");
        let mark = std::process::Command::new("getfattr").arg("-d").arg("-m").arg("-").arg(&hidden).output();
        assert!(hidden.is_dir());
        if let Ok(mark) = mark {
            assert!(String::from_utf8_lossy(&mark.stdout).contains("trusted.overlay.opaque"));
        }
    }
}
