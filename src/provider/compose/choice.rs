//! Which services are environments, by what became of their containers.

use super::containers::{Container, Progress};
use crate::config::ComposeProject;
use crate::error::{Error, ErrorKind, Result};

/// The services that are environments, the default one first.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) services: Vec<Chosen>,
    /// What the user should know.
    pub(super) warnings: Vec<String>,
}

/// A service that is an environment.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) service: String,
    /// Its container, the first one of several replicas.
    pub(super) id: String,
    /// It has ended well and waits for its policy to start it again, as something that is done every now and then: its
    /// first command may meet it, and nothing has to run in it before.
    pub(super) rests: bool,
}

impl Choice {
    /// Chooses among the services of `plan` by the last look at their `containers`, of which none has failed. A service
    /// that has run to its end is no environment.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::CreationFailed`] if the default service has no container, or has run to its end.
    pub(super) fn of(plan: &ComposeProject, containers: &[Container]) -> Result<Self> {
        let mut choice = Self { services: Vec::new(), warnings: Vec::new() };
        let names = plan.services.iter().map(|service| service.name.as_str());
        let others = names.filter(|name| *name != plan.default);
        for name in [plan.default.as_str()].into_iter().chain(others) {
            // wherever it is in the list
            let first =
                containers.iter().filter(|found| found.service() == name).min_by_key(|found| found.number());
            match first {
                Some(found) if found.progress() != Progress::Done => {
                    let rests = name != plan.default && found.rests();
                    choice.services.push(Chosen { service: name.to_owned(), id: found.id.clone(), rests });
                }
                _ if name == plan.default => return Err(without_default(name, first)),
                Some(_) => {}
                None => {
                    choice.warnings.push(format!("service {name} has no container and is no environment"));
                }
            }
        }
        Ok(choice)
    }

    /// The containers in which commands must be able to start now.
    pub(super) fn awake(&self) -> impl Iterator<Item = &str> {
        self.services.iter().filter(|chosen| !chosen.rests).map(|chosen| chosen.id.as_str())
    }
}

fn without_default(name: &str, found: Option<&Container>) -> Error {
    let state = found.map_or_else(|| format!("service {name} has no container"), Container::describe);
    let message = format!("{state}, so there is nothing to run commands in");
    Error::new(ErrorKind::CreationFailed, message)
        .with_hint("Give it a command that goes on, such as `command: sleep infinity`")
}
