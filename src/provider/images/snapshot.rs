//! Brings a snapshot of a given name into being, whatever state it is in and whoever else does the same.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Progress;
use crate::api::snapshot::{CreateSnapshot, Snapshot, SnapshotState};
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};

/// How long a snapshot may take: the platform gives a build up an hour after it began, and builds may queue.
const PATIENCE: Duration = Duration::from_secs(90 * 60);
/// How long a name may be taken by a snapshot that cannot be read; one that is being deleted holds it for a while.
const INVISIBLE: Duration = Duration::from_secs(180);
/// A snapshot cannot be activated sooner than ten minutes after it was deactivated.
const ACTIVATION: Duration = Duration::from_secs(11 * 60);
/// Between two looks, at first and at most.
const WAIT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(3));
/// Lines and bytes of a build's log that an error shows.
const LOG_TAIL: (usize, usize) = (30, 4000);

/// What is under way.
struct Ensuring<'a> {
    client: &'a Client,
    request: &'a CreateSnapshot,
    progress: &'a Progress<'a>,
    /// Whether a failed snapshot of earlier was deleted, which is done once.
    replaced: bool,
    /// Whether this call made it, so that its failure is the answer.
    made: bool,
    /// Since when the name is taken although nothing can be read under it.
    invisible: Option<Instant>,
    /// Since when activations fail.
    activating: Option<Instant>,
    state: Option<SnapshotState>,
}

/// Makes the snapshot that `request` describes unless it exists, and waits until it can be used. The name must say what
/// it holds: one that exists is taken to be right.
///
/// # Errors
///
/// [`ErrorKind::BuildFailed`] with the end of the build's log; what keeps the snapshot from being used; whatever keeps
/// the server from answering.
pub(super) async fn ensure(client: &Client, request: &CreateSnapshot, progress: &Progress<'_>) -> Result<()> {
    let began = Instant::now();
    let mut wait = WAIT.0;
    let mut ensuring = Ensuring {
        client,
        request,
        progress,
        replaced: false,
        made: false,
        invisible: None,
        activating: None,
        state: None,
    };
    loop {
        let found = client.snapshots().find(&request.name).await?;
        if ensuring.step(found).await? {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            let state = ensuring.state.map_or("invisible", word);
            let message = format!(
                "the snapshot {} was still {state} after {} minutes",
                request.name,
                PATIENCE.as_secs() / 60
            );
            return Err(Error::new(ErrorKind::DeadlineExceeded, message));
        }
        sleep(wait).await;
        wait = (wait * 3 / 2).min(WAIT.1);
    }
}

