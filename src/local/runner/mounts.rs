//! The root of one sandbox, composed in the mount namespace of the worker that makes it.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::setup::{Workshop, escape};
use super::system;
use crate::local::spec::{GATEWAY_ADDRESS, Network, RootFs, SandboxSpec};
use crate::local::wire::{Context, Failure, Level};

/// The settings of the C library's resolver that ask the gateway, otherwise like the machine's.
fn resolver(machine: &str) -> String {
    let kept = |line: &&str| line.starts_with("search") || line.starts_with("domain");
    let lines = machine.lines().filter(kept).map(|line| format!("{line}\n"));
    lines.chain([format!("nameserver {GATEWAY_ADDRESS}\n")]).collect()
}

/// The devices that a sandbox has.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Composes the root of `spec`; afterwards [`Workshop::root`] is it.
pub(super) fn compose(workshop: &Workshop, spec: &SandboxSpec) -> Result<(), Failure> {
    let root = workshop.root();
    let writable = Writable { workshop, directory: &spec.directory };
    // overlayfs leaves a mark there that forbids a second mount
    remove(&spec.directory.join("work")).step(|| "empty the overlay's work directory".into())?;
    match &spec.root {
        RootFs::Host => {
            writable.overlay("root", &[workshop.layer("root")], &root)?;
            for name in &workshop.composed {
                writable.overlay(name, &workshop.lower(name), &root.join(name))?;
            }
            for name in &workshop.read_only {
                attach_read_only(&Path::new("/").join(name), &root.join(name))?;
            }
            writable.name_host("etc", spec)?;
            if let Some(state) = &workshop.state {
                hide(workshop, state)?;
            }
        }
        RootFs::Directory(image) => {
            if workshop.level == Level::RootIdmap {
                workshop.attach_mapped(image, &workshop.image())?;
                writable.overlay("image", &[workshop.layer("image"), workshop.image()], &root)?;
            } else {
                writable.overlay("image", &[workshop.layer("image"), image.clone()], &root)?;
            }
            writable.name_host("image/etc", spec)?;
        }
    }
    devices(workshop, &root.join("dev"))?;
    system_information(workshop, &root.join("sys"))
}

/// The writable layers of a sandbox, one for each overlay.
struct Writable<'a> {
    workshop: &'a Workshop,
    directory: &'a Path,
}

impl Writable<'_> {
    fn overlay(&self, name: &str, lower: &[PathBuf], target: &Path) -> Result<(), Failure> {
        let step = || format!("mount an overlay on {}", if name == "root" { "/" } else { name });
        let (upper, work) = (self.directory.join("upper").join(name), self.directory.join("work").join(name));
        fs::create_dir_all(&work).step(step)?;
        if !upper.exists() {
            // the merged directory takes owner and mode from its topmost layer
            let like = lower.first().map(fs::metadata).transpose().step(step)?;
            fs::create_dir_all(&upper).step(step)?;
            if let Some(like) = like {
                lchown(&upper, Some(like.uid()), Some(like.gid())).step(step)?;
                fs::set_permissions(&upper, Permissions::from_mode(like.mode() & 0o7777)).step(step)?;
            }
        }
        let lower: Vec<String> = lower.iter().map(|layer| escape(layer)).collect();
        let mut options = format!(
            "lowerdir={},upperdir={},workdir={},volatile",
            lower.join(":"),
            escape(&upper),
            escape(&work)
        );
        if self.workshop.level != Level::RootIdmap {
            options.push_str(",userxattr");
        }
        // devices stay allowed: a flag that is locked here would break mounts inside, and nodes cannot be made there
        mount(Some("overlay"), target, Some("overlay"), MsFlags::empty(), Some(options.as_str())).step(step)
    }

    /// The files that name the sandbox, when it starts for the first time.
    fn name_host(&self, etc: &str, spec: &SandboxSpec) -> Result<(), Failure> {
        let etc = self.directory.join("upper").join(etc);
        if etc.symlink_metadata().is_ok_and(|found| !found.is_dir()) {
            // the sandbox has put something else there, perhaps a link to where it may not write itself
            return Ok(());
        }
        let name = &spec.hostname;
        let hosts =
            format!("127.0.0.1\tlocalhost\n127.0.1.1\t{name}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
        for (file, text) in [("hostname", format!("{name}\n")), ("hosts", hosts)] {
            self.write_new(&etc, file, &text).step(|| format!("write the sandbox's /etc/{file}"))?;
        }
        self.name_server(&etc, spec).step(|| "write the sandbox's /etc/resolv.conf".into())
    }

    /// Where names are asked: at the gateway from a network of its own, where the machine's name servers may be out of
    /// reach; otherwise as the base layer says, like the machine. A file that was changed inside is left alone.
    fn name_server(&self, etc: &Path, spec: &SandboxSpec) -> io::Result<()> {
        let path = etc.join("resolv.conf");
        let machine = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let ours = resolver(&machine);
        match (&spec.network, path.symlink_metadata()) {
            (Network::Host, Ok(found)) if found.is_file() && fs::read_to_string(&path)? == ours => {
                fs::remove_file(&path)
            }
            (Network::Blocked | Network::Gateway(_), Err(_)) => self.write_new(etc, "resolv.conf", &ours),
            _ => Ok(()),
        }
    }

    fn write_new(&self, etc: &Path, file: &str, text: &str) -> io::Result<()> {
        let path = etc.join(file);
        if path.symlink_metadata().is_ok() {
            return Ok(());
        }
        let root = self.workshop.identity.outside(0);
        if !etc.exists() {
            fs::create_dir(etc)?;
            lchown(etc, Some(root), Some(root))?;
            fs::set_permissions(etc, Permissions::from_mode(0o755))?;
        }
        fs::write(&path, text)?;
        lchown(&path, Some(root), Some(root))?;
        fs::set_permissions(&path, Permissions::from_mode(0o644))
    }
}

