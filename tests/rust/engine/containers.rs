//! A real Docker Engine and Compose in a sandbox, from this machine's packages, with images from local files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use inspect_daytona::local::spec::{Limits, Network, SandboxSpec};

use crate::fixture::{Sandbox, Server};

/// Ends a test that this machine lacks something for.
macro_rules! needs_docker {
    () => {
        crate::fixture::needs_root!();
        if let Some(missing) = crate::containers::missing() {
            return crate::fixture::skip(&missing);
        }
    };
}
pub(crate) use needs_docker;

/// What this machine lacks, and how to get it.
pub(crate) fn missing() -> Option<String> {
    let program = |name: &str| {
        ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"]
            .iter()
            .any(|directory| Path::new(directory).join(name).exists())
    };
    for (name, package) in [
        ("dockerd", "docker.io"),
        ("docker", "docker-cli"),
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
pub(crate) fn spec(server: &Server) -> SandboxSpec {
    let mut spec = server.spec();
    spec.user = "root".into();
    spec.work_dir = Some("/root".into());
    spec.network = Network::Blocked;
    spec.nesting = true;
    spec.limits = Limits { cpus: Some(2), memory: Some(2 << 30), pids: Some(4096) };
    spec
}

/// Starts the Engine and waits until it answers.
pub(crate) async fn start_engine(sandbox: &Sandbox) {
    sandbox.output("setsid dockerd >/run/dockerd.log 2>&1 </dev/null &").await;
    let wait = "for i in $(seq 200); do docker version >/dev/null 2>&1 && exit 0; sleep 0.1; done; \
                tail -n 30 /run/dockerd.log; exit 1";
    sandbox.output(&format!("sh -c '{wait}'")).await;
}

/// An image `tools` of one static program.
pub(crate) async fn build_tools(sandbox: &Sandbox) {
    sandbox
        .output(
            "mkdir -p /root/tools/bin && cd /root/tools && cp /usr/bin/busybox bin/busybox && \
             for name in sh cat dd httpd ls mkdir nslookup sleep timeout touch wget; do ln -sf busybox bin/$name; done && \
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

pub(crate) async fn compose_up(sandbox: &Sandbox) {
    sandbox
        .output(&format!("mkdir -p /root/app && cat > /root/app/compose.yaml <<'EOF'\n{COMPOSE}\nEOF"))
        .await;
    sandbox.output("cd /root/app && docker compose up --detach --wait 2>&1").await;
}

/// Puts a program with its libraries into a root file system.
fn install(program: &Path, root: &Path) {
    let listed = Command::new("ldd").arg(program).output().unwrap();
    let libraries = String::from_utf8_lossy(&listed.stdout).into_owned();
    let libraries = libraries.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new);
    for file in libraries.chain([program]) {
        let target = root.join(file.strip_prefix("/").unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        // they are large, and only ever read
        if !target.exists() && fs::hard_link(file.canonicalize().unwrap(), &target).is_err() {
            fs::copy(file, target).unwrap();
        }
    }
}

/// A root file system as an image has it: nothing of it is the machine's, and its `/var/run` and `/run` are what a
/// killed Engine has left.
pub(crate) fn image(root: &Path) {
    for name in ["dev", "proc", "sys", "tmp", "etc", "root", "var/run", "var/lib", "run/docker"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    let directories = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];
    for name in [
        "busybox",
        "dockerd",
        "containerd",
        "containerd-shim-runc-v2",
        "runc",
        "docker",
        "docker-init",
        "docker-proxy",
    ] {
        let program =
            directories.iter().map(|directory| Path::new(directory).join(name)).find(|path| path.exists());
        if let Some(program) = program {
            install(&program, root);
        }
    }
    fs::create_dir_all(root.join("bin")).unwrap();
    for name in
        ["sh", "cat", "cp", "env", "ln", "ls", "mkdir", "seq", "setsid", "sleep", "tail", "touch", "wc"]
    {
        symlink("/usr/bin/busybox", root.join("bin").join(name)).unwrap();
    }
    // a program of many names, behind links
    let iptables =
        ["/usr/sbin/iptables", "/sbin/iptables"].iter().find_map(|path| fs::canonicalize(path).ok()).unwrap();
    install(&iptables, root);
    symlink(iptables, root.join("bin/iptables")).unwrap();
    for extension in fs::read_dir("/usr/lib/x86_64-linux-gnu/xtables").unwrap().flatten() {
        install(&extension.path(), root);
    }
    fs::write(root.join("var/run/docker.pid"), "1").unwrap();
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\n").unwrap();
}
