//! How we talk: one HTTP client, one retry rule, for the control plane and the toolboxes.
//!
//! ```no_run
//! # async fn run() -> inspect_daytona::Result<()> {
//! use inspect_daytona::api::sandbox::CreateSandbox;
//! use inspect_daytona::client::{Client, ClientOptions, Environment};
//! use std::time::Duration;
//!
//! let Environment::Daytona(options) = ClientOptions::from_env(|name| std::env::var(name).ok())? else {
//!     return Ok(()); // the local Daytona is started by the caller
//! };
//! let client = Client::new(options)?;
//! let request = CreateSandbox { name: Some("example".to_owned()), ..CreateSandbox::default() };
//! let sandbox = client.sandboxes().create(&request).await?;
//! let sandbox = client.sandboxes().wait_started(&sandbox.id, Duration::from_secs(120)).await?;
//! let toolbox = client.toolbox(&sandbox).await?;
//! println!("{}", toolbox.work_dir().await?);
//! client.sandboxes().delete(&sandbox.id, Duration::from_secs(60)).await
//! # }
//! ```
//!
//! - [`ClientOptions`]: settings, from the environment or from code
//! - [`Client`]: a cheap clone; connections are shared
//! - [`Sandboxes`], [`Snapshots`]: the control plane
//! - [`ObjectStorage`]: where the files of image builds are uploaded
//! - [`Toolbox`]: commands and files of one sandbox
//! - [`RetryPolicy`]: what is tried again, and for how long
//!
//! Every request has a deadline of its own and every future may be dropped at any time; what a dropped request was
//! doing on the server goes on there.

mod addresses;
mod age;
mod build_log;
mod classify;
mod create;
mod delete;
mod errno;
mod explain;
mod files;
mod multipart;
mod object_storage;
mod options;
mod retry;
mod sandboxes;
mod snapshots;
mod toolbox;
mod transport;
mod wait;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

use self::classify::Service;
use self::retry::{Failure, Random, retry};
use self::transport::{Answer, JSON_LIMIT, Payload, Sharing, Transport};
use crate::api::account::{Configuration, CurrentApiKey};
use crate::api::routes::{self, Route};
use crate::{Error, ErrorKind, Result};

pub use self::create::RUN_ID;
pub use self::errno::file_error;
pub use self::object_storage::{ObjectStorage, PART};
pub use self::options::{
    ClientOptions, Credentials, DEFAULT_API_URL, Environment, LOCAL, Observation, Observer,
};
pub use self::retry::RetryPolicy;
pub use self::sandboxes::Sandboxes;
pub use self::snapshots::Snapshots;
pub use self::toolbox::{Replay, Toolbox};

/// The control plane answers from a database; its own proxies give up on it after 30 s.
const CONTROL_DEADLINE: Duration = Duration::from_secs(30);
/// The server holds create, start and recover for up to 30 s while it waits for `started`; cutting it off earlier
/// would make every slow start look like a lost answer.
const LONG_POLL_DEADLINE: Duration = Duration::from_secs(60);

/// A connection to Daytona: cheap to clone, all clones share connections, caches and counters.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    options: ClientOptions,
    /// The API's base as text, without a trailing slash.
    base: String,
    transport: Transport,
    /// Requests by operation.
    counts: Mutex<BTreeMap<&'static str, u64>>,
    /// Bases of toolbox URLs by region.
    toolbox_urls: Mutex<HashMap<String, String>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("options", &self.0.options).finish_non_exhaustive()
    }
}

/// One logical request, which may take several attempts.
#[derive(Clone, Copy, Debug)]
struct Call<'a> {
    service: Service,
    base: &'a str,
    route: &'a Route,
    payload: Payload<'a>,
    /// Of one attempt, from the first byte sent to the last received.
    deadline: Duration,
    /// Bytes of a successful answer.
    limit: u64,
}

impl Client {
    /// Makes a client. Nothing is connected yet.
    ///
    /// # Errors
    /// `InvalidConfig` if a credential holds characters that cannot be sent.
    pub fn new(options: ClientOptions) -> Result<Self> {
        let transport = Transport::new(&options.api_url, &options.credentials)?;
        Ok(Self(Arc::new(Shared {
            base: options.api_url.as_str().trim_end_matches('/').to_owned(),
            transport,
            options,
            counts: Mutex::default(),
            toolbox_urls: Mutex::default(),
        })))
    }

    /// The settings.
    pub fn options(&self) -> &ClientOptions {
        &self.0.options
    }

    /// Whether `other` is a clone of this client.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Sandboxes of the control plane.
    pub fn sandboxes(&self) -> Sandboxes {
        Sandboxes(self.clone())
    }

    /// Snapshots of the control plane.
    pub fn snapshots(&self) -> Snapshots {
        Snapshots(self.clone())
    }

    /// The platform's object storage.
    ///
    /// # Errors
    /// `Unsupported` if the server has none.
    pub async fn object_storage(&self) -> Result<ObjectStorage> {
        ObjectStorage::open(self).await
    }