impl Ensuring<'_> {
    /// One step; whether the snapshot can be used.
    async fn step(&mut self, found: Option<Snapshot>) -> Result<bool> {
        let Some(snapshot) = found else { return self.create().await };
        self.invisible = None;
        if self.state != Some(snapshot.state) {
            self.state = Some(snapshot.state);
            (self.progress)(&format!("Snapshot {}: {}", snapshot.name, word(snapshot.state)));
        }
        match snapshot.state {
            SnapshotState::Active => return self.check_class(&snapshot).map(|()| true),
            SnapshotState::Inactive => self.activate(&snapshot).await?,
            SnapshotState::Error | SnapshotState::BuildFailed => self.failed(&snapshot).await?,
            SnapshotState::Building
            | SnapshotState::Pending
            | SnapshotState::Pulling
            | SnapshotState::Removing
            | SnapshotState::Snapshotting
            | SnapshotState::Other => {}
        }
        Ok(false)
    }

    /// Whether it is of the class that was asked for, as far as it tells.
    fn check_class(&self, snapshot: &Snapshot) -> Result<()> {
        match (&self.request.sandbox_class, &snapshot.sandbox_class) {
            (Some(asked), Some(got)) if asked != got => {
                let message = format!("the snapshot {} is of the class {got}, not {asked}", snapshot.name);
                Err(Error::new(ErrorKind::Unsupported, message)
                    .with_hint("Use a server that supports `class`, or remove it from x-daytona"))
            }
            _ => Ok(()),
        }
    }

    async fn create(&mut self) -> Result<bool> {
        match self.client.snapshots().create(self.request).await {
            Ok(snapshot) => {
                self.made = true;
                self.state = Some(snapshot.state);
                (self.progress)(&format!("Snapshot {}: created", snapshot.name));
                self.check_class(&snapshot)?;
                Ok(snapshot.state == SnapshotState::Active)
            }
            // another process was first, or the old one is not quite gone
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let since = *self.invisible.get_or_insert_with(Instant::now);
                if since.elapsed() < INVISIBLE {
                    return Ok(false);
                }
                Err(error.with_hint(format!(
                    "The name {} is taken, but the server shows no snapshot of that name; look for it in Daytona's \
                     dashboard, or ask Daytona's support",
                    self.request.name
                )))
            }
            Err(error) => Err(error),
        }
    }

    async fn activate(&mut self, snapshot: &Snapshot) -> Result<()> {
        let Err(error) = self.client.snapshots().activate(&snapshot.id).await else { return Ok(()) };
        // another process may have activated it, or it may be too early
        let passing =
            matches!(error.kind(), ErrorKind::InvalidRequest | ErrorKind::Conflict | ErrorKind::NotFound);
        let since = *self.activating.get_or_insert_with(Instant::now);
        if passing && since.elapsed() < ACTIVATION { Ok(()) } else { Err(error) }
    }

    /// Deletes a failed snapshot of earlier, once: what failed may have been the network.
    async fn failed(&mut self, snapshot: &Snapshot) -> Result<()> {
        if self.made || self.replaced {
            return Err(self.explain(snapshot).await);
        }
        self.replaced = true;
        (self.progress)(&format!("Snapshot {}: failed earlier, is made again", snapshot.name));
        match self.client.snapshots().delete(&snapshot.id).await {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::Forbidden => Err(self.explain(snapshot).await.with_hint(
                "It failed earlier, and the API key may not delete it: delete it in Daytona's dashboard, or give the \
                 key the permission delete:snapshots",
            )),
            Err(error) => Err(error),
        }
    }

    async fn explain(&self, snapshot: &Snapshot) -> Error {
        let reason =
            snapshot.error_reason.clone().unwrap_or_else(|| "the platform gives no reason".to_owned());
        let log = if snapshot.build_info.is_some() || self.request.build_info.is_some() {
            self.client.snapshots().build_log(&snapshot.id).await.map(|log| tail(&log)).unwrap_or_default()
        } else {
            String::new()
        };
        let log = if log.is_empty() { log } else { format!("\nThe build's log ends with:\n{log}") };
        let (kind, what) = if self.request.build_info.is_some() {
            (ErrorKind::BuildFailed, "the image could not be built".to_owned())
        } else {
            let image = self.request.image_name.as_deref().unwrap_or_default();
            (ErrorKind::CreationFailed, format!("the image {image} could not be prepared"))
        };
        Error::new(kind, format!("{what} (snapshot {}): {reason}{log}", snapshot.name))
    }
}

/// The last lines of a log, without colours and progress bars.
pub(super) fn tail(log: &str) -> String {
    let lines: Vec<&str> = log
        .lines()
        .map(|line| line.rsplit('\r').next().unwrap_or_default().trim_end())
        .filter(|line| !line.is_empty())
        .collect();
    let text = lines[lines.len().saturating_sub(LOG_TAIL.0)..].join("\n");
    let printable: String = text.chars().filter(|c| *c == '\n' || *c == '\t' || !c.is_control()).collect();
    let skipped = printable.chars().count().saturating_sub(LOG_TAIL.1);
    printable.chars().skip(skipped).collect()
}

fn word(state: SnapshotState) -> &'static str {
    match state {
        SnapshotState::Building => "building",
        SnapshotState::Pending => "pending",
        SnapshotState::Pulling => "pulling",
        SnapshotState::Active => "ready",
        SnapshotState::Inactive => "inactive",
        SnapshotState::Error => "failed",
        SnapshotState::BuildFailed => "failed to build",
        SnapshotState::Removing => "being removed",
        SnapshotState::Snapshotting => "being made",
        SnapshotState::Other => "in a state that this version does not know",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_cut_to_its_last_lines_without_control_characters() {
        let lines: Vec<_> = (1..100).map(|number| format!("10%\r\u{1b}[1mline {number}\n\n")).collect();
        let shown = tail(&lines.concat());
        assert_eq!(shown.lines().count(), LOG_TAIL.0);
        assert!(shown.ends_with("[1mline 99") && !shown.contains('\u{1b}'), "{shown}");
    }
}
