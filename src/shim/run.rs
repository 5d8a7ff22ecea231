//! One call, from its reading to its answer.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::environment::{self, Variables};
use super::launch::{failed, lacking, system_refusal};
use super::program::{complain, own_path, say};
use super::protocol::{self, Action, Call, ExecId, Refusal, RefusalKind, Reply, Start};
use super::state::{Claim, State};
use super::sudo;
use super::supervisor::{self, Order};
use super::system;
use super::tree::{Termination, Tree};
use super::user::Identity;
use super::waiters::{KILL, WAIT};

/// How much longer than asked for a call may take before the kernel ends it, whatever it is stuck in: no answer makes
/// the provider ask again, while a stuck one would hold its connection.
pub(super) const SLACK: Duration = Duration::from_secs(60);
/// How long the rest of a reply may take once it began to arrive.
const TRANSFER: Duration = Duration::from_secs(10);

/// How the call reaches this process.
pub(super) enum Delivery {
    /// On standard input, in base64.
    Script,
    /// In a file; standard input has the call to make when that was consumed before.
    File(PathBuf),
    /// From a shim of the toolbox's user, which also names its working directory.
    Sudo(Option<PathBuf>),
}

/// Answers one call.
pub(super) fn run(delivery: &Delivery) -> ExitCode {
    answer(delivery, |call, is_repeat| match Runner::new(delivery) {
        Ok(runner) => runner.answer(call, is_repeat),
        Err(refusal) => Ok(Reply::Refused(refusal)),
    })
}

/// Reads the call of `delivery` and prints the reply that `with` gives, or the message why there is none.
pub(super) fn answer(
    delivery: &Delivery,
    with: impl FnOnce(Call, bool) -> Result<Reply, String>,
) -> ExitCode {
    let mut text = Vec::new();
    let payload = io::stdin().read_to_end(&mut text).ok().and_then(|_| protocol::read_payload(&text));
    let Some(payload) = payload else { return complain(65, "the call is no base64 text") };
    let Some(id) = Call::id_of(&payload) else { return complain(65, "the call is too short") };
    let reply = match read_call(payload, id, delivery) {
        Ok((call, is_repeat)) => {
            system::end_after(call.wait.saturating_add(SLACK));
            with(call, is_repeat)
        }
        Err(refusal) => Ok(Reply::Refused(refusal)),
    };
    match reply {
        Ok(reply) => say(&reply.frame(id)),
        Err(message) => complain(1, &message),
    }
}

/// Reads the call, and whether it is one to attach because the file that starts was consumed.
fn read_call(payload: Vec<u8>, id: ExecId, delivery: &Delivery) -> Result<(Call, bool), Refusal> {
    let (record, is_repeat) = match delivery {
        Delivery::File(file) => match fs::read(file) {
            Ok(record) => (record, false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (payload, true),
            Err(error) => return Err(failed(&format!("the uploaded call {}", file.display()), &error)),
        },
        Delivery::Script | Delivery::Sudo(_) => (payload, false),
    };
    let call = Call::decode(&record)
        .map_err(|error| system_refusal(format!("the shim cannot read the call: {error}")))?;
    if call.id != id {
        return Err(system_refusal(format!("the uploaded call is another one: {}", call.id)));
    }
    Ok((call, is_repeat))
}

struct Runner<'delivery> {
    delivery: &'delivery Delivery,
    shim: PathBuf,
}

impl<'delivery> Runner<'delivery> {
    fn new(delivery: &'delivery Delivery) -> Result<Self, Refusal> {
        if let Delivery::Sudo(Some(directory)) = delivery {
            std::env::set_current_dir(directory).map_err(|error| {
                failed(&format!("the toolbox's working directory {}", directory.display()), &error)
            })?;
        }
        let shim = own_path().map_err(|error| failed("the path of its shim", &error))?;
        Ok(Self { delivery, shim })
    }

    fn is_under_sudo(&self) -> bool {
        matches!(self.delivery, Delivery::Sudo(_))
    }

    /// The reply; the message where there is none, so that whoever asks may ask again.
    fn answer(&self, call: Call, is_repeat: bool) -> Result<Reply, String> {
        let state = State::open(&self.shim, self.reader());
        if let Ok(state) = &state {
            state.acknowledge_for_reader(&self.shim);
            state.acknowledge(&call.acks);
        }
        match self.needs_sudo(call.user.as_deref()) {
            Ok(false) => {}
            Ok(true) => {
                let reply = sudo::run(&call, &self.shim)?;
                self.consume_call();
                return Ok(reply);
            }
            Err(refusal) => return Ok(Reply::Refused(refusal)),
        }
        let state = match state {
            Ok(state) => state,
            Err(error) => {
                let place = self.shim.parent().unwrap_or(Path::new("/")).display();
                return Ok(Reply::Refused(failed(&format!("room for the shim's state in {place}"), &error)));
            }
        };
        // What sudo leaves of an environment is not the toolbox's, which is in the call instead.
        let base = if self.is_under_sudo() { Vec::new() } else { environment::of_the_toolbox() };
        Ok(perform(call, state, Means { base, input: None, is_repeat, claimed: &|| self.consume_call() }))
    }

    /// Who asked through sudo; sudo itself says so.
    fn reader(&self) -> Option<u32> {
        let user = || std::env::var("SUDO_UID").ok()?.parse().ok();
        if self.is_under_sudo() { user() } else { None }
    }

