//! Containers in sandboxes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Instant;

use inspect_daytona::local::engine::{EngineChoice, NetworkOptions, StateDirectory, choose};
use inspect_daytona::local::spec::RootFs;

use crate::containers::{build_tools, compose_up, image, missing, needs_docker, spec, start_engine};
use crate::fixture::{DEADLINE, Helper, Server, groups_of, inmates_of, needs_root, parent, processes_below};
use crate::network::{Address, domains, name_server, needs_gateway};

/// Mounts of this machine that lie below a directory.
fn mounts_below(directory: &Path) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let directory = directory.to_string_lossy().into_owned();
    mounts.lines().filter(|line| line.contains(&directory)).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn compose_builds_and_runs_services_that_find_each_other() {
    needs_docker!();
    let server = Server::new().await;
    let sandbox = server.start(spec(&server)).await;
    start_engine(&sandbox).await;
    assert_eq!(sandbox.output("docker info --format '{{.Driver}}'").await, "overlay2");
    build_tools(&sandbox).await;
    compose_up(&sandbox).await;
    let agent = "docker compose --project-directory /root/app exec -T agent";
    assert_eq!(sandbox.output(&format!("{agent} wget -q -O - http://web/page")).await, "made");
    let (code, output) = sandbox.run(&format!("{agent} timeout 5 wget -q -O - http://192.0.2.1/")).await;
    assert_ne!(code, 0, "{output}");
    // its own limit
    sandbox.output(&format!("{agent} dd if=/dev/zero of=/dev/null bs=8M count=1")).await;
    let (code, output) = sandbox.run(&format!("{agent} dd if=/dev/zero of=/dev/null bs=64M count=1")).await;
    assert_eq!(code, 137, "{output}");
    // an Engine begins to watch a moment after the start, and hears of the kill a moment after it
    let over = "sleep 1; dd if=/dev/zero of=/dev/null bs=64M count=1; sleep 1";
    sandbox.output(&format!("docker run --name over --memory 32m tools sh -c '{over}'")).await;
    assert_eq!(sandbox.output("docker inspect --format '{{.State.OOMKilled}}' over").await, "true");
    let stats = sandbox.output("docker stats --no-stream --format '{{.MemUsage}}' app-agent-1").await;
    assert!(stats.ends_with("/ 32MiB") && !stats.starts_with("0B"), "{stats}");
    // containers of all sandboxes together would be limited by the keys of one user
    assert_eq!(sandbox.output("cat /proc/key-users").await, "");
    sandbox.output(&format!("{agent} touch /kept/file")).await;

    sandbox.stop().await;
    let sandbox = server.start(sandbox.spec).await;
    start_engine(&sandbox).await;
    assert_eq!(sandbox.output("docker image ls --quiet tools | wc -l").await, "1");
    compose_up(&sandbox).await;
    assert_eq!(sandbox.output(&format!("{agent} ls /kept")).await, "file");

    sandbox.stop().await;
    assert!(groups_of(&server.state).iter().all(|group| !group.join(&sandbox.spec.id).exists()));
    server.engine.delete(sandbox.spec.clone()).await.unwrap();
    assert!(!sandbox.spec.directory.exists());
    assert_eq!(mounts_below(&server.state), Vec::<String>::new());
    assert_eq!(inmates_of(&server.state), []);
    server.end().await;
}

