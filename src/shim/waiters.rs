//! Those who wait for the end of a command: every `run` of its exec, connected to the supervisor's socket.
//!
//! A request is one byte, [`WAIT`], [`KILL`] or [`COLLECTED`]; the answer is the encoded reply, then the end of file.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use super::state::is_trusted;
use super::system::Watched;

/// Tell me the result.
pub(super) const WAIT: u8 = b'w';
/// End the command, then tell me the result.
pub(super) const KILL: u8 = b'k';
/// The result was received.
pub(super) const COLLECTED: u8 = b'a';

/// More than a proxy could repeat, fewer than a process may have files open.
const MOST: usize = 200;

/// What the waiters want, besides the result.
#[derive(Default)]
pub(super) struct Requests {
    /// Somebody wants the command to end.
    pub(super) kill: bool,
    /// Somebody received the result.
    pub(super) collected: bool,
}

/// The socket and everybody connected to it.
pub(super) struct Waiters {
    listener: UnixListener,
    /// The one without a file, for whoever finds none.
    fallback: Option<UnixListener>,
    waiting: Vec<Waiter>,
    reply: Option<Vec<u8>>,
}

struct Waiter {
    stream: UnixStream,
    /// Closing a connection before its request was read would fail the one who writes it.
    has_asked: bool,
    sent: usize,
}

impl Waiters {
    /// Those who connect to `listener`, or, as a trusted user, to `fallback`.
    pub(super) fn new(listener: UnixListener, fallback: Option<UnixListener>) -> std::io::Result<Self> {
        listener.set_nonblocking(true)?;
        if let Some(fallback) = &fallback {
            fallback.set_nonblocking(true)?;
        }
        Ok(Self { listener, fallback, waiting: Vec::new(), reply: None })
    }

    /// Adds what must be watched.
    pub(super) fn watch(&self, watched: &mut Vec<Watched>) {
        if self.waiting.len() < MOST {
            watched.push(Watched::input(&self.listener));
            watched.extend(self.fallback.iter().map(Watched::input));
        }
        let is_over = self.reply.is_some();
        watched.extend(self.waiting.iter().map(|waiter| {
            let writes = is_over && waiter.has_asked;
            if writes { Watched::output(&waiter.stream) } else { Watched::input(&waiter.stream) }
        }));
    }

    /// Answers everybody with `reply` from now on.
    pub(super) fn answer(&mut self, reply: Vec<u8>) {
        self.reply = Some(reply);
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Does what can be done without waiting.
    pub(super) fn attend(&mut self) -> Requests {
        self.accept();
        let mut requests = Requests::default();
        let reply = self.reply.as_deref();
        self.waiting.retain_mut(|waiter| {
            waiter.read(&mut requests) && reply.is_none_or(|reply| !waiter.has_asked || waiter.write(reply))
        });
        requests
    }

    fn accept(&mut self) {
        accept_from(&self.listener, &mut self.waiting, |_| true);
        if let Some(fallback) = &self.fallback {
            accept_from(fallback, &mut self.waiting, is_trusted);
        }
    }
}

fn accept_from(listener: &UnixListener, waiting: &mut Vec<Waiter>, may: impl Fn(&UnixStream) -> bool) {
    while waiting.len() < MOST {
        match listener.accept() {
            Ok((stream, _)) => {
                if may(&stream) && stream.set_nonblocking(true).is_ok() {
                    waiting.push(Waiter { stream, has_asked: false, sent: 0 });
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            // Out of file descriptors or memory: the listener stays ready, so only a pause keeps this from spinning.
            Err(_) => return std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

impl Waiter {
    /// Reads requests; returns whether the waiter is still there.
    fn read(&mut self, requests: &mut Requests) -> bool {
        let mut buffer = [0; 16];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(count) => {
                self.has_asked = true;
                requests.kill |= buffer[..count].contains(&KILL);
                requests.collected |= buffer[..count].contains(&COLLECTED);
                true
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    /// Writes what fits; returns whether there is more to write and somebody to read it.
    fn write(&mut self, reply: &[u8]) -> bool {
        while self.sent < reply.len() {
            match self.stream.write(&reply[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) => return matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
            }
        }
        false
    }
}
