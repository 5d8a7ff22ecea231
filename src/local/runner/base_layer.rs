//! What sandboxes see over this machine's directories: their own accounts, homes and settings, and nothing where the
//! machine keeps secrets.
//!
//! It lies on a file system of its own, since overlayfs refuses a lower layer that is below another one.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::identity::Identity;
use super::{account_files, secrets};
use crate::local::wire::{Context, Failure};

/// Directories whose files are shown with the sandbox's changes over them.
pub(super) const COMPOSED: [&str; 10] =
    ["usr", "etc", "var", "opt", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// Directories of a sandbox's own, with their modes.
const OWN: [(&str, u32); 14] = [
    ("boot", 0o755),
    ("dev", 0o755),
    ("home", 0o755),
    ("home/daytona", 0o755),
    ("media", 0o755),
    ("mnt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("var", 0o755),
    ("opt", 0o755),
];
/// Writes layers for sandboxes.
pub(super) struct Layer<'a> {
    /// The directory of all layers; each subdirectory is the layer of the directory with that name, `root` that of `/`.
    pub(super) directory: &'a Path,
    /// Whose ids the files have.
    pub(super) identity: &'a Identity,
    /// Whether other accounts' files are ours to look at: only then is anything to hide, and can it be hidden.
    pub(super) privileged: bool,
}

impl Layer<'_> {
    /// Writes all layers. `sudo` is the program to be put there under that name. Returns what could
    /// not be searched for secrets, and what follows, as sentences.
    pub(super) fn write(&self, sudo: Option<&Path>) -> Result<Vec<String>, Failure> {
        self.skeleton().step(|| "write the base layer of /".into())?;
        if !self.privileged {
            self.copy(Path::new("etc")).step(|| "copy /etc".into())?;
        }
        account_files::write(self)?;
        self.settings().step(|| "write the base layer of /etc".into())?;
        if let Some(program) = sudo {
            self.sudo(program).step(|| "write the stand-in for sudo".into())?;
        }
        if self.privileged { secrets::hide(self) } else { Ok(Vec::new()) }
    }

    fn skeleton(&self) -> io::Result<()> {
        self.directory("root", 0o755, 0)?;
        for (name, mode) in OWN {
            let user = if name == "home/daytona" && self.identity.has_users() { 1000 } else { 0 };
            self.directory(&format!("root/{name}"), mode, user)?;
        }
        for name in COMPOSED {
            let host = Path::new("/").join(name);
            match fs::read_link(&host) {
                Ok(target) => self.link(&target, &self.directory.join("root").join(name))?,
                Err(_) if host.is_dir() => {
                    self.directory(&format!("root/{name}"), 0o755, 0)?;
                    self.directory(name, 0o755, 0)?;
                }
                Err(_) => {}
            }
        }
        if let Ok(entries) = fs::read_dir("/etc/skel") {
            for entry in entries.flatten() {
                let target = self.directory.join("root/home/daytona").join(entry.file_name());
                if entry.file_type()?.is_file() && fs::copy(entry.path(), &target).is_ok() {
                    self.own(&target, 0o644, if self.identity.has_users() { 1000 } else { 0 })?;
                }
            }
        }
        // what a root file system from elsewhere needs to be mounted over
        self.directory("image", 0o755, 0)?;
        for (name, mode) in [("dev", 0o755), ("proc", 0o555), ("sys", 0o555), ("tmp", 0o1777), ("etc", 0o755)]
        {
            self.directory(&format!("image/{name}"), mode, 0)?;
        }
        // the host's temporary files are not the sandbox's
        self.directory("var/tmp", 0o1777, 0)
    }

    fn settings(&self) -> io::Result<()> {
        // the host's file may be a link to where the sandbox cannot look
        let resolver = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        self.file("etc/resolv.conf", resolver.as_bytes(), 0o644)?;
        self.file("image/etc/resolv.conf", resolver.as_bytes(), 0o644)?;
        // one machine's id is not the other's
        self.file("etc/machine-id", b"", 0o444)?;
        if !Path::new("/etc/shells").exists() {
            self.file("etc/shells", b"/bin/sh\n/bin/bash\n", 0o644)?;
        }
        Ok(())
    }

    fn sudo(&self, program: &Path) -> io::Result<()> {
        self.directory("usr/bin", 0o755, 0)?;
        let target = self.directory.join("usr/bin/sudo");
        fs::copy(program, &target)?;
        self.own(&target, 0o4755, 0)
    }

    /// Copies what we may read of a directory of the machine.
    ///
    /// An ordinary user's sandboxes see the files of the machine's root as nobody's, which not even their own root may
    /// change; and no overlay can be mounted over a directory with mounts below it, as containers have in `/etc`.
    fn copy(&self, relative: &Path) -> io::Result<()> {
        let Ok(found) = fs::read_dir(Path::new("/").join(relative)) else { return Ok(()) };
        for entry in found.flatten() {
            let name = relative.join(entry.file_name());
            let target = self.directory.join(&name);
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                fs::create_dir_all(&target)?;
                self.own(&target, metadata.mode() & 0o7777, 0)?;
                self.copy(&name)?;
            } else if metadata.is_symlink() {
                self.link(&fs::read_link(entry.path())?, &target)?;
            } else if metadata.is_file()
                && !is_backup_of_accounts(&name)
                && let Ok(content) = fs::read(entry.path())
            {
                fs::write(&target, content)?;
                self.own(&target, metadata.mode() & 0o777, 0)?;
            }
        }
        Ok(())
    }

    /// A directory with this mode, owned by a user of the sandbox and its group.
    pub(super) fn directory(&self, relative: &str, mode: u32, user: u32) -> io::Result<()> {
        let path = self.directory.join(relative);
        fs::create_dir_all(&path)?;
        self.own(&path, mode, user)
    }

    /// A file of the sandbox's root.
    pub(super) fn file(&self, relative: &str, content: &[u8], mode: u32) -> io::Result<()> {
        let path = self.directory.join(relative);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::write(&path, content)?,
        }
        self.own(&path, mode, 0)
    }

    fn link(&self, target: &Path, path: &Path) -> io::Result<()> {
        symlink(target, path)?;
        let root = self.identity.outside(0);
        std::os::unix::fs::lchown(path, Some(root), Some(root))
    }

    fn own(&self, path: &Path, mode: u32, user: u32) -> io::Result<()> {
        let id = self.identity.outside(user);
        std::os::unix::fs::lchown(path, Some(id), Some(id))?;
        fs::set_permissions(path, Permissions::from_mode(mode))
    }
}

/// Account files as they were before the last change name the machine's people too.
pub(super) fn is_backup_of_accounts(path: &Path) -> bool {
    ["etc/passwd-", "etc/group-", "etc/subuid-", "etc/subgid-"].iter().any(|backup| path == Path::new(backup))
}
