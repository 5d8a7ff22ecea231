//! Joins uploaded contexts into the one archive that a builder reads, as Daytona's runner does: the Dockerfile first,
//! then every entry with its mode, owned by root.
//!
//! Unlike there, links stay links, empty directories stay, and a context that has a `Dockerfile` of its own at its top
//! does not replace the one that was asked for.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Seek, Write};
use std::path::{Component, Path, PathBuf};

use tar::{Archive, Builder, EntryType, Header};

/// The Dockerfile's name in the archive.
pub(super) const DOCKERFILE: &str = "Dockerfile";

/// Writes the archive to `target`, and returns it to be read from its beginning.
///
/// # Errors
///
/// Those of the operating system, and a context that is no archive.
pub(super) fn join(dockerfile: &str, contexts: &[PathBuf], target: File) -> io::Result<File> {
    let mut joined = Builder::new(BufWriter::new(target));
    let mut header = header(EntryType::Regular, 0o644);
    header.set_size(dockerfile.len() as u64);
    joined.append_data(&mut header, DOCKERFILE, dockerfile.as_bytes())?;
    for context in contexts {
        add(&mut joined, context)?;
    }
    let mut writer = joined.into_inner()?;
    writer.flush()?;
    let mut file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.rewind()?;
    Ok(file)
}

fn add(joined: &mut Builder<impl Write>, context: &Path) -> io::Result<()> {
    let mut archive = Archive::new(BufReader::new(File::open(context)?));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = inside(&entry.path()?);
        if path.as_os_str().is_empty() || path == Path::new(DOCKERFILE) {
            continue;
        }
        let kind = entry.header().entry_type();
        let mut header = header(kind, entry.header().mode()?);
        let target = entry.link_name()?.map(std::borrow::Cow::into_owned).unwrap_or_default();
        match kind {
            EntryType::Symlink => joined.append_link(&mut header, path, target)?,
            EntryType::Link => joined.append_link(&mut header, path, inside(&target))?,
            EntryType::Directory => joined.append_data(&mut header, path, io::empty())?,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                header.set_entry_type(EntryType::Regular);
                header.set_size(entry.size());
                joined.append_data(&mut header, path, &mut entry)?;
            }
            // nothing that a Dockerfile could copy
            _ => {}
        }
    }
    Ok(())
}

/// Neither owner nor time, so that equal contexts give equal layers.
fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode & 0o7777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header
}

/// A path as `COPY` looks for it: climbing ends at the context's root.
fn inside(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut inside, component| {
        match component {
            Component::ParentDir => {
                inside.pop();
            }
            Component::Normal(part) => inside.push(part),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
        inside
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_dockerfile_comes_first_and_entries_keep_mode_and_kind() {
        let directory = tempfile::tempdir().unwrap();
        let context = directory.path().join("context.tar");
        let mut builder = Builder::new(File::create(&context).unwrap());
        let mut file = |path: &str, mode: u32, content: &str| {
            let mut header = header(EntryType::Regular, mode);
            header.set_uid(1000);
            header.set_mtime(5);
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, path, content.as_bytes()).unwrap();
        };
        file("./Dockerfile", 0o600, "FROM another\n");
        file("src/run.sh", 0o755, "true\n");
        let long = format!("src/{}", "x".repeat(150));
        file(&long, 0o600, "");
        builder.append_link(&mut header(EntryType::Symlink, 0o777), "src/link", "../elsewhere").unwrap();
        builder.append_data(&mut header(EntryType::Directory, 0o700), "src/empty", io::empty()).unwrap();
        drop(builder.into_inner().unwrap());
        let target =
            File::options().read(true).write(true).create_new(true).open(directory.path().join("joined"));
        let joined = join("FROM a\n", &[context], target.unwrap()).unwrap();
        let mut found = Vec::new();
        for entry in Archive::new(joined).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            let link = entry.link_name().unwrap().map(|link| link.display().to_string()).unwrap_or_default();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.mtime().unwrap()), (0, 0));
            found.push(format!(
                "{} {:o} {text:?} {link}",
                entry.path().unwrap().display(),
                header.mode().unwrap()
            ));
        }
        assert_eq!(
            found,
            [
                "Dockerfile 644 \"FROM a\\n\" ",
                "src/run.sh 755 \"true\\n\" ",
                &format!("{long} 600 \"\" "),
                "src/link 777 \"\" ../elsewhere",
                "src/empty 700 \"\" ",
            ]
        );
    }

    #[test]
    fn paths_that_climb_end_at_the_root() {
        for (path, expected) in [("../up.txt", "up.txt"), ("/abs/p", "abs/p"), ("./a/../b", "b"), (".", "")] {
            assert_eq!(inside(Path::new(path)), Path::new(expected));
        }
    }
}
