//! A session: one shell for its whole life, fed through its standard input.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe;
use tokio::sync::watch;

use super::command::Command;
use crate::local::toolbox::processes::Root;
use crate::local::toolbox::reaper::Exit;
use crate::local::toolbox::spawn::{Program, start_failure};
use crate::local::toolbox::state::Toolbox;
use crate::local::toolbox::{random, shell};

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    /// The shell, to be ended with all that came from it.
    pub(super) root: Root,
    directory: PathBuf,
    /// Whoever has the lock has the shell to itself: commands run one after another.
    turn: tokio::sync::Mutex<pipe::Sender>,
    exit: watch::Receiver<Option<Exit>>,
    commands: Mutex<Vec<Arc<Command>>>,
}

impl Session {
    /// Starts the shell of session `id`.
    pub(super) fn start(toolbox: &Toolbox, id: &str) -> io::Result<Self> {
        let directory = make_directory(toolbox, id)?;
        let name = shell::name(&toolbox.env());
        let program = Program { name: &name, arguments: &[], cwd: None, env: toolbox.env() };
        let mut command = program.command(toolbox).map_err(io::Error::other)?;
        let (child_input, input) = io::pipe()?;
        command.process_group(0).stdin(child_input).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = toolbox
            .reaper
            .spawn(&mut command)
            .map_err(|error| io::Error::other(start_failure(&command, &error)))?;
        let root = Root::new(child.pid());
        let (sender, exit) = watch::channel(None);
        tokio::spawn(async move {
            let exit = child.wait().await;
            sender.send_replace(exit);
        });
        Ok(Self {
            root,
            directory,
            turn: tokio::sync::Mutex::new(pipe::Sender::from_owned_fd(input.into())?),
            exit,
            commands: Mutex::default(),
        })
    }

    /// Adds a command and starts a task that runs it when its turn comes.
    pub(super) fn run(
        self: &Arc<Self>,
        text: String,
        interactive: bool,
        suppress_echo: bool,
    ) -> io::Result<Arc<Command>> {
        if self.exit.borrow().is_some() {
            return Err(io::Error::other("failed to write command: write |1: broken pipe"));
        }
        let (command, pipes) =
            Command::create(&self.directory, random::id(), text, interactive, suppress_echo)?;
        let command = Arc::new(command);
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&command));
        let (session, running) = (Arc::clone(self), Arc::clone(&command));
        tokio::spawn(async move {
            let mut shell = session.turn.lock().await;
            // if it cannot be told, it has ended, which the next line sees
            let _ = shell.write_all(running.block(interactive).as_bytes()).await;
            running.follow(pipes, session.exit.clone()).await;
        });
        Ok(command)
    }

    /// Its commands, oldest first.
    pub(super) fn commands(&self) -> Vec<Arc<Command>> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Removes its files.
    pub(super) fn remove_files(&self) {
        // the sandbox may have removed them itself
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// `$HOME/.daytona/sessions/<id>`, or the same below `/tmp` where the home cannot be written.
fn make_directory(toolbox: &Toolbox, id: &str) -> io::Result<PathBuf> {
    let name: String = id
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
            _ => format!("%{byte:02x}"),
        })
        .collect();
    let mut result = Err(io::ErrorKind::NotFound.into());
    for base in [toolbox.home.as_path(), std::path::Path::new("/tmp")] {
        let directory = base.join(".daytona/sessions").join(&name);
        // left over from a sandbox that was stopped
        let _ = std::fs::remove_dir_all(&directory);
        match std::fs::create_dir_all(&directory) {
            Ok(()) => return Ok(directory),
            Err(error) => result = Err(error),
        }
    }
    result
}
