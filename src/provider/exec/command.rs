//! A command, and how it ended.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::provider::output::decode_tail;
use crate::shim::protocol::{Action, Call, Finished, Kept, Output, Refusal, RefusalKind, Start, Stdin};

/// What a user may do about a sandbox that lacks something.
pub(super) const LACKING_HINT: &str =
    "Commands of the sample may have used up its processes, memory or disk space";
/// The largest input that travels inside the call.
const INLINE_INPUT: usize = 64 * 1024;
/// The largest output that travels inside the answer; the toolbox holds an answer in memory several times.
pub(super) const INLINE_OUTPUT: u64 = 1024 * 1024;

/// A command, as Inspect's `exec` describes it.
#[derive(Clone, Debug, Default)]
pub struct Command {
    /// Program and arguments; no shell is involved.
    pub argv: Vec<String>,
    /// Standard input: none is `/dev/null`, an empty one is at its end at once.
    pub input: Option<Bytes>,
    /// Working directory; relative to the sandbox's own, which is also the default.
    pub cwd: Option<String>,
    /// Added to the sandbox's environment.
    pub env: BTreeMap<String, String>,
    /// User by name or number; the sandbox's default user where absent.
    pub user: Option<String>,
    /// How long it may run.
    pub timeout: Option<Duration>,
    /// How many bytes of each stream are kept, the last ones.
    pub output_limit: u64,
}

/// How a command ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Exit status; 128 + signal for a death by signal; 126 or 127 for a command that could not start.
    pub returncode: i32,
    /// Standard output, at most the limit.
    pub stdout: String,
    /// Standard error, at most the limit.
    pub stderr: String,
    /// Whether the timeout ended it; the streams then hold what it wrote until then.
    pub timed_out: bool,
}

/// How a command ended, with exact streams.
#[derive(Debug)]
pub(in crate::provider) struct RawOutcome {
    pub(in crate::provider) returncode: i32,
    pub(in crate::provider) stdout: Stream,
    pub(in crate::provider) stderr: Stream,
    pub(in crate::provider) timed_out: bool,
}

/// The kept end of a stream.
#[derive(Debug, Default)]
pub(in crate::provider) struct Stream {
    pub(in crate::provider) tail: Vec<u8>,
    pub(in crate::provider) truncated: bool,
}

impl Stream {
    pub(in crate::provider) fn text(&self, limit: u64) -> String {
        decode_tail(&self.tail, self.truncated, limit)
    }
}

impl From<Finished> for RawOutcome {
    fn from(finished: Finished) -> Self {
        Self {
            returncode: finished.end.code(),
            stdout: Stream::from(finished.stdout),
            stderr: Stream::from(finished.stderr),
            timed_out: finished.timed_out,
        }
    }
}

impl From<Output> for Stream {
    fn from(output: Output) -> Self {
        // `fetch` brought every file before
        let tail = match output.kept {
            Kept::Inline(bytes) => bytes,
            Kept::File { .. } => Vec::new(),
        };
        Self { truncated: output.total > tail.len() as u64, tail }
    }
}

/// Refuses what cannot be a command.
pub(super) fn validate(command: &Command) -> Result<()> {
    let Some(program) = command.argv.first() else {
        return Err(Error::new(ErrorKind::InvalidArgument, "the command is empty"));
    };
    if program.is_empty() {
        return Err(Error::new(ErrorKind::InvalidArgument, "the command's program is empty"));
    }
    let texts = command.argv.iter().chain(&command.cwd).chain(&command.user);
    if texts.chain(command.env.keys()).chain(command.env.values()).any(|text| text.contains('\0')) {
        return Err(Error::new(ErrorKind::InvalidArgument, "embedded null byte"));
    }
    if let Some(name) = command.env.keys().find(|name| name.is_empty() || name.contains('=')) {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("illegal environment variable name {name:?}"),
        ));
    }
    Ok(())
}

