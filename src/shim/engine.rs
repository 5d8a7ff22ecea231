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
/// How long a container that is said to run may refuse a resident: what was refused may have met its restart, which is
/// over by the time its state is asked for.
const SETTLING: Duration = Duration::from_secs(3);
/// Between two looks at a container.
const PAUSE: Duration = Duration::from_millis(100);
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
        let patience = match Condition::of(&to.container) {
            Condition::Restarting => RESTART,
            Condition::Running => SETTLING,
            Condition::Other(message) => return Err(unavailable(message)),
        };
        if began.elapsed() >= patience {
            let message = format!("no command can be started in its container: {}", in_short(&text));
            return Err(unavailable(match patience {
                RESTART => describe(&to.container).unwrap_or(message),
                _ => message,
            }));
        }
        std::thread::sleep(PAUSE);
    }
}

/// Why a resident cannot answer although its socket is there; `None` where its container runs.
pub(super) fn why_silent(container: &str) -> Option<String> {
    match Condition::of(container) {
        Condition::Other(message) => Some(message),
        Condition::Running | Condition::Restarting => None,
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
        match State::of(container) {
            Ok(state) if state.status == "running" => Self::Running,
            Ok(state) if state.status == "restarting" => Self::Restarting,
            Ok(state) => Self::Other(state.describe(container)),
            Err(message) => Self::Other(message),
        }
    }
}

/// A container's state in words, with its last output; `None` where the Engine does not tell.
fn describe(container: &str) -> Option<String> {
    State::of(container).ok().map(|state| state.describe(container))
}

/// A container's state, as the Engine tells it.
struct State {
    status: String,
    code: String,
    is_out_of_memory: bool,
    error: String,
}

impl State {
    fn of(container: &str) -> Result<Self, String> {
        const FORMAT: &str = "{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}} {{.State.Error}}";
        let Answer { success, text } = docker(
            &["inspect", "--type=container", "--format", FORMAT, "--", container].map(str::to_owned),
            "",
        );
        if !success {
            let gone = text.contains("No such container");
            return Err(if gone {
                "its container was removed".to_owned()
            } else {
                format!("the sandbox's Docker daemon does not answer: {}", in_short(&text))
            });
        }
        let mut words = text.trim().splitn(4, ' ').map(str::to_owned);
        let mut next = || words.next().unwrap_or_default();
        Ok(Self { status: next(), code: next(), is_out_of_memory: next() == "true", error: next() })
    }

    fn describe(&self, container: &str) -> String {
        let mut message = match self.status.as_str() {
            "restarting" => format!("its container keeps restarting, exit code {}", self.code),
            "running" => format!("its container runs again, after exit code {}", self.code),
            status => format!("its container is {status}, exit code {}", self.code),
        };
        if self.is_out_of_memory {
            message.push_str(", out of memory (OOMKilled)");
        }
        if !self.error.is_empty() {
            message = format!("{message}: {}", self.error);
        }
        let log = docker(&["logs", "--tail", LOG_LINES, "--", container].map(str::to_owned), "").text;
        if !log.trim().is_empty() {
            message = format!("{message}; its last output:\n{}", log.trim_end());
        }
        message
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
