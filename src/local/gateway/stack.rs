//! One sandbox's gateway: a task that owns its end of the tunnel and the TCP of this process.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr};
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;

use super::datagrams::Datagrams;
use super::device::Queues;
use super::packet::{self, Flow, Kind, Refusal};
use super::pump::{self, Pump};
use super::relay::{self, Relay};
use super::resolver::{self, Resolver};
use super::rules::Rules;
use crate::local::spec::{GATEWAY_ADDRESS, GATEWAY_NETWORK};

/// Connections of one sandbox; more are refused, so that it cannot use up the server's descriptors.
const CONNECTIONS: usize = 1024;
/// Tasks of one sandbox's connections.
const TASKS: usize = 4 * CONNECTIONS;
/// Packets that are read before anything else is looked at.
const PACKETS: usize = 128;
/// Rounds of sending before the kernel is given what there is.
const ROUNDS: usize = 64;
/// What other tasks tell before they have to wait.
const EVENTS: usize = 256;
/// Where nothing is due.
const IDLE: Duration = Duration::from_secs(3600);

/// What other tasks tell the stack.
#[derive(Debug)]
pub(super) enum Event {
    /// A connection was made, or was not.
    Connected(Flow, Result<TcpStream, Refusal>),
    /// A packet for the sandbox.
    Packet(Vec<u8>),
}

#[derive(Debug)]
enum Connection {
    /// The outer half is being made; the packet that asked for it is kept.
    Begun(Vec<u8>),
    /// Both halves are there.
    Made(SocketHandle, Pump),
}

/// See the module.
pub(super) struct Stack {
    tunnel: AsyncFd<File>,
    rules: Arc<Rules>,
    resolver: Arc<Resolver>,
    queues: Queues,
    interface: Interface,
    sockets: SocketSet<'static>,
    connections: HashMap<Flow, Connection>,
    datagrams: Datagrams,
    /// Everything that works for connections; it ends with the stack.
    tasks: JoinSet<()>,
    events: (Sender<Event>, Receiver<Event>),
    wake: Arc<Notify>,
    begun: std::time::Instant,
}

impl Stack {
    pub(super) fn new(tunnel: AsyncFd<File>, rules: Arc<Rules>, resolver: Resolver) -> Self {
        let mut queues = Queues::default();
        let mut interface = Interface::new(Config::new(HardwareAddress::Ip), &mut queues, Instant::ZERO);
        // it answers for every address, and the rules say for which it may
        interface.set_any_ip(true);
        interface.update_ip_addrs(|addresses| {
            // there is room for one
            let _ = addresses.push(IpCidr::new(GATEWAY_ADDRESS.into(), GATEWAY_NETWORK.prefix));
        });
        let _ = interface.routes_mut().add_default_ipv4_route(GATEWAY_ADDRESS);
        let events = channel(EVENTS);
        let resolver = Arc::new(resolver);
        let datagrams = Datagrams::new(Arc::clone(&rules), Arc::clone(&resolver), events.0.clone());
        Self {
            tunnel,
            rules,
            resolver,
            queues,
            interface,
            sockets: SocketSet::new(Vec::new()),
            connections: HashMap::new(),
            datagrams,
            tasks: JoinSet::new(),
            events,
            wake: Arc::new(Notify::new()),
            begun: std::time::Instant::now(),
        }
    }

    /// Serves until the interface is gone.
    pub(super) async fn run(mut self, changed: Arc<Notify>) {
        let mut buffer = vec![0; usize::from(u16::MAX)];
        loop {
            let due = self.interface.poll_delay(self.now(), &self.sockets);
            let due = due.map_or(IDLE, |due| Duration::from_micros(due.total_micros()));
            let wake = Arc::clone(&self.wake);
            tokio::select! {
                ready = self.tunnel.readable() => {
                    let Ok(mut ready) = ready else { return };
                    let mut packets = Vec::new();
                    while packets.len() < PACKETS {
                        match ready.try_io(|tunnel| super::device::read_packet(tunnel.get_ref(), &mut buffer)) {
                            Ok(Ok(length)) => packets.push(buffer[..length].to_vec()),
                            Ok(Err(_)) => return,
                            Err(_) => break,
                        }
                    }
                    drop(ready);
                    for packet in packets {
                        self.take(packet);
                    }
                }
                event = self.events.1.recv() => match event {
                    Some(Event::Connected(flow, stream)) => self.connected(flow, stream),
                    Some(Event::Packet(packet)) => self.queues.outgoing.push_back(packet),
                    None => return,
                },
                () = wake.notified() => {}
                () = tokio::time::sleep(due) => {}
                () = changed.notified() => self.obey(),
            }
            while self.tasks.try_join_next().is_some() {}
            self.turn();
        }
    }

    fn now(&self) -> Instant {
        Instant::from_micros(i64::try_from(self.begun.elapsed().as_micros()).unwrap_or(i64::MAX))
    }

