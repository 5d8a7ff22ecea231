//! Starts a program with its streams on pipes and collects what it says.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::pin::pin;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;

use super::error::words;
use super::reaper::Exit;
use super::shell;
use super::state::Toolbox;

/// A program to run.
#[derive(Debug)]
pub(super) struct Program<'a> {
    /// Its name, looked up in the toolbox's `PATH` if it has no slash.
    pub(super) name: &'a str,
    pub(super) arguments: &'a [String],
    /// Resolved against the work directory; `None` is the work directory itself.
    pub(super) cwd: Option<&'a str>,
    /// The whole environment.
    pub(super) env: Vec<(String, String)>,
}

impl Program<'_> {
    /// The command, without streams. `Err` is the daemon's text for a program that is not there.
    pub(super) fn command(self, toolbox: &Toolbox) -> Result<Command, String> {
        let Some(file) = shell::find(self.name, &toolbox.env()) else {
            return Err(format!("exec: \"{}\": executable file not found in $PATH", self.name));
        };
        let mut command = Command::new(file);
        let cwd = self.cwd.filter(|cwd| !cwd.is_empty()).unwrap_or(".");
        command
            .arg0(self.name)
            .args(self.arguments)
            .current_dir(toolbox.resolve(cwd))
            .env_clear()
            .envs(self.env);
        Ok(command)
    }
}

/// The daemon's text for a program that could not be started. It names the program even if the directory is missing.
pub(super) fn start_failure(command: &Command, error: &io::Error) -> String {
    format!("fork/exec {}: {}", Path::new(command.get_program()).display(), words(error))
}

/// How a captured run ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It ended and every holder of its output is gone.
    Ended {
        /// `None`: the status was lost.
        exit: Option<Exit>,
        /// Both streams.
        output: Vec<u8>,
    },
    /// It could not be started; the daemon's text.
    NotStarted(String),
    /// It was killed at the limit.
    TimedOut,
}

/// Runs `program` with `input` on a pipe as its standard input, and reads both of its streams until the last process
/// that holds them has closed them. At `limit`, its process group is killed; what left the group lives on, and is
/// waited for like any other holder of the output.
///
/// # Errors
///
/// The operating system's, where no pipe can be made.
pub(super) async fn capture(
    toolbox: &Toolbox,
    program: Program<'_>,
    input: Vec<u8>,
    limit: Option<Duration>,
) -> io::Result<Outcome> {
    let mut command = match program.command(toolbox) {
        Ok(command) => command,
        Err(text) => return Ok(Outcome::NotStarted(text)),
    };
    let (child_input, input_pipe) = io::pipe()?;
    let (output_pipe, child_output) = io::pipe()?;
    command
        .process_group(0)
        .stdin(child_input)
        .stderr(Stdio::from(OwnedFd::from(child_output.try_clone()?)))
        .stdout(child_output);
    let mut child = match toolbox.reaper.spawn(&mut command) {
        Ok(child) => child,
        Err(error) => return Ok(Outcome::NotStarted(start_failure(&command, &error))),
    };
    // it holds the child's ends of the pipes, so their end would never be seen
    drop(command);

    let mut input_pipe = pipe::Sender::from_owned_fd(input_pipe.into())?;
    let mut output_pipe = pipe::Receiver::from_owned_fd(output_pipe.into())?;
    let mut output = Vec::new();
    let mut timed_out = false;
    let exit = {
        let mut feed = pin!(async move {
            // a program need not read its input
            let _ = input_pipe.write_all(&input).await;
        });
        let mut limit = pin!(async move {
            match limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        });
        let mut collect = pin!(async { output_pipe.read_to_end(&mut output).await });
        let (mut feeding, mut collecting) = (true, true);
        loop {
            tokio::select! {
                () = &mut feed, if feeding => feeding = false,
                () = &mut limit, if !timed_out => {
                    timed_out = true;
                    child.kill_group();
                }
                read = &mut collect, if collecting => {
                    read?;
                    collecting = false;
                }
                // the streams may be closed long before the end
                exit = child.wait(), if !collecting => break exit,
            }
        }
    };
    Ok(if timed_out { Outcome::TimedOut } else { Outcome::Ended { exit, output } })
}
