//! What the relay needs of the Docker Engine: to start a resident, and to say what became of a container.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::protocol::{Addressee, Refusal, RefusalKind};
use super::system::{self, Watched};

/// Where containers have the shim; the path of the mount in `src/provider/containers.rs`.
const PROGRAM: &str = "/.inspect-daytona/program/shim";
/// How long one command of the Engine's may take.
const LIMIT: Duration = Duration::from_secs(20);
/// How long a container may take to come back by its restart policy.
const RESTART: Duration = Duration::from_secs(20);
/// Bytes of an answer that are kept, the first ones; logs are cut to the last lines before.
const ANSWER: usize = 16 * 1024;
/// Lines of a container's log that a message shows.
const LOG_LINES: &str = "20";

/// Starts the resident `to` as `user`, or as the container's default user.
pub(super) fn start(to: &Addressee, user: Option<&str>) -> Result<(), Refusal> {
    let mut arguments = vec!["exec".to_owned(), "--interactive".to_owned()];
    arguments.extend(user.map(|user| format!("--user={user}")));
    arguments.extend(["--", &to.container, PROGRAM, "serve"].map(str::to_owned));
    let began = Instant::now();
    loop {
        let Answer { success, text } = docker(&arguments, &to.name);
        if success {
            return Ok(());
        }
        if ["unable to find user", "unable to find group"].iter().any(|unknown| text.contains(unknown)) {
            let message = format!("unknown user {}: {}", user.unwrap_or_default(), in_short(&text));
            return Err(Refusal { kind: RefusalKind::UnknownUser, message });
        }
        let unavailable = |message| Refusal { kind: RefusalKind::Unavailable, message };
        match Condition::of(&to.container) {
            Condition::Restarting if began.elapsed() < RESTART => {
                std::thread::sleep(Duration::from_millis(100));
            }
            Condition::Restarting => return Err(unavailable("its container keeps restarting".to_owned())),
            Condition::Running => {
                let message = format!("no command can be started in its container: {}", in_short(&text));
                return Err(unavailable(message));
            }
            Condition::Other(message) => return Err(unavailable(message)),
        }
    }
}

/// Why a resident does not answer although its socket is there.
pub(super) fn why_silent(container: &str) -> String {
    match Condition::of(container) {
        Condition::Other(message) => message,
        Condition::Running | Condition::Restarting => "its container does not answer".to_owned(),
    }
}

/// What state a container is in.
enum Condition {
    Running,
    Restarting,
    /// None in which commands run; the message says which.
    Other(String),
}

impl Condition {
    fn of(container: &str) -> Self {
        const FORMAT: &str = "{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}} {{.State.Error}}";
        let Answer { success, text } = docker(
            &["inspect", "--type=container", "--format", FORMAT, "--", container].map(str::to_owned),
            "",
        );
        if !success {
            let gone = text.contains("No such container");
            return Self::Other(if gone {
                "its container was removed".to_owned()
            } else {
                format!("the sandbox's Docker daemon does not answer: {}", in_short(&text))
            });
        }
        let mut words = text.trim().splitn(4, ' ');
        let mut next = || words.next().unwrap_or_default();
        let (status, code, out_of_memory, error) = (next(), next(), next(), next());
        match status {
            "running" => return Self::Running,
            "restarting" => return Self::Restarting,
            _ => {}
        }
        let mut message = format!("its container is {status}, exit code {code}");
        if out_of_memory == "true" {
            message.push_str(", out of memory (OOMKilled)");
        }
        if !error.is_empty() {
            message = format!("{message}: {error}");
        }
        let log = docker(&["logs", "--tail", LOG_LINES, "--", container].map(str::to_owned), "").text;
        if !log.trim().is_empty() {
            message = format!("{message}; its last output:\n{}", log.trim_end());
        }
        Self::Other(message)
    }
}

struct Answer {
    success: bool,
    /// Both streams.
    text: String,
}

/// Runs `docker` with `arguments` and `input`, for a while.
fn docker(arguments: &[String], input: &str) -> Answer {
    let failed = |why: String| Answer { success: false, text: why };
    let mut command = Command::new("docker");
    let Ok((mut answer, end)) = std::io::pipe() else { return failed("there is no pipe for docker".into()) };
    let Ok(second) = end.try_clone() else { return failed("there is no pipe for docker".into()) };
    command.args(arguments).stdin(Stdio::piped()).stdout(end).stderr(second);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return failed(format!("the docker command cannot be run: {error}")),
    };
    // Lets go of its ends of the pipe.
    drop(command);
    if let Some(mut stdin) = child.stdin.take() {
        drop(stdin.write_all(input.as_bytes()));
    }
    let deadline = Instant::now() + LIMIT;
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut watched = [Watched::input(&answer)];
        if left.is_zero() || system::poll(&mut watched, Some(left)).is_err() {
            drop(child.kill());
            drop(child.wait());
            return failed(format!("docker took longer than {} s", LIMIT.as_secs()));
        }
        if !watched[0].is_ready() {
            continue;
        }
        match answer.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) if text.len() < ANSWER => text.extend_from_slice(&buffer[..count]),
            Ok(_) => {}
        }
    }
    let success = child.wait().is_ok_and(|status| status.success());
    Answer { success, text: String::from_utf8_lossy(&text).into_owned() }
}

/// The last line that says something; docker prints what went wrong last.
fn in_short(text: &str) -> &str {
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("docker said nothing").trim()
}
