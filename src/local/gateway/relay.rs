//! The outer half of a connection: bytes between the stack and a socket of this machine.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::{AbortHandle, JoinSet};

use super::packet::Refusal;

/// Bytes that are passed on at once.
pub(super) const CHUNK: usize = 64 * 1024;
/// Chunks that wait in each direction before the sender has to.
const WAITING: usize = 4;
/// Programs wait two minutes for a connection; this is what the kernel of this machine may take of it.
const CONNECT: Duration = Duration::from_secs(60);

/// What the other end says.
#[derive(Debug)]
pub(super) enum Said {
    /// Bytes.
    Bytes(Vec<u8>),
    /// It sends no more.
    End,
    /// The connection broke.
    Broken,
}

/// The stack's handle of the outer half. Dropping it closes the connection once what was sent has been.
#[derive(Debug)]
pub(super) struct Relay {
    /// To the other end; `None` once the sandbox sends no more.
    pub(super) up: Option<Sender<Vec<u8>>>,
    /// From the other end.
    pub(super) down: Receiver<Said>,
    sending: AbortHandle,
    receiving: AbortHandle,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.receiving.abort();
    }
}

/// Connects to an address of the machine's network.
pub(super) async fn connect(address: std::net::SocketAddrV4) -> Result<TcpStream, Refusal> {
    let connected = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await;
    match connected {
        Ok(Ok(stream)) => {
            // the sandbox's own kernel has gathered what belongs together
            let _ = stream.set_nodelay(true);
            Ok(stream)
        }
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => Err(Refusal::Refused),
        Ok(Err(error)) => {
            tracing::debug!(%address, "a sandbox's connection failed: {error}");
            Err(Refusal::Unreachable)
        }
        Err(_) => Err(Refusal::Unreachable),
    }
}

impl Relay {
    /// Relays a stream by two of `tasks`; `wake` is told whenever there is something to do for the stack.
    pub(super) fn new<S>(stream: S, wake: &Arc<Notify>, tasks: &mut JoinSet<()>) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (reader, writer) = tokio::io::split(stream);
        let (up, outbox) = channel(WAITING);
        let (said, down) = channel(WAITING);
        let sending = tasks.spawn(send(writer, outbox, said.clone(), Arc::clone(wake)));
        let receiving = tasks.spawn(receive(reader, said, Arc::clone(wake)));
        Self { up: Some(up), down, sending, receiving }
    }

    /// Closes the connection at once.
    pub(super) fn cut(&mut self) {
        self.sending.abort();
        self.receiving.abort();
    }
}

async fn send<W: AsyncWrite + Unpin>(
    mut writer: W,
    mut outbox: Receiver<Vec<u8>>,
    said: Sender<Said>,
    wake: Arc<Notify>,
) {
    while let Some(bytes) = outbox.recv().await {
        if writer.write_all(&bytes).await.is_err() {
            let _ = said.send(Said::Broken).await;
            return wake.notify_one();
        }
        // there is room for more
        wake.notify_one();
    }
    // the other end may have closed already
    let _ = writer.shutdown().await;
}

async fn receive<R: AsyncRead + Unpin>(mut reader: R, said: Sender<Said>, wake: Arc<Notify>) {
    let mut buffer = vec![0; CHUNK];
    loop {
        let what = match reader.read(&mut buffer).await {
            Ok(0) => Said::End,
            Ok(length) => Said::Bytes(buffer[..length].to_vec()),
            Err(_) => Said::Broken,
        };
        let last = !matches!(what, Said::Bytes(_));
        if said.send(what).await.is_err() || last {
            return wake.notify_one();
        }
        wake.notify_one();
    }
}
