//! The detached process behind one command: starts it, holds its streams, waits for its end, hands the result over.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use super::environment::{self, Variables};
use super::launch::{Launch, failed, lacking, system_refusal};
use super::protocol::{End, ExecId, Finished, Kept, Output, Refusal, Reply, Start, Stdin};
use super::state::{State, listen_without_file};
use super::stream::{Feed, Input, OutputStream, Ring};
use super::system::{self, Pid, Watched};
use super::tree::{Termination, Tree};
use super::user::Identity;
use super::waiters::{Requests, Waiters};

/// After the end of the command: how long its silent streams are still listened to if somebody holds them.
const QUIET: Duration = Duration::from_millis(100);
/// The same if they are not silent.
const DRAIN: Duration = Duration::from_millis(300);
/// How long a waiter may take to read a result that is in a file as well.
const DELIVERY: Duration = Duration::from_secs(10);
/// How long a result is served that could not be written to a file, because the disk is full.
const MEMORY: Duration = Duration::from_secs(600);

/// What a supervisor is started with.
pub(super) struct Order {
    /// The exec that was claimed.
    pub(super) id: ExecId,
    /// Where its claim is.
    pub(super) state: State,
    /// Where waiters connect.
    pub(super) listener: UnixListener,
    /// The command.
    pub(super) start: Start,
    /// Who runs it.
    pub(super) user: Option<String>,
    /// The environment that the call adds to.
    pub(super) base: Variables,
    /// The input, where it came as a descriptor.
    pub(super) input: Option<File>,
}

/// Runs the command of `order` to its end, as a process that was just detached.
pub(super) fn supervise(order: Order) {
    let Order { id, state, listener, mut start, user, base, input } = order;
    let kept: Vec<_> = [listener.as_fd()].into_iter().chain(input.as_ref().map(AsFd::as_fd)).collect();
    system::close_all_but(&kept);
    system::ignore(&[libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGPIPE, libc::SIGTSTP]);
    system::become_subreaper();
    let prepared = system::let_go_of_streams()
        .and_then(|signals| Ok((signals, Waiters::new(listener, listen_without_file(id).ok())?)));
    if let Ok((signals, waiters)) = prepared {
        let mut supervisor = Supervisor {
            id,
            state,
            signals,
            waiters,
            feed: None,
            outputs: Vec::new(),
            command: None,
            ended: None,
        };
        let reply = match supervisor.begin(&mut start, input, user.as_deref(), base) {
            Ok(command) => {
                supervisor.command = Some(command);
                supervisor.watch(&start)
            }
            Err(refusal) => Reply::Refused(refusal),
        };
        drop(start);
        supervisor.deliver(&reply);
    } else if let Err(error) = prepared {
        let reply = Reply::Refused(failed("a supervisor for the command", &error));
        drop(state.store_result(id, &reply.encode()));
    }
}

struct Supervisor {
    id: ExecId,
    state: State,
    signals: File,
    waiters: Waiters,
    feed: Option<Feed>,
    outputs: Vec<OutputStream>,
    command: Option<Pid>,
    ended: Option<End>,
}

impl Supervisor {
    fn begin(
        &mut self,
        start: &mut Start,
        input: Option<File>,
        user: Option<&str>,
        base: Variables,
    ) -> Result<Pid, Refusal> {
        let identity = user.map(Identity::look_up).transpose()?;
        let (stdin, feed) = match input {
            Some(input) => (Input::File(input), None),
            None => open_input(&mut start.stdin)?,
        };
        let pipe = || io::pipe().map_err(|error| lacking("a pipe", &error));
        let ((stdout, stdout_end), (stderr, stderr_end)) = (pipe()?, pipe()?);
        for reader in [stdout, stderr] {
            self.outputs.push(
                OutputStream::new(reader, start.output_limit).map_err(|error| lacking("a pipe", &error))?,
            );
        }
        let variables =
            environment::for_command(self.id, base, identity.as_ref(), &start.env, start.cwd.is_some());
        let command = Launch {
            argv: &start.argv,
            variables,
            cwd: start.cwd.as_deref(),
            identity: identity.as_ref(),
            stdin,
            outputs: [stdout_end, stderr_end],
        };
        let command = command.start()?;
        self.feed = feed;
        // The command is where it should be; nothing else needs to stay mounted for this process.
        drop(std::env::set_current_dir("/"));
        Ok(command)
    }

