//! The runner's loop: one thread, one `poll`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};

use super::sandbox::{Progress, Worker};
use super::setup::Workshop;
use super::{SERVER, confine, interface, system};
use crate::local::wire::{self, Context, Failure, Level, Report, Request, Setup};

/// Runs until the server closes its end. Returns the exit status.
pub(super) fn run() -> i32 {
    let Ok(server) = take_server() else { return 1 };
    let outcome = prepare(&server).and_then(|(workshop, ready)| {
        let mut runner = Runner::new(&server, workshop)?;
        runner.report(&ready, &[]).step(|| "answer the server".into())?;
        runner.serve().step(|| "serve".into())
    });
    let Err(failure) = outcome else { return 0 };
    let _ = wire::send(server.as_fd(), &Report::Failed { number: 0, failure }, &[]);
    1
}

/// Moves the socket away from number 0, where children would take it for their standard input.
fn take_server() -> io::Result<OwnedFd> {
    let inherited = system::inherited(SERVER);
    let server = inherited.try_clone()?;
    drop(inherited);
    // takes the lowest free number, which is 0, and keeps it
    let _ = File::open("/dev/null")?.into_raw_fd();
    Ok(server)
}

fn prepare(server: &OwnedFd) -> Result<(Workshop, Report), Failure> {
    nix::unistd::setsid().step(|| "make a session".into())?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let mut request =
        wire::receive::<Request>(server.as_fd()).step(|| "read the server's first request".into())?;
    let Some((Request::Begin, beside)) = &mut request else {
        return Err(Failure::new("start the runner", "it is started by a server, not by hand"));
    };
    let body = beside.pop().ok_or_else(|| Failure::new("start the runner", "the setup is missing"))?;
    let setup: Setup = wire::read_body(body).step(|| "read the setup".into())?;
    if setup.level != Level::Process {
        // without namespaces we must outlive the server for a moment, to kill what nothing else would
        system::die_with_parent().step(|| "ask to be killed with the server".into())?;
    }
    system::join_new_keyring().step(|| "join a new session keyring".into())?;
    let workshop = Workshop::open(&setup)?;
    if setup.level == Level::Process {
        confine::adopt_orphans()?;
    } else {
        // entering a user namespace may have undone it
        system::die_with_parent().step(|| "ask to be killed with the server".into())?;
    }
    let ready = Report::Ready { lost: workshop.lost.clone(), host_sudo: workshop.host_sudo };
    Ok((workshop, ready))
}

struct Attempt {
    number: u64,
    progress: OwnedFd,
    /// How the sandbox ended before the worker did.
    exit: Option<i32>,
}

struct Runner<'a> {
    server: &'a OwnedFd,
    workshop: Workshop,
    children: SignalFd,
    workers: HashMap<Pid, Attempt>,
    sandboxes: HashMap<Pid, u64>,
    /// Sandboxes that ended before their worker could name them.
    unclaimed: HashMap<Pid, i32>,
    /// Sandboxes whose first process has ended, but perhaps not every other one.
    ended: Vec<(u64, i32)>,
    /// Nothing is ever written; that nobody could any more is what first processes look for.
    life: (PipeReader, PipeWriter),
}

impl<'a> Runner<'a> {
    fn new(server: &'a OwnedFd, workshop: Workshop) -> Result<Self, Failure> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGCHLD);
        signals.thread_block().step(|| "block SIGCHLD".into())?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let children = SignalFd::with_flags(&signals, flags).step(|| "watch for children".into())?;
        Ok(Self {
            server,
            workshop,
            children,
            workers: HashMap::new(),
            sandboxes: HashMap::new(),
            unclaimed: HashMap::new(),
            ended: Vec::new(),
            life: io::pipe().step(|| "make a pipe".into())?,
        })
    }

