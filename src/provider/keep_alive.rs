//! Sandboxes carry a server-side time-to-live that this process keeps extending, so that they end by themselves, and
//! stop costing money, when the process is killed.

use std::sync::{Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use futures_util::stream::{self, StreamExt};
use tokio::task::AbortHandle;

use super::registry::Phase;
use super::run::Run;
use crate::error::{ErrorKind, Result};

/// Minutes that a sandbox outlives its process by, unless `x-daytona.ttl_minutes` says otherwise. Three extensions may
/// fail in a row before a sandbox in use is lost.
pub(super) const TTL_MINUTES: u32 = 60;
/// Minutes that a sandbox is kept for a person to look at (`--no-sandbox-cleanup`).
const INSPECTION_MINUTES: u32 = 24 * 60;

/// How many extensions run at once.
const PARALLEL_EXTENSIONS: usize = 16;

/// The background task that extends; started with the first sandbox that can expire.
#[derive(Debug, Default)]
pub(super) struct Task(Mutex<Option<AbortHandle>>);

impl Task {
    /// Starts the task if it does not run.
    pub(super) fn ensure_runs(&self, run: &Run, minutes: u32) {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_none() {
            // weak: a run that nobody holds any more extends nothing
            let task = tokio::spawn(extend_regularly(run.downgrade(), minutes));
            *running = Some(task.abort_handle());
        }
    }

    /// Stops extending.
    pub(super) fn stop(&self) {
        if let Some(task) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

async fn extend_regularly(run: Weak<super::run::Inner>, minutes: u32) {
    let seconds = u64::from(minutes.max(1)) * 60;
    let mut ticks = tokio::time::interval(Duration::from_secs(seconds / 4));
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let Some(run) = Run::upgrade(&run) else { return };
        extend_all(&run, minutes).await;
    }
}

/// Gives every living sandbox of a run a day, for a person to look at.
pub(super) async fn extend_for_inspection(run: &Run) {
    extend_all(run, INSPECTION_MINUTES).await;
}

async fn extend_all(run: &Run, minutes: u32) {
    // also while it is being prepared, which a build or a healthcheck may draw out
    let alive = run
        .registry()
        .all()
        .into_iter()
        .filter(|(_, entry)| entry.expires && matches!(entry.phase, Phase::Alive | Phase::Creating));
    let extensions = alive.filter_map(|(name, entry)| Some((name, entry.id?))).map(|(name, id)| async move {
        match extend(run, &id, minutes).await {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!("cannot extend the time-to-live of sandbox {name}: {error}");
            }
            _ => {}
        }
    });
    // many at once would use up the account's rate limit, which creations need
    stream::iter(extensions).buffer_unordered(PARALLEL_EXTENSIONS).collect::<Vec<()>>().await;
}

/// Sets a time-to-live of `minutes` from now. A server may count it from the sandbox's creation: then its age is added.
async fn extend(run: &Run, id: &str, minutes: u32) -> Result<()> {
    let sandbox = run.client().sandboxes().set_ttl(id, minutes).await?;
    let now = SystemTime::now();
    let parse = |text: &Option<String>| humantime::parse_rfc3339_weak(text.as_deref()?).ok();
    let (Some(end), Some(created)) = (parse(&sandbox.auto_destroy_at), parse(&sandbox.created_at)) else {
        return Ok(());
    };
    let half = Duration::from_secs(u64::from(minutes) * 30);
    if end < now + half {
        let age = now.duration_since(created).unwrap_or_default().as_secs() / 60;
        run.client().sandboxes().set_ttl(id, minutes + u32::try_from(age).unwrap_or(0)).await?;
    }
    Ok(())
}
