//! The creation of one sandbox, from the request to services that are ready.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Run, Services};
use crate::api::sandbox::SandboxState;
use crate::config::ComposeProject;
use crate::error::{Error, ErrorKind, Result};
use crate::provider::compose::{self, Failure, Project};
use crate::provider::images::{self, Prepared};
use crate::provider::listener::Listener;
use crate::provider::names;
use crate::provider::registry::Phase;
use crate::provider::sandbox::Sandbox;
use crate::provider::settings::Settings;

/// How long what a lost create request made may stay invisible.
const INVISIBLE: Duration = Duration::from_secs(10);
/// What a build with the sandbox may take, beyond the time that any start may take.
const BUILD: Duration = Duration::from_secs(60 * 60);

impl Run {
    /// Creates a sandbox and starts its services; does so once more if the first one cannot run a Docker Engine.
    pub(super) async fn make(
        &self,
        name: &str,
        settings: &Settings,
        listener: &Listener,
    ) -> Result<Services> {
        let error = match Box::pin(self.make_one(name, settings, listener)).await {
            Err(Failure::Unfit(error)) => error,
            Err(Failure::Final(error)) => return Err(error),
            Ok(services) => return Ok(services),
        };
        self.0.registry.set_replaced(name);
        self.delete_logged(name).await;
        match self.0.registry.get(name).map(|entry| entry.phase) {
            Some(Phase::Creating) => listener.warn(&format!("{error}. Another sandbox is tried")),
            None => return Err(error),
            // it stays on the account under its name
            Some(_) => {
                return Err(error.with_hint(
                    "No other sandbox was tried, since this one could not be deleted; the log says why",
                ));
            }
        }
        match Box::pin(self.make_one(name, settings, listener)).await {
            Err(Failure::Unfit(error)) => {
                self.delete_logged(name).await;
                Err(error.with_hint(
                    "Two sandboxes could not run a Docker Engine: try another region (`x-daytona.target`), or ask \
                     Daytona's support",
                ))
            }
            Err(Failure::Final(error)) => Err(error),
            Ok(services) => Ok(services),
        }
    }

    /// Creates one sandbox and starts its services. It is deleted after all failures but [`Failure::Unfit`].
    async fn make_one(
        &self,
        name: &str,
        settings: &Settings,
        listener: &Listener,
    ) -> Result<Services, Failure> {
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
            Err(Failure::Unfit(error)) => Err(Failure::Unfit(error.with_sandbox(name))),
            Err(Failure::Final(error)) => {
                self.delete_logged(name).await;
                Err(error.with_sandbox(name).into())
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
}
