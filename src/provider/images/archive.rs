//! The archive of a build context, made while it is uploaded.

use std::fs::File;
use std::io::{self, Write};

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::files::{Content, ContextFiles};
use crate::client::PART;
use crate::config::context::ContextEntry;

/// Writes an uncompressed tar of `files` in pieces of [`PART`] bytes. Equal contexts make equal archives: order as
/// given, no owner, no time, and of the permissions only whether a file is executable.
///
/// A file that is not what it was when the context was hashed ends it with an error, before the last piece. Ends early
/// where nobody takes the pieces any more.
pub(super) fn pieces(files: ContextFiles) -> Receiver<io::Result<Bytes>> {
    let (sender, receiver) = channel(2);
    tokio::task::spawn_blocking(move || {
        let mut pieces = Pieces { sender, filling: BytesMut::new() };
        let result = write(&files, &mut pieces).and_then(|()| pieces.last());
        if let Err(error) = result {
            // nobody is there to hear it if the upload ended first
            let _sent = pieces.sender.blocking_send(Err(error));
        }
    });
    receiver
}

/// How large the archive will be, to show progress by; a file that cannot be asked counts as empty.
pub(super) fn length(entries: &[ContextEntry]) -> u64 {
    let blocks = |bytes: u64| bytes.div_ceil(512) * 512;
    let sizes = entries.iter().map(|entry| {
        let size = std::fs::metadata(&entry.source).map_or(0, |found| found.len());
        512 + if entry.directory { 0 } else { blocks(size) }
    });
    sizes.sum::<u64>() + 1024
}

fn write(files: &ContextFiles, to: &mut impl Write) -> io::Result<()> {
    let mut archive = tar::Builder::new(to);
    for entry in &files.entries {
        let mut header = tar::Header::new_gnu();
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        let explain =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", entry.source.display()));
        if entry.directory {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            header.set_size(0);
            archive.append_data(&mut header, &entry.path, io::empty())?;
            continue;
        }
        let file = File::open(&entry.source).map_err(explain)?;
        let size = file.metadata().map_err(explain)?.len();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(if entry.executable { 0o755 } else { 0o644 });
        header.set_size(size);
        let mut contents = Hashed { file: Exactly { file, left: size }, hash: Sha256::new() };
        archive.append_data(&mut header, &entry.path, &mut contents).map_err(explain)?;
        if files.contents.get(&entry.source) != Some(&Content::from(contents.hash.finalize())) {
            return Err(explain(io::Error::other(
                "it changed after the build was prepared from it; run again, and leave the files of a build alone until \
                 they are uploaded",
            )));
        }
    }
    archive.finish()
}

/// Hashes what is read.
struct Hashed {
    file: Exactly,
    hash: Sha256,
}

impl io::Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

/// A file that must have the size that the archive says: one that changes meanwhile would shift all that follows.
pub(in crate::provider) struct Exactly {
    pub(in crate::provider) file: File,
    pub(in crate::provider) left: u64,
}

