//! What the runner makes once: its own mount namespace, the base layer, the view of this machine's directories.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::base_layer::{COMPOSED, Layer};
use super::identity::{self, Identity};
use super::system;
use crate::local::wire::{Context, Failure, Level, Setup};

/// What sandboxes are made from.
pub(super) struct Workshop {
    /// How sandboxes are made.
    pub(super) level: Level,
    /// Whose ids they have.
    pub(super) identity: Identity,
    /// The runner's own file system; invisible outside of its mount namespace.
    directory: PathBuf,
    /// This machine's directories that sandboxes see with their own changes over them.
    pub(super) composed: Vec<&'static str>,
    /// Those that cannot be changed here.
    pub(super) read_only: Vec<&'static str>,
    /// Maps the ids of files to those of sandboxes.
    user_namespace: Option<OwnedFd>,
    /// What this level does not promise here.
    pub(super) lost: Vec<String>,
    /// What of this machine's directories holds the files of all sandboxes, if any does; a path from the root.
    pub(super) state: Option<PathBuf>,
    /// Whether sandboxes use this machine's own `sudo`.
    pub(super) host_sudo: bool,
}

impl Workshop {
    /// Takes the runner into its namespaces and prepares the layers.
    pub(super) fn open(setup: &Setup) -> Result<Self, Failure> {
        let level = setup.level;
        if matches!(level, Level::Subuid | Level::SingleUid) {
            identity::enter_user_namespace(level)?;
        }
        let identity = Identity::of(level)?;
        let mut workshop = Self {
            level,
            identity,
            directory: setup.directory.join("runner"),
            composed: Vec::new(),
            read_only: Vec::new(),
            user_namespace: None,
            lost: Vec::new(),
            state: None,
            host_sudo: false,
        };
        if level == Level::Process {
            return Ok(workshop);
        }
        // the real one is set-user-id of a root that a user's namespace does not have
        workshop.host_sudo =
            level == Level::RootIdmap && !setup.own_sudo && Path::new("/usr/bin/sudo").exists();
        workshop.state = visible_state(&setup.directory).step(|| "look at the state directory".into())?;
        workshop.mount_own()?;
        let layer = Layer {
            directory: &workshop.base(),
            identity: &workshop.identity,
            privileged: level == Level::RootIdmap,
        };
        let unsearched = layer.write((!workshop.host_sudo).then_some(Path::new("/proc/self/exe")))?;
        workshop.lost.extend(unsearched);
        if level == Level::RootIdmap {
            let namespace = workshop
                .identity
                .user_namespace()
                .step(|| "make a user namespace (unshare CLONE_NEWUSER)".into())?;
            workshop.user_namespace = Some(namespace);
        }
        workshop.look_at_host()?;
        Ok(workshop)
    }

    fn mount_own(&self) -> Result<(), Failure> {
        unshare(CloneFlags::CLONE_NEWNS).step(|| "make a mount namespace (unshare CLONE_NEWNS)".into())?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .step(|| "make the mounts private".into())?;
        fs::create_dir_all(&self.directory).step(|| "make the runner's directory".into())?;
        mount(Some("tmpfs"), &self.directory, Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))
            .step(|| "mount a tmpfs".into())?;
        for name in ["base", "host", "root"] {
            fs::create_dir(self.directory.join(name)).step(|| "write to the runner's tmpfs".into())?;
        }
        Ok(())
    }

    fn look_at_host(&mut self) -> Result<(), Failure> {
        for name in COMPOSED {
            let host = Path::new("/").join(name);
            if !host.is_dir() || host.is_symlink() {
                continue;
            }
            if self.user_namespace.is_some() {
                fs::create_dir(self.host(name)).step(|| "write to the runner's tmpfs".into())?;
                self.attach_mapped(&host, &self.host(name))?;
            }
            if self.can_compose(name) {
                self.composed.push(name);
            } else {
                self.read_only.push(name);
                self.lost.push(format!("/{name} is read-only, since something is mounted below it."));
            }
        }
        Ok(())
    }

    /// A user namespace refuses an overlay over a directory with mounts below it, which would be uncovered.
    fn can_compose(&self, name: &str) -> bool {
        if self.lower(name).len() == 1 {
            return true;
        }
        let layers: Vec<String> = self.lower(name).iter().map(|layer| escape(layer)).collect();
        let layers = format!("lowerdir={}", layers.join(":"));
        let trial = self.directory.join("root");
        let mounted =
            mount(Some("overlay"), &trial, Some("overlay"), MsFlags::MS_RDONLY, Some(layers.as_str()));
        mounted.is_ok() && umount2(&trial, MntFlags::MNT_DETACH).is_ok()
    }

    /// Attaches the directory `source` at `target`, its files with the ids of sandboxes where they are shifted.
    pub(super) fn attach_mapped(&self, source: &Path, target: &Path) -> Result<(), Failure> {
        let tree =
            system::open_tree(source, false).step(|| format!("copy the mount of {}", source.display()))?;
        if let Some(namespace) = &self.user_namespace {
            system::map_ids(tree.as_fd(), namespace.as_fd())
                .step(|| format!("map the ids of {} (mount_setattr MOUNT_ATTR_IDMAP)", source.display()))?;
        }
        system::attach(tree.as_fd(), target).step(|| format!("attach {}", source.display()))
    }

    /// The base layers.
    fn base(&self) -> PathBuf {
        self.directory.join("base")
    }

    /// The base layer of one directory.
    pub(super) fn layer(&self, name: &str) -> PathBuf {
        self.base().join(name)
    }

    /// The lower layers of one of this machine's directories, topmost first.
    pub(super) fn lower(&self, name: &str) -> Vec<PathBuf> {
        if name == "etc" && self.level != Level::RootIdmap {
            // a whole copy
            return vec![self.layer(name)];
        }
        vec![self.layer(name), self.host(name)]
    }

    /// Where this machine's directory can be a lower layer.
    fn host(&self, name: &str) -> PathBuf {
        if self.level == Level::RootIdmap {
            self.directory.join("host").join(name)
        } else {
            Path::new("/").join(name)
        }
    }

    /// Where a worker mounts a root file system from elsewhere.
    pub(super) fn image(&self) -> PathBuf {
        self.directory.join("host")
    }

    /// Where a worker composes the root.
    pub(super) fn root(&self) -> PathBuf {
        self.directory.join("root")
    }
}

/// The state directory, from the root, where sandboxes would see it; with those of other servers where nobody else looks
/// into the directory that they share.
fn visible_state(directory: &Path) -> io::Result<Option<PathBuf>> {
    let directory = fs::canonicalize(directory)?;
    let shared = directory.parent().filter(|parent| {
        // for others to list and to enter
        let is_private = fs::metadata(parent).is_ok_and(|found| found.mode() & 0o055 == 0);
        is_private && parent.ancestors().count() > 2
    });
    let hidden = shared.unwrap_or(&directory).strip_prefix("/").map_err(io::Error::other)?;
    let is_visible = COMPOSED.iter().any(|composed| hidden.starts_with(composed));
    Ok(is_visible.then(|| hidden.to_owned()))
}

/// A path as an option of overlayfs, to which `,`, `:` and `\` mean something.
pub(super) fn escape(path: &Path) -> String {
    let mut escaped = String::new();
    for letter in path.to_string_lossy().chars() {
        if matches!(letter, ',' | ':' | '\\') {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}
