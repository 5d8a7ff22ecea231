//! What a task says about the network and about volumes is what its commands meet.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use inspect_daytona::ErrorKind;
use inspect_daytona::local::control::{LocalOptions, LocalServer};
use serde_json::json;

use crate::fixture::{Fixture, output, shell};

/// An address of this machine for as long as a test runs, with a server on it that answers `hello`.
pub(crate) struct Peer {
    pub(crate) address: Ipv4Addr,
    pub(crate) port: u16,
}

impl Peer {
    /// Takes the address with `ip`; needs root.
    pub(crate) fn new() -> Self {
        Self::at(Self::random())
    }

    /// One of a range that nothing else of this machine uses, and so large that two runs hardly meet.
    fn random() -> Ipv4Addr {
        let random = uuid::Uuid::new_v4().as_fields().0;
        Ipv4Addr::from(0xC612_8000 | (random & 0x7FFF))
    }

    fn at(address: Ipv4Addr) -> Self {
        ip("add", address);
        let listener = TcpListener::bind((address, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = stream.unwrap().write_all(b"hello\n");
            }
        });
        Self { address, port }
    }

    /// A line for a shell that prints what the server says.
    fn ask(&self, host: &str) -> inspect_daytona::provider::Command {
        let connect = format!("timeout 30 bash -c 'exec 3<>/dev/tcp/{host}/{} && cat <&3'", self.port);
        shell(&connect)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        ip("del", self.address);
    }
}

fn ip(what: &str, address: Ipv4Addr) {
    let status = std::process::Command::new("ip")
        .args(["address", what, &format!("{address}/32"), "dev", "lo"])
        .status()
        .unwrap();
    assert!(status.success());
}

/// A server that can keep allow lists, or the reason why this test cannot run.
pub(crate) async fn gateway(options: LocalOptions) -> Option<Fixture> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return None;
    }
    if std::process::Command::new("ip").arg("-V").stdout(std::process::Stdio::null()).status().is_err() {
        eprintln!("skipped: needs ip: apt-get install iproute2");
        return None;
    }
    let fixture = Fixture::with(options).await;
    if let Some(reason) = reason(&fixture.server) {
        eprintln!("skipped: no gateway here: {reason}");
        fixture.finish().await;
        return None;
    }
    Some(fixture)
}

