//! What an engine and its runner say to each other: one JSON record per datagram of a `SEQPACKET` socket, with file
//! descriptors beside it.
//!
//! Requests carry their body in a memory file that the runner passes on unread, so that the memory from which
//! sandboxes are forked never holds what another sandbox was told.

#![expect(unsafe_code, reason = "received file descriptors are adopted as owned ones")]

use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::spec::SandboxSpec;

/// Bytes of the largest record: a failure's message is cut long before.
const RECORD: usize = 64 * 1024;

/// How sandboxes are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// As root: a user namespace whose ids no account of the machine uses, over an id-mapped view of the files.
    RootIdmap,
    /// As an ordinary user with ranges in `/etc/subuid` and `/etc/subgid`.
    Subuid,
    /// As an ordinary user; everything inside has one uid.
    SingleUid,
    /// Without namespaces.
    Process,
}

/// From the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// The first request, answered by [`Report::Ready`] or a failure with number 0. Beside it: a [`Setup`].
    Begin,
    /// Make a sandbox. Beside it: an [`Order`] and the listener of its toolbox.
    Start {
        /// Names the request, and later the sandbox.
        number: u64,
    },
    /// Remove a directory that nothing uses any more. Beside it: its path.
    Remove {
        /// Names the request.
        number: u64,
    },
    /// Give a sandbox that runs an interface to a gateway. Answered by [`Report::Connected`].
    Connect {
        /// Names the request.
        number: u64,
        /// The number of the sandbox's start.
        sandbox: u64,
    },
    /// Kill every process of a sandbox. Answered by [`Report::Exited`] alone.
    Kill {
        /// The number of its start.
        number: u64,
    },
}

/// What the runner needs once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    /// How sandboxes are made.
    pub level: Level,
    /// The server's state directory.
    pub directory: PathBuf,
    /// Whether to put the stand-in for `sudo` into sandboxes although the machine has one.
    pub own_sudo: bool,
}

/// One sandbox to make.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// The sandbox.
    pub spec: SandboxSpec,
    /// `cgroup.procs` files that its first process is to be written into.
    pub cgroups: Vec<PathBuf>,
    /// The groups of `cgroups` are to be the sandbox's own, to make others in.
    #[serde(default)]
    pub delegation: Option<Delegation>,
}

/// Control groups that a sandbox may divide further.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delegation {
    /// Version 1: the controllers of each hierarchy, as in `cpu,cpuacct`, or `name=systemd` where it has none.
    Split(Vec<String>),
    /// Version 2.
    Unified,
}

/// From the runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// Sandboxes can be made.
    Ready {
        /// What this level does not promise here, one sentence each.
        lost: Vec<String>,
        /// Whether sandboxes use this machine's own `sudo`.
        host_sudo: bool,
    },
    /// The sandbox's toolbox is about to serve. Beside it, where it has a gateway: the gateway's end of its interface.
    Started {
        /// The number of the request.
        number: u64,
    },
    /// The sandbox has an interface. Beside it: the gateway's end.
    Connected {
        /// The number of the request.
        number: u64,
    },
    /// The sandbox's directory is gone.
    Removed {
        /// The number of the request.
        number: u64,
    },
    /// A request failed; nothing of it is left running.
    Failed {
        /// The number of the request.
        number: u64,
        /// Why.
        failure: Failure,
    },
    /// Every process of the sandbox has ended.
    Exited {
        /// The number of its start.
        number: u64,
        /// Exit status of its first process, or 128 + signal.
        code: i32,
    },
}

/// A step that the operating system refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What was tried, as in "cannot …".
    pub step: String,
    /// The error number, where there is one.
    pub errno: Option<i32>,
    /// The error in words.
    pub message: String,
}

impl Failure {
    /// A failure without an error number.
    pub fn new(step: impl Into<String>, message: impl Into<String>) -> Self {
        Self { step: step.into(), errno: None, message: message.into() }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot {}: {}", self.step, self.message)
    }
}

