//! Commands and facts of one sandbox.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::classify::Service;
use super::explain::is_suspicious;
use super::options::warn_if_plain;
use super::retry::{Failure, Random, retry};
use super::transport::{JSON_LIMIT, Payload};
use super::{Call, Client};
use crate::api::routes::toolbox as routes;
use crate::api::sandbox::Sandbox;
use crate::api::toolbox::{Directory, ExecuteRequest, ExecuteResponse, Version};
use crate::{Error, ErrorKind, Result};

/// Facts and small file operations take milliseconds; a machine under full load takes seconds.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);
/// The proxies remember for 5 s that a key was not valid for a sandbox, even if they asked too early.
const FRESH: Duration = Duration::from_secs(10);

/// Whether a script may be delivered more than once. Daytona's own proxies may repeat small requests whatever is
/// said here; this is about our retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// The script makes sure itself that it acts once, or acting twice is the same.
    Safe,
    /// Only failures that surely did not start it are tried again.
    Never,
}

/// The toolbox of one sandbox; a cheap clone.
///
/// Failures that may be the sandbox's and not the request's are checked with the control plane before they are
/// reported, see [`Client::explain`].
#[derive(Clone)]
pub struct Toolbox(pub(super) Arc<Handle>);

pub(super) struct Handle {
    pub(super) client: Client,
    base: String,
    id: String,
    label: String,
    since: Instant,
}

impl fmt::Debug for Toolbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Toolbox").field("id", &self.0.id).field("base", &self.0.base).finish_non_exhaustive()
    }
}

impl Client {
    /// The toolbox of a sandbox. Make it once per sandbox, right after it has started.
    ///
    /// # Errors
    /// Those of [`Sandboxes::toolbox_url`](super::Sandboxes::toolbox_url).
    pub async fn toolbox(&self, sandbox: &Sandbox) -> Result<Toolbox> {
        let url = self.sandboxes().toolbox_url(sandbox).await?;
        let parsed = Url::parse(&url).ok().filter(|parsed| matches!(parsed.scheme(), "http" | "https"));
        let Some(parsed) = parsed else {
            return Err(Error::new(ErrorKind::Protocol, "the server gave a malformed toolbox URL")
                .with_sandbox(&sandbox.id));
        };
        if self.options().api_url.scheme() == "https" {
            warn_if_plain(&parsed);
        }
        let label = if sandbox.name.is_empty() { &sandbox.id } else { &sandbox.name };
        Ok(Toolbox(Arc::new(Handle {
            client: self.clone(),
            base: format!("{url}/{}", sandbox.id),
            id: sandbox.id.clone(),
            label: label.clone(),
            since: Instant::now(),
        })))
    }
}

impl Toolbox {
    /// The sandbox's id.
    pub fn sandbox_id(&self) -> &str {
        &self.0.id
    }

    /// The client behind it.
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    /// Runs a script with the sandbox's shell and waits for its end, at most `deadline` per attempt. Silent
    /// connections are cut after 60 to 100 s on the way, so a deadline beyond that is of little use.
    ///
    /// # Errors
    /// - `SandboxUnavailable`: the sandbox does not run any more
    /// - `DeadlineExceeded`, `Transport`, `Server`: whether it ran is unknown, unless it was `Replay::Safe`, where
    ///   all retries failed
    pub async fn execute(
        &self,
        request: &ExecuteRequest,
        deadline: Duration,
        replay: Replay,
    ) -> Result<ExecuteResponse> {
        let mut route = routes::execute(request)?;
        route.idempotent = replay == Replay::Safe;
        self.json(&self.call(&route, deadline)).await
    }

    /// The directory that relative paths refer to.
    ///
    /// # Errors
    /// `SandboxUnavailable` if the sandbox does not run any more.
    pub async fn work_dir(&self) -> Result<String> {
        Ok(self.json::<Directory>(&self.call(&routes::work_dir(), DEADLINE)).await?.dir)
    }

    /// The toolbox's version, with a leading `v`.
    ///
    /// # Errors
    /// `SandboxUnavailable` if the sandbox does not run any more.
    pub async fn version(&self) -> Result<String> {
        Ok(self.json::<Version>(&self.call(&routes::version(), DEADLINE)).await?.version)
    }

    pub(super) fn call<'a>(&'a self, route: &'a crate::api::routes::Route, deadline: Duration) -> Call<'a> {
        Call {
            service: Service::Toolbox,
            base: &self.0.base,
            route,
            payload: Payload::Route,
            deadline,
            limit: JSON_LIMIT,
        }
    }

    pub(super) async fn json<T: DeserializeOwned>(&self, call: &Call<'_>) -> Result<T> {
        let call = *call;
        self.repeat(call, || async move { self.examined(self.0.client.attempt_json(call).await).await }).await
    }

    pub(super) async fn repeat<T, F>(&self, call: Call<'_>, attempt: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        retry(&self.0.client.options().retry, Random::from_entropy(), call.route.idempotent, attempt)
            .await
            .map_err(|error| error.with_operation(call.route.operation).with_sandbox(&self.0.label))
    }

    /// Asks the control plane about a suspicious failure. What a running sandbox may get over becomes temporary.
    pub(super) async fn examined<T>(&self, result: Result<T, Failure>) -> Result<T, Failure> {
        let failure = match result {
            Err(failure) if is_suspicious(&failure.error) => failure,
            result => return result,
        };
        let Failure { mut error, effect } = failure;
        if error.kind() == ErrorKind::Unauthenticated && self.0.since.elapsed() < FRESH {
            error = error.temporary();
        }
        let error = self.0.client.explain(error, &self.0.id).await;
        Err(Failure { error, effect })
    }
}