/// A web server with one page.
fn page(address: Ipv4Addr) -> u16 {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // whoever is refused has hung up
            if stream.read(&mut [0; 1024]).is_ok() {
                let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nreached\n");
            }
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_reach_what_their_sandbox_reaches() {
    needs_docker!();
    let (open, closed) = (Address::new(), Address::new());
    let names = BTreeMap::from([("open.example", open.0), ("closed.example", closed.0)]);
    let (resolver, _) = name_server(names).await;
    let server = Server::with_resolver(resolver).await;
    needs_gateway!(server);
    let mut spec = spec(&server);
    spec.network = domains(&["open.example"]);
    let sandbox = server.start(spec).await;
    start_engine(&sandbox).await;
    build_tools(&sandbox).await;
    sandbox.output("docker network create outer && docker network create --internal inner").await;
    let (there, elsewhere) = (page(open.0), page(closed.0));
    let fetch = |network: &str, host: &str, port: u16| {
        format!(
            "docker run --rm --init --network {network} tools timeout 5 wget -q -O - http://{host}:{port}/ 2>&1"
        )
    };
    for network in ["bridge", "outer", "host"] {
        assert_eq!(sandbox.output(&fetch(network, "open.example", there)).await, "reached", "{network}");
        for host in ["closed.example".to_owned(), closed.0.to_string()] {
            let (code, output) = sandbox.run(&fetch(network, &host, elsewhere)).await;
            assert_ne!(code, 0, "{network}, {host}: {output}");
        }
    }
    let (code, output) = sandbox.run(&fetch("inner", &open.0.to_string(), there)).await;
    assert_ne!(code, 0, "{output}");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sandboxes_with_containers_do_not_see_each_other() {
    needs_docker!();
    let server = Server::new().await;
    let (first, second) = tokio::join!(server.start(spec(&server)), server.start(spec(&server)));
    tokio::join!(start_engine(&first), start_engine(&second));
    tokio::join!(build_tools(&first), build_tools(&second));
    // the same names and ports in both
    let run = "docker run --detach --name same --publish 8000:80 tools httpd -f -p 80 -h /www";
    tokio::join!(first.output(run), second.output(run));
    first.output("docker exec same sh -c 'echo first > /www/page'").await;
    assert_eq!(first.output("busybox wget -q -O - http://127.0.0.1:8000/page").await, "first");
    assert_eq!(second.output("busybox wget -q -O - http://127.0.0.1:8000/page").await, "made");
    first.stop().await;
    assert_eq!(second.output("docker ps --quiet | wc -l").await, "1");
    assert_eq!(second.output("docker exec same cat /www/page").await, "made");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limits_of_a_sandbox_hold_for_its_containers() {
    needs_docker!();
    let server = Server::new().await;
    if server.engine.isolation().lost.iter().any(|lost| lost.contains("Memory limits")) {
        crate::fixture::skip("memory cannot be limited here");
        return server.end().await;
    }
    let mut spec = spec(&server);
    spec.limits.memory = Some(512 << 20);
    let sandbox = server.start(spec).await;
    start_engine(&sandbox).await;
    build_tools(&sandbox).await;
    let (code, output) =
        sandbox.run("docker run --rm tools dd if=/dev/zero of=/dev/null bs=700M count=1").await;
    assert_eq!(code, 137, "{output}");
    let (code, output) =
        sandbox.run("docker run --rm --memory 4g tools dd if=/dev/zero of=/dev/null bs=700M count=1").await;
    assert_eq!(code, 137, "{output}");
    // nor does its root change them
    for refused in [
        "echo -1 > /sys/fs/cgroup/memory/memory.limit_in_bytes",
        "echo max > /sys/fs/cgroup/memory.max",
        "echo max > /sys/fs/cgroup/pids/pids.max",
        "echo 0 > /sys/fs/cgroup/memory/../../cgroup.procs",
        "echo a > /sys/fs/cgroup/devices/devices.allow",
    ] {
        let (code, output) = sandbox.run(&format!("sh -c '{refused}'")).await;
        assert_ne!(code, 0, "{refused}: {output}");
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_with_an_engine_runs_it() {
    needs_docker!();
    let server = Server::new().await;
    let directory = parent();
    image(directory.path());
    let mut spec = spec(&server);
    spec.root = RootFs::Directory(directory.path().to_owned());
    let sandbox = server.start(spec).await;
    start_engine(&sandbox).await;
    assert_eq!(sandbox.output("docker info --format '{{.Driver}}'").await, "overlay2");
    build_tools(&sandbox).await;
    assert_eq!(sandbox.output("docker run --rm tools cat /www/page").await, "made");
    sandbox.stop().await;
    let sandbox = server.start(sandbox.spec).await;
    start_engine(&sandbox).await;
    assert_eq!(sandbox.output("docker run --rm tools cat /www/page").await, "made");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_container_ends_with_its_sandbox() {
    needs_docker!();
    let server = Server::new().await;
    let sandbox = server.start(spec(&server)).await;
    start_engine(&sandbox).await;
    build_tools(&sandbox).await;
    sandbox.output("docker run --detach --name frozen tools sleep 1000 && docker pause frozen").await;
    sandbox.stop().await;
    assert_eq!(inmates_of(&server.state), []);
    server.engine.delete(sandbox.spec).await.unwrap();
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_server_leaves_of_containers_is_swept_even_if_it_is_frozen() {
    needs_docker!();
    let parent = parent();
    let mut helper = Helper::start("nesting::server_with_a_paused_container", parent.path(), None);
    let state = PathBuf::from(helper.line());
    let below = state.parent().unwrap();
    let groups = groups_of(&state);
    helper.kill();
    let engine =
        choose(EngineChoice::Auto, &NetworkOptions::default(), StateDirectory::open(Some(below)).unwrap())
            .await
            .unwrap();
    let begun = Instant::now();
    while state.exists() || !processes_below(&state).is_empty() || groups.iter().any(|group| group.exists()) {
        assert!(
            begun.elapsed() < DEADLINE,
            "{} was not swept: {:?}",
            state.display(),
            processes_below(&state)
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    engine.shutdown().await;
    fs::remove_dir_all(below).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by what_a_killed_server_leaves_of_containers_is_swept_even_if_it_is_frozen"]
async fn server_with_a_paused_container() {
    let server = Server::new().await;
    let sandbox = server.start(spec(&server)).await;
    start_engine(&sandbox).await;
    build_tools(&sandbox).await;
    sandbox.output("docker run --detach --name frozen tools sleep 1000 && docker pause frozen").await;
    Helper::tell(&server.state.display().to_string());
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_for_containers_has_no_more_of_the_machine_than_others() {
    needs_root!();
    let server = Server::new().await;
    let plain = server.start(server.spec()).await;
    let sandbox = server.start(spec(&server)).await;
    let devices = "find /dev -not -path '/dev/pts/*' | sort";
    assert_eq!(sandbox.output(devices).await, plain.output(devices).await);
    assert_eq!(sandbox.output("ls -A /run").await, "lock");
    assert_eq!(sandbox.output("ls -A /var/lib/docker; ls -A /etc/docker 2>/dev/null || true").await, "");
    assert_eq!(sandbox.output("ip -oneline link show | cut -d: -f2 | tr -d ' \\n'").await, "lo");
    // every group that it can see is its own
    assert_eq!(sandbox.output("cut -d: -f3 /proc/self/cgroup | sort -u").await.lines().next(), Some("/"));
    let procs = sandbox
        .output("cat /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs 2>/dev/null || true")
        .await;
    assert!(procs.lines().all(|pid| pid != "0"), "processes of others are in its groups: {procs}");
    for refused in [
        "echo x > /proc/sys/kernel/core_pattern",
        "echo 1 > /proc/sys/vm/drop_caches",
        "echo 1 > /sys/kernel/uevent_helper",
        "mount -o remount,rw /sys",
        "mknod /tmp/disk b 254 0",
        "mount /dev/vda /mnt",
        "echo /tmp/x > /sys/fs/cgroup/memory/release_agent",
        "mount -t cgroup -o none,name=new none /mnt",
        "insmod /dev/null",
        "dmesg --clear",
    ] {
        let (code, output) = sandbox.run(&format!("sh -c '{refused}'")).await;
        assert_ne!(code, 0, "{refused}: {output}");
    }
    // its firewall is not the machine's
    if missing().is_none() {
        let mark = "inspect-daytona-test";
        sandbox.output(&format!("iptables --append INPUT --jump ACCEPT -m comment --comment {mark}")).await;
        let rules = std::process::Command::new("iptables").arg("--list-rules").output().unwrap();
        assert!(!String::from_utf8_lossy(&rules.stdout).contains(mark));
    }
    server.end().await;
}
