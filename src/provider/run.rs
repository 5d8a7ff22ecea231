//! One eval run: creates its sandboxes, keeps account of them, and sees that none is left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::images::{self, Images, Prepared};
use super::keep_alive;
use super::names;
use super::registry::{Counts, Phase, Registry};
use super::sandbox::Sandbox;
use super::settings::Settings;
use crate::api::sandbox::{CreateSandbox, DesiredState, SandboxState};
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};

/// How many deletes run at once when a run ends.
const PARALLEL_DELETES: usize = 16;
/// How long one delete tries: a sandbox in transition refuses it for a while, and a rate limit for a minute.
pub(super) const DELETE_PATIENCE: Duration = Duration::from_secs(150);
/// How long the end of a run waits for creations and deletes that are under way.
const SETTLE: Duration = Duration::from_secs(90);
/// How long a create waits for the platform to have a free machine, and between two tries.
const CAPACITY_PATIENCE: Duration = Duration::from_secs(300);
const CAPACITY_POLL: Duration = Duration::from_secs(10);
/// How long what a lost create request made may stay invisible.
const INVISIBLE: Duration = Duration::from_secs(10);
/// Between two looks at a used-up quota, if none of our sandboxes ends meanwhile: others use the account too.
const QUOTA_POLL: Duration = Duration::from_secs(30);

/// What a build with the sandbox may take, beyond the time that any start may take.
const BUILD: Duration = Duration::from_secs(60 * 60);