fn reason(server: &LocalServer) -> Option<String> {
    server.isolation().no_gateway.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_network_cannot_be_reached_from_inside_and_an_open_one_can() {
    let Some(fixture) = gateway(LocalOptions::default()).await else { return };
    let peer = Peer::new();
    let ask = || peer.ask(&peer.address.to_string());
    let open = fixture.sandbox().await;
    assert_eq!(open.exec(ask()).await.unwrap().stdout, "hello\n", "the probe works where it may");
    let blocked = fixture.sandbox_with(json!({"network_block_all": true})).await.unwrap();
    let refused = blocked.exec(ask()).await.unwrap();
    assert!(refused.returncode != 0 && refused.stderr.contains("Network is unreachable"), "{refused:?}");
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_networks_lets_one_address_through_and_not_the_other() {
    let Some(fixture) = gateway(LocalOptions::default()).await else { return };
    let (listed, other) = (Peer::new(), Peer::new());
    let list = json!({"network_allow_list": format!("{}/32", listed.address)});
    let sandbox = fixture.sandbox_with(list).await.unwrap();
    let answer = sandbox.exec(listed.ask(&listed.address.to_string())).await.unwrap();
    assert_eq!((answer.returncode, answer.stdout.as_str()), (0, "hello\n"));
    let refused = sandbox.exec(other.ask(&other.address.to_string())).await.unwrap();
    assert!(refused.returncode != 0 && refused.stderr.contains("No route to host"), "{refused:?}");
    fixture.finish().await;
}

/// A name server for which every name is this address.
fn name_server(address: Ipv4Addr) -> std::net::SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let own = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            let end = 12 + buffer[12..length].iter().position(|byte| *byte == 0).unwrap() + 5;
            let mut answer = buffer[..end].to_vec();
            answer[2] |= 0x80;
            answer[6..12].copy_from_slice(&[0, 1, 0, 0, 0, 0]);
            answer.extend([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            answer.extend(address.octets());
            socket.send_to(&answer, peer).unwrap();
        }
    });
    own
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_names_lets_one_name_through_and_not_the_other() {
    // the name server comes before the server, and the address that it tells after it
    let address = Peer::random();
    let mut options = LocalOptions::default();
    options.network.resolvers = vec![name_server(address)];
    let Some(fixture) = gateway(options).await else { return };
    let peer = Peer::at(address);
    let sandbox = fixture.sandbox_with(json!({"domain_allow_list": "*.good.test"})).await.unwrap();
    let refused = sandbox.exec(peer.ask(&peer.address.to_string())).await.unwrap();
    assert!(refused.returncode != 0 && refused.stderr.contains("No route to host"), "{refused:?}");
    let unknown = sandbox.exec(peer.ask("www.bad.test")).await.unwrap();
    assert!(unknown.returncode != 0 && unknown.stderr.contains("Name or service not known"), "{unknown:?}");
    let answer = sandbox.exec(peer.ask("www.good.test")).await.unwrap();
    assert_eq!((answer.returncode, answer.stdout.as_str()), (0, "hello\n"), "{answer:?}");
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sandboxes_of_a_run_use_the_same_port_at_once_and_not_the_machines() {
    let Some(fixture) = gateway(LocalOptions::default()).await else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let machine = || shell(&format!("timeout 30 bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}'"));
    let (first, second) = tokio::join!(fixture.sandbox(), fixture.sandbox());
    for sandbox in [&first, &second] {
        let serve = "(cd /tmp; echo \"$DAYTONA_SANDBOX_ID\" > id; exec python3 -m http.server 8000 >/dev/null 2>&1) &";
        sandbox.exec(shell(serve)).await.unwrap();
        assert_ne!(sandbox.exec(machine()).await.unwrap().returncode, 0);
    }
    for sandbox in [&first, &second] {
        let ask = "for i in $(seq 200); do python3 -c \"import urllib.request as u; print(u.urlopen(\
                   'http://localhost:8000/id', timeout=20).read().decode())\" 2>/dev/null && exit 0; sleep 0.1; done; exit 1";
        assert_eq!(output(sandbox, ask).await.trim(), sandbox.id());
    }
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_of_a_task_is_shared_by_its_sandboxes() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: needs root");
    }
    let fixture = Fixture::new().await;
    fixture.make_volume("cache").await;
    let settings = json!({"volumes": [{"volume": "cache", "mount_path": "/cache", "subpath": "task"}]});
    let first = fixture.sandbox_with(settings.clone()).await.unwrap();
    let second = fixture.sandbox_with(settings).await.unwrap();
    output(&first, "echo shared > /cache/file").await;
    assert_eq!(output(&second, "cat /cache/file").await, "shared\n");
    let mut as_root = shell("echo of root >> /cache/file && cat /cache/file");
    as_root.user = Some("root".to_owned());
    assert_eq!(second.exec(as_root).await.unwrap().stdout, "shared\nof root\n");
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_sandbox_sends_while_the_other_end_has_finished_arrives() {
    let Some(fixture) = gateway(LocalOptions::default()).await else { return };
    let peer = Peer::new();
    let listener = TcpListener::bind((peer.address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let received = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut count = 0;
        let mut buffer = vec![0; 1 << 16];
        loop {
            match stream.read(&mut buffer).unwrap() {
                0 => return count,
                length => count += length,
            }
        }
    });
    let sandbox = fixture.sandbox().await;
    let send = format!(
        "timeout 50 python3 -c \"import socket; s = socket.create_connection(('{}', {port})); s.recv(1); \
         s.sendall(bytes(5000000)); s.close()\"",
        peer.address
    );
    output(&sandbox, &send).await;
    assert_eq!(received.join().unwrap(), 5_000_000);
    fixture.finish().await;
}

/// Servers drop what they do not know without a word, and an agent on the open internet is another experiment.
#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_is_not_confined_as_asked_is_an_error_and_deleted() {
    for (settings, field) in [
        (json!({"network_block_all": true}), "networkBlockAll"),
        (json!({"network_allow_list": ["10.0.0.0/8"]}), "networkAllowList"),
        (json!({"domain_allow_list": ["example.org"]}), "domainAllowList"),
    ] {
        let fixture = Fixture::new().await;
        fixture.fault("POST", "/api/sandbox", 1, json!({"kind": "forget", "fields": [field]})).await;
        let error = fixture.sandbox_with(settings).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("would not be confined as the task asks"), "{error}");
        let counts = fixture.run.counts();
        assert_eq!((counts.created, counts.deleted), (1, 1), "{field}");
        fixture.finish().await;
    }
}
