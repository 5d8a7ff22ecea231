//! Compose's work in the sandbox: the project's files, `build`, `up`, and the wait until every service is ready.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::containers::{self, Container, Progress};
use super::project::{DIRECTORY, Project};
use crate::config::ComposeProject;
use crate::error::{Error, ErrorKind, Result};
use crate::provider::containers::ContainerMounts;
use crate::provider::exec::{Command, RawOutcome};
use crate::provider::sandbox::Sandbox;

/// Compose's name of the project, in the sandbox, which has no other one.
pub(super) use crate::config::PROJECT;
/// How long a step of seconds may take.
const STEP: Duration = Duration::from_secs(120);
/// How long all builds may take, as on the platform.
const BUILD: Duration = Duration::from_secs(60 * 60);
/// How long all pulls may take.
const PULL: Duration = Duration::from_secs(30 * 60);
/// How long a service without a healthcheck of its own may take; its image may have one.
const START: Duration = Duration::from_secs(10 * 60);
/// What a healthcheck may take beyond its own times.
const MARGIN: Duration = Duration::from_secs(60);
/// Between two looks at the containers, at first and at most.
const LOOK: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));
/// Bytes of output that are kept, and that messages show.
const SAID: u64 = 4 * 1024 * 1024;
const SHOWN: usize = 4000;
/// How many failed services a message describes.
const DESCRIBED: usize = 3;

/// Describes every container of the project `$1` as JSON.
const LIST: &str = r#"
ids=$(docker ps --all --quiet --no-trunc --filter "label=com.docker.compose.project=$1") || exit
[ -z "$ids" ] || docker inspect --type=container $ids
"#;
/// Prints the last words of the container `$1`.
const LOG: &str = "docker logs --tail 30 -- \"$1\" 2>&1";

/// Brings the project's files into the sandbox.
pub(super) async fn send(
    machine: &Sandbox,
    project: &Project,
    mounts: &BTreeMap<String, ContainerMounts>,
) -> Result<()> {
    machine.upload_all(&project.files(mounts)?).await?;
    let script = format!("cd {DIRECTORY} && umask 0 && tar -xf files.tar && rm files.tar");
    let outcome = machine.exec_bytes(shell(&script, &[], STEP)).await?;
    if succeeded(&outcome) {
        return Ok(());
    }
    let message = format!("the project's files cannot be unpacked: {}", shown(&outcome));
    Err(explained(Error::new(ErrorKind::System, message)))
}

/// Builds the images of the services that have a `build`.
pub(super) async fn build(machine: &Sandbox) -> Result<()> {
    let outcome = machine.exec_bytes(compose(&["build"], BUILD)).await?;
    if succeeded(&outcome) {
        return Ok(());
    }
    Err(explained(Error::new(ErrorKind::BuildFailed, not_built(&outcome))))
}

/// Starts the services and waits until each is ready or done.
pub(super) async fn up(machine: &Sandbox, plan: &ComposeProject) -> Result<Vec<Container>> {
    let patience = patience(plan);
    // dependencies wait for each other's health within it
    let outcome = machine
        .exec_bytes(compose(&["up", "--detach", "--no-build", "--quiet-pull"], PULL + patience))
        .await?;
    if !succeeded(&outcome) {
        // the Engine itself may be what failed
        let containers = list(machine).await.unwrap_or_default();
        return Err(explained(describe(machine, not_up(&outcome), &culprits(&containers)).await));
    }
    let began = Instant::now();
    let mut wait = LOOK.0;
    let mut earlier = Vec::new();
    loop {
        let containers = look(machine).await?;
        let unsettled = unsettled(&containers, &earlier);
        if unsettled.is_empty() {
            return Ok(containers);
        }
        if began.elapsed() > patience {
            return Err(describe(machine, overdue(patience), &unsettled).await);
        }
        earlier = containers;
        sleep(wait).await;
        wait = (wait * 3 / 2).min(LOOK.1);
    }
}

/// The containers that may still become ready. One that keeps ending may run at this moment.
fn unsettled<'a>(containers: &'a [Container], earlier: &[Container]) -> Vec<&'a Container> {
    let is_unsettled =
        |container: &&Container| container.progress() == Progress::Starting || container.is_restless(earlier);
    containers.iter().filter(is_unsettled).collect()
}

/// How every container is now.
///
/// # Errors
///
/// What is known of those that have failed, or will not do anything but fail.
pub(super) async fn look(machine: &Sandbox) -> Result<Vec<Container>> {
    let containers = list(machine).await?;
    let hopeless = containers.iter().any(|container| container.is_hopeless(&containers));
    if hopeless || containers.iter().any(|container| container.progress() == Progress::Failed) {
        let message = "a service did not start".to_owned();
        return Err(explained(describe(machine, message, &culprits(&containers)).await));
    }
    Ok(containers)
}

/// The containers that are not as they should be. What others wait for has failed first.
fn culprits(containers: &[Container]) -> Vec<&Container> {
    let are = |progress| containers.iter().filter(move |found| found.progress() == progress);
    let failed: Vec<_> = are(Progress::Failed).collect();
    if failed.is_empty() { are(Progress::Starting).collect() } else { failed }
}

/// How long the services may take until they are ready, one after the other.
fn patience(plan: &ComposeProject) -> Duration {
    let times = plan.services.iter().map(|service| match &service.healthcheck {
        Some(check) => {
            check.start_period
                + check.interval.saturating_add(check.timeout).saturating_mul(check.retries)
                + MARGIN
        }
        None => Duration::ZERO,
    });
    times.fold(START, Duration::saturating_add)
}

