//! Packets between the tunnel and the TCP of this process.

#![expect(unsafe_code, reason = "a descriptor is registered with the runtime")]

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use tokio::io::unix::AsyncFd;

use crate::local::spec::GATEWAY_MTU;

/// Packets that wait to be processed or sent.
#[derive(Debug, Default)]
pub(super) struct Queues {
    /// From the sandbox.
    pub(super) incoming: VecDeque<Vec<u8>>,
    /// To the sandbox.
    pub(super) outgoing: VecDeque<Vec<u8>>,
}

impl Queues {
    /// Sends what waits. What the kernel does not take now is lost, as packets are; whoever cares sends again.
    pub(super) fn flush(&mut self, tunnel: &AsyncFd<File>) {
        for packet in self.outgoing.drain(..) {
            let _ = tunnel.get_ref().write(&packet);
        }
    }
}

/// Watches the server's end of a tunnel.
pub(super) fn watch(tunnel: OwnedFd) -> io::Result<AsyncFd<File>> {
    // SAFETY: the file owns its descriptor, and nothing closes or replaces it before the `AsyncFd` is dropped.
    Ok(unsafe { AsyncFd::register(File::from(tunnel)) }?)
}

/// Reads one packet. Any error but "would block" means that the interface is gone.
pub(super) fn read_packet(mut tunnel: &File, buffer: &mut [u8]) -> io::Result<usize> {
    tunnel.read(buffer)
}

impl Device for Queues {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        let packet = self.incoming.pop_front()?;
        Some((Received(packet), Sending(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = usize::from(GATEWAY_MTU);
        capabilities
    }
}

/// A packet from the sandbox.
pub(super) struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

/// Room for a packet to the sandbox.
pub(super) struct Sending<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut packet = vec![0; length];
        let result = write(&mut packet);
        self.0.push_back(packet);
        result
    }
}
