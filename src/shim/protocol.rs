//! Records that the provider and the shim exchange: a [`Call`] goes in, a [`Reply`] comes out.
//!
//! The toolbox carries a call as a shell script ([`script`], or [`script_for_file`] when the call is too large for
//! one) and its answer as text in which a shell may have left its own words ([`find_reply`]). This module does no I/O.

mod codec;
mod frame;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

pub use codec::DecodeError;
pub use frame::{Addressee, find_reply, quote, script, script_for_file};
#[cfg(feature = "shim")]
pub(super) use frame::{read_payload, write_payload};

/// The variable that marks every process of a command with the id of its exec, in lower-case hex.
///
/// It is how a timeout finds the processes that left the command's session and its process tree.
pub const MARKER: &str = "INSPECT_DAYTONA_EXEC";

/// Names one exec. Whoever makes it must draw it at random: it elects the one delivery that runs the command, and it
/// is what noise would have to know to forge an answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExecId([u8; 16]);

impl ExecId {
    /// An id of 16 random bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The id's bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for ExecId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for ExecId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ExecId({self})")
    }
}

impl FromStr for ExecId {
    type Err = DecodeError;

    fn from_str(text: &str) -> Result<Self, DecodeError> {
        let digits = text.as_bytes();
        // Upper case is refused so that one id has one name in the file system.
        let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if digits.len() != 32 || !digits.iter().all(is_digit) {
            return Err(DecodeError::Invalid("exec id"));
        }
        u128::from_str_radix(text, 16)
            .map(|number| Self(number.to_be_bytes()))
            .map_err(|_| DecodeError::Invalid("exec id"))
    }
}

/// One request to the shim. It may be delivered any number of times; the command runs at most once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The exec that is started, asked about or ended.
    pub id: ExecId,
    /// How long the shim waits for the end of the command before it answers [`Reply::Pending`]. A kill takes up to
    /// five seconds where processes resist.
    pub wait: Duration,
    /// Execs whose [`Reply::Finished`] arrived, files included; their results are removed.
    pub acks: Vec<ExecId>,
    /// Name, number, `name:group` or `number:group`; `None` is the toolbox's own user. It must be the same in every
    /// call about one exec, because it tells whose state the shim looks at.
    pub user: Option<String>,
    /// What is asked for.
    pub action: Action,
}

impl Call {
    /// The call that asks for the result of the same exec, without its payload and acknowledgements.
    #[must_use]
    pub fn attach(&self) -> Self {
        Self { acks: Vec::new(), user: self.user.clone(), action: Action::Attach, ..*self }
    }

    /// The bytes that [`Self::decode`] reads.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode_call(self)
    }

    /// Reads a call.
    ///
    /// # Errors
    /// When the bytes are not one call of this version, completely.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode_call(bytes)
    }

    /// The id of an encoded call, even of one that [`Self::decode`] refuses, so that the refusal can be framed.
    pub fn id_of(bytes: &[u8]) -> Option<ExecId> {
        bytes.get(1..17).and_then(|id| id.try_into().ok()).map(ExecId)
    }
}

/// What a [`Call`] asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Runs the command unless this exec was claimed before, then waits for its end.
    Start(Box<Start>),
    /// Waits for the end of a command that was started before.
    Attach,
    /// Ends the command with all its processes; one that was not started yet never will be.
    Kill,
    /// Reads a file; only a shim that is resident in a container does that. The reply is [`Reply::Finished`] with the
    /// contents as standard output, or with an errno as status and a message as standard error: `EFBIG` for a file
    /// beyond the limit, `EPERM` instead of `EACCES` where another user could not read it either.
    Read(Box<Read>),
}

/// A file to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Where it is; a relative path starts at the container's working directory.
    pub path: Vec<u8>,
    /// The largest file that is read, in bytes.
    pub limit: u64,
    /// How many bytes the reply may carry; a larger file becomes one of the machine.
    pub inline_limit: u64,
}

/// A command to run.
#[derive(Clone, PartialEq, Eq)]
pub struct Start {
    /// The program, looked up in the command's own `PATH`, and its arguments. No element contains NUL.
    pub argv: Vec<Vec<u8>>,
    /// Variables added to the toolbox's environment. No name contains `=` or NUL, no value contains NUL.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// The working directory; `None` is the toolbox's, which a relative path starts from.
    pub cwd: Option<Vec<u8>>,
    /// What the command reads.
    pub stdin: Stdin,
    /// How long the command may run before it is killed with all its processes.
    pub timeout: Option<Duration>,
    /// How many bytes of each stream are kept: the last ones.
    pub output_limit: u64,
    /// How many bytes of both streams together the reply may carry; a larger stream stays a file.
    pub inline_limit: u64,
}