fn devices(workshop: &Workshop, dev: &Path) -> Result<(), Failure> {
    let step = || "make /dev".to_owned();
    let root = workshop.identity.outside(0);
    let options = format!("mode=0755,size=1m,uid={root},gid={root}");
    mount(Some("tmpfs"), dev, Some("tmpfs"), MsFlags::MS_NOSUID, Some(options.as_str())).step(step)?;
    for name in DEVICES {
        let (device, node) = (Path::new("/dev").join(name), dev.join(name));
        fs::write(&node, "").step(step)?;
        mount(Some(&device), &node, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .step(|| format!("bind /dev/{name}"))?;
    }
    for (target, name) in [
        ("pts/ptmx", "ptmx"),
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
    ] {
        symlink(target, dev.join(name)).step(step)?;
        lchown(dev.join(name), Some(root), Some(root)).step(step)?;
    }
    for name in ["pts", "shm", "mqueue"] {
        fs::create_dir(dev.join(name)).step(step)?;
    }
    Ok(())
}

/// Puts an empty directory over one of the machine's, which nobody inside can take away.
fn hide(workshop: &Workshop, relative: &Path) -> Result<(), Failure> {
    let root = workshop.root();
    // a sandbox that ran before may have put a link in the way, and then sees nothing there either
    let mut path = relative.ancestors().filter(|part| !part.as_os_str().is_empty());
    if !path.all(|part| root.join(part).symlink_metadata().is_ok_and(|found| found.is_dir())) {
        return Ok(());
    }
    let id = workshop.identity.outside(0);
    let options = format!("mode=0700,size=4k,uid={id},gid={id}");
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), &root.join(relative), Some("tmpfs"), flags, Some(options.as_str()))
        .step(|| format!("hide /{}", relative.display()))
}

fn system_information(workshop: &Workshop, sys: &Path) -> Result<(), Failure> {
    if workshop.level == Level::RootIdmap {
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        return mount(Some("sysfs"), sys, Some("sysfs"), flags, None::<&str>).step(|| "mount /sys".into());
    }
    // only the owner of a network namespace may mount a new one
    attach_read_only(Path::new("/sys"), sys)
}

fn attach_read_only(source: &Path, target: &Path) -> Result<(), Failure> {
    let step = || format!("attach {} read-only", source.display());
    let tree = system::open_tree(source, true).step(step)?;
    system::make_read_only(tree.as_fd()).step(step)?;
    system::attach(tree.as_fd(), target).step(step)
}

/// Removes a tree; succeeds if there is none.
pub(super) fn remove(tree: &Path) -> io::Result<()> {
    match fs::remove_dir_all(tree) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
