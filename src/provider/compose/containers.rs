//! What became of a project's containers.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::error::{Error, ErrorKind, Result};

/// Restarts after which a container is given up once there is nothing left that it could wait for. Docker doubles the
/// pause between two, from 100 ms on, so that these take about 100 s.
const RESTARTS: u32 = 10;
/// How many healthchecks a description shows, the last ones.
const CHECKS: usize = 3;

/// A container of a service, as `docker inspect` describes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Container {
    pub(super) id: String,
    config: Config,
    state: State,
    /// How often its policy has restarted it.
    #[serde(default)]
    restart_count: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct State {
    status: String,
    exit_code: i64,
    #[serde(rename = "OOMKilled")]
    out_of_memory: bool,
    error: String,
    health: Option<Health>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Health {
    status: String,
    /// `null` before the first check.
    log: Option<Vec<Check>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Check {
    exit_code: i64,
    output: String,
}

/// What a container's state means for the start of its project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It runs, and is healthy if it has a healthcheck.
    Ready,
    /// It ran to its end and succeeded.
    Done,
    /// It may still become ready.
    Starting,
    /// It will not.
    Failed,
}

impl Container {
    /// The service's name.
    pub(super) fn service(&self) -> &str {
        self.label("com.docker.compose.service")
    }

    /// Its number among the service's containers, from 1.
    pub(super) fn number(&self) -> u32 {
        self.label("com.docker.compose.container-number").parse().unwrap_or(u32::MAX)
    }

    fn label(&self, name: &str) -> &str {
        self.config.labels.get(name).map_or("", String::as_str)
    }

    fn health(&self) -> &str {
        self.state.health.as_ref().map_or("none", |health| &health.status)
    }

    pub(super) fn progress(&self) -> Progress {
        match (self.state.status.as_str(), self.health()) {
            ("running", "none" | "" | "healthy") => Progress::Ready,
            ("running", "starting") | ("created" | "restarting", _) => Progress::Starting,
            ("exited", _) if self.state.exit_code == 0 => Progress::Done,
            _ => Progress::Failed,
        }
    }

    /// Whether it has ended well and its policy is about to start it again.
    pub(super) fn rests(&self) -> bool {
        self.state.status == "restarting" && self.state.exit_code == 0
    }

    /// Whether it was restarted since `earlier`, an earlier look at all containers: one that fails at once runs for a moment
    /// each time. One that was seen to have ended well does what it is for.
    pub(super) fn is_restless(&self, earlier: &[Self]) -> bool {
        let before = earlier.iter().find(|container| container.id == self.id);
        !before.is_some_and(Self::rests)
            && self.restart_count > before.map_or(0, |container| container.restart_count)
    }

    /// Whether it keeps failing although all others of `containers` are as they should be.
    pub(super) fn is_hopeless(&self, containers: &[Self]) -> bool {
        let is_settled = |other: &Self| {
            other.id == self.id || matches!(other.progress(), Progress::Ready | Progress::Done)
        };
        self.state.status == "restarting"
            && self.state.exit_code != 0
            && self.restart_count >= RESTARTS
            && containers.iter().all(is_settled)
    }

    /// Its state in words, with its last healthchecks.
    pub(super) fn describe(&self) -> String {
        let State { exit_code, out_of_memory, error, .. } = &self.state;
        let state = match (self.state.status.as_str(), self.health()) {
            ("running", "none" | "") if self.restart_count > 0 => {
                format!("runs again (restarted {} times)", self.restart_count)
            }
            ("running", "none" | "") => "runs".to_owned(),
            ("running", health) => format!("runs but is {health}"),
            ("exited" | "dead", _) => format!("ended with exit code {exit_code}"),
            ("restarting", _) => {
                format!("keeps restarting (exit code {exit_code}, {} times)", self.restart_count)
            }
            ("created", _) => "was never started".to_owned(),
            (status, _) => format!("is {status}"),
        };
        let memory = if *out_of_memory { ", out of memory (OOMKilled)" } else { "" };
        let error = if error.is_empty() { String::new() } else { format!(": {error}") };
        let mut text = format!("service {} {state}{memory}{error}", self.service());
        let checks = self.state.health.iter().filter_map(|health| health.log.as_deref()).flatten();
        let checks: Vec<_> = checks.filter(|check| check.exit_code != 0).collect();
        for check in &checks[checks.len().saturating_sub(CHECKS)..] {
            text = format!("{text}\nA healthcheck ended with {}: {}", check.exit_code, check.output.trim());
        }
        text
    }
}

/// Reads what `docker inspect` printed about any number of containers.
pub(super) fn read(text: &str) -> Result<Vec<Container>> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str(text).map_err(|error| {
        Error::new(ErrorKind::Protocol, "Docker describes containers in an unknown way").with_source(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(state: &str) -> Container {
        let labels = r#"{"com.docker.compose.service": "web", "com.docker.compose.container-number": "1"}"#;
        let text = format!(r#"[{{"Id": "id", "Config": {{"Labels": {labels}}}, "State": {state}}}]"#);
        read(&text).unwrap().remove(0)
    }

    #[test]
    fn a_container_is_ready_when_it_runs_and_is_healthy_if_that_is_checked() {
        for (state, progress) in [
            (r#"{"Status": "running"}"#, Progress::Ready),
            (r#"{"Status": "running", "Health": {"Status": "none"}}"#, Progress::Ready),
            (r#"{"Status": "running", "Health": {"Status": "healthy", "Log": []}}"#, Progress::Ready),
            (r#"{"Status": "running", "Health": {"Status": "starting", "Log": null}}"#, Progress::Starting),
            (r#"{"Status": "restarting", "ExitCode": 1}"#, Progress::Starting),
            (r#"{"Status": "created"}"#, Progress::Starting),
            (r#"{"Status": "running", "Health": {"Status": "unhealthy"}}"#, Progress::Failed),
            (r#"{"Status": "exited", "ExitCode": 0}"#, Progress::Done),
            (r#"{"Status": "exited", "ExitCode": 3}"#, Progress::Failed),
            (r#"{"Status": "dead"}"#, Progress::Failed),
        ] {
            assert_eq!(one(state).progress(), progress, "{state}");
        }
    }

    #[test]
    fn a_container_that_keeps_restarting_is_given_up_once_nothing_else_can_change() {
        let restarted = |id: &str, status: &str, exit_code: i64, restart_count| Container {
            id: id.to_owned(),
            restart_count,
            ..one(&format!(r#"{{"Status": "{status}", "ExitCode": {exit_code}}}"#))
        };
        let failing = restarted("a", "restarting", 3, 10);
        assert_eq!(failing.describe(), "service web keeps restarting (exit code 3, 10 times)");
        let (ready, starting) = (restarted("b", "running", 0, 0), restarted("b", "created", 0, 0));
        assert!(failing.is_hopeless(&[failing.clone(), ready.clone()]));
        assert!(!failing.is_hopeless(&[failing.clone(), starting]), "the other may be what it waits for");
        let seldom = restarted("a", "restarting", 3, 9);
        assert!(!seldom.is_hopeless(&[seldom.clone(), ready.clone()]));
        let periodic = restarted("a", "restarting", 0, 20);
        assert!(!periodic.is_hopeless(&[periodic.clone(), ready]), "it does what it is for");
    }

    #[test]
    fn a_container_that_was_restarted_since_the_last_look_is_looked_at_again() {
        let restarted = |status: &str, exit_code: i64, restart_count| Container {
            restart_count,
            ..one(&format!(r#"{{"Status": "{status}", "ExitCode": {exit_code}}}"#))
        };
        // a container that runs has no exit code yet
        let now = restarted("running", 0, 2);
        assert!(now.is_restless(&[]) && now.is_restless(&[restarted("running", 0, 1)]));
        assert!(now.is_restless(&[restarted("restarting", 3, 1)]));
        assert!(!now.is_restless(&[restarted("running", 0, 2)]));
        assert!(!now.is_restless(&[restarted("restarting", 0, 1)]), "it ended well");
        assert!(!restarted("running", 0, 0).is_restless(&[]));
    }

    #[test]
    fn a_failed_container_tells_its_exit_code_its_last_checks_and_what_killed_it() {
        let killed = one(r#"{"Status": "exited", "ExitCode": 137, "OOMKilled": true, "Error": "oci"}"#);
        assert_eq!(killed.describe(), "service web ended with exit code 137, out of memory (OOMKilled): oci");
        let unhealthy = one(
            r#"{"Status": "running", "Health": {"Status": "unhealthy", "Log": [{"ExitCode": 1, "Output": "refused\n"}]}}"#,
        );
        assert_eq!(
            unhealthy.describe(),
            "service web runs but is unhealthy\nA healthcheck ended with 1: refused"
        );
        assert!(read("nonsense").is_err());
        assert!(read("\n").unwrap().is_empty());
    }
}
