//! Runs a command in a sandbox exactly once, through the shim.
//!
//! One request for a short command. Every exec has a fresh id; the first delivery of its call starts the command and
//! any other waits for the same result, so requests are repeated freely, by us or by a proxy, and a command never is.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::output::decode_tail;
use super::sandbox::{SHIM_PLACES, Sandbox};
use crate::api::toolbox::ExecuteRequest;
use crate::client::Replay;
use crate::error::{Error, ErrorKind, Result};
use crate::shim::protocol::{
    Action, Call, ExecId, Finished, Kept, Output, Refusal, RefusalKind, Reply, Start, Stdin, find_reply,
    script, script_for_file,
};

/// How long one request waits for a command's end. Connections that carry nothing are cut after 60 to 100 s by what
/// stands in front of the platform.
const WAIT: Duration = Duration::from_secs(45);
/// How long a look at a command of the background waits: with none, the shim would not look.
const LOOK: Duration = Duration::from_millis(200);
/// What one request may take beyond its wait before it counts as lost.
const REQUEST_MARGIN: Duration = Duration::from_secs(30);
/// The largest call that travels inside the script: some shells read a script one byte at a time, at about 3 MB/s.
const INLINE_CALL: usize = 96 * 1024;
/// The largest input that travels inside the call.
const INLINE_INPUT: usize = 64 * 1024;
/// The largest output that travels inside the answer; the toolbox holds an answer in memory several times.
const INLINE_OUTPUT: u64 = 1024 * 1024;
/// Answers without a reply in a row before the sandbox counts as broken.
const UNANSWERED: u32 = 4;
/// The wait after an answer without a reply, times how many there were in a row.
const UNANSWERED_PAUSE: Duration = Duration::from_millis(500);
/// What a command's timeout may be exceeded by (grace, kill, drain) before its exec counts as lost.
const TIMEOUT_MARGIN: Duration = Duration::from_secs(60);

/// A command, as Inspect's `exec` describes it.
#[derive(Debug, Default)]
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
pub(super) struct RawOutcome {
    pub(super) returncode: i32,
    pub(super) stdout: Stream,
    pub(super) stderr: Stream,
    pub(super) timed_out: bool,
}

/// The kept end of a stream.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) tail: Vec<u8>,
    pub(super) truncated: bool,
}

