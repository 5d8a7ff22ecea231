//! One preparation of a root file system, with its log.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tokio::sync::watch;

use super::Image;

/// Bytes of a log that go into the reason of a failure.
const TAIL: u64 = 2000;

/// A preparation, shared by all who want its outcome.
#[derive(Debug)]
pub(in crate::local::control) struct Flight {
    log: PathBuf,
    phase: watch::Sender<Phase>,
}

#[derive(Clone, Debug)]
enum Phase {
    Waiting,
    Running,
    Done(Result<Image, String>),
}

impl Flight {
    pub(super) fn new(log: PathBuf) -> Self {
        Self { log, phase: watch::Sender::new(Phase::Waiting) }
    }

    /// The file with everything that was said so far; it need not exist.
    pub(in crate::local::control) fn log(&self) -> &Path {
        &self.log
    }

    /// Whether nothing more will be said.
    pub(in crate::local::control) fn is_done(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Done(_))
    }

    pub(super) fn ready(&self) -> Option<Image> {
        match &*self.phase.borrow() {
            Phase::Done(result) => result.as_ref().ok().cloned(),
            Phase::Waiting | Phase::Running => None,
        }
    }

    /// Waits until it has begun.
    pub(in crate::local::control) async fn begun(&self) {
        // the sender is ours, so it lives
        let _ = self.phase.subscribe().wait_for(|phase| !matches!(phase, Phase::Waiting)).await;
    }

    /// Waits for the image, or for the reason why there is none.
    pub(in crate::local::control) async fn outcome(&self) -> Result<Image, String> {
        let mut phase = self.phase.subscribe();
        match phase.wait_for(|phase| matches!(phase, Phase::Done(_))).await.as_deref() {
            Ok(Phase::Done(result)) => result.clone(),
            _ => Err("the preparation was interrupted".to_owned()),
        }
    }

    pub(super) fn begin(&self) {
        self.phase.send_replace(Phase::Running);
    }

    pub(super) fn finish(&self, result: Result<Image, String>) {
        self.phase.send_replace(Phase::Done(result));
    }

    /// The log, to be written to at its end.
    pub(super) fn open(&self) -> io::Result<std::fs::File> {
        if let Some(directory) = self.log.parent() {
            std::fs::create_dir_all(directory)?;
        }
        std::fs::OpenOptions::new().create(true).append(true).open(&self.log)
    }

    /// Adds a line to the log. A log that cannot be written is no reason to fail.
    pub(super) fn say(&self, line: &str) {
        if let Err(error) = self.open().and_then(|mut log| writeln!(log, "{line}")) {
            tracing::warn!("cannot write to {}: {error}", self.log.display());
        }
    }

    /// The last lines of the log.
    pub(super) fn tail(&self) -> String {
        let read = || {
            let mut log = std::fs::File::open(&self.log)?;
            let length = log.metadata()?.len();
            log.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
            let mut text = Vec::new();
            log.take(TAIL).read_to_end(&mut text)?;
            Ok::<_, io::Error>((String::from_utf8_lossy(&text).into_owned(), length > TAIL))
        };
        match read() {
            Ok((text, true)) => text.split_once('\n').map_or(text.clone(), |(_, rest)| rest.to_owned()),
            Ok((text, false)) => text,
            Err(_) => String::new(),
        }
    }
}
