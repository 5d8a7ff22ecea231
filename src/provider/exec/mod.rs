//! Runs a command in a sandbox exactly once, through the shim.
//!
//! One request for a short command. Every exec has a fresh id; the first delivery of its call starts the command and
//! any other waits for the same result, so requests are repeated freely, by us or by a proxy, and a command never is.

mod answer;
mod command;
mod kill;

use std::time::Duration;

use bytes::Bytes;

use self::answer::{Ended, Until};
pub(super) use self::command::RawOutcome;
#[cfg(test)]
pub(super) use self::command::Stream;
pub use self::command::{Command, Outcome};
use self::command::{INLINE_OUTPUT, refused, start, validate};
use super::sandbox::Sandbox;
use crate::error::{Error, ErrorKind, Result};
use crate::shim::protocol::{Action, Call, ExecId, Read, RefusalKind};

/// How long one request waits for a command's end. Connections that carry nothing are cut after 60 to 100 s by what
/// stands in front of the platform.
const WAIT: Duration = Duration::from_secs(45);
/// The pauses after which a command is tried again that could not begin because the sandbox lacked something.
const LACKING: [Duration; 4] =
    [Duration::from_millis(200), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];
/// How long a look at a command of the background waits: with none, the shim would not look.
const LOOK: Duration = Duration::from_millis(200);

impl Sandbox {
    /// Runs `command` and waits for its end. Dropping the future kills the command with its whole process tree.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] for an empty command or a NUL byte; [`ErrorKind::PermissionDenied`] if the
    /// operating system refuses to execute the program; [`ErrorKind::UserUnsupported`]; and
    /// [`ErrorKind::SandboxUnavailable`] if the sandbox is gone or the command's fate cannot be learnt. It is not run
    /// again in that case. A command that ran and failed, or does not exist, is an [`Outcome`].
    pub async fn exec(&self, command: Command) -> Result<Outcome> {
        let limit = command.output_limit;
        let bytes = self.exec_bytes(command).await?;
        Ok(Outcome {
            returncode: bytes.returncode,
            stdout: bytes.stdout.text(limit),
            stderr: bytes.stderr.text(limit),
            timed_out: bytes.timed_out,
        })
    }

    /// Like [`Sandbox::exec`], with the streams as bytes.
    ///
    /// # Errors
    ///
    /// As [`Sandbox::exec`].
    pub(in crate::provider) async fn exec_bytes(&self, command: Command) -> Result<RawOutcome> {
        let program = command.argv.first().cloned().unwrap_or_default();
        let timeout = command.timeout;
        let mut pauses = LACKING.iter();
        loop {
            let (call, uploads) = self.start_call(command.clone())?;
            match self.run(call, uploads, Until::Ended(timeout)).await? {
                Ended::Finished(finished) => return Ok(finished.into()),
                Ended::Refused(refusal) => {
                    match pauses.next().filter(|_| refusal.kind == RefusalKind::Lacking) {
                        // it never began and never will, so that a fresh exec is no second run
                        Some(pause) => tokio::time::sleep(*pause).await,
                        None => {
                            return refused(refusal, program)
                                .map_err(|error| error.with_sandbox(self.label()));
                        }
                    }
                }
                Ended::Running => {
                    return Err(Error::new(ErrorKind::Unexpected, "a command's end was not awaited"));
                }
            }
        }
    }

    /// Starts a command that goes on by itself, and waits up to `patience` for an early end.
    ///
    /// # Errors
    ///
    /// As [`Sandbox::exec`].
    pub(super) async fn start_background(&self, command: Command, patience: Duration) -> Result<Background> {
        let program = command.argv.first().cloned().unwrap_or_default();
        let (mut call, uploads) = self.start_call(command)?;
        call.wait = patience;
        let running = Running(call.attach());
        match self.run(call, uploads, Until::Running).await? {
            Ended::Running => Ok(Background::Running(running)),
            Ended::Finished(finished) => Ok(Background::Ended(finished.into())),
            Ended::Refused(refusal) => Ok(Background::Ended(refused(refusal, program)?)),
        }
    }

    /// How a command of [`Self::start_background`] ended, if it has.
    ///
    /// # Errors
    ///
    /// As [`Sandbox::exec`].
    pub(super) async fn ended(&self, running: Running) -> Result<Option<RawOutcome>> {
        let call = Call { wait: LOOK, ..running.0 };
        match self.run(call, Vec::new(), Until::Running).await? {
            Ended::Finished(finished) => Ok(Some(finished.into())),
            Ended::Running | Ended::Refused(_) => Ok(None),
        }
    }

    /// Reads a file of a container, as `user`; the contents, or an errno and what the shim says of it. One request for
    /// up to a mebibyte.
    ///
    /// # Errors
    ///
    /// As [`Sandbox::exec`].
    pub(in crate::provider) async fn read_by_call(
        &self,
        path: &str,
        limit: u64,
        user: Option<&str>,
    ) -> Result<RawOutcome> {
        let mut call = self.call(user.map(str::to_owned));
        let path = path.as_bytes().to_vec();
        call.action = Action::Read(Box::new(Read { path, limit, inline_limit: INLINE_OUTPUT }));
        match self.run(call, Vec::new(), Until::Ended(None)).await? {
            Ended::Finished(finished) => Ok(finished.into()),
            Ended::Refused(refusal) => refused(refusal, "the container's shim".to_owned()),
            Ended::Running => Err(Error::new(ErrorKind::Unexpected, "a file was not awaited")),
        }
    }

    /// The call that starts a command, and the files that must be there first.
    fn start_call(&self, mut command: Command) -> Result<(Call, Vec<(String, Bytes)>)> {
        validate(&command)?;
        command.cwd = self.directory(command.cwd);
        let mut call = self.call(command.user.clone());
        let upload_path = self.upload_path(call.id);
        let uploads = start(&mut call, command, &upload_path);
        Ok((call, uploads))
    }

    /// A call with a fresh id and the acknowledgements that are due.
    fn call(&self, user: Option<String>) -> Call {
        Call {
            id: ExecId::from_bytes(*uuid::Uuid::new_v4().as_bytes()),
            wait: WAIT,
            acks: Vec::new(),
            user: user.or_else(|| self.default_user().map(str::to_owned)),
            action: Action::Attach,
        }
    }
}

/// A command that goes on by itself.
#[derive(Debug)]
pub(super) enum Background {
    /// It is under way.
    Running(Running),
    /// It has ended already.
    Ended(RawOutcome),
}

/// Names a command that was under way.
#[derive(Debug)]
pub(super) struct Running(Call);
