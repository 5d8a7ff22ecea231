//! Logs of image builds.

use reqwest::Url as ParsedUrl;

use super::transport::Payload;
use super::{Call, Client, LONG_POLL_DEADLINE, Sandboxes, Snapshots};
use crate::api::routes::{self, Route};
use crate::api::sandbox::Url;
use crate::client::classify::Service;
use crate::client::retry::{Random, retry};
use crate::{Error, ErrorKind, Result};

/// Bytes; a build that says more is shown from the dashboard.
const LONGEST: u64 = 32 << 20;

impl Snapshots {
    /// What the build of a snapshot, by id, has said so far.
    ///
    /// # Errors
    /// `NotFound` before it has begun.
    pub async fn build_log(&self, id: &str) -> Result<String> {
        self.0.build_log(&routes::snapshot::build_log_url(id)?).await
    }
}

impl Sandboxes {
    /// What the build of a sandbox has said so far.
    ///
    /// # Errors
    /// `NotFound` before it has begun.
    pub async fn build_log(&self, sandbox: &str) -> Result<String> {
        let route = routes::sandbox::build_log_url(sandbox)?;
        self.0.build_log(&route).await.map_err(|error| error.with_sandbox(sandbox))
    }
}

impl Client {
    async fn build_log(&self, find: &Route) -> Result<String> {
        // the server waits for a machine to be chosen before it answers
        let Url { url } = self.json(find, LONG_POLL_DEADLINE).await?;
        let route = Route::new("read the build log", http::Method::GET, "");
        if ParsedUrl::parse(&url).is_err() {
            return Err(Error::new(ErrorKind::Protocol, "the server gave a malformed URL")
                .with_operation(route.operation));
        }
        // errors name the base, and a query may be a credential
        let (base, query) =
            url.split_once('?').map_or((url.as_str(), None), |(base, query)| (base, Some(query)));
        let route = Route { path: query.map_or(String::new(), |query| format!("?{query}")), ..route };
        let call = Call {
            service: Service::Control,
            base,
            route: &route,
            payload: Payload::Route,
            deadline: LONG_POLL_DEADLINE,
            limit: LONGEST,
        };
        let answer = retry(&self.0.options.retry, Random::from_entropy(), true, || self.attempt(call))
            .await
            .map_err(|error| error.with_operation(route.operation))?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }
}
