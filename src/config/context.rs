//! Build contexts: the files that a build needs, and the hash under which the platform keeps them.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use md5::{Digest, Md5};
use serde::Serialize;

use super::dockerfile::Dockerfile;
use super::files::{FileKind, Files, normalize};
use super::plan::{Build, DockerfileSource};
use crate::error::{Error, ErrorKind, Result};

/// How deep directories may nest; a loop of mounts would end here.
const DEEPEST: usize = 128;
/// The most entries; a context with more is a mistake (a home directory, a data set).
const MOST_ENTRIES: usize = 200_000;

/// What a build needs: a Dockerfile that stands alone, and files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BuildContext {
    /// The Dockerfile, with build arguments and target written into it.
    pub dockerfile: String,
    /// The files and empty directories to send, in the order in which they are hashed; none where the Dockerfile reads
    /// nothing.
    pub entries: Vec<ContextEntry>,
    /// The hash of the entries; none where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Build arguments that the Dockerfile does not take.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unused_args: Vec<String>,
    /// What is left out: links to directories, which the platform cannot keep; and, with what they are in parentheses,
    /// links that lead nowhere or out of the context, sockets, pipes and devices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

/// A file or an empty directory of a context.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ContextEntry {
    /// Its path in the archive, relative, with slashes.
    pub path: String,
    /// Where it is.
    pub source: PathBuf,
    /// Whether it is an empty directory.
    pub directory: bool,
    /// Whether its owner may execute it.
    pub executable: bool,
}

impl BuildContext {
    /// Reads the Dockerfile, `.dockerignore` and the context's directories, and hashes what is to be sent.
    ///
    /// # Errors
    /// `InvalidConfig` where a file cannot be read, a pattern is malformed, or the target does not exist.
    pub fn read(build: &Build, files: &dyn Files) -> Result<Self> {
        let text = match &build.dockerfile {
            DockerfileSource::Inline(text) => text.clone(),
            DockerfileSource::Path(path) => read_text(path, files)?,
        };
        let parsed = Dockerfile::parse(text);
        let dockerfile = parsed.specialize(&build.args, build.target.as_deref())?;
        let unused_args = parsed.unused(&build.args).into_iter().map(str::to_owned).collect();
        let mut context =
            Self { dockerfile, entries: Vec::new(), hash: None, unused_args, left_out: Vec::new() };
        let parsed = Dockerfile::parse(context.dockerfile.clone());
        let Some(selection) = Selection::new(build, &parsed, files)? else { return Ok(context) };
        let root = files.real(&build.context);
        let mut walk = Walk { files, root, selection, context: &mut context };
        walk.directory(&build.context, "", 0)?;
        context.hash = Some(hash(".", &context.entries, files)?);
        Ok(context)
    }
}

