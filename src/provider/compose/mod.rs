//! Several services: one sandbox with a Docker Engine, in which Docker Compose runs them. Each service is an
//! environment of its own, whose commands the shim in its container runs.
//!
//! Networks, dependencies, volumes and healthchecks are Compose's own matter. This module brings the project's files
//! into the sandbox, and finds out what became of the services.

mod archive;
mod binds;
mod choice;
mod containers;
mod contexts;
mod engine;
mod fence;
mod project;
mod up;

use std::collections::BTreeMap;

use crate::config::ComposeProject;
use crate::error::{Error, Result};

pub(super) use project::{Project, Projects};

use self::choice::Choice;
use super::images::Progress;
use super::sandbox::Sandbox;

/// The image of the sandbox around the services.
pub(super) const IMAGE: &str = "docker:28.3.3-dind";

/// How often commands are to be made possible in containers that are restarted at each time.
const TRIES: u32 = 3;

/// Why services did not start.
#[derive(Debug)]
pub(super) enum Failure {
    /// It would be the same in any sandbox.
    Final(Error),
    /// This sandbox cannot run a Docker Engine; another one may.
    Unfit(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// The services that run, by name, the default one first, and what the user should know.
type Started = (Vec<(String, Sandbox)>, Vec<String>);

/// Starts the services of `plan` in `machine`; `progress` is told each step that may take long.
///
/// # Errors
///
/// What kept a service from starting, with its state and its last words.
pub(super) async fn start(
    machine: &Sandbox,
    plan: &ComposeProject,
    project: &Project,
    progress: &Progress<'_>,
) -> Result<Started, Failure> {
    let names: Vec<&str> = plan.services.iter().map(|service| service.name.as_str()).collect();
    let sending = async {
        let mounts = machine.prepare_containers(&names).await?;
        up::send(machine, project, &mounts).await.map_err(Failure::Final)
    };
    // a machine without an Engine is given up without having had all the files
    let (unfenced, ()) = tokio::try_join!(engine::start(machine, &plan.model.0), sending)?;
    match start_on_engine(machine, plan, project, progress).await {
        Ok((services, more)) => {
            let warnings = unfenced.into_iter().chain(fence::exposed(&plan.model.0)).chain(more);
            Ok((services, warnings.collect()))
        }
        Err(error) => Err(engine::judge(machine, error).await),
    }
}

/// What [`start`] does as soon as the Engine answers.
async fn start_on_engine(
    machine: &Sandbox,
    plan: &ComposeProject,
    project: &Project,
    progress: &Progress<'_>,
) -> Result<Started> {
    if project.builds() {
        progress("docker compose build");
        up::build(machine).await?;
    }
    progress("docker compose up");
    let containers = up::up(machine, plan).await?;
    let names: Vec<&str> = plan.services.iter().map(|service| service.name.as_str()).collect();
    let choose = |containers: &[containers::Container]| Choice::of(&plan.default, &names, containers);
    let mut choice = choose(&containers)?;
    let mut entered = BTreeMap::new();
    for chosen in &choice.services {
        entered.insert(chosen.id.clone(), machine.in_container(&chosen.service, &chosen.id)?);
    }
    let mut tries = 1;
    while let Err(error) = machine.enter_containers(choice.awake().filter_map(|id| entered.get(id))).await {
        // one that may end may have ended since the last look, or been started again since it did
        let now = up::look(machine).await?;
        let later = choose(&now)?;
        let before: Vec<_> = choice.awake().collect();
        let is_less = later.awake().count() < before.len() && later.awake().all(|id| before.contains(&id));
        let is_restless = now.iter().any(|container| container.is_restless(&containers));
        let may_help = is_less || (is_restless && tries < TRIES);
        if !may_help {
            return Err(error);
        }
        choice = later;
        tries += 1;
    }
    let of_its_container = |chosen: choice::Chosen| Some((chosen.service, entered.remove(&chosen.id)?));
    Ok((choice.services.into_iter().filter_map(of_its_container).collect(), choice.warnings))
}
