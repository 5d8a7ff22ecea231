//! The runner process, and the conversation with it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use nix::sys::socket::{AddressFamily, Shutdown, SockFlag, SockType, shutdown, socketpair};
use tokio::sync::{oneshot, watch};

use super::cgroup::{self, Cgroup};
use super::{Exit, program};
use crate::local::gateway::Gateway;
use crate::local::spec::Access;
use crate::local::wire::{self, Context, Failure, Report, Request};

/// Exit code of a sandbox whose runner has died: that of SIGKILL, which is what has happened to it.
const KILLED: i32 = 137;

/// A runner process. Dropping it closes the socket, which ends the process and its sandboxes.
#[derive(Debug)]
pub(super) struct Connection {
    socket: Arc<OwnedFd>,
    closed: AtomicBool,
    requests: Sender<(Request, Vec<OwnedFd>)>,
    shared: Arc<Mutex<Shared>>,
    ended: watch::Receiver<bool>,
}

/// A report with the file descriptors beside it.
type Answer = (Report, Vec<OwnedFd>);

#[derive(Debug, Default)]
struct Shared {
    /// Why nothing more can be asked.
    dead: Option<Failure>,
    answers: HashMap<u64, oneshot::Sender<Result<Answer, Failure>>>,
    sandboxes: HashMap<u64, Inmate>,
    last_words: String,
}

/// What this side knows of a sandbox that runs.
#[derive(Debug)]
pub(super) struct Inmate {
    id: String,
    /// Whether it was killed, by us or because nobody waits for its start any more.
    doomed: bool,
    exit: watch::Sender<Option<Exit>>,
    cgroup: Cgroup,
    socket: Socket,
    /// Whether it has a network namespace of its own.
    own_network: bool,
    gateway: Option<Gateway>,
}

/// The file of a socket, which outlives its listener.
#[derive(Debug)]
struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        // one that was never made needs no removal
        let _ = std::fs::remove_file(&self.0);
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // every change is a single insertion or removal, so what a panic leaves is whole
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn doom(shared: &Mutex<Shared>, number: u64) {
    if let Some(inmate) = lock(shared).sandboxes.get_mut(&number) {
        inmate.doomed = true;
    }
}

/// Has a sandbox killed, and what is frozen in it thawed, since it could not die.
fn kill(shared: &Arc<Mutex<Shared>>, requests: &Sender<(Request, Vec<OwnedFd>)>, number: u64) {
    // a closed channel means a dead runner, which has taken its sandboxes along
    let _ = requests.send((Request::Kill { number }, Vec::new()));
    let freezer = lock(shared).sandboxes.get(&number).and_then(|inmate| inmate.cgroup.freezer());
    let Some(freezer) = freezer else { return };
    let shared = Arc::clone(shared);
    let lives = move || lock(&shared).sandboxes.contains_key(&number);
    let thaw = move || cgroup::thaw_while(lives, &freezer);
    if let Err(error) = thread::Builder::new().name("thaw".into()).spawn(thaw) {
        tracing::warn!("cannot thaw what may be frozen in a sandbox: {error}");
    }
}