async fn list(machine: &Sandbox) -> Result<Vec<Container>> {
    let outcome = machine.exec_bytes(shell(LIST, &[PROJECT], STEP)).await?;
    if !succeeded(&outcome) {
        let message =
            format!("the Docker Engine does not say what became of the services: {}", shown(&outcome));
        return Err(Error::new(ErrorKind::CreationFailed, message));
    }
    containers::read(&outcome.stdout.text(SAID))
}

/// An error with the state and the last words of the `culprits`.
async fn describe(machine: &Sandbox, mut message: String, culprits: &[&Container]) -> Error {
    for container in culprits.iter().take(DESCRIBED) {
        message = format!("{message}\n{}", container.describe());
        if let Ok(outcome) = machine.exec_bytes(shell(LOG, &[&container.id], STEP)).await {
            let said = shown(&outcome);
            if !said.is_empty() {
                message = format!("{message}\nIts last output:\n{said}");
            }
        }
    }
    Error::new(ErrorKind::CreationFailed, message)
}

fn not_built(outcome: &RawOutcome) -> String {
    let what = if outcome.timed_out { "took longer than an hour" } else { "failed" };
    format!("docker compose build {what}. Its output ends with:\n{}", shown(outcome))
}

fn not_up(outcome: &RawOutcome) -> String {
    let what = if outcome.timed_out { "did not end in time" } else { "failed" };
    format!("docker compose up {what}: {}", shown(outcome))
}

fn overdue(patience: Duration) -> String {
    format!("a service was not ready within {} s", patience.as_secs())
}

/// An error with what to do about it, where its text tells.
fn explained(error: Error) -> Error {
    let text = error.message().to_lowercase();
    let hint = if text.contains("no space left on device") {
        "The sandbox's disk is full: raise `x-daytona.resources.disk`, or make the images smaller"
    } else if text.contains("toomanyrequests") || text.contains("rate limit") {
        "The registry limits anonymous pulls: use a mirror, or images in a snapshot (`x-daytona.snapshot`)"
    } else {
        return error;
    };
    error.with_hint(hint)
}

fn compose(words: &[&str], timeout: Duration) -> Command {
    let file = format!("{DIRECTORY}/compose.json");
    let fixed = [
        "docker",
        "compose",
        "--ansi=never",
        "--project-name",
        PROJECT,
        "--project-directory",
        DIRECTORY,
        "--file",
        &file,
    ];
    let argv = fixed.iter().chain(words).map(|word| (*word).to_owned()).collect();
    Command {
        argv,
        cwd: Some("/".to_owned()),
        timeout: Some(timeout),
        output_limit: SAID,
        ..Command::default()
    }
}

/// A script as one of its steps.
pub(super) fn shell(script: &str, arguments: &[&str], timeout: Duration) -> Command {
    let shell = ["/bin/sh", "-c", script, "sh"];
    Command {
        argv: shell.iter().chain(arguments).map(|word| (*word).to_owned()).collect(),
        cwd: Some("/".to_owned()),
        timeout: Some(timeout),
        output_limit: SAID,
        ..Command::default()
    }
}

fn succeeded(outcome: &RawOutcome) -> bool {
    outcome.returncode == 0 && !outcome.timed_out
}

/// The end of what a command said.
fn shown(outcome: &RawOutcome) -> String {
    let text = [outcome.stdout.text(SAID), outcome.stderr.text(SAID)].map(|text| text.trim().to_owned());
    let text = text.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n");
    let skipped = text.chars().count().saturating_sub(SHOWN);
    text.chars().skip(skipped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::exec::Stream;

    fn outcome(timed_out: bool) -> RawOutcome {
        let stdout = Stream { tail: b"step 7\n".to_vec(), truncated: false };
        RawOutcome { returncode: 137, stdout, stderr: Stream::default(), timed_out }
    }

    #[test]
    fn a_deadline_that_passed_is_told_from_a_failure_and_shows_what_was_said() {
        assert!(!succeeded(&RawOutcome { returncode: 0, ..outcome(true) }));
        let built = not_built(&outcome(true));
        assert_eq!(built, "docker compose build took longer than an hour. Its output ends with:\nstep 7");
        assert!(not_built(&outcome(false)).starts_with("docker compose build failed"));
        assert_eq!(not_up(&outcome(true)), "docker compose up did not end in time: step 7");
        assert_eq!(not_up(&outcome(false)), "docker compose up failed: step 7");
        assert_eq!(overdue(START), "a service was not ready within 600 s");
    }

    #[test]
    fn a_service_that_was_not_ready_in_time_is_named_also_if_it_runs_at_that_moment() {
        let container = |service: &str, state: &str, restarts: u32| {
            let labels = format!(r#"{{"com.docker.compose.service": "{service}"}}"#);
            format!(
                r#"{{"Id": "{service}", "Config": {{"Labels": {labels}}}, "State": {state}, "RestartCount": {restarts}}}"#
            )
        };
        let at = |restarts| {
            let running = r#"{"Status": "running"}"#;
            let checked = r#"{"Status": "running", "Health": {"Status": "starting"}}"#;
            let all = [
                container("ready", running, 0),
                container("crashing", running, restarts),
                container("slow", checked, 0),
            ];
            containers::read(&format!("[{}]", all.join(","))).unwrap()
        };
        let now = at(4);
        let described: Vec<_> = unsettled(&now, &at(3)).into_iter().map(Container::describe).collect();
        assert_eq!(
            described,
            ["service crashing runs again (restarted 4 times)", "service slow runs but is starting"]
        );
        assert_eq!(unsettled(&now, &at(4)).len(), 1);
    }
}