/// Makes `call` start `command`; returns the files that must be there first.
pub(super) fn start(call: &mut Call, command: Command, upload_path: &str) -> Vec<(String, Bytes)> {
    let mut uploads = Vec::new();
    let stdin = match command.input {
        None => Stdin::Null,
        Some(input) if input.len() <= INLINE_INPUT => Stdin::Inline(input.to_vec()),
        Some(input) => {
            let path = format!("{upload_path}.input");
            uploads.push((path.clone(), input));
            Stdin::File(path.into_bytes())
        }
    };
    call.action = Action::Start(Box::new(Start {
        argv: command.argv.into_iter().map(String::into_bytes).collect(),
        env: command.env.into_iter().map(|(name, value)| (name.into_bytes(), value.into_bytes())).collect(),
        cwd: command.cwd.map(String::into_bytes),
        stdin,
        timeout: command.timeout,
        output_limit: command.output_limit,
        inline_limit: INLINE_OUTPUT,
    }));
    uploads
}

/// What Inspect gets for a command that never started.
pub(super) fn refused(refusal: Refusal, program: String) -> Result<RawOutcome> {
    let failed = |returncode| {
        let stderr = Stream { tail: format!("{}\n", refusal.message).into_bytes(), truncated: false };
        Ok(RawOutcome { returncode, stdout: Stream::default(), stderr, timed_out: false })
    };
    match refusal.kind {
        RefusalKind::ProgramNotFound => failed(127),
        RefusalKind::WorkingDirectory | RefusalKind::UnknownUser | RefusalKind::Execution => failed(126),
        // it says nothing of the command, which a status would
        RefusalKind::System | RefusalKind::Lacking => {
            Err(Error::new(ErrorKind::SandboxUnavailable, refusal.message).with_hint(LACKING_HINT))
        }
        RefusalKind::Unavailable => Err(Error::new(ErrorKind::SandboxUnavailable, refusal.message)),
        RefusalKind::PermissionDenied => Err(Error::new(ErrorKind::PermissionDenied, program)),
        RefusalKind::UserUnsupported => Err(Error::new(ErrorKind::UserUnsupported, refusal.message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::protocol::ExecId;

    fn command(argv: &[&str]) -> Command {
        Command { argv: argv.iter().map(|text| (*text).to_owned()).collect(), ..Command::default() }
    }

    fn call() -> Call {
        Call {
            id: ExecId::from_bytes([7; 16]),
            wait: Duration::from_secs(45),
            acks: Vec::new(),
            user: None,
            action: Action::Attach,
        }
    }

    #[test]
    fn an_empty_command_and_nul_bytes_are_refused() {
        for bad in [command(&[]), command(&[""]), command(&["a\0b"])] {
            assert_eq!(validate(&bad).unwrap_err().kind(), ErrorKind::InvalidArgument);
        }
        let mut bad = command(&["true"]);
        bad.env.insert("A=B".to_owned(), String::new());
        assert_eq!(validate(&bad).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }

    #[test]
    fn a_small_input_travels_in_the_call_and_a_large_one_as_a_file() {
        let mut small = call();
        let input = Some(Bytes::from_static(b"x"));
        assert!(start(&mut small, Command { input, ..command(&["cat"]) }, "/d/id").is_empty());
        let mut large = call();
        let input = Some(Bytes::from(vec![0; INLINE_INPUT + 1]));
        let uploads = start(&mut large, Command { input, ..command(&["cat"]) }, "/d/id");
        assert_eq!(uploads[0].0, "/d/id.input");
        let Action::Start(start) = large.action else { panic!("a start") };
        assert_eq!(start.stdin, Stdin::File(b"/d/id.input".to_vec()));
    }

    #[test]
    fn a_missing_program_is_a_result_and_a_refused_one_an_error() {
        let refusal = |kind| Refusal { kind, message: "nosuch: not found".to_owned() };
        let outcome = refused(refusal(RefusalKind::ProgramNotFound), "nosuch".to_owned()).unwrap();
        assert_eq!((outcome.returncode, outcome.stderr.text(100).as_str()), (127, "nosuch: not found\n"));
        let error = refused(refusal(RefusalKind::PermissionDenied), "/etc/passwd".to_owned()).unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::PermissionDenied, "/etc/passwd"));
    }
}
