//! The inner half of a connection: bytes between the sandbox's TCP and the outer half.

use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::task::JoinSet;

use super::packet::Flow;
use super::relay::{CHUNK, Relay, Said};

/// Bytes that may be under way in each direction.
const WINDOW: usize = 256 * 1024;

/// A connection that was accepted.
#[derive(Debug)]
pub(super) struct Pump {
    relay: Relay,
    /// What the other end said and the sandbox has not yet room for.
    pending: Vec<u8>,
    /// How much of that was passed on.
    passed: usize,
    /// Whether the other end sends no more, which the sandbox has yet to be told.
    ending: bool,
}

/// A socket that accepts the one connection which `flow` is about to open.
pub(super) fn socket(flow: Flow) -> Option<Socket<'static>> {
    let buffer = || SocketBuffer::new(vec![0; WINDOW]);
    let mut socket = Socket::new(buffer(), buffer());
    // what arrives here was gathered by the senders already
    socket.set_nagle_enabled(false);
    socket.set_ack_delay(None);
    socket.listen((*flow.outside.ip(), flow.outside.port())).ok()?;
    Some(socket)
}

impl Pump {
    pub(super) fn new(relay: Relay) -> Self {
        Self { relay, pending: Vec::new(), passed: 0, ending: false }
    }

    /// Ends the inner half, of which the outer one may not yet have all: that is left to one of `tasks`.
    pub(super) fn finish(mut self, socket: &mut Socket<'_>, tasks: &mut JoinSet<()>) {
        let mut rest = Vec::new();
        while socket.can_recv() {
            // a ring gives what it has in two parts
            let taken = socket.recv(|bytes| (bytes.len(), bytes.to_vec()));
            rest.extend(taken.unwrap_or_default());
        }
        if let Some(up) = self.relay.up.take().filter(|_| !rest.is_empty()) {
            tasks.spawn(async move {
                // an error means that the other end does not want it
                let _ = up.send(rest).await;
            });
        }
    }

    /// Ends both halves at once.
    pub(super) fn cut(&mut self, socket: &mut Socket<'_>) {
        self.relay.cut();
        socket.abort();
    }

    /// Passes on what can be.
    pub(super) fn turn(&mut self, socket: &mut Socket<'_>) {
        self.outwards(socket);
        self.inwards(socket);
    }

    fn outwards(&mut self, socket: &mut Socket<'_>) {
        while let Some(up) = &self.relay.up {
            if !socket.can_recv() {
                if has_finished(socket.state()) {
                    self.relay.up = None;
                }
                return;
            }
            // where there is no room, or nobody to take it, it stays with the sandbox
            let Ok(room) = up.try_reserve() else { return };
            let taken = socket.recv(|bytes| {
                let length = bytes.len().min(CHUNK);
                (length, bytes[..length].to_vec())
            });
            if let Ok(bytes) = taken {
                room.send(bytes);
            }
        }
    }

    fn inwards(&mut self, socket: &mut Socket<'_>) {
        loop {
            if self.passed < self.pending.len() {
                match socket.send_slice(&self.pending[self.passed..]) {
                    Ok(0) | Err(_) => return,
                    Ok(length) => self.passed += length,
                }
                continue;
            }
            if self.ending {
                // closed before the sandbox has confirmed, smoltcp forgets that its SYN was not yet acknowledged,
                // and from then on the two ends count differently
                if socket.state() != State::SynReceived {
                    self.ending = false;
                    socket.close();
                }
                return;
            }
            match self.relay.down.try_recv() {
                Ok(Said::Bytes(bytes)) => (self.pending, self.passed) = (bytes, 0),
                Ok(Said::End) => self.ending = true,
                Ok(Said::Broken) => socket.abort(),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
        }
    }
}

/// Whether the sandbox sends no more.
fn has_finished(state: State) -> bool {
    matches!(state, State::CloseWait | State::LastAck | State::Closing | State::TimeWait | State::Closed)
}