/// The platform's hash of a context: MD5 over its path in the archive, then each file's path and bytes, and the path of
/// each empty directory. `entries` come in that order: a directory's files before its directories, both sorted.
///
/// Nothing separates them, so what the platform's own hash does not tell apart gets a mark here: executable files, since
/// the platform keeps permissions; empty files, since one is hashed as an empty directory of its name is, and two as one
/// whose name is both; and empty directories after the first, for the same reason. Hashes of contexts without any are
/// those of the platform's SDK. What is left are contents that continue with the path and the content of another file.
///
/// # Errors
/// `InvalidConfig` where a file cannot be read.
pub fn hash(archive_path: &str, entries: &[ContextEntry], files: &dyn Files) -> Result<String> {
    let mut hash = Md5::new();
    hash.update(archive_path);
    let mut directories = 0;
    for entry in entries {
        directories += u32::from(entry.directory);
        if entry.directory && directories > 1 {
            hash.update("\0directory");
        }
        hash.update(&entry.path);
        if !entry.directory {
            let size =
                update(&mut hash, files, &entry.source).map_err(|error| unreadable(&entry.source, error))?;
            if size == 0 {
                hash.update("\0empty");
            }
        }
        if entry.executable {
            hash.update("\0executable");
        }
    }
    Ok(hash.finalize().iter().fold(String::new(), |mut text, byte| {
        use std::fmt::Write;
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

/// Hashes a file piece by piece; how large it is.
fn update(hash: &mut Md5, files: &dyn Files, path: &Path) -> std::io::Result<u64> {
    let mut file = files.open(path)?;
    let mut piece = vec![0; 64 * 1024];
    let mut size = 0;
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(size),
            Ok(count) => {
                hash.update(&piece[..count]);
                size += count as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

struct Walk<'a> {
    files: &'a dyn Files,
    /// The context without links.
    root: Option<PathBuf>,
    selection: Selection,
    context: &'a mut BuildContext,
}

impl Walk<'_> {
    /// Adds what is below a directory; `path` is empty for the context itself. Returns whether anything was added.
    fn directory(&mut self, directory: &Path, path: &str, depth: usize) -> Result<bool> {
        if depth > DEEPEST {
            return Err(invalid(format!("{} is nested too deep for a build context", directory.display())));
        }
        let before = self.context.entries.len();
        let mut directories = Vec::new();
        for name in self.files.list(directory).map_err(|error| unreadable(directory, error))? {
            let source = directory.join(&name);
            let path = if path.is_empty() { name } else { format!("{path}/{name}") };
            let kind = self.files.kind(&source).map_err(|error| unreadable(&source, error));
            let kind = match kind {
                Ok(FileKind::Directory) => {
                    if !self.selection.ignores_all_below(&path) {
                        directories.push((source, path));
                    }
                    continue;
                }
                _ if self.selection.ignores(&path) || !self.selection.reads(&path) => continue,
                kind => kind?,
            };
            match kind {
                FileKind::LinkToDirectory => self.context.left_out.push(path),
                FileKind::DanglingLink => self.context.left_out.push(format!("{path} (it leads nowhere)")),
                FileKind::Special(name) => self.context.left_out.push(format!("{path} (a {name})")),
                FileKind::File { .. } if self.leads_out(&source) => {
                    self.context.left_out.push(format!("{path} (it leads out of the context)"));
                }
                FileKind::File { executable } => {
                    self.add(ContextEntry { path, source, directory: false, executable })?;
                }
                FileKind::Directory => {}
            }
        }
        for (source, path) in directories {
            let added = self.directory(&source, &path, depth + 1)?;
            if !added && !self.selection.ignores(&path) && self.selection.reads(&path) {
                self.add(ContextEntry { path, source, directory: true, executable: false })?;
            }
        }
        Ok(self.context.entries.len() > before)
    }

    fn add(&mut self, entry: ContextEntry) -> Result<()> {
        // The platform puts the Dockerfile of the build there.
        if entry.path == "Dockerfile" {
            return Ok(());
        }
        if self.context.entries.len() >= MOST_ENTRIES {
            return Err(invalid(format!("the build context has more than {MOST_ENTRIES} files"))
                .with_hint("Name what is not needed in .dockerignore"));
        }
        self.context.entries.push(entry);
        Ok(())
    }

    /// Whether this is a link to a file that is no part of the context, and so may be anything of this machine's.
    fn leads_out(&self, source: &Path) -> bool {
        let target = self.files.link(source).and_then(|_| self.files.real(source));
        matches!((target, &self.root), (Some(target), Some(root)) if !target.starts_with(root))
    }
}

fn read_text(path: &Path, files: &dyn Files) -> Result<String> {
    let bytes = files.read(path).map_err(|error| unreadable(path, error))?;
    String::from_utf8(bytes).map_err(|_| invalid(format!("{} is not UTF-8", normalize(path).display())))
}

fn unreadable(path: &Path, error: std::io::Error) -> Error {
    invalid(format!("{} cannot be read: {error}", path.display())).with_source(error)
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
}

mod selection;
pub use selection::Selection;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MemoryFiles;

    fn read(dockerfile: &str, files: &MemoryFiles) -> BuildContext {
        let build = Build {
            context: "/c".into(),
            dockerfile: DockerfileSource::Inline(dockerfile.to_owned()),
            args: crate::config::Variables::default(),
            target: None,
            no_cache: false,
            pull: false,
        };
        BuildContext::read(&build, files).unwrap()
    }

    fn paths(context: &BuildContext) -> Vec<&str> {
        context.entries.iter().map(|entry| entry.path.as_str()).collect()
    }

    /// The directory of the second vector: `s.py`, `sub/t.py` and the empty `sub/empty`.
    fn tree() -> MemoryFiles {
        MemoryFiles::default()
            .with("/c/a.txt", "A\n")
            .with("/c/src/s.py", "S\n")
            .with("/c/src/sub/t.py", "T\n")
            .with_directory("/c/src/sub/empty")
    }

    #[test]
    fn hashes_are_those_of_the_platforms_sdk() {
        let files = tree();
        let file = ContextEntry {
            path: String::new(),
            source: "/c/a.txt".into(),
            directory: false,
            executable: false,
        };
        let of_file = hash("a.txt", std::slice::from_ref(&file), &files).unwrap();
        assert_eq!(of_file, "96a9e13916cf4d946275628662c8137b");
        let mut whole = read("FROM a\nCOPY src /x\n", &files);
        for entry in &mut whole.entries {
            entry.path = entry.path.strip_prefix("src/").unwrap().to_owned();
        }
        assert_eq!(hash("src", &whole.entries, &files).unwrap(), "15be420006d554d94829716118f690b7");
        let executable = ContextEntry { executable: true, ..file };
        assert_ne!(hash("a.txt", &[executable], &files).unwrap(), of_file);
    }

    #[test]
    fn what_is_empty_is_told_apart_by_kind_and_name() {
        let hashes: std::collections::BTreeSet<_> = [
            MemoryFiles::default().with_directory("/c/ab"),
            MemoryFiles::default().with("/c/ab", ""),
            MemoryFiles::default().with("/c/a", "").with("/c/b", ""),
            MemoryFiles::default().with_directory("/c/a").with_directory("/c/b"),
            MemoryFiles::default().with("/c/a", "").with_directory("/c/b"),
        ]
        .iter()
        .map(|files| read("FROM a\nCOPY . /x\n", files).hash)
        .collect();
        assert_eq!(hashes.len(), 5);
    }

    #[test]
    fn a_file_of_several_pieces_is_hashed_as_a_whole() {
        let content = "0123456789abcde\n".repeat(10_000);
        let files = MemoryFiles::default().with("/c/a", content.clone());
        let expected = Md5::digest(format!(".a{content}"));
        let found = read("FROM a\nCOPY a /x\n", &files).hash.unwrap();
        assert_eq!(found, format!("{expected:x}"));
    }

    #[test]
    fn only_what_the_dockerfile_reads_is_sent() {
        assert_eq!(paths(&read("FROM a\nCOPY *.txt src/sub /x/\n", &tree())), {
            ["a.txt", "src/sub/t.py", "src/sub/empty"]
        });
        assert!(read("FROM a\nRUN ls\n", &tree()).hash.is_none());
    }

    #[test]
    fn ignored_files_stay_and_the_dockerfile_is_the_platforms() {
        let files = tree()
            .with("/c/.dockerignore", "src\n!src/sub/t.py\n.dockerignore\n")
            .with("/c/Dockerfile", "FROM a\n");
        assert_eq!(paths(&read("FROM a\nCOPY . /x\n", &files)), ["a.txt", "src/sub/t.py"]);
    }

    #[test]
    fn a_malformed_pattern_names_file_and_line() {
        let files = tree().with("/c/.dockerignore", "ok\n[\n");
        let build = Build {
            context: "/c".into(),
            dockerfile: DockerfileSource::Inline("FROM a\nCOPY . /x\n".to_owned()),
            args: crate::config::Variables::default(),
            target: None,
            no_cache: false,
            pull: false,
        };
        let error = BuildContext::read(&build, &files).unwrap_err().to_string();
        assert_eq!(error, "/c/.dockerignore:2:1: `[` is not a pattern");
    }
}
