//! What a sandbox with a network of its own reaches, from inside.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use inspect_daytona::local::spec::{Access, Cidr, Network};

pub(crate) use crate::fixture::Address;
use crate::fixture::{Sandbox, Server, needs_root};

/// A server that answers each connection with what it has received, in upper case, once the peer has ended.
fn shouting(address: Ipv4Addr) -> u16 {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                let mut heard = Vec::new();
                if stream.read_to_end(&mut heard).is_ok() {
                    let _ = stream.write_all(&heard.to_ascii_uppercase());
                }
            });
        }
    });
    port
}

/// Says something to a server and prints its answer, or the error.
fn say(host: &str, port: u16) -> String {
    format!(
        "python3 - <<'END'\nimport socket\ntry:\n  s = socket.create_connection(('{host}', {port}), 20)\n  s.sendall(b'hello')\n  s.shutdown(1)\n  \
         print(s.recv(100).decode())\nexcept OSError as e:\n  print(type(e).__name__, e)\nEND"
    )
}

/// A name server that knows these names, and the names that it was asked for.
pub(crate) async fn name_server(
    names: BTreeMap<&'static str, Ipv4Addr>,
) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        loop {
            let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
            let query = &buffer[..length];
            let mut labels = Vec::new();
            let mut at = 12;
            while query[at] != 0 {
                let end = at + 1 + usize::from(query[at]);
                labels.push(String::from_utf8_lossy(&query[at + 1..end]).to_lowercase());
                at = end;
            }
            let name = labels.join(".");
            log.lock().unwrap().push(name.clone());
            let mut answer = query[..at + 5].to_vec();
            answer[2] |= 0x80;
            answer[8..12].fill(0);
            match names.get(name.as_str()) {
                Some(address) if query[at + 1..at + 3] == [0, 1] => {
                    answer[7] = 1;
                    answer.extend([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
                    answer.extend(address.octets());
                }
                Some(_) => {}
                None => answer[3] |= 3,
            }
            socket.send_to(&answer, peer).await.unwrap();
        }
    });
    (address, asked)
}

fn networks(addresses: &[&Address]) -> Network {
    let cidrs = addresses.iter().map(|address| Cidr { address: address.0, prefix: 32 });
    Network::Gateway(Access::Networks(cidrs.collect()))
}

pub(crate) fn domains(names: &[&str]) -> Network {
    Network::Gateway(Access::Domains(names.iter().map(|&name| name.to_owned()).collect()))
}

async fn start(server: &Server, network: Network) -> Sandbox {
    let mut spec = server.spec();
    spec.network = network;
    server.start(spec).await
}

/// Ends a test where sandboxes have no network of their own, or nobody to reach.
macro_rules! needs_gateway {
    ($server:expr) => {
        if let Some(reason) = $server.engine.isolation().no_gateway.clone() {
            crate::fixture::skip(&format!("no gateway here: {reason}"));
            return $server.end().await;
        }
        if !Address::can_be_made() {
            crate::fixture::skip("needs ip: apt-get install iproute2");
            return $server.end().await;
        }
    };
}
pub(crate) use needs_gateway;

