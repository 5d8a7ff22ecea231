//! UDP of one sandbox.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::{AbortHandle, JoinSet};

use super::packet::{self, Flow, Refusal};
use super::resolver::{self, Resolver};
use super::rules::Rules;
use super::stack::Event;

/// Pairs of endpoints that talk at the same time.
const FLOWS: usize = 512;
/// Queries to name servers at the same time.
const QUERIES: usize = 128;
/// Datagrams that wait for a socket.
const WAITING: usize = 64;
/// A pair that has been silent for so long is forgotten.
const SILENCE: Duration = Duration::from_secs(60);

/// Everything of UDP that a sandbox has under way.
#[derive(Debug)]
pub(super) struct Datagrams {
    rules: Arc<Rules>,
    resolver: Arc<Resolver>,
    events: Sender<Event>,
    queries: Arc<Semaphore>,
    flows: HashMap<Flow, (Sender<Vec<u8>>, AbortHandle)>,
    tasks: JoinSet<()>,
}

impl Datagrams {
    pub(super) fn new(rules: Arc<Rules>, resolver: Arc<Resolver>, events: Sender<Event>) -> Self {
        Self {
            rules,
            resolver,
            events,
            queries: Arc::new(Semaphore::new(QUERIES)),
            flows: HashMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Sends a datagram of the sandbox, which `packet` holds. One that finds no room is lost, as datagrams are.
    pub(super) fn send(&mut self, flow: Flow, content: &[u8], packet: &[u8]) -> Result<(), Refusal> {
        while self.tasks.try_join_next().is_some() {}
        if resolver::is_ours(flow.outside) {
            self.ask(flow, content.to_owned());
            return Ok(());
        }
        if !self.rules.allows(*flow.outside.ip()) {
            return Err(Refusal::Prohibited);
        }
        if self.flows.get(&flow).is_none_or(|(outbox, _)| outbox.is_closed()) {
            self.flows.retain(|_, (outbox, _)| !outbox.is_closed());
            if self.flows.len() >= FLOWS {
                return Err(Refusal::Unreachable);
            }
            let (sender, outbox) = channel(WAITING);
            let task = self.tasks.spawn(relay(flow, outbox, self.events.clone(), packet.to_owned()));
            self.flows.insert(flow, (sender, task));
        }
        if let Some((outbox, _)) = self.flows.get(&flow) {
            let _ = outbox.try_send(content.to_owned());
        }
        Ok(())
    }

    fn ask(&mut self, flow: Flow, query: Vec<u8>) {
        let Ok(permit) = Arc::clone(&self.queries).try_acquire_owned() else { return };
        let (resolver, rules, events) =
            (Arc::clone(&self.resolver), Arc::clone(&self.rules), self.events.clone());
        self.tasks.spawn(async move {
            let _permit = permit;
            let answer = resolver.answer(&query, &rules, false).await;
            if let Some(packet) = answer.and_then(|answer| packet::datagram(flow, &answer)) {
                let _ = events.send(Event::Packet(packet)).await;
            }
        });
    }

    /// Ends what the rules no longer allow.
    pub(super) fn obey(&mut self) {
        let rules = &self.rules;
        self.flows.retain(|flow, (_, task)| {
            let allowed = rules.allows(*flow.outside.ip());
            if !allowed {
                task.abort();
            }
            allowed
        });
    }
}

/// Relays between a pair of endpoints until it is silent.
async fn relay(flow: Flow, mut outbox: Receiver<Vec<u8>>, events: Sender<Event>, first: Vec<u8>) {
    let refusal = match exchange(flow, &mut outbox, &events).await {
        Ok(()) => return,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Refusal::Refused,
        Err(_) => Refusal::Unreachable,
    };
    if let Some(answer) = packet::refuse(&first, refusal) {
        let _ = events.send(Event::Packet(answer)).await;
    }
}

async fn exchange(flow: Flow, outbox: &mut Receiver<Vec<u8>>, events: &Sender<Event>) -> std::io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect(flow.outside).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let heard = tokio::time::timeout(SILENCE, async {
            tokio::select! {
                content = outbox.recv() => match content {
                    Some(content) => socket.send(&content).await.map(|_| None),
                    None => Err(std::io::ErrorKind::Interrupted.into()),
                },
                length = socket.recv(&mut buffer) => length.map(Some),
            }
        });
        match heard.await {
            Err(_) => return Ok(()),
            Ok(heard) => {
                let Some(length) = heard? else { continue };
                if let Some(packet) = packet::datagram(flow, &buffer[..length]) {
                    let _ = events.send(Event::Packet(packet)).await;
                }
            }
        }
    }
}