impl Stream {
    pub(super) fn text(&self, limit: u64) -> String {
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
    pub(super) async fn exec_bytes(&self, command: Command) -> Result<RawOutcome> {
        let program = command.argv.first().cloned().unwrap_or_default();
        let timeout = command.timeout;
        let (call, uploads) = self.start_call(command)?;
        match self.run(call, uploads, Until::Ended(timeout)).await? {
            Ended::Finished(finished) => Ok(finished.into()),
            Ended::Refused(refusal) => refused(refusal, program),
            Ended::Running => Err(Error::new(ErrorKind::Unexpected, "a command's end was not awaited")),
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

    /// Sends a start call until its result is here.
    async fn run(&self, mut call: Call, uploads: Vec<(String, Bytes)>, until: Until) -> Result<Ended> {
        let user = call.user.clone();
        call.acks = self.take_acks(user.as_deref());
        let result = self.run_acknowledging(&call, uploads, until).await;
        match &result {
            Ok(Ended::Running) => {}
            Ok(_) => self.push_ack(user.as_deref(), call.id),
            // the acknowledgements may not have arrived: they ride on the next call again
            Err(_) => call.acks.iter().for_each(|id| self.push_ack(user.as_deref(), *id)),
        }
        result
    }

    async fn run_acknowledging(
        &self,
        call: &Call,
        mut uploads: Vec<(String, Bytes)>,
        until: Until,
    ) -> Result<Ended> {
        // counted from when the command is known to run, whatever its upload and lost requests took before
        let mut deadline = None;
        let encoded = call.encode();
        let inline = encoded.len() <= INLINE_CALL;
        let call_path = format!("{}.call", self.upload_path(call.id));
        if !inline {
            uploads.push((call_path.clone(), Bytes::from(encoded)));
        }
        // armed before anything is sent: whatever arrives, a dropped future ends it
        let killer = KillOnDrop::new(self, call);
        if !uploads.is_empty() {
            self.upload_all(&uploads).await?;
        }
        // one exec stays with one shim, whose state knows it
        let mut shim = self.shim();
        let mut attaching = false;
        let mut unanswered = 0;
        let mut replaced = 0;
        loop {
            let text = match (attaching, inline) {
                (true, _) => script(&shim.path(), &call.attach()),
                (false, true) => script(&shim.path(), call),
                (false, false) => script_for_file(&shim.path(), &call_path, call),
            };
            let response = self.execute(shim.prepared(text), WAIT + REQUEST_MARGIN).await?;
            let reply = find_reply(&response.text, call.id);
            if reply.is_some() {
                self.shim_answered(&shim, &response.text);
            }
            match reply {
                Some(Reply::Pending) if matches!(until, Until::Running) => {
                    killer.disarm();
                    return Ok(Ended::Running);
                }
                Some(Reply::Pending) => {
                    attaching = true;
                    unanswered = 0;
                    if let (None, Until::Ended(Some(timeout))) = (deadline, &until) {
                        deadline = Some(tokio::time::Instant::now() + *timeout + TIMEOUT_MARGIN);
                    }
                }
                Some(Reply::Finished(finished)) => {
                    let finished = self.fetch(finished, call.user.as_deref()).await?;
                    killer.disarm();
                    return Ok(Ended::Finished(finished));
                }
                Some(Reply::Refused(refusal)) => {
                    killer.disarm();
                    return Ok(Ended::Refused(refusal));
                }
                Some(Reply::Lost(why)) => {
                    // the killer stays armed: processes of the command may have survived their supervisor
                    return Err(self.unavailable(format!(
                        "the state of a command was lost inside the sandbox ({why}); it was not run again"
                    )));
                }
                Some(Reply::Collected) => {
                    killer.disarm();
                    return Err(self.unavailable("a command was ended before it began".to_owned()));
                }
                None => {
                    unanswered += 1;
                    if unanswered >= UNANSWERED {
                        return Err(self.broken(response.exit_code, &response.text).await);
                    }
                    // Only an exec that certainly never began may begin with a new shim, whose state is empty.
                    let never_began = !attaching && unanswered == 1 && response.once;
                    if never_began && shim_is_missing(response.exit_code) {
                        shim = self.replace_shim(&shim).await?;
                        unanswered = 0;
                        replaced += 1;
                        if replaced > SHIM_PLACES.len() {
                            return Err(self.broken(response.exit_code, &response.text).await);
                        }
                        if !uploads.is_empty() {
                            self.upload_all(&uploads).await?;
                        }
                    } else {
                        // a sandbox that is out of processes or memory for a moment gets over it
                        tokio::time::sleep(UNANSWERED_PAUSE * unanswered).await;
                    }
                }
            }
            if deadline.is_some_and(|deadline| tokio::time::Instant::now() > deadline) {
                return Err(self.unavailable(
                    "a command did not end although its timeout passed; the sandbox does not kill its processes"
                        .to_owned(),
                ));
            }
        }
    }

    /// Brings outputs that were too large for the reply.
    async fn fetch(&self, mut finished: Finished, user: Option<&str>) -> Result<Finished> {
        for output in [&mut finished.stdout, &mut finished.stderr] {
            if let Kept::File { path, len } = &output.kept {
                let path = String::from_utf8_lossy(path).into_owned();
                let bytes = self.read_result(&path, *len, user).await?;
                output.kept = Kept::Inline(bytes.into());
            }
        }
        Ok(finished)
    }

    /// Ends a command that nobody waits for any more.
    async fn kill(&self, call: Call) {
        let kill = Call { action: Action::Kill, acks: Vec::new(), wait: Duration::from_secs(10), ..call };
        let shim = self.shim();
        let request = shim.prepared(script(&shim.path(), &kill));
        if let Err(error) = self.execute(request, REQUEST_MARGIN).await {
            tracing::debug!("a cancelled command may still run: {error}");
        }
    }

    /// One execute request. The shim makes repeats harmless; whether there was one matters all the same to who wants
    /// to know if a command surely never began.
    async fn execute(&self, command: String, deadline: Duration) -> Result<Answered> {
        let seconds = u32::try_from(deadline.as_secs()).unwrap_or(u32::MAX);
        let request = ExecuteRequest { command, timeout: Some(seconds), ..ExecuteRequest::default() };
        let (response, once) = match self.toolbox().execute(&request, deadline, Replay::Never).await {
            Err(error) if is_ambiguous(&error) => {
                (self.toolbox().execute(&request, deadline, Replay::Safe).await, false)
            }
            response => (response, true),
        };
        let response =
            response.map_err(|error| error.with_operation("run a command").with_sandbox(self.name()))?;
        Ok(Answered { exit_code: response.exit_code, text: response.result, once })
    }
}

/// What a shell answered.
struct Answered {
    exit_code: i64,
    text: String,
    /// Whether it was asked only once, as far as we know.
    once: bool,
}

/// Whether a request may have been carried out although no answer came.
fn is_ambiguous(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Transport | ErrorKind::DeadlineExceeded | ErrorKind::Server)
}

/// What an exec is awaited for.
#[derive(Clone, Copy)]
enum Until {
    /// Its end, which comes soon after this timeout.
    Ended(Option<Duration>),
    /// Its being under way.
    Running,
}

/// How an exec ended.
enum Ended {
    Finished(Finished),
    Refused(Refusal),
    /// It has not, and is not waited for.
    Running,
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

/// Kills a command whose exec is dropped, in the background.
struct KillOnDrop(Option<(Sandbox, Call)>);

impl KillOnDrop {
    fn new(sandbox: &Sandbox, call: &Call) -> Self {
        let call = Call { action: Action::Kill, acks: Vec::new(), ..call.clone() };
        Self(Some((sandbox.clone(), call)))
    }

    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some((sandbox, call)) = self.0.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move { sandbox.kill(call).await });
        }
    }
}

