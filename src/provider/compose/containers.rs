//! What became of a project's containers.

use crate::error::{Error, ErrorKind, Result};

/// Fields of a container for `docker inspect`, separated by `|`; the last may hold anything.
pub(super) const FORMAT: &str = "{{index .Config.Labels \"com.docker.compose.service\"}}|\
    {{index .Config.Labels \"com.docker.compose.container-number\"}}|{{.Id}}|{{.State.Status}}|{{.State.ExitCode}}|\
    {{.State.OOMKilled}}|{{with .State.Health}}{{.Status}}{{end}}|{{.State.Error}}";

/// A container of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) service: String,
    /// Its number among the service's containers, from 1.
    pub(super) number: u32,
    pub(super) id: String,
    status: String,
    exit_code: i64,
    out_of_memory: bool,
    health: String,
    error: String,
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
    pub(super) fn progress(&self) -> Progress {
        match (self.status.as_str(), self.health.as_str()) {
            ("running", "" | "healthy") => Progress::Ready,
            ("running", "starting") | ("created" | "restarting", _) => Progress::Starting,
            ("exited", _) if self.exit_code == 0 => Progress::Done,
            _ => Progress::Failed,
        }
    }

    /// Its state in words.
    pub(super) fn state(&self) -> String {
        let mut text = format!("service {} ", self.service);
        match self.status.as_str() {
            "running" if !self.health.is_empty() => text.push_str(&format!("runs but is {}", self.health)),
            "running" => text.push_str("runs"),
            "exited" | "dead" => text.push_str(&format!("ended with exit code {}", self.exit_code)),
            "restarting" => text.push_str(&format!("keeps restarting (exit code {})", self.exit_code)),
            "created" => text.push_str("was never started"),
            status => text.push_str(&format!("is {status}")),
        }
        if self.out_of_memory {
            text.push_str(", out of memory (OOMKilled)");
        }
        if !self.error.is_empty() {
            text.push_str(&format!(": {}", self.error));
        }
        text
    }
}

/// Reads what `docker inspect` printed by [`FORMAT`].
pub(super) fn read(text: &str) -> Result<Vec<Container>> {
    text.lines().filter(|line| !line.trim().is_empty()).map(read_line).collect()
}

fn read_line(line: &str) -> Result<Container> {
    let fields: Vec<&str> = line.splitn(8, '|').collect();
    let [service, number, id, status, exit_code, out_of_memory, health, error] = fields[..] else {
        return Err(unreadable(line));
    };
    Ok(Container {
        service: service.to_owned(),
        number: number.parse().unwrap_or(1),
        id: id.to_owned(),
        status: status.to_owned(),
        exit_code: exit_code.parse().map_err(|_| unreadable(line))?,
        out_of_memory: out_of_memory == "true",
        // `none` where the healthcheck was switched off
        health: if health == "none" { String::new() } else { health.to_owned() },
        error: error.trim().to_owned(),
    })
}

fn unreadable(line: &str) -> Error {
    Error::new(ErrorKind::Protocol, format!("Docker describes a container in an unknown way: {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Container {
        read(line).unwrap().remove(0)
    }

    #[test]
    fn a_container_is_ready_when_it_runs_and_is_healthy_if_that_is_checked() {
        for (line, progress) in [
            ("web|1|id|running|0|false||", Progress::Ready),
            ("web|1|id|running|0|false|none|", Progress::Ready),
            ("web|1|id|running|0|false|healthy|", Progress::Ready),
            ("web|1|id|running|0|false|starting|", Progress::Starting),
            ("web|1|id|restarting|1|false||", Progress::Starting),
            ("web|1|id|created|0|false||", Progress::Starting),
            ("web|1|id|running|0|false|unhealthy|", Progress::Failed),
            ("web|1|id|exited|0|false||", Progress::Done),
            ("web|1|id|exited|3|false||", Progress::Failed),
            ("web|1|id|dead|0|false||", Progress::Failed),
        ] {
            assert_eq!(one(line).progress(), progress, "{line}");
        }
    }

    #[test]
    fn a_failed_container_tells_its_exit_code_and_what_killed_it() {
        let state = one("web|1|id|exited|137|true||oci | error").state();
        assert_eq!(state, "service web ended with exit code 137, out of memory (OOMKilled): oci | error");
        assert_eq!(one("db|2|id|running|0|false|unhealthy|").state(), "service db runs but is unhealthy");
        assert!(read("nonsense").is_err());
    }
}