    /// Follows the command to its end.
    fn watch(&mut self, start: &Start) -> Reply {
        let deadline = start.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut termination: Option<Termination> = None;
        let (mut timed_out, mut killed) = (false, false);
        while self.ended.is_none() || termination.is_some() {
            let next = termination.as_ref().map(Termination::next).or(deadline);
            let (requests, _) = self.turn(next);
            if let Some(running) = &mut termination {
                if running.step() {
                    break;
                }
            } else if self.ended.is_none() {
                killed = requests.kill;
                timed_out = !killed && deadline.is_some_and(|deadline| Instant::now() >= deadline);
                if killed || timed_out {
                    let session = self.command.unwrap_or_default();
                    termination = Some(Termination::begin(Tree::of_command(self.id, session)));
                }
            }
        }
        self.drain();
        // A process that a kill cannot end is stuck in the kernel; the signal is on its way.
        let end = self.ended.unwrap_or(End::Signaled(9));
        let [stdout, stderr] = self.collect(start.inline_limit);
        Reply::Finished(Finished { end, timed_out, killed, stdout, stderr })
    }

    /// Takes what the command left in its streams, without waiting for those who inherited them.
    fn drain(&mut self) {
        self.feed = None;
        let ended = Instant::now();
        let mut last = ended;
        while self.is_held() {
            let until = (last + QUIET).min(ended + DRAIN);
            let (_, any) = self.turn(Some(until));
            let now = Instant::now();
            if any {
                last = now;
            } else if now >= until {
                break;
            }
            if now >= ended + DRAIN {
                break;
            }
        }
    }

    fn is_held(&self) -> bool {
        self.outputs.iter().any(|output| output.pipe().is_some())
    }

    /// Waits for something to happen, at most until `until`, and does it. Returns what waiters want, and whether the
    /// command wrote something.
    fn turn(&mut self, until: Option<Instant>) -> (Requests, bool) {
        let mut watched = vec![Watched::input(&self.signals)];
        watched.extend(self.outputs.iter().filter_map(OutputStream::pipe).map(Watched::input));
        watched.extend(self.feed.iter().map(|feed| Watched::output(feed.pipe())));
        self.waiters.watch(&mut watched);
        let timeout = until.map(|until| until.saturating_duration_since(Instant::now()));
        if system::poll(&mut watched, timeout).is_err() {
            // Out of memory for the call; it may pass.
            std::thread::sleep(QUIET);
        }
        let mut signal = [0; 512];
        while self.signals.read(&mut signal).is_ok_and(|count| count > 0) {}
        while let Some((pid, end)) = system::reap() {
            if Some(pid) == self.command {
                self.ended = Some(end);
            }
        }
        let mut any = false;
        for output in &mut self.outputs {
            any |= output.read_available();
        }
        if self.feed.as_mut().is_some_and(|feed| !feed.write_available()) {
            self.feed = None;
        }
        (self.waiters.attend(), any)
    }

    /// Takes the outputs: within `limit` into the reply, the rest into files.
    fn collect(&mut self, limit: u64) -> [Output; 2] {
        let mut rings = self.outputs.iter_mut().map(|output| output.ring.take());
        let mut next = || rings.next().flatten().unwrap_or_else(|| Ring::new(0));
        let (stdout, stderr) = (next(), next());
        let (stdout_len, stderr_len) = (stdout.len() as u64, stderr.len() as u64);
        let both = stdout_len + stderr_len <= limit;
        // A small stream next to a large one stays in the reply.
        let stdout_inline = both || (stdout_len <= limit && stdout_len < stderr_len);
        let stderr_inline = both || (stderr_len <= limit && !stdout_inline);
        [self.keep("stdout", &stdout, stdout_inline), self.keep("stderr", &stderr, stderr_inline)]
    }

