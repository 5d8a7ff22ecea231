//! The answer loop: a call is sent until its result is here.

use std::time::Duration;

use bytes::Bytes;

use super::WAIT;
use super::command::LACKING_HINT;
use super::kill::KillOnDrop;
use crate::api::toolbox::ExecuteRequest;
use crate::client::Replay;
use crate::error::{Error, ErrorKind, Result};
use crate::provider::sandbox::{SHIM_PLACES, Sandbox};
use crate::shim::protocol::{Action, Call, ExecId, Finished, Kept, Refusal, RefusalKind, Reply, find_reply};

/// What one request may take beyond its wait before it counts as lost.
pub(super) const REQUEST_MARGIN: Duration = Duration::from_secs(30);
/// The largest call that travels inside the script: some shells read a script one byte at a time, at about 3 MB/s.
const INLINE_CALL: usize = 96 * 1024;
/// Answers without a reply in a row before the sandbox counts as broken.
const UNANSWERED: u32 = 4;
/// For how long nothing but answers without a reply may come about a command that is known to run: it needs none to go on,
/// and may be the very one that uses up the sandbox's processes or memory.
const UNANSWERED_WHILE_IT_RUNS: Duration = Duration::from_secs(90);
/// The wait after an answer without a reply, times how many there were in a row, and the longest one.
const UNANSWERED_PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
/// What a command's timeout may be exceeded by (grace, kill, drain) before its exec counts as lost.
const TIMEOUT_MARGIN: Duration = Duration::from_secs(60);

