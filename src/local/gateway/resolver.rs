//! The name server that a sandbox sees: the machine's, as far as the rules allow.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::dns::{self, Outcome, Question};
use super::rules::Rules;
use crate::local::spec::GATEWAY_ADDRESS;

const PORT: u16 = 53;
/// How long one name server may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Name servers that are asked, as the C library does.
const SERVERS: usize = 3;

/// Asks name servers.
#[derive(Debug)]
pub(super) struct Resolver {
    servers: Vec<SocketAddr>,
}

/// Whether this is where the sandbox's name server is.
pub(super) fn is_ours(address: SocketAddrV4) -> bool {
    address == SocketAddrV4::new(GATEWAY_ADDRESS, PORT)
}

impl Resolver {
    /// Asks these; those of the machine if there are none.
    pub(super) fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers }
    }

    /// Answers queries of a stream.
    pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S, rules: &Rules) {
        while let Ok(query) = read_framed(&mut stream).await {
            let Some(answer) = self.answer(&query, rules, true).await else { return };
            if write_framed(&mut stream, &answer).await.is_err() {
                return;
            }
        }
    }

    /// The answer to a query; none to what is not a query. `streamed` if it may have any length.
    pub(super) async fn answer(&self, query: &[u8], rules: &Rules, streamed: bool) -> Option<Vec<u8>> {
        let question = dns::question(query)?;
        let own = |outcome, addresses: &[Ipv4Addr]| dns::answer(query, &question, outcome, addresses);
        if !rules.names(&question.name) {
            return own(Outcome::NoSuchName, &[]);
        }
        // there is no IPv6 here; and hints are addresses that nobody has looked at
        let hints = rules.is_by_name() && matches!(question.kind, dns::SVCB | dns::HTTPS);
        if question.kind == dns::AAAA || hints {
            return own(Outcome::Found, &[]);
        }
        if question.kind == dns::A
            && let Some(addresses) = listed(&question.name)
        {
            rules.learn(&question.name, addresses.iter().copied());
            return own(Outcome::Found, &addresses);
        }
        for server in self.servers().into_iter().filter(|server| rules.asks(server.ip())).take(SERVERS) {
            let asked = timeout(PATIENCE, ask(server, query, &question, streamed)).await;
            if let Ok(Ok(response)) = asked {
                rules.learn(&question.name, dns::addresses(&response));
                return Some(response);
            }
        }
        own(Outcome::Failed, &[])
    }

    fn servers(&self) -> Vec<SocketAddr> {
        if !self.servers.is_empty() {
            return self.servers.clone();
        }
        // read each time, since machines change networks
        let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        text.lines().filter_map(name_server).map(|address| SocketAddr::new(address, PORT)).collect()
    }
}

fn name_server(line: &str) -> Option<IpAddr> {
    let mut words = line.split_whitespace();
    (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok()).flatten()
}

/// The addresses that the machine's own list of hosts gives to a name, but for those which mean something else inside.
fn listed(name: &str) -> Option<Vec<Ipv4Addr>> {
    let text = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let addresses: Vec<Ipv4Addr> = text.lines().filter_map(|line| host(line, name)).collect();
    (!addresses.is_empty()).then_some(addresses)
}

fn host(line: &str, name: &str) -> Option<Ipv4Addr> {
    let mut words = line.split('#').next()?.split_whitespace();
    let address: Ipv4Addr = words.next()?.parse().ok()?;
    words
        .any(|word| word.eq_ignore_ascii_case(name))
        .then_some(address)
        .filter(|address| !address.is_loopback())
}

/// Asks one name server.
async fn ask(
    server: SocketAddr,
    query: &[u8],
    question: &Question,
    streamed: bool,
) -> std::io::Result<Vec<u8>> {
    if streamed {
        let mut stream = TcpStream::connect(server).await?;
        write_framed(&mut stream, query).await?;
        let response = read_framed(&mut stream).await?;
        let answers = dns::answers(&response, query, question);
        return if answers { Ok(response) } else { Err(std::io::ErrorKind::InvalidData.into()) };
    }
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if dns::answers(&buffer[..length], query, question) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

/// A message of a stream, after its length.
async fn read_framed<S: AsyncRead + Unpin>(stream: &mut S) -> std::io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_framed<S: AsyncWrite + Unpin>(stream: &mut S, message: &[u8]) -> std::io::Result<()> {
    let length = u16::try_from(message.len()).map_err(std::io::Error::other)?;
    stream.write_u16(length).await?;
    stream.write_all(message).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_and_hosts_are_read_as_the_c_library_does() {
        assert_eq!(name_server("nameserver 10.0.0.53"), Some("10.0.0.53".parse().unwrap()));
        assert_eq!(name_server("search example.org"), None);
        assert_eq!(
            host("10.0.0.7 db Db.example.org # main", "db.EXAMPLE.org"),
            Some(Ipv4Addr::new(10, 0, 0, 7))
        );
        for line in ["# 10.0.0.7 db", "10.0.0.7 # db", "127.0.0.1 db", "::1 db", ""] {
            assert_eq!(host(line, "db"), None, "{line}");
        }
    }
}