/// Refuses what cannot be a command.
fn validate(command: &Command) -> Result<()> {
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
fn start(call: &mut Call, command: Command, upload_path: &str) -> Vec<(String, Bytes)> {
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
fn refused(refusal: Refusal, program: String) -> Result<RawOutcome> {
    let failed = |returncode| {
        let stderr = Stream { tail: format!("{}\n", refusal.message).into_bytes(), truncated: false };
        Ok(RawOutcome { returncode, stdout: Stream::default(), stderr, timed_out: false })
    };
    match refusal.kind {
        RefusalKind::ProgramNotFound => failed(127),
        RefusalKind::WorkingDirectory | RefusalKind::UnknownUser | RefusalKind::System => failed(126),
        RefusalKind::PermissionDenied => Err(Error::new(ErrorKind::PermissionDenied, program)),
        RefusalKind::UserUnsupported => Err(Error::new(ErrorKind::UserUnsupported, refusal.message)),
    }
}

/// Whether a shell said that the shim's file is not there.
///
/// By the status alone: the shim comes last in the script, and whatever an agent makes its shells print must not lead to
/// a second start.
fn shim_is_missing(exit_code: i64) -> bool {
    matches!(exit_code, 126 | 127)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(argv: &[&str]) -> Command {
        Command { argv: argv.iter().map(|text| (*text).to_owned()).collect(), ..Command::default() }
    }

    fn call() -> Call {
        Call {
            id: ExecId::from_bytes([7; 16]),
            wait: WAIT,
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