    fn needs_sudo(&self, user: Option<&str>) -> Result<bool, Refusal> {
        let Some(user) = user.filter(|_| system::effective_user() != 0) else { return Ok(false) };
        if self.is_under_sudo() {
            let message = format!(
                "the sandbox cannot run commands as user {user}: sudo does not make its toolbox root"
            );
            return Err(Refusal { kind: RefusalKind::UserUnsupported, message });
        }
        Ok(!Identity::look_up(user).is_ok_and(|identity| identity.is_current()))
    }

    /// Deletes the uploaded call, which was claimed.
    fn consume_call(&self) {
        if let Delivery::File(file) = self.delivery {
            drop(fs::remove_file(file));
        }
    }
}

/// What a call is answered with.
pub(super) struct Means<'delivery> {
    /// The environment that a command's is added to.
    pub(super) base: Variables,
    /// The input of a command, where it came as a descriptor.
    pub(super) input: Option<File>,
    /// The call is one to attach because the file that starts was consumed.
    pub(super) is_repeat: bool,
    /// Told once the exec is known to be claimed.
    pub(super) claimed: &'delivery dyn Fn(),
}

/// Does what `call` asks for, in `state`.
pub(super) fn perform(call: Call, state: State, means: Means<'_>) -> Reply {
    let Call { id, wait, user, action, .. } = call;
    let exec = Exec { id, state, deadline: Instant::now().checked_add(wait) };
    match action {
        Action::Start(start) => exec.start(*start, user, means),
        Action::Kill => exec.kill(),
        Action::Attach if means.is_repeat && !exec.state.is_claimed(id) && !exec.state.is_buried(id) => {
            Reply::Refused(system_refusal("the uploaded call is missing, so the command was not started"))
        }
        Action::Attach => exec.wait(WAIT),
        Action::Read(_) => Reply::Refused(system_refusal("only a shim in a container reads files by a call")),
    }
}

/// One exec as this process sees it.
struct Exec {
    id: ExecId,
    state: State,
    /// When the answer is due; `None` is beyond what clocks can tell.
    deadline: Option<Instant>,
}

impl Exec {
    fn start(&self, start: Start, user: Option<String>, means: Means<'_>) -> Reply {
        match self.state.claim(self.id) {
            Ok(Claim::Taken) => {
                (means.claimed)();
                self.wait(WAIT)
            }
            Ok(Claim::Buried) => {
                (means.claimed)();
                Reply::Collected
            }
            Ok(Claim::Won(listener)) => {
                let Means { base, input, claimed, .. } = means;
                let state = self.state.clone();
                let order = Order { id: self.id, state, listener, start, user, base, input };
                let detached = system::detach(|| supervisor::supervise(order));
                claimed();
                match detached {
                    Ok(()) => self.wait(WAIT),
                    Err(error) => self.refuse(lacking("a process for the command's supervisor", &error)),
                }
            }
            Err(error) => Reply::Refused(failed("room for the state of the command", &error)),
        }
    }

    /// Waits for the result and makes the `request` of its supervisor.
    fn wait(&self, request: u8) -> Reply {
        let stored = || self.state.result(self.id);
        stored().or_else(|| self.ask(request)).or_else(stored).unwrap_or_else(|| self.absent())
    }

    /// Why there is neither a result nor anybody who could tell it.
    fn absent(&self) -> Reply {
        if self.state.is_claimed(self.id) {
            Reply::Lost("the process that held the command's result is gone".into())
        } else if self.state.is_buried(self.id) {
            Reply::Collected
        } else {
            Reply::Lost("no such command was started here, or what was known about it was deleted".into())
        }
    }

    /// Asks the supervisor; `None` if there is none, or it died.
    fn ask(&self, request: u8) -> Option<Reply> {
        let mut stream = self.state.connect(self.id).ok()?;
        stream.write_all(&[request]).ok()?;
        let mut record = Vec::new();
        let mut buffer = vec![0; 0x1_0000];
        let mut deadline = self.deadline;
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            // Zero would mean no limit.
            stream.set_read_timeout(left.map(|left| left.max(Duration::from_millis(1)))).ok()?;
            match stream.read(&mut buffer) {
                Ok(0) => return Reply::decode(&record).ok(),
                Ok(count) => {
                    if record.is_empty() {
                        deadline = Instant::now().checked_add(TRANSFER);
                    }
                    record.extend_from_slice(&buffer[..count]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Some(Reply::Pending),
                // The supervisor closed its socket before it saw the connection.
                Err(_) => return None,
            }
        }
    }

    fn kill(&self) -> Reply {
        if !self.state.is_claimed(self.id) {
            if let Err(error) = self.state.bury(self.id) {
                return Reply::Refused(failed("room for the state of the command", &error));
            }
            // A start may have claimed it meanwhile, and either sees the other.
            if !self.state.is_claimed(self.id) {
                return Reply::Collected;
            }
        }
        let reply = self.wait(KILL);
        if matches!(reply, Reply::Lost(_)) {
            Termination::begin(Tree::without_supervisor(self.id)).finish();
        }
        reply
    }

    /// Refuses a command that was claimed, for every delivery alike; where that cannot be kept, for this one.
    fn refuse(&self, refusal: Refusal) -> Reply {
        let reply = Reply::Refused(refusal.clone());
        if self.state.store_result(self.id, &reply.encode()).is_ok() {
            return reply;
        }
        drop(self.state.remove(self.id));
        Reply::Refused(system_refusal(refusal.message))
    }
}
