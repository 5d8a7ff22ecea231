//! One eval run: creates its sandboxes, keeps account of them, and sees that none is left.

mod creation;
mod end;
mod limits;

use std::pin::pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::images::Images;
use super::keep_alive;
use super::listener::Listener;
use super::registry::{Counts, Deletions, Phase, Registry};
use super::sandbox::Sandbox;
use super::settings::Settings;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};

/// How long one delete tries: a sandbox in transition refuses it for a while, and a rate limit for a minute.
pub(super) const DELETE_PATIENCE: Duration = Duration::from_secs(150);
/// What a delete may take beyond that, for its last request.
const MARGIN: Duration = Duration::from_secs(90);

/// An eval run. Cheap to clone; all clones share one account of sandboxes.
#[derive(Clone, Debug)]
pub struct Run(Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    id: String,
    client: Client,
    images: Images,
    registry: Registry,
    keep_alive: keep_alive::Task,
    /// Its sandboxes are to outlive it.
    kept: AtomicBool,
    /// Held by the one creation that asks again while the account's limits refuse it.
    limit_turn: tokio::sync::Mutex<()>,
}

/// The services of a sandbox by name, the default one first.
pub type Services = Vec<(String, Sandbox)>;

/// A sandbox that a run could not delete, or was told to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Its name.
    pub name: String,
    /// Its id, if it is known.
    pub id: Option<String>,
    /// Why it is left; empty if it was to be kept.
    pub reason: String,
}

impl Run {
    /// A run whose sandboxes `client` creates.
    pub fn new(client: Client) -> Self {
        Self::after_others(client, Images::default(), Deletions::default())
    }

    /// A run that shares the images that were prepared before, and knows of the deletions of earlier runs of the account.
    pub fn after_others(client: Client, images: Images, deletions: Deletions) -> Self {
        Self(Arc::new(Inner {
            id: uuid::Uuid::new_v4().simple().to_string(),
            client,
            images,
            registry: Registry::after(deletions),
            keep_alive: keep_alive::Task::default(),
            kept: AtomicBool::new(false),
            limit_turn: tokio::sync::Mutex::new(()),
        }))
    }

    /// The run's id, in the label `inspect_run_id`.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// The client of this run.
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    pub(super) fn downgrade(&self) -> Weak<Inner> {
        Arc::downgrade(&self.0)
    }

