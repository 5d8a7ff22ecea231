//! The worker: makes or removes one sandbox, tells the runner, and ends.

use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

use super::setup::Workshop;
use super::{enter, interface, mounts, nesting, system, volumes};
use crate::local::spec::{Network, SandboxSpec};
use crate::local::wire::{self, Context, Failure, Level, Order, Report};

/// From a worker to the runner.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Progress {
    /// The sandbox's first process exists and waits for the worker.
    Cloned {
        /// Its id, in the runner's eyes.
        pid: i32,
    },
    /// The last word.
    Done(Report),
}

/// Everything that a worker holds.
pub(super) struct Worker<'a> {
    /// What sandboxes are made from.
    pub(super) workshop: &'a Workshop,
    /// The number of the request.
    pub(super) number: u64,
    /// To the runner.
    pub(super) runner: OwnedFd,
    /// Closed when the runner has ended.
    pub(super) life: BorrowedFd<'a>,
}

impl Worker<'_> {
    /// Makes a sandbox whose toolbox serves on `listener`.
    pub(super) fn start(&self, order: OwnedFd, listener: &OwnedFd) -> (Report, Option<OwnedFd>) {
        let order = wire::read_body(order).step(|| "read the order".into());
        match order.and_then(|order| self.make(&order, listener)) {
            Ok(tunnel) => (Report::Started { number: self.number }, tunnel),
            Err(failure) => (Report::Failed { number: self.number, failure }, None),
        }
    }

    /// Gives an interface to the network namespace of a sandbox that runs.
    pub(super) fn connect(&self, namespace: &OwnedFd) -> (Report, Option<OwnedFd>) {
        match interface::create(namespace) {
            Ok(tunnel) => (Report::Connected { number: self.number }, Some(tunnel)),
            Err(failure) => (Report::Failed { number: self.number, failure }, None),
        }
    }

    /// Removes a directory.
    pub(super) fn remove(&self, body: OwnedFd) -> Report {
        // one is open for each level of a tree; fewer do for most
        let _ = system::raise_open_files();
        let removed =
            wire::read_body(body).step(|| "read the order".into()).and_then(|directory: PathBuf| {
                mounts::remove(&directory).step(|| format!("remove {}", directory.display()))
            });
        match removed {
            Ok(()) => Report::Removed { number: self.number },
            Err(failure) => Report::Failed { number: self.number, failure },
        }
    }

    /// Sends to the runner.
    pub(super) fn tell(&self, progress: &Progress, beside: Option<&OwnedFd>) -> io::Result<()> {
        let beside: Vec<_> = beside.iter().map(|descriptor| descriptor.as_fd()).collect();
        wire::send(self.runner.as_fd(), progress, &beside)
    }

    fn make(&self, order: &Order, listener: &OwnedFd) -> Result<Option<OwnedFd>, Failure> {
        let spec = &order.spec;
        let (mut storage, mut volumes) = (None, Vec::new());
        let namespaces = if self.workshop.level == Level::Process {
            if matches!(spec.network, Network::Gateway(_)) {
                return Err(Failure::new(
                    "make a network for a sandbox",
                    "plain processes have the machine's",
                ));
            }
            if !spec.mounts.is_empty() {
                return Err(Failure::new("mount volumes", "plain processes have the machine's files"));
            }
            CloneFlags::empty()
        } else {
            unshare(CloneFlags::CLONE_NEWNS).step(|| "make a mount namespace".into())?;
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
                .step(|| "make the mounts private".into())?;
            mounts::compose(self.workshop, spec)?;
            if spec.nesting {
                storage = Some(nesting::storage(self.workshop, spec)?);
            }
            volumes = volumes::open(self.workshop, &spec.mounts)?;
            namespaces(spec)
        };
        let (gate, opener) = io::pipe().step(|| "make a pipe".into())?;
        let (status, teller) = io::pipe().step(|| "make a pipe".into())?;
        let Some(pid) = system::clone_sibling(namespaces).step(|| format!("clone into {namespaces:?}"))?
        else {
            drop((opener, status));
            enter::run(&enter::Entry {
                workshop: self.workshop,
                spec,
                storage,
                volumes,
                delegation: order.delegation.as_ref(),
                gate,
                status: teller.into(),
                listener: listener.as_fd(),
                life: self.life,
            });
        };
        drop((gate, teller));
        // from here on the first process ends by itself when we do
        self.tell(&Progress::Cloned { pid: pid.as_raw() }, None).step(|| "tell the runner".into())?;
        if order.delegation.is_some() {
            nesting::hand_over(self.workshop, &order.cgroups)?;
        }
        for procs in &order.cgroups {
            attach(procs, pid.as_raw())?;
        }
        if self.workshop.level != Level::Process {
            self.workshop.identity.write_maps(pid).step(|| "write the sandbox's id maps".into())?;
        }
        let tunnel = match spec.network {
            Network::Gateway(_) => Some(interface::create(&interface::namespace_of(pid)?)?),
            Network::Host | Network::Blocked => None,
        };
        (&opener).write_all(&[1]).step(|| "let the sandbox's first process go on".into())?;
        await_ready(status)?;
        Ok(tunnel)
    }
}

fn namespaces(spec: &SandboxSpec) -> CloneFlags {
    let namespaces = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    match spec.network {
        Network::Host => namespaces,
        Network::Blocked | Network::Gateway(_) => namespaces | CloneFlags::CLONE_NEWNET,
    }
}

fn attach(procs: &Path, pid: i32) -> Result<(), Failure> {
    std::fs::write(procs, pid.to_string()).step(|| format!("write to {}", procs.display()))
}

/// The first process writes a failure as JSON, or one newline when it is about to serve.
fn await_ready(mut status: PipeReader) -> Result<(), Failure> {
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let length = status.read(&mut buffer).step(|| "wait for the sandbox's first process".into())?;
        if length == 0 {
            return Err(serde_json::from_slice(&said).unwrap_or_else(|_| {
                Failure::new("start the sandbox's first process", "it ended without a word")
            }));
        }
        said.extend_from_slice(&buffer[..length]);
        if said == b"\n" {
            return Ok(());
        }
    }
}
