//! Creates a sandbox within what the account and the platform can give at the moment.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::Run;
use crate::api::sandbox::CreateSandbox;
use crate::error::{Error, ErrorKind, Result};
use crate::provider::images::Prepared;
use crate::provider::listener::Listener;
use crate::provider::names;
use crate::provider::registry::{Entry, Phase};

/// How long a create waits for the platform to have a free machine, and between two tries.
const CAPACITY_PATIENCE: Duration = Duration::from_secs(300);
const CAPACITY_POLL: Duration = Duration::from_secs(10);
/// Between two looks at a used-up quota, if none of our sandboxes ends meanwhile: others use the account too.
const QUOTA_POLL: Duration = Duration::from_secs(30);
/// A deleted sandbox holds its quota until the platform has destroyed it, which takes seconds.
const QUOTA_SETTLES: Duration = Duration::from_secs(120);
/// Between two looks meanwhile.
const QUOTA_SETTLING_POLL: Duration = Duration::from_secs(1);

impl Run {
    /// Sends the create request; brings back a prepared image that was retired or deleted meanwhile.
    pub(super) async fn create_from(
        &self,
        request: &CreateSandbox,
        image: &Prepared,
        listener: &Listener,
    ) -> Result<crate::api::sandbox::Sandbox> {
        let error = match (self.create_within_limits(request, listener).await, image) {
            (Err(error), Prepared::Snapshot(name))
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidRequest)
                    && error.attempts() == 1
                    && error.message().contains(name) =>
            {
                error
            }
            (result, _) => return result,
        };
        let Prepared::Snapshot(name) = image else { return Err(error) };
        if !self.0.images.renew(&self.0.client, name).await? {
            return Err(error);
        }
        self.create_within_limits(request, listener).await
    }

    /// Sends the create request; waits while the account's quota is used up by our own sandboxes, and a while for a
    /// free machine.
    async fn create_within_limits(
        &self,
        request: &CreateSandbox,
        listener: &Listener,
    ) -> Result<crate::api::sandbox::Sandbox> {
        let name = request.name.as_deref().unwrap_or_default();
        let began = Instant::now();
        let mut turn = None;
        let mut waits_for_others = false;
        loop {
            // from now on it may be there, and count for the creations of others
            self.0.registry.set_refused(name, false);
            let error = match self.0.client.sandboxes().create(request).await {
                // an earlier request of ours was refused for the quota that its own repeat had taken
                Err(error) if error.kind() == ErrorKind::AlreadyExists && turn.is_some() => {
                    let found = self.0.client.sandboxes().find(name).await?;
                    let ours = |key: &str| request.labels.get(key);
                    return match found {
                        Some(found) if found.labels.get(names::RUN_ID) == ours(names::RUN_ID) => Ok(found),
                        _ => Err(error),
                    };
                }
                Err(error) if matches!(error.kind(), ErrorKind::QuotaExceeded | ErrorKind::NoCapacity) => {
                    error
                }
                result => return result,
            };
            self.0.registry.set_refused(name, true);
            let Some((pause, for_others)) = self.limit_pause(&error, began) else {
                return Err(error.with_hint(
                    "Delete sandboxes that are not needed (inspect sandbox cleanup daytona), lower --max-sandboxes, or \
                     raise the account's limits",
                ));
            };
            if for_others && !std::mem::replace(&mut waits_for_others, true) {
                listener
                    .warn(&format!("waiting for other sandboxes of this eval to end: {}", error.message()));
            }
            let given_up =
                self.0.registry.wait_until(|entries| entries.get(name).is_none_or(|entry| entry.doomed));
            let wait = async {
                if turn.is_none() {
                    // one of all that wait asks again; the others would only use up the rate limit
                    turn = Some(self.0.limit_turn.lock().await);
                } else {
                    let _changed = timeout(pause, self.0.registry.wait_for_change()).await;
                }
            };
            tokio::select! {
                () = wait => {}
                // the refusal tells that there is nothing to delete
                () = given_up => return Err(error),
            }
        }
    }

    /// How long to wait before a create that the account's limits refused is tried again, and whether other sandboxes of
    /// the run must end first; `None` if that is of no use.
    fn limit_pause(&self, error: &Error, began: Instant) -> Option<(Duration, bool)> {
        if error.kind() == ErrorKind::NoCapacity {
            return (began.elapsed() < CAPACITY_PATIENCE).then_some((CAPACITY_POLL, false));
        }
        // those under creation too: many samples begin at once, and some get all that there is
        let ours = |entry: &Entry| match entry.phase {
            Phase::Alive | Phase::Deleting => true,
            Phase::Creating => !entry.refused,
            Phase::Left(_) => false,
        };
        let others = self.0.registry.all().iter().any(|(_, entry)| ours(entry));
        if self.0.registry.deletions().within(QUOTA_SETTLES) {
            return Some((QUOTA_SETTLING_POLL, others));
        }
        others.then_some((QUOTA_POLL, true))
    }
}