/// Arguments, variables and input may be secret, so only their number is shown.
impl fmt::Debug for Start {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Start")
            .field("program", &self.argv.first().map(|program| String::from_utf8_lossy(program)))
            .field("arguments", &self.argv.len().saturating_sub(1))
            .field("env", &self.env.len())
            .field("cwd", &self.cwd.as_deref().map(String::from_utf8_lossy))
            .field("stdin", &self.stdin)
            .field("timeout", &self.timeout)
            .field("output_limit", &self.output_limit)
            .field("inline_limit", &self.inline_limit)
            .finish()
    }
}

/// What a command reads from its standard input.
#[derive(Clone, PartialEq, Eq)]
pub enum Stdin {
    /// `/dev/null`.
    Null,
    /// A pipe with these bytes, then end of file.
    Inline(Vec<u8>),
    /// A file by absolute path; it is deleted once it was opened. For a container it is a file of the machine.
    File(Vec<u8>),
}

impl fmt::Debug for Stdin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => formatter.write_str("Null"),
            Self::Inline(bytes) => write!(formatter, "Inline({} bytes)", bytes.len()),
            Self::File(path) => write!(formatter, "File({:?})", String::from_utf8_lossy(path)),
        }
    }
}

/// The shim's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The command ended.
    Finished(Finished),
    /// The command still runs; ask again with [`Action::Attach`].
    Pending,
    /// The command was claimed, and whoever ran it is gone without a result; or it is unknown here. It will not run
    /// again. The text says which.
    Lost(String),
    /// The result was acknowledged and removed, or the exec was killed before it began. It will not run again.
    Collected,
    /// The command never started.
    Refused(Refusal),
}

impl Reply {
    /// The bytes that [`Self::decode`] reads.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode_reply(self)
    }

    /// Reads a reply.
    ///
    /// # Errors
    /// When the bytes are not one reply of this version, completely.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode_reply(bytes)
    }

    /// The text that carries the reply to the call `id`; [`find_reply`] finds it amid other text.
    pub fn frame(&self, id: ExecId) -> String {
        frame::frame(&self.encode(), id)
    }
}

/// How a command ended and what it wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// How the main process ended.
    pub end: End,
    /// Whether it was killed because its time was up. A command that ended by itself just before was not.
    pub timed_out: bool,
    /// Whether it was killed because of [`Action::Kill`].
    pub killed: bool,
    /// What it wrote to its standard output.
    pub stdout: Output,
    /// What it wrote to its standard error.
    pub stderr: Output,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With this status.
    Exited(u8),
    /// By this signal.
    Signaled(u8),
}

impl End {
    /// The status as a shell would report it: 128 plus the number of a signal.
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(status) => i32::from(status),
            Self::Signaled(signal) => 128 + i32::from(signal),
        }
    }
}

/// What a command wrote to one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// How many bytes the command wrote.
    pub total: u64,
    /// The last of them.
    pub kept: Kept,
}

/// Where the kept bytes of a stream are.
#[derive(Clone, PartialEq, Eq)]
pub enum Kept {
    /// In the reply.
    Inline(Vec<u8>),
    /// In a file of the sandbox that stays until the exec is acknowledged.
    File {
        /// Its absolute path.
        path: Vec<u8>,
        /// Its length in bytes.
        len: u64,
    },
}

impl fmt::Debug for Kept {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(bytes) => write!(formatter, "Inline({} bytes)", bytes.len()),
            Self::File { path, len } => {
                write!(formatter, "File({:?}, {len} bytes)", String::from_utf8_lossy(path))
            }
        }
    }
}

/// Why a command never started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// In a word.
    pub kind: RefusalKind,
    /// In words for the user, without a final newline; for the first three kinds as a shell would put it.
    pub message: String,
}

/// Why a command never started, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// There is no such program in the command's `PATH`, or at its path.
    ProgramNotFound,
    /// The operating system refuses to execute the program.
    PermissionDenied,
    /// The working directory is missing, no directory, or closed to the user.
    WorkingDirectory,
    /// The sandbox has no such user or group.
    UnknownUser,
    /// The toolbox's user may not run commands as another one.
    UserUnsupported,
    /// The container does not run, or the Docker daemon does not answer.
    Unavailable,
    /// The operating system cannot execute the program: its format is unknown, it is being written to, or its arguments
    /// are too long.
    Execution,
    /// The sandbox lacked a process or a pipe for the command, which never began and never will: the refusal is what every
    /// delivery of its call gets.
    Lacking,
    /// Something else in the sandbox failed. Nothing is said of whether the command runs or ran.
    System,
}
