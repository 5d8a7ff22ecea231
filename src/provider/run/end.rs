//! The end of a run: nothing is left, or named.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::time::timeout;

use super::{Left, Run};
use crate::api::sandbox::{DesiredState, SandboxState};
use crate::error::Result;
use crate::provider::registry::Phase;
use crate::provider::{keep_alive, names};

/// How many deletes run at once when a run ends.
const PARALLEL_DELETES: usize = 16;
/// How long the end of a run waits for creations and deletes that are under way.
const SETTLE: Duration = Duration::from_secs(90);

impl Run {
    /// Ends the run: waits for what is under way, deletes every sandbox that is left, by account and by label, and
    /// returns what could not be deleted. With `cleanup` false, returns what is kept. May be called again.
    pub async fn finish(&self, cleanup: bool) -> Vec<Left> {
        let busy = |phase: &Phase| matches!(phase, Phase::Creating | Phase::Deleting);
        let settled = self.0.registry.wait_until(|entries| !entries.values().any(|entry| busy(&entry.phase)));
        let settled = timeout(SETTLE, settled);
        if cleanup {
            // what lives is deleted at once; a creation under way must not hold that up, and deletes what it makes
            self.0.registry.doom_all();
            let (_settled, ()) = tokio::join!(settled, self.delete_living());
            self.delete_living().await;
            if let Err(error) = self.sweep().await {
                tracing::warn!("cannot look for sandboxes that are left: {error}");
            }
        } else {
            self.0.kept.store(true, Ordering::Relaxed);
            let _settled = settled.await;
            keep_alive::extend_for_inspection(self).await;
        }
        self.0.keep_alive.stop();
        self.left()
    }

    /// Deletes every sandbox that exists and that nobody is deleting yet.
    async fn delete_living(&self) {
        let living = self.0.registry.all().into_iter().filter(|(_, entry)| {
            matches!(entry.phase, Phase::Alive | Phase::Left(_))
                || (entry.phase == Phase::Creating && entry.id.is_some())
        });
        let deletions = living.map(|(name, _)| async move {
            // reported by `left`
            let _result = self.delete(&name).await;
        });
        stream::iter(deletions).buffer_unordered(PARALLEL_DELETES).collect::<Vec<()>>().await;
    }

    /// What is on the account now.
    pub fn left(&self) -> Vec<Left> {
        let left = self.0.registry.all().into_iter().map(|(name, entry)| Left {
            name,
            id: entry.id,
            reason: match entry.phase {
                Phase::Left(reason) => reason,
                Phase::Creating => "its creation never ended".to_owned(),
                Phase::Deleting => "its deletion never ended".to_owned(),
                Phase::Alive => String::new(),
            },
        });
        left.collect()
    }

    /// Finishes a run whose process ends without having done so, unless its sandboxes are to be kept.
    pub async fn settle(&self) {
        if !self.is_kept() && !self.0.registry.all().is_empty() {
            self.finish(true).await;
        }
    }

    /// Whether its sandboxes are to outlive it.
    pub fn is_kept(&self) -> bool {
        self.0.kept.load(Ordering::Relaxed)
    }

    /// Deletes sandboxes that carry this run's label but are not on its account: the news of their creation was lost.
    async fn sweep(&self) -> Result<()> {
        if !self.0.registry.was_used() {
            return Ok(());
        }
        let known: BTreeSet<String> =
            self.0.registry.all().into_iter().filter_map(|(_, entry)| entry.id).collect();
        for listed in self.0.client.sandboxes().list(&names::labels(&self.0.id, &BTreeMap::default())).await?
        {
            let going = listed.state == SandboxState::Destroying
                || listed.desired_state == Some(DesiredState::Destroyed);
            if going || known.contains(&listed.id) {
                continue;
            }
            // the list lags behind: only the sandbox itself tells whether it is there
            let Some(found) = self.0.client.sandboxes().find(&listed.id).await? else { continue };
            if matches!(found.state, SandboxState::Destroying | SandboxState::Destroyed) {
                continue;
            }
            self.0.registry.record(&found.name);
            self.0.registry.identified(&found.name, &found.id, false);
            self.delete_logged(&found.name).await;
        }
        Ok(())
    }
}