impl Sandbox {
    /// Sends a start call until its result is here.
    pub(super) async fn run(
        &self,
        mut call: Call,
        uploads: Vec<(String, Bytes)>,
        until: Until,
    ) -> Result<Ended> {
        let user = call.user.clone();
        let mut acks = Acks::take(self, user.as_deref());
        call.acks.clone_from(&acks.ids);
        let result = self.run_acknowledging(&call, uploads, until).await;
        if result.is_ok() {
            acks.ids.clear();
        }
        if let Ok(Ended::Finished(_) | Ended::Refused(_)) = &result {
            self.push_ack(user.as_deref(), call.id);
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
        let limit = output_limit(call);
        let call_path = format!("{}.call", self.upload_path(call.id));
        if !inline {
            uploads.push((call_path.clone(), Bytes::from(encoded)));
        }
        // armed before anything is sent: whatever arrives, a dropped future ends it
        let killer = KillOnDrop::new(self, call, uploads.iter().map(|(path, _)| path.clone()).collect());
        if !uploads.is_empty() {
            self.upload_all(&uploads).await?;
        }
        // one exec stays with one shim, whose state knows it
        let mut shim = self.shim();
        let mut attaching = matches!(call.action, Action::Attach);
        let mut unanswered = 0;
        let mut unanswered_since = None;
        let mut replaced = 0;
        loop {
            let text = match (attaching, inline) {
                (true, _) => self.script(&shim, limit, &call.attach()),
                (false, true) => self.script(&shim, limit, call),
                (false, false) => self.script_for_file(&shim, limit, &call_path, call),
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
                    unanswered_since = None;
                    replaced = 0;
                    if let (None, Until::Ended(Some(timeout))) = (deadline, &until) {
                        deadline = Some(tokio::time::Instant::now() + *timeout + TIMEOUT_MARGIN);
                    }
                }
                Some(Reply::Finished(finished)) => {
                    let finished = self.fetch(finished, call.user.as_deref()).await?;
                    killer.disarm();
                    return Ok(Ended::Finished(finished));
                }
                Some(Reply::Refused(refusal)) if refusal.kind == RefusalKind::Unavailable => {
                    // the killer stays armed: whether it ran before is not known
                    return Err(self.unavailable(refusal.message));
                }
                Some(Reply::Refused(refusal)) if refusal.kind != RefusalKind::System => {
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
                // a failure that says nothing of the command is no answer either
                None | Some(Reply::Refused(_)) => {
                    unanswered += 1;
                    let since = *unanswered_since.get_or_insert_with(tokio::time::Instant::now);
                    let patient = attaching && since.elapsed() < UNANSWERED_WHILE_IT_RUNS;
                    if unanswered >= UNANSWERED && !patient {
                        if let Some(Reply::Refused(refusal)) = reply {
                            return Err(self.unavailable(refusal.message).with_hint(LACKING_HINT));
                        }
                        return Err(self.broken(response.exit_code, &response.text).await);
                    }
                    // Only an exec that certainly never began may begin with a new shim, whose state is empty. What is
                    // known about one in a container is not with this shim; and one that runs is only asked about,
                    // and answers any shim.
                    let never_began = !attaching && unanswered == 1 && response.once;
                    let harmless = never_began || attaching || self.container().is_some();
                    if harmless && shim_is_missing(response.exit_code) {
                        shim = self.replace_shim(&shim).await?;
                        unanswered = 0;
                        replaced += 1;
                        if replaced > SHIM_PLACES.len() {
                            return Err(self.broken(response.exit_code, &response.text).await);
                        }
                        if !uploads.is_empty() && !attaching {
                            self.upload_all(&uploads).await?;
                        }
                    } else {
                        // a sandbox that is out of processes or memory for a moment gets over it
                        tokio::time::sleep((UNANSWERED_PAUSE.0 * unanswered).min(UNANSWERED_PAUSE.1)).await;
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

    /// One execute request. The shim makes repeats harmless; whether there was one matters all the same to who wants
    /// to know if a command surely never began.
    pub(super) async fn execute(&self, command: String, deadline: Duration) -> Result<Answered> {
        let seconds = u32::try_from(deadline.as_secs()).unwrap_or(u32::MAX);
        let request = ExecuteRequest { command, timeout: Some(seconds), ..ExecuteRequest::default() };
        let (response, once) = match self.toolbox().execute(&request, deadline, Replay::Never).await {
            Err(error) if is_ambiguous(&error) => {
                (self.toolbox().execute(&request, deadline, Replay::Safe).await, false)
            }
            response => (response, true),
        };
        let response =
            response.map_err(|error| error.with_operation("run a command").with_sandbox(self.label()))?;
        Ok(Answered { exit_code: response.exit_code, text: response.result, once })
    }
}

/// Acknowledgements that ride on a call; on the next one again unless this one is answered, also if it is dropped.
struct Acks<'sandbox> {
    sandbox: &'sandbox Sandbox,
    user: Option<&'sandbox str>,
    ids: Vec<ExecId>,
}

impl<'sandbox> Acks<'sandbox> {
    fn take(sandbox: &'sandbox Sandbox, user: Option<&'sandbox str>) -> Self {
        Self { sandbox, user, ids: sandbox.take_acks(user) }
    }
}

impl Drop for Acks<'_> {
    fn drop(&mut self) {
        for id in self.ids.drain(..) {
            self.sandbox.push_ack(self.user, id);
        }
    }
}

/// The most that a call's outputs may hold; unknown for one that only asks.
fn output_limit(call: &Call) -> u64 {
    match &call.action {
        Action::Start(start) => start.output_limit,
        Action::Read(read) => read.limit,
        Action::Attach | Action::Kill => 0,
    }
}

/// What a shell answered.
pub(super) struct Answered {
    pub(super) exit_code: i64,
    pub(super) text: String,
    /// Whether it was asked only once, as far as we know.
    once: bool,
}

/// Whether a request may have been carried out although no answer came.
fn is_ambiguous(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Transport | ErrorKind::DeadlineExceeded | ErrorKind::Server)
}

/// What an exec is awaited for.
#[derive(Clone, Copy)]
pub(super) enum Until {
    /// Its end, which comes soon after this timeout.
    Ended(Option<Duration>),
    /// Its being under way.
    Running,
}

/// How an exec ended.
pub(super) enum Ended {
    Finished(Finished),
    Refused(Refusal),
    /// It has not, and is not waited for.
    Running,
}

/// Whether a shell said that the shim's file is not there.
///
/// By the status alone: the shim comes last in the script, and whatever an agent makes its shells print must not lead to
/// a second start.
pub(super) fn shim_is_missing(exit_code: i64) -> bool {
    matches!(exit_code, 126 | 127)
}
