//! One command of a session, from its files and pipes to its status.
//!
//! The shell reaches them by name: it is started long before them. This process opens its own ends first, so that no
//! `open` in the shell ever waits, and keeps a write end of each output pipe until the status is known, so that a
//! pipe that nobody has opened yet does not look closed.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::sync::watch;

use super::log::{Log, Stream};
use crate::api::toolbox::SessionCommand;
use crate::local::toolbox::reaper::Exit;
use crate::local::toolbox::settled::settled;
use crate::local::toolbox::shell::quote;

/// A command of a session.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) id: String,
    text: String,
    directory: PathBuf,
    suppress_echo: bool,
    log: Mutex<Log>,
    exit_code: watch::Sender<Option<i64>>,
    /// The write end of its standard input; `None` once it ended, and if it was run synchronously.
    input: tokio::sync::Mutex<Option<pipe::Sender>>,
}

/// What this process holds of a command that is to run.
pub(super) struct Pipes {
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
    status: pipe::Receiver,
    /// Write ends of the three.
    held: Vec<File>,
}

/// Why input did not reach a command.
pub(super) enum InputFailure {
    /// It has ended with this status.
    Ended(i64),
    /// It has no input, or does not read it.
    System(io::Error),
}

impl Command {
    /// Lays out a command's files below `sessions`. `interactive`: with a standard input that stays open.
    pub(super) fn create(
        session: &Path,
        id: String,
        text: String,
        interactive: bool,
        suppress_echo: bool,
    ) -> io::Result<(Self, Pipes)> {
        let directory = session.join(&id);
        std::fs::create_dir(&directory)?;
        let mut script =
            File::options().write(true).create_new(true).mode(0o600).open(directory.join("cmd.sh"))?;
        io::Write::write_all(&mut script, format!("{text}\n").as_bytes())?;
        let log = Log::create(directory.join("output.log"))?;
        let mut held = Vec::new();
        let mut output = |name: &str| -> io::Result<pipe::Receiver> {
            let path = directory.join(name);
            mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)?;
            let receiver = pipe::OpenOptions::new().open_receiver(&path)?;
            held.push(File::options().write(true).custom_flags(libc::O_NONBLOCK).open(&path)?);
            Ok(receiver)
        };
        let (stdout, stderr, status) =
            (output("stdout.pipe")?, output("stderr.pipe")?, output("status.pipe")?);
        let input = if interactive {
            let path = directory.join("input.pipe");
            mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)?;
            Some(pipe::OpenOptions::new().read_write(true).open_sender(&path)?)
        } else {
            None
        };
        let command = Self {
            id,
            text,
            directory,
            suppress_echo,
            log: Mutex::new(log),
            exit_code: watch::Sender::new(None),
            input: tokio::sync::Mutex::new(input),
        };
        Ok((command, Pipes { stdout, stderr, status, held }))
    }

    /// What the session's shell is told: run the script in yourself, with these streams, and report its status.
    pub(super) fn block(&self, interactive: bool) -> String {
        let file = |name: &str| quote(&self.directory.join(name).to_string_lossy());
        let input = if interactive { file("input.pipe") } else { "/dev/null".to_owned() };
        format!(
            "{{ . {}; }} <{input} >{} 2>{}\nprintf '%s\\n' \"$?\" >{}\n",
            file("cmd.sh"),
            file("stdout.pipe"),
            file("stderr.pipe"),
            file("status.pipe")
        )
    }

    /// Follows the command to its end: its status is known and no process holds its streams. If the shell ends
    /// first, its status is the command's.
    pub(super) async fn follow(&self, pipes: Pipes, mut shell: watch::Receiver<Option<Exit>>) {
        let Pipes { mut stdout, mut stderr, mut status, held } = pipes;
        let mut held = Some(held);
        let (mut out_open, mut err_open) = (true, true);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut line = Vec::new();
        let mut code = None;
        while out_open || err_open || code.is_none() {
            tokio::select! {
                read = stdout.read_buf(&mut out), if out_open => out_open = self.take(Stream::Stdout, read, &mut out),
                read = stderr.read_buf(&mut err), if err_open => err_open = self.take(Stream::Stderr, read, &mut err),
                read = status.read_buf(&mut line), if code.is_none() => {
                    if read.is_err() || line.ends_with(b"\n") {
                        code = Some(std::str::from_utf8(&line).ok().and_then(|line| line.trim().parse().ok()).unwrap_or(-1));
                        held = None;
                    }
                }
                exit = settled(&mut shell), if code.is_none() => {
                    code = Some(exit.map_or(-1, |exit| i64::from(exit.shell_code())));
                    held = None;
                }
            }
        }
        drop(held);
        for name in ["stdout.pipe", "stderr.pipe", "status.pipe", "input.pipe"] {
            // the sandbox may have removed it
            let _ = std::fs::remove_file(self.directory.join(name));
        }
        self.exit_code.send_replace(code);
        *self.input.lock().await = None;
    }

    /// Moves what was read to the log; whether the stream is still open.
    fn take(&self, stream: Stream, read: io::Result<usize>, said: &mut Vec<u8>) -> bool {
        // a full disk loses output, as it does in the daemon, but never stops the command
        let _ = self.log().append(stream, said);
        said.clear();
        read.is_ok_and(|read| read > 0)
    }

    /// Sends a line to the command's standard input.
    pub(super) async fn send(&self, data: &str) -> Result<(), InputFailure> {
        if let Some(code) = self.exit_code() {
            return Err(InputFailure::Ended(code));
        }
        let mut line = data.to_owned();
        if !line.ends_with('\n') {
            line.push('\n');
        }
        let mut input = self.input.lock().await;
        let Some(pipe) = input.as_mut() else {
            return Err(InputFailure::System(io::Error::other("the command has no input pipe")));
        };
        let mut ended = self.exit_code.subscribe();
        tokio::select! {
            written = pipe.write_all(line.as_bytes()) => written.map_err(InputFailure::System)?,
            code = settled(&mut ended) => return Err(InputFailure::Ended(code.unwrap_or(-1))),
        }
        if !self.suppress_echo {
            self.log().append(Stream::Stdout, line.as_bytes()).map_err(InputFailure::System)?;
        }
        Ok(())
    }

    /// Its status, once it has ended.
    pub(super) fn exit_code(&self) -> Option<i64> {
        *self.exit_code.borrow()
    }

    /// Tells when it ends.
    pub(super) fn ended(&self) -> watch::Receiver<Option<i64>> {
        self.exit_code.subscribe()
    }

    pub(super) fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As the wire has it.
    pub(super) fn record(&self) -> SessionCommand {
        SessionCommand { id: self.id.clone(), command: self.text.clone(), exit_code: self.exit_code() }
    }
}