impl Connection {
    /// Starts the runner program.
    pub(super) fn open(directory: &Path) -> Result<Self, Failure> {
        let (near, far) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .step(|| "make a socket".into())?;
        let near = Arc::new(near);
        let shared = Arc::new(Mutex::new(Shared::default()));
        let (requests, outbox) = channel();
        let (ended_sender, ended) = watch::channel(false);
        let (started_sender, started) = channel();
        let socket = Arc::clone(&near);
        let (reader, state, replies) = (Arc::clone(&near), Arc::clone(&shared), requests.clone());
        let directory = directory.to_owned();
        // The kernel kills the runner when the thread that started it ends, so that thread is the one which listens
        // to it to the end.
        let run = move || {
            let mut child = match program::start(&far, &directory) {
                Ok(child) => {
                    // the runner's copy is to be the only one, so that its end is seen
                    drop(far);
                    child
                }
                Err(failure) => return drop(started_sender.send(Err(failure))),
            };
            let words = child.stderr.take().map(|stderr| collect(stderr, Arc::clone(&state)));
            let _ = started_sender.send(Ok(()));
            listen(&reader, &state, &replies);
            bury(&mut child, words, &state);
            let _ = ended_sender.send(true);
        };
        thread::Builder::new().name("runner-reader".into()).spawn(run).step(|| "start a thread".into())?;
        started.recv().unwrap_or_else(|_| Err(Failure::new("start the runner", "its thread ended")))?;
        thread::Builder::new()
            .name("runner-writer".into())
            .spawn(move || write(&near, &outbox))
            .step(|| "start a thread".into())?;
        Ok(Self { socket, closed: AtomicBool::new(false), requests, shared, ended })
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask(
        &self,
        number: u64,
        request: Request,
        beside: Vec<OwnedFd>,
    ) -> Result<Answer, Failure> {
        let (sender, answer) = oneshot::channel();
        {
            let mut shared = lock(&self.shared);
            if let Some(failure) = &shared.dead {
                return Err(failure.clone());
            }
            shared.answers.insert(number, sender);
        }
        self.tell(request, beside);
        answer.await.unwrap_or_else(|_| Err(Failure::new("ask the runner", "it has ended")))
    }

    /// Says something that has no answer.
    pub(super) fn tell(&self, request: Request, beside: Vec<OwnedFd>) {
        // a closed channel means a dead runner, of which everybody who waits has been told
        let _ = self.requests.send((request, beside));
    }

    /// Expects news of the end of a sandbox about to be started.
    pub(super) fn expect(&self, number: u64, inmate: Inmate) -> watch::Receiver<Option<Exit>> {
        let receiver = inmate.exit.subscribe();
        lock(&self.shared).sandboxes.insert(number, inmate);
        receiver
    }

    /// The end of the sandbox with this id that runs or starts, and whether it is near.
    pub(super) fn find(&self, id: &str) -> Option<(watch::Receiver<Option<Exit>>, bool)> {
        let shared = lock(&self.shared);
        let inmate = shared.sandboxes.values().find(|inmate| inmate.id == id)?;
        Some((inmate.exit.subscribe(), inmate.doomed))
    }

    /// Gives a sandbox its gateway, or takes it away. Returns the former one, and one that came too late.
    pub(super) fn set_gateway(&self, number: u64, gateway: Option<Gateway>) -> Option<Gateway> {
        match lock(&self.shared).sandboxes.get_mut(&number) {
            Some(inmate) => std::mem::replace(&mut inmate.gateway, gateway),
            None => gateway,
        }
    }

    /// The number of the start of the sandbox with this id, and whether its network can change; `None` unless it runs.
    pub(super) fn network(&self, id: &str) -> Option<(u64, bool)> {
        let shared = lock(&self.shared);
        let (number, inmate) = shared.sandboxes.iter().find(|(_, inmate)| inmate.id == id)?;
        Some((*number, inmate.own_network))
    }

    /// Changes what the gateway of a sandbox lets through; `false` if it has none.
    pub(super) fn allow(&self, number: u64, access: &Access) -> bool {
        let shared = lock(&self.shared);
        let gateway = shared.sandboxes.get(&number).and_then(|inmate| inmate.gateway.as_ref());
        gateway.map(|gateway| gateway.allow(access.clone())).is_some()
    }

    /// Notes that a sandbox ends as soon as it has started.
    pub(super) fn doom(&self, number: u64) {
        doom(&self.shared, number);
    }

    /// Expects nothing any more of a sandbox that did not start.
    pub(super) fn give_up(&self, number: u64) {
        let inmate = {
            let mut shared = lock(&self.shared);
            shared.answers.remove(&number);
            shared.sandboxes.remove(&number)
        };
        if let Some(inmate) = inmate {
            inmate.end(KILLED);
        }
    }

    /// A function that kills a sandbox.
    pub(super) fn killer(&self, number: u64) -> impl Fn() + Send + Sync + use<> {
        let requests = Mutex::new(self.requests.clone());
        let shared = Arc::clone(&self.shared);
        move || {
            doom(&shared, number);
            kill(&shared, &requests.lock().unwrap_or_else(PoisonError::into_inner), number);
        }
    }

    /// Kills a sandbox.
    pub(super) fn kill(&self, number: u64) {
        kill(&self.shared, &self.requests, number);
    }

    /// The ends of all sandboxes that run.
    pub(super) fn exits(&self) -> Vec<(u64, watch::Receiver<Option<Exit>>)> {
        lock(&self.shared)
            .sandboxes
            .iter()
            .map(|(number, inmate)| (*number, inmate.exit.subscribe()))
            .collect()
    }

    /// Whether the runner was ended by us.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Ends the runner, which ends every sandbox.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        // already closed is as good
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Write);
    }

    /// Becomes true when the runner has ended and everybody has been told.
    pub(super) fn ended(&self) -> watch::Receiver<bool> {
        self.ended.clone()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}

