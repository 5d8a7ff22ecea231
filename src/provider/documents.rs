//! Configurations that were read before. Inspect asks for every sample what its configuration means, thousands of times
//! for one file.

use std::collections::VecDeque;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::config::{Context, Document, Source};
use crate::error::Result;

/// More different files than any eval has at a time; each is as large as its tree.
const MOST: usize = 64;
/// A file that changed this short before it was read may change again within one tick of the file system's clock.
const SETTLED: Duration = Duration::from_millis(100);

/// Parsed configurations by source and directory, each as long as its files stay what they were.
#[derive(Debug)]
pub(crate) struct Documents {
    /// The one that was used last is in front.
    known: Mutex<VecDeque<Known>>,
}

#[derive(Debug)]
struct Known {
    source: Source,
    directory: PathBuf,
    stamps: Vec<(PathBuf, Option<Stamp>)>,
    document: Arc<Document>,
}

/// What changes when a file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Documents {
    /// None yet.
    pub(crate) const fn new() -> Self {
        Self { known: Mutex::new(VecDeque::new()) }
    }

    /// The document of a source, as [`Document::read`] gives it. `context` must be of this machine's files.
    ///
    /// # Errors
    ///
    /// As [`Document::read`].
    pub(crate) fn read(&self, source: &Source, context: &Context<'_>) -> Result<Arc<Document>> {
        if !matches!(source, Source::Compose(_) | Source::Dockerfile(_)) {
            return Document::read(source, context).map(Arc::new);
        }
        if let Some(document) = self.recall(source, context.directory) {
            return Ok(document);
        }
        let began = SystemTime::now();
        let document = Arc::new(Document::read(source, context)?);
        let stamps: Vec<_> = document.files().into_iter().map(|path| (stamp(&path), path)).collect();
        // One that was found in the working directory is another file when that changes.
        let is_settled = |(found, path): &(Option<Metadata>, PathBuf)| {
            let age = |modified| began.duration_since(modified);
            let modified = found.as_ref().and_then(|found| found.modified().ok());
            path.is_absolute() && modified.is_none_or(|modified| age(modified).is_ok_and(|age| age > SETTLED))
        };
        if stamps.iter().all(is_settled) {
            let stamps =
                stamps.into_iter().map(|(found, path)| (path, found.as_ref().map(Stamp::of))).collect();
            let directory = context.directory.to_path_buf();
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.push_front(Known {
                source: source.clone(),
                directory,
                stamps,
                document: Arc::clone(&document),
            });
            known.truncate(MOST);
        }
        Ok(document)
    }

    fn recall(&self, source: &Source, directory: &Path) -> Option<Arc<Document>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let index = known.iter().position(|known| known.source == *source && known.directory == directory)?;
        let found = known.remove(index)?;
        let is_current =
            |(path, stamped): &(PathBuf, Option<Stamp>)| stamp(path).as_ref().map(Stamp::of) == *stamped;
        if !found.stamps.iter().all(is_current) {
            return None;
        }
        let document = Arc::clone(&found.document);
        known.push_front(found);
        Some(document)
    }
}

fn stamp(path: &Path) -> Option<Metadata> {
    std::fs::metadata(path).ok()
}

impl Stamp {
    fn of(found: &Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::config::{FileKind, Files, RealFiles};

    /// This machine's files, counted.
    #[derive(Debug, Default)]
    struct Counted(AtomicUsize);

    impl Files for Counted {
        fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            RealFiles.read(path)
        }

        fn kind(&self, path: &Path) -> io::Result<FileKind> {
            RealFiles.kind(path)
        }

        fn list(&self, path: &Path) -> io::Result<Vec<String>> {
            RealFiles.list(path)
        }
    }

    /// A task's directory, whose files look as if they had been written long ago.
    struct Task {
        directory: tempfile::TempDir,
        files: Counted,
        documents: Documents,
    }

