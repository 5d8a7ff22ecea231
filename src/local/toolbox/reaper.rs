//! Children: started here, waited for here, and nowhere else.
//!
//! The first process of a pid namespace inherits every orphan in it and must reap them, and `waitpid(-1)` does not
//! tell an orphan from a child whose status someone awaits. So all children are started through one table: a status
//! of a pid in the table goes to whoever awaits it, any other was an orphan's. tokio's own process support, which
//! also waits on SIGCHLD, must not be used beside it. A process that inherits no orphans asks for its own pids only,
//! since it may be a guest in a program that has children of its own (tests).

#![expect(unsafe_code, reason = "waitpid without the gaps of its wrapper")]

use std::collections::HashMap;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exit(ExitStatus);

impl Exit {
    /// The status as Go's standard library has it: -1 for a death by signal.
    pub(super) fn go_code(self) -> i32 {
        self.0.code().unwrap_or(-1)
    }

    /// The status as a shell has it: 128 + signal.
    pub(super) fn shell_code(self) -> i32 {
        self.0.code().or_else(|| self.0.signal().map(|signal| 128 + signal)).unwrap_or(-1)
    }
}

/// A child of this process. Dropping it neither kills the child nor leaves a zombie.
#[derive(Debug)]
pub(super) struct Child {
    pid: Pid,
    exit: oneshot::Receiver<Exit>,
}

impl Child {
    /// Its process id.
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends SIGKILL to the process group that the child leads.
    pub(super) fn kill_group(&self) {
        // an error says that no process is left in it
        let _ = killpg(self.pid, Signal::SIGKILL);
    }

    /// Waits for its end. `None`: the status was lost, because the reaper has gone.
    pub(super) async fn wait(&mut self) -> Option<Exit> {
        (&mut self.exit).await.ok()
    }
}

/// The table of children.
#[derive(Debug)]
pub(super) struct Reaper {
    inherits_orphans: bool,
    awaited: Mutex<HashMap<i32, oneshot::Sender<Exit>>>,
}

impl Reaper {
    /// Starts to listen for SIGCHLD in the current runtime; the task ends with the last reference.
    pub(super) fn start() -> io::Result<Arc<Self>> {
        let reaper = Arc::new(Self { inherits_orphans: inherits_orphans(), awaited: Mutex::default() });
        let mut ended = signal(SignalKind::child())?;
        let weak: Weak<Self> = Arc::downgrade(&reaper);
        tokio::spawn(async move {
            while ended.recv().await.is_some() {
                let Some(reaper) = weak.upgrade() else { return };
                reaper.reap();
            }
        });
        Ok(reaper)
    }

    /// Starts `command`. The table is locked meanwhile, so that its end cannot be seen before it is in the table.
    pub(super) fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        let mut awaited = self.lock();
        let child = command.spawn()?;
        let pid = child.id().cast_signed();
        let (sender, exit) = oneshot::channel();
        awaited.insert(pid, sender);
        Ok(Child { pid: Pid::from_raw(pid), exit })
    }

    /// Collects every status that is there. Signals coalesce, so one of them may stand for many children.
    fn reap(&self) {
        let mut awaited = self.lock();
        if self.inherits_orphans {
            while let Some((pid, exit)) = next_status(-1) {
                if let Some(waiter) = awaited.remove(&pid) {
                    // nobody may wait any more
                    let _ = waiter.send(exit);
                }
            }
            return;
        }
        let ended: Vec<_> = awaited.keys().filter_map(|pid| next_status(*pid)).collect();
        for (pid, exit) in ended {
            if let Some(waiter) = awaited.remove(&pid) {
                let _ = waiter.send(exit);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, oneshot::Sender<Exit>>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes one status of `pid` (-1: of any child), if there is one.
fn next_status(pid: i32) -> Option<(i32, Exit)> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a valid place for the call's only output. nix is of no use here: it loses the pid of
        // a process that a real-time signal killed.
        let found = unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) };
        match found {
            1.. => return Some((found, Exit(ExitStatus::from_raw(status)))),
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            _ => return None,
        }
    }
}

/// Whether orphans become children of this process.
fn inherits_orphans() -> bool {
    std::process::id() == 1 || nix::sys::prctl::get_child_subreaper().unwrap_or(false)
}