    fn keep(&self, name: &str, ring: &Ring, inline: bool) -> Output {
        let parts = ring.parts();
        let stored = if inline { None } else { self.state.store_output(self.id, name, parts).ok() };
        let kept = match stored {
            Some(path) => Kept::File { path: path.into_os_string().into_vec(), len: ring.len() as u64 },
            // Also if the disk is full: a large reply is better than none.
            None => Kept::Inline([parts.0, parts.1].concat()),
        };
        Output { total: ring.total(), kept }
    }

    /// Stores the result, tells everybody, and stays for what is left to do.
    fn deliver(mut self, reply: &Reply) {
        let record = reply.encode();
        let stored = self.state.store_result(self.id, &record).is_ok();
        self.waiters.answer(record);
        let until = Instant::now() + if stored { DELIVERY } else { MEMORY };
        let mut requests = self.waiters.attend();
        loop {
            if !stored && requests.collected {
                drop(self.state.remove(self.id));
                break;
            }
            if (stored && self.waiters.is_empty()) || Instant::now() >= until {
                break;
            }
            requests = self.turn(Some(until)).0;
        }
        self.hold_streams();
    }

    /// Stays for children that hold the streams, lest their next word kills them; whoever asks finds the result.
    fn hold_streams(self) {
        let Self { mut outputs, mut signals, waiters, .. } = self;
        drop(waiters);
        loop {
            outputs.retain(|output| output.pipe().is_some());
            if outputs.is_empty() {
                return;
            }
            let mut watched = vec![Watched::input(&signals)];
            watched.extend(outputs.iter().filter_map(OutputStream::pipe).map(Watched::input));
            if system::poll(&mut watched, None).is_err() {
                std::thread::sleep(QUIET);
            }
            let mut signal = [0; 512];
            while signals.read(&mut signal).is_ok_and(|count| count > 0) {}
            while system::reap().is_some() {}
            for output in &mut outputs {
                output.read_available();
            }
        }
    }
}

/// Opens what the command reads; the feed is what must be written meanwhile.
fn open_input(stdin: &mut Stdin) -> Result<(Input, Option<Feed>), Refusal> {
    match stdin {
        Stdin::Null => {
            let null = File::open("/dev/null").map_err(|error| failed("/dev/null", &error))?;
            Ok((Input::File(null), None))
        }
        Stdin::Inline(bytes) => {
            let refused = |error| lacking("a pipe for the input", &error);
            let (reader, writer) = io::pipe().map_err(refused)?;
            let bytes = std::mem::take(bytes);
            let feed = if bytes.is_empty() { None } else { Some(Feed::new(writer, bytes).map_err(refused)?) };
            Ok((Input::Pipe(reader), feed))
        }
        Stdin::File(path) if path.is_empty() => {
            Err(system_refusal("the uploaded input is missing, so the command was not started"))
        }
        Stdin::File(path) => {
            let path = std::ffi::OsString::from_vec(std::mem::take(path));
            let path = Path::new(&path);
            let refused = |error| failed(&format!("the uploaded input {}", path.display()), &error);
            // A pipe or device could block the opening, and an upload is neither.
            if !fs::metadata(path).map_err(refused)?.is_file() {
                return Err(system_refusal(format!(
                    "the uploaded input {} is no regular file",
                    path.display()
                )));
            }
            let file = File::open(path).map_err(refused)?;
            drop(fs::remove_file(path));
            Ok((Input::File(file), None))
        }
    }
}