    impl Task {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            Self { directory, files: Counted::default(), documents: Documents::new() }
        }

        fn write(&self, name: &str, text: &str, age: Duration) {
            let path = self.directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_modified(SystemTime::now().checked_sub(age).unwrap()).unwrap();
        }

        fn image(&self, metadata: &[(&str, &str)], name: &str) -> String {
            let metadata: BTreeMap<_, _> =
                metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            let context = Context {
                directory: self.directory.path(),
                environment: &|_| None,
                metadata: &metadata,
                files: &self.files,
            };
            let source = Source::from_path(name).unwrap();
            let document = self.documents.read(&source, &context).unwrap();
            format!("{:?}", document.plan(&context).unwrap())
        }

        fn reads(&self) -> usize {
            self.files.0.load(Ordering::Relaxed)
        }
    }

    const HOUR: Duration = Duration::from_secs(3600);
    const COMPOSE: &str = "services: {a: {image: 'x:${SAMPLE_METADATA_TAG-none}${FROM_ENV-}'}}";

    #[test]
    fn ten_thousand_samples_read_their_file_once_and_each_has_its_own_plan() {
        let task = Task::new();
        task.write("compose.yaml", COMPOSE, HOUR);
        for index in 0..10_000 {
            let tag = index.to_string();
            assert!(task.image(&[("tag", &tag)], "compose.yaml").contains(&format!("\"x:{tag}\"")));
        }
        assert_eq!(task.reads(), 1);
    }

    #[test]
    fn a_file_that_changes_is_read_again_and_so_is_one_beside_it() {
        let task = Task::new();
        task.write("compose.yaml", COMPOSE, HOUR);
        assert!(task.image(&[], "compose.yaml").contains("x:none\""));
        task.write(".env", "FROM_ENV=-first", HOUR);
        assert!(task.image(&[], "compose.yaml").contains("x:none-first"));
        // the same size and the same time of change
        task.write(".env", "FROM_ENV=-other", HOUR);
        assert!(task.image(&[], "compose.yaml").contains("x:none-other"));
        std::fs::remove_file(task.directory.path().join(".env")).unwrap();
        assert!(task.image(&[], "compose.yaml").contains("x:none\""));
    }

    #[test]
    fn an_included_file_that_changes_is_read_again() {
        let task = Task::new();
        task.write("compose.yaml", "include: [inner.yaml]", HOUR);
        let environment = || {
            let metadata = BTreeMap::from([("tag".to_owned(), "7".to_owned())]);
            let context = Context {
                directory: task.directory.path(),
                environment: &|_| None,
                metadata: &metadata,
                files: &task.files,
            };
            let source = Source::from_path("compose.yaml").unwrap();
            task.documents.read(&source, &context).unwrap().task_environment(&metadata)
        };
        task.write("inner.yaml", "services: {a: {image: 'x:1'}}", HOUR);
        assert_eq!(environment(), BTreeMap::new());
        task.write("inner.yaml", COMPOSE, HOUR);
        assert_eq!(environment().len(), 1);
    }

    #[test]
    fn a_file_that_has_just_been_written_is_not_kept() {
        let task = Task::new();
        task.write("compose.yaml", COMPOSE, Duration::ZERO);
        for _ in 0..2 {
            task.image(&[], "compose.yaml");
        }
        assert_eq!(task.reads(), 2);
    }

    #[test]
    fn the_number_of_files_is_bounded_and_the_oldest_go_first() {
        let task = Task::new();
        let name = |index: usize| format!("{index}.yaml");
        for index in 0..=MOST {
            task.write(&name(index), COMPOSE, HOUR);
            task.image(&[], &name(index));
        }
        assert_eq!(task.documents.known.lock().unwrap().len(), MOST);
        let before = task.reads();
        task.image(&[], &name(1));
        assert_eq!(task.reads(), before);
        task.image(&[], &name(0));
        assert_eq!(task.reads(), before + 1);
    }
}