    fn serve(&mut self) -> io::Result<()> {
        loop {
            let mut polled = vec![
                PollFd::new(self.server.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.children.as_fd(), PollFlags::POLLIN),
            ];
            let workers: Vec<Pid> = self.workers.keys().copied().collect();
            polled.extend(
                self.workers.values().map(|attempt| PollFd::new(attempt.progress.as_fd(), PollFlags::POLLIN)),
            );
            match poll(&mut polled, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                ready => ready?,
            };
            let ready: Vec<bool> = polled.iter().map(|one| one.any().unwrap_or(false)).collect();
            for (worker, _) in workers.iter().zip(&ready[2..]).filter(|(_, ready)| **ready) {
                self.listen_to(*worker)?;
            }
            if ready[1] {
                while self.children.read_signal()?.is_some() {}
                self.reap()?;
            }
            self.tell_ends()?;
            if ready[0] && !self.obey()? {
                return self.end();
            }
        }
    }

    /// Does what the server asks; `false` when it has gone.
    fn obey(&mut self) -> io::Result<bool> {
        let Some((request, mut beside)) = wire::receive::<Request>(self.server.as_fd())? else {
            return Ok(false);
        };
        match request {
            Request::Begin => {}
            Request::Kill { number } => {
                let found = self.sandboxes.iter().find(|(_, known)| **known == number);
                if let Some((pid, _)) = found {
                    // a zombie of ours at worst, never a stranger
                    kill(*pid, Signal::SIGKILL)?;
                }
            }
            Request::Start { number } | Request::Remove { number } | Request::Connect { number, .. } => {
                if let Request::Connect { sandbox, .. } = request {
                    match self.namespace_of(sandbox) {
                        Ok(namespace) => beside.push(namespace),
                        Err(failure) => {
                            self.report(&Report::Failed { number, failure }, &[])?;
                            return Ok(true);
                        }
                    }
                }
                let forked = self.employ(number, &request, &mut beside);
                if let Err(error) = forked {
                    let failure = Err::<(), _>(error).step(|| "fork a worker".into());
                    if let Err(failure) = failure {
                        self.report(&Report::Failed { number, failure }, &[])?;
                    }
                }
            }
        }
        Ok(true)
    }

    /// The network namespace of a sandbox that runs. Opened here, where its process is at worst a zombie.
    fn namespace_of(&self, number: u64) -> Result<OwnedFd, Failure> {
        let found = self.sandboxes.iter().find(|(_, known)| **known == number);
        let (pid, _) = found.ok_or_else(|| Failure::new("connect the sandbox", "it does not run"))?;
        interface::namespace_of(*pid)
    }

    fn employ(&mut self, number: u64, request: &Request, beside: &mut Vec<OwnedFd>) -> io::Result<()> {
        let (progress, runner) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        match system::fork()? {
            ForkResult::Parent { child } => {
                self.workers.insert(child, Attempt { number, progress, exit: None });
                Ok(())
            }
            ForkResult::Child => {
                let status = self.work(number, runner, request, beside);
                super::leave(i32::from(status.is_err()));
            }
        }
    }

    /// What a worker does.
    fn work(
        &self,
        number: u64,
        runner: OwnedFd,
        request: &Request,
        beside: &mut Vec<OwnedFd>,
    ) -> io::Result<()> {
        system::die_with_parent()?;
        // the runner alone may hold this end
        nix::unistd::close(self.life.1.as_raw_fd())?;
        let worker = Worker { workshop: &self.workshop, number, runner, life: self.life.0.as_fd() };
        let missing = || io::Error::other("the request lacks a file descriptor");
        let last = beside.pop().ok_or_else(missing)?;
        let (report, tunnel) = match request {
            Request::Start { .. } => worker.start(beside.pop().ok_or_else(missing)?, &last),
            Request::Connect { .. } => worker.connect(&last),
            _ => (worker.remove(last), None),
        };
        worker.tell(&Progress::Done(report), tunnel.as_ref())
    }

    fn report(&self, report: &Report, beside: &[OwnedFd]) -> io::Result<()> {
        let beside: Vec<_> = beside.iter().map(AsFd::as_fd).collect();
        wire::send(self.server.as_fd(), report, &beside)
    }