/// Sends what is asked, in order; blocks where the runner does not keep up.
fn write(socket: &OwnedFd, outbox: &Receiver<(Request, Vec<OwnedFd>)>) {
    for (request, beside) in outbox {
        let beside: Vec<_> = beside.iter().map(AsFd::as_fd).collect();
        if let Err(error) = wire::send(socket.as_fd(), &request, &beside) {
            // the reader sees the same end, and tells everybody
            tracing::debug!("the runner does not listen any more: {error}");
            return;
        }
    }
}

/// Reads until the runner closes its end.
fn listen(socket: &OwnedFd, shared: &Arc<Mutex<Shared>>, requests: &Sender<(Request, Vec<OwnedFd>)>) {
    loop {
        match wire::receive::<Report>(socket.as_fd()) {
            Ok(Some((report, beside))) => dispatch(report, beside, shared, requests),
            Ok(None) => return,
            Err(error) => {
                tracing::error!("the runner cannot be understood: {error}");
                let _ = shutdown(socket.as_raw_fd(), Shutdown::Both);
                return;
            }
        }
    }
}

fn dispatch(
    report: Report,
    beside: Vec<OwnedFd>,
    shared: &Arc<Mutex<Shared>>,
    requests: &Sender<(Request, Vec<OwnedFd>)>,
) {
    match report {
        Report::Exited { number, code } => {
            if let Some(inmate) = lock(shared).sandboxes.remove(&number) {
                inmate.end(code);
            }
        }
        Report::Failed { number, failure } => {
            let (answer, inmate) = {
                let mut shared = lock(shared);
                (shared.answers.remove(&number), shared.sandboxes.remove(&number))
            };
            if let Some(inmate) = inmate {
                inmate.end(KILLED);
            }
            if let Some(answer) = answer {
                let _ = answer.send(Err(failure));
            }
        }
        Report::Ready { .. } => answer(0, (report, beside), shared, requests),
        Report::Started { number } | Report::Removed { number } | Report::Connected { number } => {
            answer(number, (report, beside), shared, requests);
        }
    }
}

fn answer(
    number: u64,
    answer: Answer,
    shared: &Arc<Mutex<Shared>>,
    requests: &Sender<(Request, Vec<OwnedFd>)>,
) {
    let waiting = lock(shared).answers.remove(&number);
    let heard = waiting.is_some_and(|waiting| waiting.send(Ok(answer)).is_ok());
    if !heard {
        // whoever asked for the sandbox has gone; a removal has no process, so this does nothing then
        kill(shared, requests, number);
    }
}

impl Inmate {
    /// One whose toolbox is to serve at `socket`, which is removed with it.
    pub(super) fn new(id: String, cgroup: Cgroup, socket: PathBuf, own_network: bool) -> Self {
        let (exit, socket) = (watch::Sender::new(None), Socket(socket));
        Self { id, doomed: false, exit, cgroup, socket, own_network, gateway: None }
    }

    fn end(self, code: i32) {
        let out_of_memory = self.cgroup.is_out_of_memory();
        if let Err(error) = self.cgroup.remove() {
            tracing::warn!("cannot remove the cgroup of a sandbox: {error}");
        }
        drop((self.socket, self.gateway));
        self.exit.send_replace(Some(Exit { code, out_of_memory }));
    }
}

/// Waits for the runner's end and tells everybody.
fn bury(child: &mut Child, words: Option<thread::JoinHandle<()>>, shared: &Mutex<Shared>) {
    let status = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
    if let Some(words) = words {
        let _ = words.join();
    }
    let (answers, sandboxes) = {
        let mut shared = lock(shared);
        let words = std::mem::take(&mut shared.last_words);
        let failure =
            Failure::new("ask the runner", format!("it has ended ({status}) {words}").trim().to_owned());
        shared.dead = Some(failure.clone());
        let answers: Vec<_> = shared.answers.drain().map(|(_, answer)| (answer, failure.clone())).collect();
        (answers, std::mem::take(&mut shared.sandboxes))
    };
    for (answer, failure) in answers {
        let _ = answer.send(Err(failure));
    }
    for inmate in sandboxes.into_values() {
        inmate.end(KILLED);
    }
}

/// Logs what the runner writes to its standard error, which is nothing unless it crashes.
fn collect(stderr: ChildStderr, shared: Arc<Mutex<Shared>>) -> thread::JoinHandle<()> {
    const LONGEST_LINE: u64 = 4096;
    thread::spawn(move || {
        let mut lines = BufReader::new(stderr);
        loop {
            let mut line = Vec::new();
            match (&mut lines).take(LONGEST_LINE).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {
                    let line = String::from_utf8_lossy(&line).trim().to_owned();
                    tracing::warn!("runner: {line}");
                    lock(&shared).last_words = line;
                }
            }
        }
    })
}