/// Names the step of a failed operation.
pub trait Context<T> {
    /// Turns the error into a [`Failure`] to do `step`.
    ///
    /// # Errors
    ///
    /// The failure.
    fn step(self, step: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T> Context<T> for io::Result<T> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure {
            step: step(),
            errno: error.raw_os_error(),
            message: error.raw_os_error().map_or_else(
                || error.to_string(),
                |number| {
                    let errno = Errno::from_raw(number);
                    format!("{errno:?} ({})", errno.desc())
                },
            ),
        })
    }
}

impl<T> Context<T> for nix::Result<T> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(io::Error::from).step(step)
    }
}

/// A memory file that holds `body`.
///
/// # Errors
///
/// Those of the operating system.
pub fn body<T: Serialize>(body: &T) -> io::Result<OwnedFd> {
    // systems may insist on the bit (`vm.memfd_noexec`), which kernels before 6.3 refuse
    let not_executable = MFdFlags::from_bits_retain(0x8);
    let made = memfd_create(c"body", MFdFlags::MFD_CLOEXEC | not_executable);
    let mut file = std::fs::File::from(made.or_else(|_| memfd_create(c"body", MFdFlags::MFD_CLOEXEC))?);
    file.write_all(&serde_json::to_vec(body)?)?;
    file.rewind()?;
    Ok(file.into())
}

/// What [`body`] wrote.
///
/// # Errors
///
/// Those of the operating system, and a body of another shape.
pub fn read_body<T: DeserializeOwned>(body: OwnedFd) -> io::Result<T> {
    let mut text = Vec::new();
    std::fs::File::from(body).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// Sends one record, with file descriptors beside it.
///
/// # Errors
///
/// Those of the operating system; `EPIPE` where the peer is gone.
pub fn send<T: Serialize>(socket: BorrowedFd<'_>, record: &T, beside: &[BorrowedFd<'_>]) -> io::Result<()> {
    let text = serde_json::to_vec(record)?;
    let numbers: Vec<RawFd> = beside.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let rights = if numbers.is_empty() { &rights[..0] } else { &rights[..] };
    loop {
        let part = [IoSlice::new(&text)];
        match sendmsg::<()>(socket.as_raw_fd(), &part, rights, MsgFlags::MSG_NOSIGNAL, None) {
            Err(Errno::EINTR) => {}
            sent => return sent.map(drop).map_err(io::Error::from),
        }
    }
}

/// Receives one record with the file descriptors beside it; `None` where the peer has closed.
///
/// # Errors
///
/// Those of the operating system, and a record of another shape.
pub fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut text = vec![0; RECORD];
    let mut space = cmsg_space!([RawFd; 4]);
    let mut beside = Vec::new();
    let length = loop {
        let mut parts = [IoSliceMut::new(&mut text)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received = match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Err(Errno::EINTR) => continue,
            Err(Errno::ECONNRESET) => return Ok(None),
            received => received?,
        };
        for message in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(numbers) = message {
                // SAFETY: the kernel has just installed these descriptors for us, and nobody else knows them.
                beside.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
            }
        }
        break received.bytes;
    };
    if length == 0 {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&text[..length])?, beside)))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap()
    }

    #[test]
    fn a_record_arrives_with_its_body() {
        let (near, far) = pair();
        let text = body(&vec!["a secret".to_owned()]).unwrap();
        send(near.as_fd(), &Request::Start { number: 7 }, &[text.as_fd()]).unwrap();
        let (request, mut beside) = receive::<Request>(far.as_fd()).unwrap().unwrap();
        assert_eq!(request, Request::Start { number: 7 });
        let words: Vec<String> = read_body(beside.remove(0)).unwrap();
        assert_eq!(words, ["a secret"]);
    }

    #[test]
    fn a_closed_peer_is_none() {
        let (near, far) = pair();
        drop(near);
        assert!(receive::<Report>(far.as_fd()).unwrap().is_none());
    }

    #[test]
    fn a_failure_names_step_and_error_number() {
        let failure = Err::<(), _>(Errno::EPERM).step(|| "mount the root".into()).unwrap_err();
        assert_eq!(failure.errno, Some(nix::libc::EPERM));
        assert!(failure.to_string().starts_with("cannot mount the root: EPERM ("), "{failure}");
    }
}
