//! Which services are environments, by what became of their containers.

use super::containers::{Container, Progress};
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
    /// Chooses among the services `names`, of which one is the `default` one, by the last look at their `containers`, of which none has failed. A service
    /// that has run to its end is no environment.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::CreationFailed`] if the default service has no container, or has run to its end.
    pub(super) fn of(default: &str, names: &[&str], containers: &[Container]) -> Result<Self> {
        let mut choice = Self { services: Vec::new(), warnings: Vec::new() };
        let others = names.iter().copied().filter(|name| *name != default);
        for name in [default].into_iter().chain(others) {
            // wherever it is in the list
            let first =
                containers.iter().filter(|found| found.service() == name).min_by_key(|found| found.number());
            match first {
                Some(found) if found.progress() != Progress::Done => {
                    let rests = name != default && found.rests();
                    choice.services.push(Chosen { service: name.to_owned(), id: found.id.clone(), rests });
                }
                _ if name == default => return Err(without_default(name, first)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::compose::containers;

    /// Containers by service, status and exit code; the ids are their places.
    fn containers(of: &[(&str, &str, i64)]) -> Vec<Container> {
        let described = of.iter().enumerate().map(|(place, (service, status, exit_code))| {
            let labels = format!(
                r#"{{"com.docker.compose.service": "{service}", "com.docker.compose.container-number": "{}"}}"#,
                9 - place
            );
            let state = format!(r#"{{"Status": "{status}", "ExitCode": {exit_code}}}"#);
            format!(r#"{{"Id": "{place}", "Config": {{"Labels": {labels}}}, "State": {state}}}"#)
        });
        containers::read(&format!("[{}]", described.collect::<Vec<_>>().join(","))).unwrap()
    }

    #[test]
    fn what_runs_is_an_environment_and_what_has_run_to_its_end_is_none() {
        let found = containers(&[
            ("seed", "exited", 0),
            ("web", "running", 0),
            ("default", "running", 0),
            ("web", "running", 0),
        ]);
        let choice = Choice::of("default", &["seed", "web", "default", "gone"], &found).unwrap();
        let services: Vec<_> = choice.services.iter().map(|chosen| chosen.service.as_str()).collect();
        assert_eq!(services, ["default", "web"]);
        assert_eq!(choice.awake().collect::<Vec<_>>(), ["2", "3"], "the first replica has the lowest number");
        assert_eq!(choice.warnings, ["service gone has no container and is no environment"]);
    }

    #[test]
    fn a_job_that_waits_for_its_next_run_is_an_environment_in_which_nothing_starts_yet() {
        let found = |code| containers(&[("default", "running", 0), ("job", "restarting", code)]);
        let choice = Choice::of("default", &["default", "job"], &found(0)).unwrap();
        assert_eq!(choice.services.len(), 2);
        assert_eq!(choice.awake().collect::<Vec<_>>(), ["0"]);
        // one that fails is to say so
        let choice = Choice::of("default", &["default", "job"], &found(3)).unwrap();
        assert_eq!(choice.awake().count(), 2);
    }

    #[test]
    fn a_default_service_that_has_ended_is_refused_with_what_to_do() {
        for (found, state) in [
            (containers(&[("default", "exited", 0)]), "service default ended with exit code 0"),
            (containers(&[]), "service default has no container"),
        ] {
            let text = Choice::of("default", &["default"], &found).unwrap_err().to_string();
            assert!(text.contains(state) && text.contains("sleep infinity"), "{text}");
        }
        let resting = containers(&[("default", "restarting", 0)]);
        assert_eq!(Choice::of("default", &["default"], &resting).unwrap().awake().count(), 1);
    }
}
