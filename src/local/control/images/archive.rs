//! Unpacks a root file system.

use std::fs::{self, DirBuilder, File};
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::read::MultiGzDecoder;
use tar::{Archive, EntryType};

/// What `docker save` and OCI tools put at the top of an archive of layers.
const OF_LAYERS: [&str; 2] = ["manifest.json", "oci-layout"];

/// Tells a thread to stop when it is dropped.
#[derive(Debug, Default)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(super) fn signal(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// An error with what is behind it: what archives say first is only where they were.
pub(super) fn explain(error: &io::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(deeper) = source {
        text = format!("{text}: {deeper}");
        source = deeper.source();
    }
    text
}

/// Unpacks a file, gzipped or not, into `directory`, which is made.
///
/// # Errors
///
/// Those of the operating system, and an archive that is broken, or does not hold a root file system.
pub(super) fn unpack_file(path: &Path, directory: &Path, stop: &AtomicBool) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut magic = [0; 2];
    let length = file.read(&mut magic)?;
    file.rewind()?;
    let file = BufReader::new(file);
    if length == 2 && magic == [0x1f, 0x8b] {
        return unpack(MultiGzDecoder::new(file), directory, stop);
    }
    unpack(file, directory, stop)
}

/// Unpacks a stream into `directory`, which is made. Owners are kept where we are root; elsewhere everything is ours,
/// and so the sandbox's root's. Device nodes are left out: a sandbox has its own.
///
/// # Errors
///
/// As [`unpack_file`]. Nothing is left of it then.
pub(super) fn unpack(archive: impl Read, directory: &Path, stop: &AtomicBool) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    let unpacked = write(archive, directory, stop).and_then(|()| check(directory));
    if unpacked.is_err()
        && let Err(error) = fs::remove_dir_all(directory)
    {
        // the engine removes what is left at the server's end
        tracing::debug!("cannot remove {}: {error}", directory.display());
    }
    unpacked
}

fn write(archive: impl Read, directory: &Path, stop: &AtomicBool) -> io::Result<()> {
    let mut archive = Archive::new(archive);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(nix::unistd::geteuid().is_root());
    let mut directories = Vec::new();
    let mut any = false;
    for entry in archive.entries()? {
        if stop.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "it was cancelled"));
        }
        let mut entry = entry?;
        any = true;
        match entry.header().entry_type() {
            // last, since a directory's mode may forbid to write into it
            EntryType::Directory => directories.push(entry),
            EntryType::Char | EntryType::Block | EntryType::Fifo => {}
            _ => place(&mut entry, directory)?,
        }
    }
    if !any {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the archive is empty"));
    }
    // the innermost first
    directories.sort_by(|a, b| b.path_bytes().cmp(&a.path_bytes()));
    directories.iter_mut().try_for_each(|entry| place(entry, directory))?;
    drop(directories);
    // an archive is padded behind its end, and whoever writes it must not find the pipe closed
    io::copy(&mut archive.into_inner(), &mut io::sink()).map(drop)
}

fn place<R: Read>(entry: &mut tar::Entry<'_, R>, directory: &Path) -> io::Result<()> {
    let path: PathBuf = entry.path()?.into_owned();
    if entry.unpack_in(directory)? {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} leads out of the archive", path.display())))
}

fn check(directory: &Path) -> io::Result<()> {
    match OF_LAYERS.iter().find(|name| directory.join(name).exists()) {
        Some(name) if !directory.join("bin").exists() && !directory.join("usr").exists() => {
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "it holds the layers of an image ({name}) instead of a root file system: use `docker export`"
                ),
            ))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    /// An archive of entries: kind, mode, path, and content or the target of a link.
    fn archive(entries: &[(EntryType, u32, &str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (kind, mode, path, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(*mode);
            header.set_uid(nix::unistd::geteuid().as_raw().into());
            header.set_gid(nix::unistd::getegid().as_raw().into());
            // as a hostile archive has it, which the builder would refuse
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            if matches!(kind, EntryType::Symlink | EntryType::Link) {
                header.set_size(0);
                header.set_link_name_literal(content).unwrap();
                header.set_cksum();
                builder.append(&header, io::empty()).unwrap();
            } else {
                header.set_size(content.len() as u64);
                header.set_cksum();
                builder.append(&header, content.as_bytes()).unwrap();
            }
        }
        builder.into_inner().unwrap()
    }

    fn unpacked(bytes: &[u8]) -> (tempfile::TempDir, io::Result<()>) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        let result = unpack(bytes, &root, &AtomicBool::new(false));
        (directory, result)
    }

    #[test]
    fn modes_and_links_are_kept_and_devices_left_out() {
        let bytes = archive(&[
            (EntryType::Directory, 0o555, "./etc/", ""),
            (EntryType::Regular, 0o640, "./etc/file", "text"),
            (EntryType::Regular, 0o4755, "./su", ""),
            (EntryType::Symlink, 0o777, "./link", "/etc/file"),
            (EntryType::Link, 0o640, "./hard", "etc/file"),
            (EntryType::Char, 0o666, "./null", ""),
        ]);
        let (directory, result) = unpacked(&bytes);
        result.unwrap();
        let root = directory.path().join("root");
        let mode = |path: &str| root.join(path).metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("etc"), mode("etc/file"), mode("su")), (0o555, 0o640, 0o4755));
        assert_eq!(fs::read_link(root.join("link")).unwrap(), Path::new("/etc/file"));
        assert_eq!(root.join("hard").metadata().unwrap().nlink(), 2);
        assert!(!root.join("null").exists());
        fs::set_permissions(root.join("etc"), PermissionsExt::from_mode(0o755)).unwrap();
    }

    #[test]
    fn an_archive_cannot_write_outside_of_its_directory() {
        for entries in [
            &[(EntryType::Regular, 0o644, "../escaped", "x")][..],
            &[(EntryType::Symlink, 0o777, "out", ".."), (EntryType::Regular, 0o644, "out/escaped", "x")],
            &[(EntryType::Link, 0o644, "passwd", "../../../../etc/passwd")],
        ] {
            let (directory, result) = unpacked(&archive(entries));
            assert!(result.is_err(), "{entries:?}");
            assert!(fs::read_dir(directory.path()).unwrap().next().is_none(), "{entries:?}");
        }
    }

    #[test]
    fn what_is_no_root_file_system_is_refused() {
        let (_directory, result) = unpacked(&archive(&[(EntryType::Regular, 0o644, "manifest.json", "[]")]));
        assert!(result.unwrap_err().to_string().contains("docker export"));
        let (_directory, result) = unpacked(&[0; 1024]);
        assert!(result.unwrap_err().to_string().contains("empty"));
        let (_directory, result) = unpacked(&[b'x'; 1024]);
        assert!(result.is_err());
    }

    #[test]
    fn unpacking_stops_when_it_is_not_wanted_any_more() {
        let stop = Stop::default();
        let signal = stop.signal();
        drop(stop);
        let directory = tempfile::tempdir().unwrap();
        let bytes = archive(&[(EntryType::Regular, 0o644, "a", "x")]);
        let error = unpack(&bytes[..], &directory.path().join("root"), &signal).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
    }
}
