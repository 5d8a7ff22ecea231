//! Who is told what happens while a sandbox is created.

use std::fmt;
use std::sync::Arc;

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// Something that the user should know to judge what the sandbox does.
    Warning,
    /// What is being done now, which may take minutes.
    Progress,
}

/// Is told what happens during a creation, as it happens, in lines for a user and from any thread. The log by default.
/// Cheap to clone.
#[derive(Clone)]
pub struct Listener(Arc<Tell>);

type Tell = dyn Fn(Note, &str) + Send + Sync;

impl Listener {
    /// A listener that calls `tell`, which must not block for long.
    pub fn new(tell: impl Fn(Note, &str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    pub(super) fn warn(&self, line: &str) {
        self.0(Note::Warning, line);
    }

    pub(super) fn warn_all(&self, lines: &[String]) {
        for line in lines {
            self.warn(line);
        }
    }

    pub(super) fn progress(&self, line: &str) {
        self.0(Note::Progress, line);
    }
}

impl Default for Listener {
    fn default() -> Self {
        Self::new(|note, line| match note {
            Note::Warning => tracing::warn!("{line}"),
            Note::Progress => tracing::info!("{line}"),
        })
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Listener")
    }
}