    /// Reads everything that a worker has said.
    fn listen_to(&mut self, worker: Pid) -> io::Result<()> {
        while let Some(attempt) = self.workers.get_mut(&worker) {
            let mut polled = [PollFd::new(attempt.progress.as_fd(), PollFlags::POLLIN)];
            if poll(&mut polled, PollTimeout::ZERO)? == 0 {
                return Ok(());
            }
            match wire::receive::<Progress>(attempt.progress.as_fd())? {
                Some((Progress::Cloned { pid }, _)) => {
                    let pid = Pid::from_raw(pid);
                    match self.unclaimed.remove(&pid) {
                        Some(code) => attempt.exit = Some(code),
                        None => drop(self.sandboxes.insert(pid, attempt.number)),
                    }
                }
                Some((Progress::Done(report), beside)) => self.finish(worker, &report, &beside)?,
                None => {
                    let number = attempt.number;
                    let failure =
                        Failure::new("make or remove the sandbox", "the worker ended without a word");
                    self.finish(worker, &Report::Failed { number, failure }, &[])?;
                }
            }
        }
        Ok(())
    }

    fn finish(&mut self, worker: Pid, report: &Report, beside: &[OwnedFd]) -> io::Result<()> {
        let Some(attempt) = self.workers.remove(&worker) else { return Ok(()) };
        self.report(report, beside)?;
        match (report, attempt.exit) {
            (Report::Started { number }, Some(code)) => {
                self.ended.push((*number, code));
                Ok(())
            }
            (Report::Failed { number, .. }, None) => {
                // its first process ends by itself; nobody waits for the news
                self.sandboxes.retain(|_, known| known != number);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn reap(&mut self) -> io::Result<()> {
        loop {
            let (pid, code) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => break,
                Err(Errno::EINTR) | Ok(_) => continue,
                Err(error) => return Err(error.into()),
            };
            if self.workers.contains_key(&pid) {
                self.listen_to(pid)?;
            } else if let Some(number) = self.sandboxes.remove(&pid) {
                match self.workers.values_mut().find(|attempt| attempt.number == number) {
                    Some(attempt) => attempt.exit = Some(code),
                    None => self.ended.push((number, code)),
                }
            } else if !self.workers.is_empty() {
                self.unclaimed.insert(pid, code);
            }
        }
        if self.workers.is_empty() {
            self.unclaimed.clear();
        }
        Ok(())
    }

    /// Tells which sandboxes have ended, once nothing of them runs. The kernel ends the others of a pid namespace with
    /// its first process; without one, they become our children, and no child of ours is a stranger but while a worker
    /// is about to name one.
    fn tell_ends(&mut self) -> io::Result<()> {
        if self.ended.is_empty() || (self.workshop.level == Level::Process && self.kill_strays()?) {
            return Ok(());
        }
        std::mem::take(&mut self.ended)
            .into_iter()
            .try_for_each(|(number, code)| self.report(&Report::Exited { number, code }, &[]))
    }

    /// Kills what sandboxes have left running. Whether it has to be tried again.
    fn kill_strays(&self) -> io::Result<bool> {
        if !self.workers.is_empty() {
            return Ok(true);
        }
        let strays: Vec<Pid> =
            confine::children()?.into_iter().filter(|pid| !self.sandboxes.contains_key(pid)).collect();
        for stray in &strays {
            kill(*stray, Signal::SIGKILL)?;
        }
        Ok(!strays.is_empty())
    }

    /// Kills everything and waits for it.
    fn end(&mut self) -> io::Result<()> {
        for pid in self.workers.keys().chain(self.sandboxes.keys()) {
            kill(*pid, Signal::SIGKILL)?;
        }
        loop {
            for orphan in confine::children()? {
                kill(orphan, Signal::SIGKILL)?;
            }
            match waitpid(None, None) {
                Err(Errno::ECHILD) => return Ok(()),
                Err(Errno::EINTR) | Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