/// A deleted sandbox holds its quota until the platform has destroyed it, which takes seconds.
const QUOTA_SETTLES: Duration = Duration::from_secs(120);
/// Between two looks meanwhile.
const QUOTA_SETTLING_POLL: Duration = Duration::from_secs(1);

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
    /// Warnings that were given: thousands of samples have the same.
    warned: Mutex<BTreeSet<String>>,
    /// Its sandboxes are to outlive it.
    kept: AtomicBool,
    /// Held by the one creation that asks again while the account's limits refuse it.
    limit_turn: tokio::sync::Mutex<()>,
}

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
        Self::with_images(client, Images::default())
    }

    /// A run that shares the images that were prepared before.
    pub fn with_images(client: Client, images: Images) -> Self {
        Self(Arc::new(Inner {
            id: uuid::Uuid::new_v4().simple().to_string(),
            client,
            images,
            registry: Registry::default(),
            keep_alive: keep_alive::Task::default(),
            warned: Mutex::default(),
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

    /// Creates the sandbox `name` (see [`names::sandbox_name`]) and prepares it for commands.
    ///
    /// The work goes on if the future is dropped, and ends with the sandbox deleted.
    ///
    /// # Errors
    ///
    /// Why it could not be created; what had come into being is deleted or on its way to.
    pub async fn create(&self, name: String, settings: Settings) -> Result<Sandbox> {
        self.0.registry.record(&name);
        let (sender, receiver) = oneshot::channel();
        let run = self.clone();
        tokio::spawn(async move {
            let made = run.make(&name, &settings).await;
            if let Err(Ok(_unwanted)) = sender.send(made) {
                run.delete_logged(&name).await;
            }
        });
        receiver
            .await
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Unexpected, "the creation of a sandbox broke off")))
    }

    async fn make(&self, name: &str, settings: &Settings) -> Result<Sandbox> {
        let cancelled =
            || Err(Error::new(ErrorKind::Unexpected, "the sample was cancelled").with_sandbox(name));
        let given_up =
            || self.0.registry.wait_until(|entries| entries.get(name).is_none_or(|entry| entry.doomed));
        let told = |line: &str| tracing::info!("{line}");
        let image = tokio::select! {
            image = self.0.images.prepare(&self.0.client, settings.plan(), false, &told) => image,
            () = given_up() => Err(Error::new(ErrorKind::Unexpected, "the sample was cancelled")),
        };
        let image = match image {
            Ok(image) => image,
            Err(error) => {
                self.0.registry.remove(name, false);
                return Err(error);
            }
        };
        let request = settings.create_request(name, names::labels(&self.0.id, settings.labels()), &image);
        let created = match self.create_from(&request, &image).await {
            Ok(created) => created,
            Err(error) => {
                self.create_failed(name, &error);
                return Err(error.with_sandbox(name));
            }
        };
        let expires = created.auto_destroy_at.is_some();
        let wanted = self.0.registry.identified(name, &created.id, expires && settings.extends_ttl());
        if expires && settings.extends_ttl() {
            self.0.keep_alive.ensure_runs(self, settings.ttl_minutes());
        }
        let prepared = if wanted {
            tokio::select! {
                prepared = self.prepare(name, created, settings, &image) => prepared,
                // a healthcheck may take hours, which somebody would pay for
                () = given_up() => cancelled(),
            }
        } else {
            cancelled()
        };
        match prepared {
            Ok(sandbox) if self.0.registry.became_alive(name) => Ok(sandbox),
            Ok(_) => {
                self.delete_logged(name).await;
                cancelled()
            }
            Err(error) => {
                self.delete_logged(name).await;
                Err(error.with_sandbox(name))
            }
        }
    }

    async fn prepare(
        &self,
        name: &str,
        created: crate::api::sandbox::Sandbox,
        settings: &Settings,
        image: &Prepared,
    ) -> Result<Sandbox> {
        let started = if created.state == SandboxState::Started {
            created
        } else {
            let builds = matches!(image, Prepared::Build(_));
            let within = settings.timeout() + if builds { BUILD } else { Duration::ZERO };
            match self.0.client.sandboxes().wait_started(&created.id, within).await {
                Err(error) if error.kind() == ErrorKind::BuildFailed => {
                    let log = self.0.client.sandboxes().build_log(&created.id).await;
                    return Err(images::with_log(error, log));
                }
                started => started?,
            }
        };
        settings.verify(&started)?;
        let toolbox = self.0.client.toolbox(&started).await?;
        let (user, directory) =
            (settings.user().map(str::to_owned), settings.working_dir().map(str::to_owned));
        let shim = self.0.images.shim(image).await;
        let sandbox =
            Sandbox::prepare(self.clone(), name.to_owned(), started.id, toolbox, user, directory, shim)
                .await?;
        for warning in sandbox.start_service(settings.service()).await? {
            if self.0.warned.lock().unwrap_or_else(PoisonError::into_inner).insert(warning.clone()) {
                tracing::warn!("{warning}");
            }
        }
        Ok(sandbox)
    }

    /// Sends the create request; brings back a prepared image that was retired or deleted meanwhile.
    async fn create_from(
        &self,
        request: &CreateSandbox,
        image: &Prepared,
    ) -> Result<crate::api::sandbox::Sandbox> {
        let error = match (self.create_within_limits(request).await, image) {
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
        self.create_within_limits(request).await
    }

    /// Sends the create request; waits while the account's quota is used up by our own sandboxes, and a while for a
    /// free machine.
    async fn create_within_limits(&self, request: &CreateSandbox) -> Result<crate::api::sandbox::Sandbox> {
        let name = request.name.as_deref().unwrap_or_default();
        let began = Instant::now();
        let mut turn = None;
        loop {
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
            let Some(pause) = self.limit_pause(&error, began) else {
                return Err(error.with_hint(
                    "Delete sandboxes that are not needed (inspect sandbox cleanup daytona), lower --max-sandboxes, or \
                     raise the account's limits",
                ));
            };
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

    /// How long to wait before a create that the account's limits refused is tried again; `None` if that is of no use.
    fn limit_pause(&self, error: &Error, began: Instant) -> Option<Duration> {
        if error.kind() == ErrorKind::NoCapacity {
            return (began.elapsed() < CAPACITY_PATIENCE).then_some(CAPACITY_POLL);
        }
        let ours = |phase: &Phase| matches!(phase, Phase::Alive | Phase::Deleting);
        let others = self.0.registry.all().iter().any(|(_, entry)| ours(&entry.phase));
        if self.0.registry.deleted_within(QUOTA_SETTLES) {
            return Some(QUOTA_SETTLING_POLL);
        }
        if others {
            let warning = format!("waiting for other sandboxes of this eval to end: {}", error.message());
            if self.0.warned.lock().unwrap_or_else(PoisonError::into_inner).insert(warning.clone()) {
                tracing::warn!("{warning}");
            }
            return Some(QUOTA_POLL);
        }
        None
    }

    /// After a failed create: nothing is left if the server refused it; otherwise whatever has the name is deleted.
    fn create_failed(&self, name: &str, error: &Error) {
        let refused = error.http_status().is_some_and(|status| (400..500).contains(&status) && status != 408);
        // the name is somebody else's sandbox, which is none of ours to delete
        if error.kind() == ErrorKind::AlreadyExists {
            self.0.registry.remove(name, false);
            return;
        }
        // `Sandbox failed to start` is a refusal that leaves a sandbox behind
        if refused && error.kind() != ErrorKind::CreationFailed && error.attempts() == 1 {
            self.0.registry.remove(name, false);
            return;
        }
        // reads lag behind: what a lost request made may show only after a while
        let (run, name) = (self.clone(), name.to_owned());
        tokio::spawn(async move { run.delete_when_visible(&name).await });
    }

    /// Deletes the sandbox that an ambiguous create may have made.
    async fn delete_when_visible(&self, name: &str) {
        let began = Instant::now();
        loop {
            match self.0.client.sandboxes().find(name).await {
                Ok(Some(_)) => return self.delete_logged(name).await,
                Ok(None) if began.elapsed() < INVISIBLE => tokio::time::sleep(Duration::from_secs(1)).await,
                Ok(None) => return self.0.registry.remove(name, false),
                Err(error) => {
                    let reason = format!("it is unknown whether it was created: {error}");
                    self.0.registry.set_phase(name, Phase::Left(reason));
                    return;
                }
            }
        }
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
            self.0
                .registry
                .wait_until(|entries| entries.get(name).is_none_or(|entry| entry.phase != Phase::Deleting))
                .await;
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