    pub(super) fn upgrade(weak: &Weak<Inner>) -> Option<Self> {
        weak.upgrade().map(Self)
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// How many sandboxes were created and deleted.
    pub fn counts(&self) -> Counts {
        self.0.registry.counts()
    }

    /// Creates the sandbox `name` and prepares it for commands, as [`Run::create_services`]; returns its default service.
    ///
    /// # Errors
    ///
    /// As [`Run::create_services`].
    pub async fn create(&self, name: String, settings: Settings) -> Result<Sandbox> {
        let services = self.create_services(name, settings).await?;
        let default = services.into_iter().next().map(|(_, sandbox)| sandbox);
        default.ok_or_else(|| Error::new(ErrorKind::Unexpected, "a sandbox without services"))
    }

    /// Creates the sandbox `name`, as [`Run::create_services_told`]; what happens is in the log.
    ///
    /// # Errors
    ///
    /// As [`Run::create_services_told`].
    pub async fn create_services(&self, name: String, settings: Settings) -> Result<Services> {
        self.create_services_told(name, settings, Listener::default()).await
    }

    /// Creates the sandbox `name` (see [`sandbox_name`](super::names::sandbox_name)) and prepares it for commands.
    /// Returns its services by name, the default one first: the sandbox itself, or the containers in it. `listener` is
    /// told what happens.
    ///
    /// The sandbox is given up if the future is dropped, as by [`Run::abandon`].
    ///
    /// # Errors
    ///
    /// Why it could not be created; what had come into being is deleted or on its way to.
    pub async fn create_services_told(
        &self,
        name: String,
        settings: Settings,
        listener: Listener,
    ) -> Result<Services> {
        self.0.registry.record(&name);
        let (mut sender, receiver) = oneshot::channel();
        let run = self.clone();
        tokio::spawn(async move {
            let made = {
                let mut making = pin!(run.make(&name, &settings, &listener));
                tokio::select! {
                    made = &mut making => made,
                    () = sender.closed() => {
                        run.0.registry.doom(&name);
                        // whatever comes of it, it is deleted
                        making.await
                    }
                }
            };
            if let Err(Ok(_unwanted)) = sender.send(made) {
                run.delete_logged(&name).await;
            }
        });
        receiver
            .await
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Unexpected, "the creation of a sandbox broke off")))
    }

    /// Gives up a sandbox: deletes it in the background, or as soon as its creation is through. Never waits.
    pub fn abandon(&self, name: &str) {
        if self.0.registry.doom(name) {
            let run = self.clone();
            let name = name.to_owned();
            tokio::spawn(async move { run.delete_logged(&name).await });
        }
    }

    /// Deletes a sandbox; goes on in the background if the future is dropped.
    ///
    /// # Errors
    ///
    /// If it may still exist; it stays on the account, so that [`Run::finish`] tries again.
    pub async fn delete(&self, name: &str) -> Result<()> {
        let run = self.clone();
        let name = name.to_owned();
        let deletion = tokio::spawn(async move { run.delete_here(&name).await });
        deletion.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Unexpected, "the deletion broke off")))
    }

    async fn delete_here(&self, name: &str) -> Result<()> {
        let Some(entry) = self.0.registry.get(name) else { return Ok(()) };
        if entry.phase == Phase::Deleting {
            let ended = self
                .0
                .registry
                .wait_until(|entries| entries.get(name).is_none_or(|entry| entry.phase != Phase::Deleting));
            if timeout(DELETE_PATIENCE + MARGIN, ended).await.is_err() {
                let message = "its deletion, which began elsewhere, never ended";
                return Err(Error::new(ErrorKind::DeadlineExceeded, message).with_sandbox(name));
            }
            return match self.0.registry.get(name).map(|entry| entry.phase) {
                Some(Phase::Left(reason)) => {
                    Err(Error::new(ErrorKind::Unexpected, reason).with_sandbox(name))
                }
                _ => Ok(()),
            };
        }
        self.0.registry.set_phase(name, Phase::Deleting);
        // the id if we have it: deletion renames a sandbox, so a repeat by name would miss it
        let handle = entry.id.as_deref().unwrap_or(name);
        match self.0.client.sandboxes().delete(handle, DELETE_PATIENCE).await {
            Ok(()) => {
                self.0.registry.remove(name, entry.id.is_some());
                Ok(())
            }
            Err(error) => {
                let error = if error.kind() == ErrorKind::Forbidden {
                    self.stop_instead(handle, error).await
                } else {
                    error
                };
                let error = error.with_operation("delete the sandbox").with_sandbox(name);
                self.0.registry.set_phase(name, Phase::Left(error.to_string()));
                Err(error)
            }
        }
    }

    /// A key that may create but not delete can at least stop what costs most.
    async fn stop_instead(&self, handle: &str, error: Error) -> Error {
        let stopped = self.0.client.sandboxes().stop(handle, true).await;
        error.with_hint(match stopped {
            Ok(()) => "The API key may not delete sandboxes, so it was stopped instead; it still uses disk quota. \
                      Give the key the permission delete:sandboxes"
                .to_owned(),
            Err(stop) => format!(
                "The API key may not delete sandboxes, and stopping it failed too ({stop}): it still runs. Give the \
                 key the permission delete:sandboxes"
            ),
        })
    }

    async fn delete_logged(&self, name: &str) {
        if let Err(error) = self.delete(name).await {
            tracing::warn!("{error}. It is tried again when the eval ends");
        }
    }
}
