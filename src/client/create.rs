//! Creating a sandbox once, although the answer may get lost.
//!
//! Daytona has no idempotency keys, but names are unique. After an attempt of which nobody knows whether it was
//! carried out, the name is looked up, and what is there is ours if its labels are. A proxy that repeats a request by
//! itself makes the answer to the very first attempt a conflict; then labels count only if one of them is [`RUN_ID`],
//! which nobody else has.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::classify::advise;
use super::retry::{Effect, Failure, Random, RetryPolicy, retry};
use super::{CONTROL_DEADLINE, LONG_POLL_DEADLINE, Sandboxes};
use crate::api::routes::sandbox as routes;
use crate::api::sandbox::{CreateSandbox, Sandbox};
use crate::{Error, ErrorKind, Result};

/// Label whose value only one run of one process uses, which makes a sandbox with it recognizable as its own.
pub const RUN_ID: &str = "inspect_run_id";
/// Hundreds of samples start at the same time, and the account may create some hundred sandboxes per minute: the
/// last of a thousand waits for several windows.
const TOTAL: Duration = Duration::from_secs(600);

impl Sandboxes {
    /// Creates a sandbox and returns it as the server knows it, often not started yet: go on with
    /// [`wait_started`](Self::wait_started). The client's target is used where the request names none.
    ///
    /// With a name, a lost answer is made good: the name is looked up and the sandbox adopted if it carries all the
    /// labels of the request, of which there must be at least one. A name that is taken at the first attempt is looked
    /// up only for a request with the label [`RUN_ID`]: such names must be drawn anew for each call. Without a name
    /// only failures that surely created nothing are repeated.
    ///
    /// If the future is dropped the sandbox may come to exist all the same.
    ///
    /// # Errors
    /// - `AlreadyExists`: the name is taken by a sandbox that this call did not make
    /// - `NoCapacity`, `QuotaExceeded`: temporary, and left to the caller, who knows what else is running
    /// - `LimitExceeded`, `InvalidRequest`, `NotFound` (snapshot or region): the request can't succeed
    /// - `CreationFailed`: it failed while the server waited; what is left of it holds the name until it is deleted
    pub async fn create(&self, request: &CreateSandbox) -> Result<Sandbox> {
        let mut request = request.clone();
        if request.target.is_none() {
            request.target.clone_from(&self.0.options().target);
        }
        let route = routes::create(&request)?;
        let name = request.name.as_deref().filter(|name| !name.is_empty());
        let maybe_created = AtomicBool::new(false);
        let policy =
            RetryPolicy { total: self.0.options().retry.total.max(TOTAL), ..self.0.options().retry.clone() };
        let result = retry(&policy, Random::from_entropy(), name.is_some(), || async {
            if let (Some(name), true) = (name, maybe_created.load(Ordering::Relaxed))
                && let Some(sandbox) = self.adopt(name, &request).await?
            {
                return Ok(sandbox);
            }
            let failure = match self.0.attempt_json(self.0.control(&route, LONG_POLL_DEADLINE)).await {
                Ok(sandbox) => return Ok(sandbox),
                Err(failure) => failure,
            };
            let taken = failure.error.kind() == ErrorKind::AlreadyExists;
            let maybe_ours = maybe_created.load(Ordering::Relaxed) || request.labels.contains_key(RUN_ID);
            if let (Some(name), true, true) = (name, taken, maybe_ours) {
                // nobody is there any more, or not visibly yet: the next attempt tells
                return self
                    .adopt(name, &request)
                    .await?
                    .ok_or_else(|| Failure::refused(failure.error.temporary()));
            }
            if failure.effect == Effect::Possible {
                maybe_created.store(true, Ordering::Relaxed);
            }
            Err(failure)
        })
        .await;
        result.map_err(|mut error| {
            if maybe_created.load(Ordering::Relaxed) {
                error = error.with_hint("It may have been created all the same");
            }
            let error = advise(error).with_operation(route.operation);
            if let Some(name) = name { error.with_sandbox(name) } else { error }
        })
    }

    /// The sandbox called `name`, if there is one and it is ours.
    async fn adopt(&self, name: &str, request: &CreateSandbox) -> Result<Option<Sandbox>, Failure> {
        let route = routes::get(name).map_err(Failure::refused)?;
        let found: Sandbox = match self.0.attempt_json(self.0.control(&route, CONTROL_DEADLINE)).await {
            Ok(sandbox) => sandbox,
            Err(failure) if failure.error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let ours = !request.labels.is_empty()
            && request.labels.iter().all(|(key, value)| found.labels.get(key) == Some(value));
        if found.name == name && ours {
            tracing::info!("the answer to the creation of sandbox {name} was lost; found it as {}", found.id);
            return Ok(Some(found));
        }
        let message = format!("the name is taken by sandbox {}, which does not carry our labels", found.id);
        Err(Failure::refused(Error::new(ErrorKind::AlreadyExists, message)))
    }
}
