//! Deleting a sandbox for certain.

use std::time::Duration;

use tokio::time::Instant;

use super::classify::advise;
use super::retry::{Backoff, Random, RetryPolicy};
use super::{CONTROL_DEADLINE, Sandboxes};
use crate::api::routes::sandbox as routes;
use crate::{Error, ErrorKind, Result};

/// A start or stop in progress refuses deletion for seconds, a pull for minutes: begin quickly, end slowly.
const CONFLICT: RetryPolicy = RetryPolicy {
    attempts: u32::MAX,
    total: Duration::MAX,
    base: Duration::from_millis(200),
    cap: Duration::from_secs(5),
};

impl Sandboxes {
    /// Asks for deletion until it is accepted; no request begins after `within`. A sandbox that does not exist, or whose deletion
    /// was asked for before, is done. While the sandbox changes its state the server refuses, so this waits.
    ///
    /// # Errors
    /// - `Forbidden`: the key may not delete; [`stop`](Self::stop) at least ends the cost of its CPU and memory. The
    ///   error has no hint, so that the caller can say what was done instead
    /// - `Conflict`: it was still changing its state after `within`
    pub async fn delete(&self, sandbox: &str, within: Duration) -> Result<()> {
        let route = routes::delete(sandbox)?;
        let began = Instant::now();
        let mut backoff = Backoff::new(&CONFLICT, Random::from_entropy());
        let mut tries = 0;
        loop {
            tries += 1;
            let error = match self.0.attempt_delete(&route, within.saturating_sub(began.elapsed())).await {
                Ok(()) => return Ok(()),
                Err(error) => error.with_sandbox(sandbox),
            };
            match error.kind() {
                ErrorKind::NotFound => return Ok(()),
                ErrorKind::Conflict => {}
                ErrorKind::Forbidden => return Err(error),
                _ => return Err(advise(error)),
            }
            if self.find(sandbox).await?.is_none_or(|found| found.is_being_deleted()) {
                return Ok(());
            }
            let wait = backoff.next(error.retry_after());
            if began.elapsed() + wait > within {
                return Err(error
                    .with_status(crate::Status::Persistent)
                    .with_attempts(tries, began.elapsed()));
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Waits until a sandbox, by id, is gone; no request begins after `within`. Daytona is known to take an hour at times, so
    /// nothing should depend on it.
    ///
    /// # Errors
    /// `DeadlineExceeded` if it was not gone in time.
    pub async fn wait_deleted(&self, id: &str, within: Duration) -> Result<()> {
        let began = Instant::now();
        let mut backoff = Backoff::new(&CONFLICT, Random::from_entropy());
        loop {
            let Some(found) = self.find(id).await? else { return Ok(()) };
            if found.state == crate::api::sandbox::SandboxState::Destroyed {
                return Ok(());
            }
            let wait = backoff.next(None);
            if began.elapsed() + wait > within {
                let message = format!("still {} after {:.0} s", found.state.as_str(), within.as_secs_f64());
                return Err(Error::new(ErrorKind::DeadlineExceeded, message)
                    .with_operation("wait for the deletion")
                    .with_sandbox(id));
            }
            tokio::time::sleep(wait).await;
        }
    }
}

impl super::Client {
    /// A delete with the usual retries, except of conflicts, which have a rhythm of their own.
    async fn attempt_delete(&self, route: &crate::api::routes::Route, within: Duration) -> Result<()> {
        let policy = &self.0.options.retry;
        let policy = RetryPolicy { total: policy.total.min(within), ..policy.clone() };
        super::retry::retry(&policy, Random::from_entropy(), true, || async {
            self.attempt(self.control(route, CONTROL_DEADLINE)).await.map(drop).map_err(|mut failure| {
                if failure.error.kind() == ErrorKind::Conflict {
                    failure.error = failure.error.with_status(crate::Status::Permanent);
                }
                failure
            })
        })
        .await
        .map_err(|error| error.with_operation(route.operation))
    }
}
