//! Containers in a sandbox: a real Docker Engine and Compose, from this machine's packages, with images from local files.

use std::fs;
use std::path::Path;

use inspect_daytona::local::spec::{Access, Cidr, Limits, Network, SandboxSpec};

use crate::fixture::{Address, Sandbox, Server, groups_of, inmates_of, needs_root};

/// Ends a test that this machine lacks something for.
macro_rules! needs_docker {
    () => {
        needs_root!();
        if let Some(missing) = missing() {
            return crate::fixture::skip(&missing);
        }
    };
}

fn missing() -> Option<String> {
    let program = |name: &str| {
        ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"]
            .iter()
            .any(|directory| Path::new(directory).join(name).exists())
    };
    for (name, package) in [
        ("dockerd", "docker.io"),
        ("docker", "docker-cli"),
        ("ip", "iproute2"),
        ("iptables", "iptables"),
        ("busybox", "busybox-static"),
    ] {
        if !program(name) {
            return Some(format!("there is no {name}: apt-get install {package}"));
        }
    }
    let plugin = |directory: &str| Path::new(directory).join("docker/cli-plugins/docker-compose").exists();
    let compose =
        ["/usr/local/lib", "/usr/local/libexec", "/usr/lib", "/usr/libexec"].iter().any(|one| plugin(one));
    (!compose).then(|| {
        "there is no Compose 2: apt-get install docker-compose (Debian 13), or .ci/docker".to_owned()
    })
}

/// A sandbox of this machine's directories in which containers may run.
fn spec(server: &Server) -> SandboxSpec {
    let mut spec = server.spec();
    spec.user = "root".into();
    spec.work_dir = Some("/root".into());
    spec.network = Network::Blocked;
    spec.nesting = true;
    spec.limits = Limits { cpus: Some(2), memory: Some(2 << 30), pids: Some(4096) };
    spec
}

/// Starts the Engine and waits until it answers.
async fn start_engine(sandbox: &Sandbox) {
    sandbox.output("setsid dockerd >/var/log/dockerd.log 2>&1 </dev/null &").await;
    let wait = "for i in $(seq 200); do docker version >/dev/null 2>&1 && exit 0; sleep 0.1; done; \
                tail -n 30 /var/log/dockerd.log; exit 1";
    sandbox.output(&format!("sh -c '{wait}'")).await;
}

/// An image `tools` of one static program.
async fn build_tools(sandbox: &Sandbox) {
    sandbox
        .output(
            "mkdir -p /root/tools/bin && cd /root/tools && cp \"$(command -v busybox)\" bin/busybox && \
             for name in sh cat dd httpd ls mkdir nslookup sleep touch wget; do ln -sf busybox bin/$name; done && \
             printf 'FROM scratch\\nCOPY bin /bin\\nRUN mkdir /www && echo made > /www/page\\n' > Dockerfile && \
             docker build --quiet --tag tools .",
        )
        .await;
}

const COMPOSE: &str = r#"
services:
  web:
    image: tools
    init: true
    command: [httpd, -f, -p, "80", -h, /www]
    networks: [inner]
    healthcheck: {test: [CMD, wget, -q, -O, /dev/null, "http://127.0.0.1/page"], interval: 1s, retries: 20}
  agent:
    image: tools
    init: true
    command: [sleep, "1000"]
    mem_limit: 32m
    networks: [inner]
    depends_on: {web: {condition: service_healthy}}
    volumes: ["kept:/kept"]
networks: {inner: {}}
volumes: {kept: {}}
"#;

async fn compose_up(sandbox: &Sandbox) {
    sandbox
        .output(&format!("mkdir -p /root/app && cat > /root/app/compose.yaml <<'EOF'\n{COMPOSE}\nEOF"))
        .await;
    sandbox.output("cd /root/app && docker compose up --detach --wait 2>&1").await;
}

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
    let (code, output) = sandbox.run(&format!("{agent} wget -q -T 2 -O - http://192.0.2.1/")).await;
    assert_ne!(code, 0, "{output}");
    // its own limit
    sandbox.output(&format!("{agent} dd if=/dev/zero of=/dev/null bs=8M count=1")).await;
    let (code, output) = sandbox.run(&format!("{agent} dd if=/dev/zero of=/dev/null bs=64M count=1")).await;
    assert_eq!(code, 137, "{output}");
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

#[tokio::test(flavor = "multi_thread")]
async fn containers_reach_what_their_sandbox_may_and_nothing_else() {
    needs_docker!();
    let server = Server::new().await;
    if let Some(reason) = server.engine.isolation().no_gateway.clone() {
        crate::fixture::skip(&format!("no gateway here: {reason}"));
        return server.end().await;
    }
    let (listed, other) = (Address::new(), Address::new());
    let ports = [&listed, &other].map(|address| {
        let listener = std::net::TcpListener::bind((address.0, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = std::io::Write::write_all(&mut stream.unwrap(), b"hello\n");
            }
        });
        port
    });
    let mut spec = spec(&server);
    spec.network = Network::Gateway(Access::Networks(vec![Cidr { address: listed.0, prefix: 32 }]));
    let sandbox = server.start(spec).await;
    start_engine(&sandbox).await;
    build_tools(&sandbox).await;
    let get = |address: &Address, port: u16| {
        // its `wget -T` crashes where it is linked statically
        format!("timeout 60 docker run --rm tools busybox nc {} {port} 2>&1", address.0)
    };
    assert_eq!(sandbox.output(&get(&listed, ports[0])).await, "hello");
    let (code, output) = sandbox.run(&get(&other, ports[1])).await;
    assert!(code != 0 && output.contains("No route to host"), "{code}: {output}");
    server.end().await;
}