impl io::Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = io::Read::read(&mut self.file, &mut buffer[..wanted])?;
        if count == 0 && wanted > 0 {
            return Err(io::Error::other("it became shorter while it was read"));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// Cuts what is written into pieces.
struct Pieces {
    sender: Sender<io::Result<Bytes>>,
    filling: BytesMut,
}

impl Pieces {
    fn send(&mut self) -> io::Result<()> {
        let piece = self.filling.split().freeze();
        self.sender.blocking_send(Ok(piece)).map_err(|_| io::Error::other("the upload ended"))
    }

    fn last(&mut self) -> io::Result<()> {
        if self.filling.is_empty() { Ok(()) } else { self.send() }
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PART - self.filling.len());
        self.filling.extend_from_slice(&bytes[..taken]);
        if self.filling.len() == PART {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::path::Path;

    use super::super::files::Witness;
    use super::*;
    use crate::config::Files;

    fn entry(directory: &Path, path: &str, executable: bool) -> ContextEntry {
        let source = directory.join(path);
        ContextEntry { path: path.to_owned(), directory: source.is_dir(), source, executable }
    }

    /// The entries as they are now.
    fn hashed(entries: Vec<ContextEntry>) -> ContextFiles {
        let witness = Witness::default();
        for entry in entries.iter().filter(|entry| !entry.directory) {
            io::copy(&mut witness.open(&entry.source).unwrap(), &mut io::sink()).unwrap();
        }
        ContextFiles { entries, contents: witness.contents() }
    }

    async fn archive(files: ContextFiles) -> io::Result<Vec<Bytes>> {
        let mut receiver = pieces(files);
        let mut all = Vec::new();
        while let Some(piece) = receiver.recv().await {
            all.push(piece?);
        }
        Ok(all)
    }

    #[tokio::test]
    async fn an_archive_holds_paths_modes_and_contents_and_nothing_of_this_machine() {
        let directory = tempfile::tempdir().unwrap();
        let long = format!("{}/file", "long/".repeat(40));
        std::fs::create_dir_all(directory.path().join(&long).parent().unwrap()).unwrap();
        std::fs::create_dir(directory.path().join("empty")).unwrap();
        std::fs::write(directory.path().join(&long), "deep").unwrap();
        std::fs::write(directory.path().join("run.sh"), "#!/bin/sh\n").unwrap();
        let entries = || {
            hashed(vec![
                entry(directory.path(), "run.sh", true),
                entry(directory.path(), &long, false),
                entry(directory.path(), "empty", false),
            ])
        };
        let bytes = archive(entries()).await.unwrap().concat();
        let mut read = tar::Archive::new(bytes.as_slice());
        let found: Vec<_> = read
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut text = String::new();
                entry.read_to_string(&mut text).unwrap();
                let header = entry.header();
                let owner = (header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap());
                (entry.path().unwrap().display().to_string(), header.mode().unwrap(), text, owner)
            })
            .collect();
        let nobody = (0, 0, 0);
        assert_eq!(
            found,
            [
                ("run.sh".to_owned(), 0o755, "#!/bin/sh\n".to_owned(), nobody),
                (long.clone(), 0o644, "deep".to_owned(), nobody),
                ("empty".to_owned(), 0o755, String::new(), nobody),
            ]
        );
        assert_eq!(archive(entries()).await.unwrap().concat(), bytes, "equal contexts make equal archives");
    }

    #[tokio::test]
    async fn a_large_archive_comes_in_pieces_of_one_size() {
        let directory = tempfile::tempdir().unwrap();
        let file = File::create(directory.path().join("large")).unwrap();
        file.set_len(2 * PART as u64 + 7).unwrap();
        let entries = vec![entry(directory.path(), "large", false)];
        let expected = length(&entries);
        let sizes: Vec<_> = archive(hashed(entries)).await.unwrap().iter().map(Bytes::len).collect();
        assert_eq!(sizes[..2], [PART, PART]);
        assert_eq!(sizes.iter().sum::<usize>() as u64, expected);
    }

    #[tokio::test]
    async fn a_file_that_vanished_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let mut missing = entry(directory.path(), "gone", false);
        missing.directory = false;
        let files = ContextFiles { entries: vec![missing], ..ContextFiles::default() };
        let error = archive(files).await.unwrap_err().to_string();
        assert!(error.contains("gone"), "{error}");
    }

    #[tokio::test]
    async fn a_file_that_changed_since_the_hash_is_named_before_the_last_piece() {
        let directory = tempfile::tempdir().unwrap();
        let at = |path: &str| directory.path().join(path);
        for changed in ["longer content", "short", "contenu", ""] {
            std::fs::write(at("first"), vec![1; PART + 1]).unwrap();
            std::fs::write(at("changed"), "content").unwrap();
            let entries = ["first", "changed"].map(|path| entry(directory.path(), path, false));
            let files = hashed(entries.to_vec());
            let whole = length(&files.entries);
            std::fs::write(at("changed"), changed).unwrap();
            let mut receiver = pieces(files);
            let mut sent = 0;
            let error = loop {
                match receiver.recv().await.unwrap() {
                    Ok(piece) => sent += piece.len() as u64,
                    Err(error) => break error.to_string(),
                }
            };
            assert!(error.contains("changed: it changed after"), "{error}");
            assert!(sent < whole && receiver.recv().await.is_none());
        }
    }
}