    /// Public facts about the server. It needs no valid key.
    ///
    /// # Errors
    /// `Transport` if it cannot be reached, `Protocol` if it is not Daytona.
    pub async fn config(&self) -> Result<Configuration> {
        self.json(&routes::account::config(), CONTROL_DEADLINE).await
    }

    /// The key that this client uses, with its permissions: the cheapest check of a key.
    ///
    /// # Errors
    /// `Unauthenticated` if the key is not valid; tokens are refused as well, since they are not keys.
    pub async fn current_api_key(&self) -> Result<CurrentApiKey> {
        self.json(&routes::account::current_api_key(), CONTROL_DEADLINE).await
    }

    /// How many requests were sent, by operation; attempts count one by one.
    pub fn requests(&self) -> BTreeMap<&'static str, u64> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn control<'a>(&'a self, route: &'a Route, deadline: Duration) -> Call<'a> {
        Call {
            service: Service::Control,
            base: &self.0.base,
            route,
            payload: Payload::Route,
            deadline,
            limit: JSON_LIMIT,
        }
    }

    /// A request to the control plane, with retries, for its JSON.
    async fn json<T: DeserializeOwned>(&self, route: &Route, deadline: Duration) -> Result<T> {
        let call = self.control(route, deadline);
        retry(&self.0.options.retry, Random::from_entropy(), route.idempotent, || self.attempt_json(call))
            .await
            .map_err(|error| classify::advise(error).with_operation(route.operation))
    }

    /// A request to the control plane, with retries, whose answer is of no interest.
    async fn done(&self, route: &Route, deadline: Duration) -> Result<()> {
        let call = self.control(route, deadline);
        retry(&self.0.options.retry, Random::from_entropy(), route.idempotent, || self.attempt(call))
            .await
            .map(drop)
            .map_err(|error| classify::advise(error).with_operation(route.operation))
    }

    async fn attempt_json<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, Failure> {
        let answer = self.attempt(call).await?;
        serde_json::from_slice(&answer.body).map_err(|error| {
            // the text of the error would quote the body, which may hold tokens
            tracing::debug!("unreadable answer to {}: {:?} error", call.route.operation, error.classify());
            Failure::ambiguous(classify::stranger(call.service, call.base, answer.status))
        })
    }

    /// One attempt, for a successful answer.
    async fn attempt(&self, call: Call<'_>) -> Result<Answer, Failure> {
        let answer = self.attempt_any(call).await?;
        self.successful(call, answer)
    }

    fn successful(&self, call: Call<'_>, answer: Answer) -> Result<Answer, Failure> {
        if (200..300).contains(&answer.status) {
            return Ok(answer);
        }
        Err(classify::failure(call.service, call.base, &answer, |text| self.0.transport.redact(text)))
    }

    /// One attempt, for any answer.
    async fn attempt_any(&self, call: Call<'_>) -> Result<Answer, Failure> {
        *self
            .0
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(call.route.operation)
            .or_default() += 1;
        let Ok(result) = timeout(call.deadline, self.exchange(call)).await else {
            let message = format!("no whole answer within {:.0} s", call.deadline.as_secs_f64().ceil());
            return Err(Failure::ambiguous(Error::new(ErrorKind::DeadlineExceeded, message).temporary()));
        };
        result
    }

    async fn exchange(&self, call: Call<'_>) -> Result<Answer, Failure> {
        self.exchange_openly(call).await.map_err(|failure| match call.service {
            Service::Control => failure,
            Service::Toolbox | Service::Files => addresses::of_the_toolbox(failure, call.base),
        })
    }

    async fn exchange_openly(&self, call: Call<'_>) -> Result<Answer, Failure> {
        let began = Instant::now();
        let sharing = match call.service {
            Service::Control => Sharing::Multiplexed,
            Service::Toolbox | Service::Files => Sharing::Exclusive,
        };
        let sent = self.0.transport.send(sharing, call.base, call.route, call.payload).await;
        self.observe(call.route.operation, began.elapsed(), sent.as_ref().ok());
        let response = sent?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let limit = if (200..300).contains(&status) { call.limit } else { JSON_LIMIT };
        let delimited = response.version() >= http::Version::HTTP_2
            || headers.contains_key(CONTENT_LENGTH)
            || headers.contains_key(TRANSFER_ENCODING);
        let body = Transport::read(response, limit).await?;
        Ok(Answer { status, headers, body, delimited })
    }

    fn observe(&self, operation: &'static str, elapsed: Duration, response: Option<&reqwest::Response>) {
        let Some(observer) = &self.0.options.observer else { return };
        let remaining: Vec<_> = response
            .iter()
            .flat_map(|response| response.headers())
            .filter_map(|(name, value)| {
                let throttler = name.as_str().strip_prefix("x-ratelimit-remaining-")?;
                Some((throttler.to_owned(), value.to_str().ok()?.parse().ok()?))
            })
            .collect();
        let status = response.map(|response| response.status().as_u16());
        observer(&Observation { operation, status, elapsed, remaining: &remaining });
    }
}
