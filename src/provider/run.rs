//! One eval run: creates its sandboxes, keeps account of them, and sees that none is left.

mod end;
mod limits;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::compose::{self, Failure, Project};
use super::images::{self, Images, Prepared};
use super::keep_alive;
use super::listener::Listener;
use super::names;
use super::registry::{Counts, Deletions, Phase, Registry};
use super::sandbox::Sandbox;
use super::settings::Settings;
use crate::api::sandbox::SandboxState;
use crate::client::Client;
use crate::config::ComposeProject;
use crate::error::{Error, ErrorKind, Result};

/// How long one delete tries: a sandbox in transition refuses it for a while, and a rate limit for a minute.
pub(super) const DELETE_PATIENCE: Duration = Duration::from_secs(150);
/// What a delete may take beyond that, for its last request.
const MARGIN: Duration = Duration::from_secs(90);
/// How long what a lost create request made may stay invisible.
const INVISIBLE: Duration = Duration::from_secs(10);
/// What a build with the sandbox may take, beyond the time that any start may take.
const BUILD: Duration = Duration::from_secs(60 * 60);

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

    /// Creates the sandbox `name` (see [`names::sandbox_name`]) and prepares it for commands. Returns its services by
    /// name, the default one first: the sandbox itself, or the containers in it. `listener` is told what happens.
    ///
    /// The work goes on if the future is dropped, and ends with the sandbox deleted.
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
        let (sender, receiver) = oneshot::channel();
        let run = self.clone();
        tokio::spawn(async move {
            let mut made = Box::pin(run.make(&name, &settings, &listener)).await;
            if let Err(Failure::Unfit(error)) = &made
                && !sender.is_closed()
                // one that could not be deleted stays on the account under this name
                && run.0.registry.get(&name).is_none()
            {
                listener.warn(&format!("{error}. Another sandbox is tried"));
                run.0.registry.record(&name);
                made = Box::pin(run.make(&name, &settings, &listener)).await;
            }
            let made = made.map_err(|failure| match failure {
                Failure::Final(error) => error,
                Failure::Unfit(error) => error.with_hint(
                    "Two sandboxes could not run a Docker Engine: try another region (`x-daytona.target`), or ask \
                     Daytona's support",
                ),
            });
            if let Err(Ok(_unwanted)) = sender.send(made) {
                run.delete_logged(&name).await;
            }
        });
        receiver
            .await
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Unexpected, "the creation of a sandbox broke off")))
    }

    async fn make(&self, name: &str, settings: &Settings, listener: &Listener) -> Result<Services, Failure> {
        let cancelled = || Error::new(ErrorKind::Unexpected, "the sample was cancelled").with_sandbox(name);
        let given_up =
            || self.0.registry.wait_until(|entries| entries.get(name).is_none_or(|entry| entry.doomed));
        let told = |line: &str| listener.progress(line);
        let sources = async {
            let project = match settings.project() {
                Some(plan) => Some((Arc::clone(plan), self.0.images.project(plan, false).await?)),
                None => None,
            };
            Ok((settings.image(&self.0.client, &self.0.images, false, &told).await?, project))
        };
        let sources = tokio::select! {
            sources = sources => sources,
            () = given_up() => Err(cancelled()),
        };
        let (image, project) = match sources {
            Ok(sources) => sources,
            Err(error) => {
                self.0.registry.remove(name, false);
                return Err(error.into());
            }
        };
        let request = settings.create_request(name, names::labels(&self.0.id, settings.labels()), &image);
        let created = match self.create_from(&request, &image, listener).await {
            Ok(created) => created,
            Err(error) => {
                self.create_failed(name, &error);
                return Err(error.with_sandbox(name).into());
            }
        };
        let expires = created.auto_destroy_at.is_some();
        let wanted = self.0.registry.identified(name, &created.id, expires && settings.extends_ttl());
        if expires && settings.extends_ttl() {
            self.0.keep_alive.ensure_runs(self, settings.ttl_minutes());
        }
        let prepare = async {
            let machine = self.prepare(name, created, settings, &image, listener).await?;
            match &project {
                Some((plan, project)) => self.start_services(&machine, plan, project, listener).await,
                None => self.start_service(machine, settings, listener).await.map_err(Failure::Final),
            }
        };
        let prepared = if wanted {
            tokio::select! {
                prepared = prepare => prepared,
                // a healthcheck may take hours, which somebody would pay for
                () = given_up() => Err(cancelled().into()),
            }
        } else {
            Err(cancelled().into())
        };
        match prepared {
            Ok(services) if self.0.registry.became_alive(name) => Ok(services),
            Ok(_) => {
                self.delete_logged(name).await;
                Err(cancelled().into())
            }
            Err(failure) => {
                self.delete_logged(name).await;
                Err(failure.map(|error| error.with_sandbox(name)))
            }
        }
    }

    async fn prepare(
        &self,
        name: &str,
        created: crate::api::sandbox::Sandbox,
        settings: &Settings,
        image: &Prepared,
        listener: &Listener,
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
        listener.warn_all(&settings.verify(&started)?);
        let toolbox = self.0.client.toolbox(&started).await?;
        let (user, directory) =
            (settings.user().map(str::to_owned), settings.working_dir().map(str::to_owned));
        let shim = self.0.images.shim(image).await;
        Sandbox::prepare(self.clone(), name.to_owned(), started.id, toolbox, user, directory, shim).await
    }

    /// The service that is the sandbox itself.
    async fn start_service(
        &self,
        sandbox: Sandbox,
        settings: &Settings,
        listener: &Listener,
    ) -> Result<Services> {
        let service = settings.service();
        listener.warn_all(&sandbox.start_service(service).await?);
        Ok(vec![(service.name.clone(), sandbox)])
    }

    /// The services that are containers in the sandbox.
    async fn start_services(
        &self,
        machine: &Sandbox,
        plan: &ComposeProject,
        project: &Project,
        listener: &Listener,
    ) -> Result<Services, Failure> {
        let progress = |line: &str| listener.progress(line);
        let (services, warnings) = compose::start(machine, plan, project, &progress).await?;
        listener.warn_all(&warnings);
        Ok(services)
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