    /// Takes a packet from the sandbox.
    fn take(&mut self, packet: Vec<u8>) {
        let refusal = match packet::kind(&packet) {
            Kind::Noise => return,
            Kind::Other => Some(Refusal::Prohibited),
            Kind::Udp { flow, content } => self.datagrams.send(flow, content, &packet).err(),
            Kind::Tcp { flow, opens } if opens && !self.connections.contains_key(&flow) => {
                self.begin(flow, &packet).err()
            }
            Kind::Tcp { flow, .. } => match self.connections.get(&flow) {
                // asked again, since we have not answered yet
                Some(Connection::Begun(_)) => None,
                _ => return self.queues.incoming.push_back(packet),
            },
        };
        let answer = refusal.and_then(|refusal| packet::refuse(&packet, refusal));
        self.queues.outgoing.extend(answer);
    }

    /// Begins a connection to the other end.
    fn begin(&mut self, flow: Flow, packet: &[u8]) -> Result<(), Refusal> {
        let full = self.connections.len() >= CONNECTIONS || self.tasks.len() >= TASKS;
        if full {
            // some tasks send what is left of connections that are over
            return Err(Refusal::Refused);
        }
        if resolver::is_ours(flow.outside) {
            let (near, far) = tokio::io::duplex(relay::CHUNK);
            let (resolver, rules) = (Arc::clone(&self.resolver), Arc::clone(&self.rules));
            self.tasks.spawn(async move { resolver.serve(far, &rules).await });
            let relay = Relay::new(near, &self.wake, &mut self.tasks);
            self.accept(flow, packet, relay);
            return Ok(());
        }
        if !self.rules.allows(*flow.outside.ip()) {
            return Err(Refusal::Prohibited);
        }
        self.connections.insert(flow, Connection::Begun(packet.to_owned()));
        let events = self.events.0.clone();
        self.tasks.spawn(async move {
            let stream = relay::connect(flow.outside).await;
            // a stack that is gone has no sandbox that waits
            let _ = events.send(Event::Connected(flow, stream)).await;
        });
        Ok(())
    }

    /// The other end has answered.
    fn connected(&mut self, flow: Flow, stream: Result<TcpStream, Refusal>) {
        let Some(Connection::Begun(packet)) = self.connections.remove(&flow) else { return };
        let stream = match stream {
            // the rules may have changed meanwhile
            Ok(_) if !self.rules.allows(*flow.outside.ip()) => Err(Refusal::Prohibited),
            stream => stream,
        };
        match stream {
            Ok(stream) => {
                let relay = Relay::new(stream, &self.wake, &mut self.tasks);
                self.accept(flow, &packet, relay);
            }
            Err(refusal) => self.queues.outgoing.extend(packet::refuse(&packet, refusal)),
        }
    }

    /// Answers the packet that asked for a connection.
    fn accept(&mut self, flow: Flow, packet: &[u8], relay: Relay) {
        // only this packet may find the new socket
        self.poll();
        let Some(socket) = pump::socket(flow) else { return };
        let handle = self.sockets.add(socket);
        self.queues.incoming.push_back(packet.to_owned());
        self.poll();
        if self.sockets.get::<Socket<'_>>(handle).state() == State::Listen {
            self.sockets.remove(handle);
            self.queues.outgoing.extend(packet::refuse(packet, Refusal::Refused));
            return;
        }
        self.connections.insert(flow, Connection::Made(handle, Pump::new(relay)));
    }

    fn poll(&mut self) {
        let now = self.now();
        for _ in 0..ROUNDS {
            let result = self.interface.poll(now, &mut self.queues, &mut self.sockets);
            self.queues.flush(&self.tunnel);
            if result == PollResult::None {
                return;
            }
        }
    }

    /// Passes everything on that can be.
    fn turn(&mut self) {
        self.poll();
        for connection in self.connections.values_mut() {
            if let Connection::Made(handle, pump) = connection {
                pump.turn(self.sockets.get_mut(*handle));
            }
        }
        self.poll();
        let (sockets, tasks) = (&mut self.sockets, &mut self.tasks);
        let over = |_: &Flow, connection: &mut Connection| {
            let Connection::Made(handle, _) = connection else { return false };
            let state = sockets.get::<Socket<'_>>(*handle).state();
            // one that was reset before it was confirmed listens again, and would take somebody else's
            matches!(state, State::Closed | State::TimeWait | State::Listen)
        };
        let ended: Vec<_> = self.connections.extract_if(over).collect();
        for (_, connection) in ended {
            if let Connection::Made(handle, pump) = connection {
                pump.finish(sockets.get_mut(handle), tasks);
                sockets.remove(handle);
            }
        }
    }

    /// Ends what the rules no longer allow.
    fn obey(&mut self) {
        self.datagrams.obey();
        for (flow, connection) in &mut self.connections {
            if let Connection::Made(handle, pump) = connection
                && !resolver::is_ours(flow.outside)
                && !self.rules.allows(*flow.outside.ip())
            {
                pump.cut(self.sockets.get_mut(*handle));
            }
        }
    }
}
