//! Several services: one sandbox with a Docker Engine, in which Docker Compose runs them. Each service is an
//! environment of its own, whose commands the shim in its container runs.
//!
//! Networks, dependencies, volumes and healthchecks are Compose's own matter. This module brings the project's files
//! into the sandbox, and finds out what became of the services.

mod archive;
mod binds;
mod containers;
mod contexts;
mod engine;
mod project;
mod up;

use crate::config::ComposeProject;
use crate::error::{Error, ErrorKind, Result};

pub(super) use project::{Project, Projects};

use super::images::Progress;
use super::sandbox::Sandbox;

/// The image of the sandbox around the services.
pub(super) const IMAGE: &str = "docker:28.3.3-dind";

/// Why services did not start.
#[derive(Debug)]
pub(super) enum Failure {
    /// It would be the same in any sandbox.
    Final(Error),
    /// This sandbox cannot run a Docker Engine; another one may.
    Unfit(Error),
}

impl Failure {
    /// The same failure with its error changed.
    pub(super) fn map(self, change: impl FnOnce(Error) -> Error) -> Self {
        match self {
            Self::Final(error) => Self::Final(change(error)),
            Self::Unfit(error) => Self::Unfit(change(error)),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// Starts the services of `plan` in `machine`. Returns those that run, by name, the default one first, and what the user
/// should know; `progress` is told each step that may take long.
///
/// # Errors
///
/// What kept a service from starting, with its state and its last words.
pub(super) async fn start(
    machine: &Sandbox,
    plan: &ComposeProject,
    project: &Project,
    progress: &Progress<'_>,
) -> Result<(Vec<(String, Sandbox)>, Vec<String>), Failure> {
    let names: Vec<&str> = plan.services.iter().map(|service| service.name.as_str()).collect();
    let sending = async {
        let mounts = machine.prepare_containers(&names).await?;
        up::send(machine, project, &mounts).await
    };
    let (engine, files) = tokio::join!(engine::start(machine), sending);
    let unfenced = engine?;
    files?;
    if project.builds() {
        progress("docker compose build");
        up::build(machine).await?;
    }
    progress("docker compose up");
    let containers = up::up(machine, plan).await?;
    let mut running = Vec::new();
    let mut warnings: Vec<_> = unfenced.into_iter().chain(project.warnings()).collect();
    let order =
        [plan.default.as_str()].into_iter().chain(names.iter().copied().filter(|name| *name != plan.default));
    for name in order {
        // the first of several replicas stands for the service, wherever it is in the list
        let first =
            containers.iter().filter(|found| found.service() == name).min_by_key(|found| found.number());
        match first {
            Some(found) if found.progress() == containers::Progress::Ready => {
                running.push((name.to_owned(), found.id.clone()));
            }
            _ if name == plan.default => {
                let state = first.map_or_else(
                    || format!("service {name} has no container"),
                    containers::Container::describe,
                );
                return Err(Failure::Final(
                    Error::new(
                        ErrorKind::CreationFailed,
                        format!("{state}, so there is nothing to run commands in"),
                    )
                    .with_hint("Give it a command that goes on, such as `command: sleep infinity`"),
                ));
            }
            Some(_) => {}
            None => warnings.push(format!("service {name} has no container and is no environment")),
        }
    }
    let sandboxes = machine.enter_containers(&running).await?;
    let names = running.into_iter().map(|(name, _)| name);
    Ok((names.zip(sandboxes).collect(), warnings))
}