#[tokio::test(flavor = "multi_thread")]
async fn sandboxes_have_ports_and_interfaces_of_their_own() {
    needs_root!();
    let server = Server::new().await;
    needs_gateway!(server);
    let (first, second) = (
        start(&server, Network::Gateway(Access::Everything)).await,
        start(&server, Network::Gateway(Access::Everything)).await,
    );
    for sandbox in [&first, &second] {
        sandbox
            .output("cd /tmp && echo $(hostname) > name && (python3 -m http.server 8000 >/dev/null 2>&1 &)")
            .await;
    }
    for sandbox in [&first, &second] {
        let ask = "for i in $(seq 200); do python3 -c \"import urllib.request as u; print(u.urlopen(\
                   'http://127.0.0.1:8000/name', timeout=20).read().decode().strip())\" 2>/dev/null && exit 0; sleep 0.1; done; exit 1";
        assert_eq!(sandbox.output(ask).await, sandbox.spec.hostname);
        assert_eq!(sandbox.output("ls /sys/class/net").await, "eth0\nlo");
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_network_reaches_others_but_not_the_machines_loopback_interface() {
    needs_root!();
    let server = Server::new().await;
    needs_gateway!(server);
    let address = Address::new();
    let sandbox = start(&server, Network::Gateway(Access::Everything)).await;
    let port = shouting(address.0);
    assert_eq!(sandbox.output(&say(&address.0.to_string(), port)).await, "HELLO");
    // somebody listens there, on this machine
    let local = shouting(Ipv4Addr::LOCALHOST);
    let refused = sandbox.output(&say("127.0.0.1", local)).await;
    assert!(refused.contains("ConnectionRefusedError"), "{refused}");
    for own in ["198.18.0.1", "169.254.169.254"] {
        let prohibited = sandbox.output(&say(own, local)).await;
        assert!(prohibited.contains("No route to host"), "{own}: {prohibited}");
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_as_the_other_end_has_it() {
    needs_root!();
    let server = Server::new().await;
    needs_gateway!(server);
    let address = Address::new();
    let sandbox = start(&server, Network::Gateway(Access::Everything)).await;
    let free = TcpListener::bind((address.0, 0)).unwrap().local_addr().unwrap().port();
    let refused = sandbox.output(&say(&address.0.to_string(), free)).await;
    assert!(refused.contains("ConnectionRefusedError"), "{refused}");
    let rude = TcpListener::bind((address.0, 0)).unwrap();
    let port = rude.local_addr().unwrap().port();
    std::thread::spawn(move || {
        // closing with something unread resets
        let (mut stream, _) = rude.accept().unwrap();
        stream.read_exact(&mut [0]).unwrap();
    });
    let listen = say(&address.0.to_string(), port).replace("  s.shutdown(1)\n", "");
    let reset = sandbox.output(&listen).await;
    assert!(reset.contains("ConnectionResetError"), "{reset}");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_transfers_arrive_whole_in_both_directions_and_at_once() {
    needs_root!();
    let server = Server::new().await;
    needs_gateway!(server);
    let address = Address::new();
    let sandbox = start(&server, Network::Gateway(Access::Everything)).await;
    let port = shouting(address.0);
    let transfer = format!(
        "cat > /tmp/t.py <<'END'\nimport hashlib, os, socket, threading\ndef one(i):\n  d = os.urandom(1 << 21).hex().encode()\n  \
         s = socket.create_connection(('{}', {port}), 20)\n  s.sendall(d); s.shutdown(1)\n  b = b''\n  \
         while c := s.recv(1 << 20): b += c\n  print('same' if b == d.upper() else f'differs: {{len(b)}} of {{len(d)}}')\n\
         t = [threading.Thread(target=one, args=(i,)) for i in range(8)]\n[x.start() for x in t]; [x.join() for x in t]\nEND\n\
         python3 /tmp/t.py | sort | uniq -c",
        address.0
    );
    assert_eq!(sandbox.output(&transfer).await.trim(), "8 same");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_networks_lets_those_through_and_nothing_else_not_even_for_root() {
    needs_root!();
    let (allowed, other) = (Address::new(), Address::new());
    let (resolver, asked) = name_server(BTreeMap::from([("allowed.test", allowed.0)])).await;
    let server = Server::with_resolver(resolver).await;
    needs_gateway!(server);
    let (allowed_port, other_port) = (shouting(allowed.0), shouting(other.0));
    let sandbox = start(&server, networks(&[&allowed])).await;
    assert_eq!(sandbox.output(&say(&allowed.0.to_string(), allowed_port)).await, "HELLO");
    let reach = say(&other.0.to_string(), other_port);
    let prohibited = sandbox.output(&reach).await;
    assert!(prohibited.contains("No route to host"), "{prohibited}");
    // the name server is not in the list, and queries carry data
    let name = sandbox.output(&say("allowed.test", allowed_port)).await;
    assert!(name.contains("gaierror"), "{name}");
    assert!(asked.lock().unwrap().is_empty());
    // root may do what it likes with its own network
    for attempt in [
        "sudo -n ip address add 198.18.0.3/24 dev eth0",
        "sudo -n ip route replace default dev eth0",
        "sudo -n ip link add via type dummy; sudo -n ip link set via up; sudo -n ip route add default dev via metric 1",
        "sudo -n iptables -t nat -A OUTPUT -p tcp -j DNAT --to 127.0.0.1",
    ] {
        let _ = sandbox.run(attempt).await;
        let denied = sandbox.output(&reach).await;
        assert!(!denied.contains("HELLO"), "{attempt}: {denied}");
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_names_lets_their_addresses_through_once_they_were_asked_for() {
    needs_root!();
    let (allowed, below, other) = (Address::new(), Address::new(), Address::new());
    let names =
        BTreeMap::from([("allowed.test", allowed.0), ("a.b.below.test", below.0), ("other.test", other.0)]);
    let (resolver, asked) = name_server(names).await;
    let server = Server::with_resolver(resolver).await;
    needs_gateway!(server);
    let ports = [&allowed, &below, &other].map(|address| shouting(address.0));
    let sandbox = start(&server, domains(&["allowed.test", "*.below.test"])).await;
    let unknown = sandbox.output(&say(&allowed.0.to_string(), ports[0])).await;
    assert!(unknown.contains("No route to host"), "no name led there yet: {unknown}");
    assert_eq!(sandbox.output(&say("allowed.test", ports[0])).await, "HELLO");
    assert_eq!(sandbox.output(&say("Allowed.Test.", ports[0])).await, "HELLO");
    assert_eq!(sandbox.output(&say("a.b.below.test", ports[1])).await, "HELLO");
    assert_eq!(sandbox.output(&say(&allowed.0.to_string(), ports[0])).await, "HELLO");
    for name in ["other.test", "below.test", "sub.allowed.test", "secret-data.evil.test"] {
        let refused = sandbox.output(&say(name, ports[2])).await;
        assert!(refused.contains("gaierror"), "{name}: {refused}");
    }
    let refused = sandbox.output(&say(&other.0.to_string(), ports[2])).await;
    assert!(refused.contains("No route to host"), "{refused}");
    let asked = asked.lock().unwrap().clone();
    assert!(asked.iter().all(|name| name == "allowed.test" || name.ends_with(".below.test")), "{asked:?}");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_are_relayed_where_the_rules_allow() {
    needs_root!();
    let server = Server::new().await;
    needs_gateway!(server);
    let (allowed, other) = (Address::new(), Address::new());
    let socket = std::net::UdpSocket::bind((allowed.0, 0)).unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut buffer = [0; 100];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            socket.send_to(&buffer[..length].to_ascii_uppercase(), peer).unwrap();
        }
    });
    let sandbox = start(&server, networks(&[&allowed])).await;
    let send = |address: Ipv4Addr, port: u16| {
        format!(
            "python3 - <<'END'\nimport socket\ns = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(20)\ns.connect(('{address}', {port}))\n\
             try:\n  s.send(b'ping'); print(s.recv(100).decode())\nexcept OSError as e:\n  print(e)\nEND"
        )
    };
    assert_eq!(sandbox.output(&send(allowed.0, port)).await, "PING");
    let prohibited = sandbox.output(&send(other.0, port)).await;
    assert!(prohibited.contains("No route to host"), "{prohibited}");
    let free = std::net::UdpSocket::bind((allowed.0, 0)).unwrap().local_addr().unwrap().port();
    let closed = sandbox.output(&send(allowed.0, free)).await;
    assert!(closed.contains("Connection refused"), "{closed}");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_of_a_running_sandbox_changes_for_connections_that_exist_too() {
    needs_root!();
    let server = Server::new().await;
    needs_gateway!(server);
    let (first, second) = (Address::new(), Address::new());
    let ports = [&first, &second].map(|address| shouting(address.0));
    let sandbox = start(&server, networks(&[&first])).await;
    let id = sandbox.spec.id.clone();
    let hold = format!(
        "(python3 -c \"import socket; s = socket.create_connection(('{}', {}), 20); open('/tmp/held', 'w'); s.recv(1)\" \
         > /dev/null 2> /tmp/cut &) ; for i in $(seq 200); do test -e /tmp/held && exit 0; sleep 0.05; done; exit 1",
        first.0, ports[0]
    );
    sandbox.output(&hold).await;
    server.engine.change_network(id.clone(), networks(&[&second])).await.unwrap();
    let refused = sandbox.output(&say(&first.0.to_string(), ports[0])).await;
    assert!(refused.contains("No route to host"), "{refused}");
    assert_eq!(sandbox.output(&say(&second.0.to_string(), ports[1])).await, "HELLO");
    let cut =
        "for i in $(seq 200); do grep -q ConnectionResetError /tmp/cut && exit 0; sleep 0.05; done; exit 1";
    sandbox.output(cut).await;
    server.engine.change_network(id.clone(), Network::Blocked).await.unwrap();
    assert_eq!(sandbox.output("ls /sys/class/net").await, "lo");
    let blocked = sandbox.output(&say(&second.0.to_string(), ports[1])).await;
    assert!(blocked.contains("Network is unreachable"), "{blocked}");
    server.engine.change_network(id.clone(), Network::Gateway(Access::Everything)).await.unwrap();
    assert_eq!(sandbox.output(&say(&first.0.to_string(), ports[0])).await, "HELLO");
    // the machine's network cannot be entered from here
    server.engine.change_network(id.clone(), Network::Host).await.unwrap_err();
    sandbox.stop().await;
    server.engine.change_network(id, Network::Host).await.unwrap();
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_on_the_machines_network_is_not_said_to_be_blocked() {
    needs_root!();
    let server = Server::new().await;
    let sandbox = start(&server, Network::Host).await;
    let id = sandbox.spec.id.clone();
    server.engine.change_network(id, Network::Blocked).await.unwrap_err();
    assert!(sandbox.output("ls /sys/class/net").await.contains("lo"));
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_ends_with_its_sandbox() {
    needs_root!();
    let server = Server::new().await;
    needs_gateway!(server);
    let address = Address::new();
    let listener = TcpListener::bind((address.0, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let sandbox = start(&server, Network::Gateway(Access::Everything)).await;
    sandbox
        .output(&format!(
            "(python3 -c \"import socket; s = socket.create_connection(('{}', {port}), 20); s.recv(1)\" &) >/dev/null 2>&1",
            address.0
        ))
        .await;
    let (mut stream, _) = listener.accept().unwrap();
    sandbox.stop().await;
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // whether by an end or by a reset
    let ended = stream.read(&mut [0]);
    assert!(
        matches!(&ended, Ok(0))
            || ended.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset),
        "{ended:?}"
    );
    server.end().await;
}
