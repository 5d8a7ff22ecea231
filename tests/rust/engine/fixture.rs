//! A server with its engine, and sandboxes in it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use inspect_daytona::local::engine::{
    Engine, EngineChoice, Exit, NetworkOptions, Running, StateDirectory, choose,
};
use inspect_daytona::local::spec::{Limits, Network, RootFs, SandboxSpec};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Longer than anything takes, so that a hang fails instead of blocking.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// An engine with a state directory of its own.
pub(crate) struct Server {
    /// The engine.
    pub(crate) engine: Arc<dyn Engine>,
    /// Where sandboxes are.
    pub(crate) state: PathBuf,
    parent: TempDir,
}

/// A sandbox that runs.
pub(crate) struct Sandbox {
    /// What it was started from.
    pub(crate) spec: SandboxSpec,
    /// How to reach it.
    pub(crate) running: Running,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A parent for state directories; on a disk, since `/tmp` may be in memory.
pub(crate) fn parent() -> TempDir {
    tempfile::Builder::new().prefix("idt-").tempdir_in("/var/tmp").unwrap()
}

impl Server {
    /// An engine of the machine's best level.
    pub(crate) async fn new() -> Self {
        Self::with(EngineChoice::Auto).await
    }

    /// An engine of this choice.
    pub(crate) async fn with(choice: EngineChoice) -> Self {
        let parent = parent();
        let state = StateDirectory::open(Some(parent.path())).unwrap();
        let path = state.path().to_owned();
        let engine = choose(choice, &NetworkOptions::default(), state).await.unwrap();
        Self { engine, state: path, parent }
    }

    /// An engine of the machine's best level with its state below this directory.
    pub(crate) async fn below(parent: TempDir) -> Self {
        let state = StateDirectory::open(Some(parent.path())).unwrap();
        let path = state.path().to_owned();
        let engine = choose(EngineChoice::Auto, &NetworkOptions::default(), state).await.unwrap();
        Self { engine, state: path, parent }
    }

    /// An engine of the machine's best level whose gateways ask this name server.
    pub(crate) async fn with_resolver(resolver: SocketAddr) -> Self {
        let parent = parent();
        let state = StateDirectory::open(Some(parent.path())).unwrap();
        let path = state.path().to_owned();
        let network = NetworkOptions { resolvers: vec![resolver], ..NetworkOptions::default() };
        let engine = choose(EngineChoice::Auto, &network, state).await.unwrap();
        Self { engine, state: path, parent }
    }

    /// A sandbox as the default snapshot makes it.
    pub(crate) fn spec(&self) -> SandboxSpec {
        spec_in(
            &self.state.join("sandboxes").join(format!("sandbox-{}", NEXT.fetch_add(1, Ordering::Relaxed))),
        )
    }

    /// Starts a sandbox.
    pub(crate) async fn start(&self, spec: SandboxSpec) -> Sandbox {
        let running = self.engine.start(spec.clone()).await.unwrap();
        Sandbox { spec, running }
    }

    /// Ends everything and checks that nothing is left.
    pub(crate) async fn end(self) {
        self.engine.shutdown().await;
        assert!(!self.state.exists(), "{} is left", self.state.display());
        let left: Vec<_> =
            std::fs::read_dir(self.parent.path()).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, ["lock"]);
    }
}

impl Sandbox {
    /// Runs a shell command; exit code and output.
    pub(crate) async fn run(&self, command: &str) -> (i64, String) {
        execute(&self.running.toolbox, command).await
    }

    /// Runs a shell command that must succeed; its output without the last newline.
    pub(crate) async fn output(&self, command: &str) -> String {
        let (code, output) = self.run(command).await;
        assert_eq!(code, 0, "{command}: {output}");
        output.trim_end().to_owned()
    }

    /// Kills the sandbox and waits for its end.
    pub(crate) async fn stop(&self) -> Exit {
        (self.running.killer.0)();
        self.exit().await
    }

    /// Waits for the sandbox's end.
    pub(crate) async fn exit(&self) -> Exit {
        let mut exit = self.running.exit.clone();
        let ended = tokio::time::timeout(DEADLINE, exit.wait_for(Option::is_some)).await;
        (*ended.expect("the sandbox does not end").unwrap()).unwrap()
    }
}

/// A sandbox as the default snapshot makes it, in this directory.
pub(crate) fn spec_in(directory: &Path) -> SandboxSpec {
    let id = directory.file_name().unwrap().to_string_lossy().into_owned();
    SandboxSpec {
        directory: directory.to_owned(),
        hostname: id.clone(),
        id,
        user: "daytona".into(),
        env: BTreeMap::from([("GREETING".into(), "hello world".into())]),
        work_dir: None,
        entrypoint: Vec::new(),
        root: RootFs::Host,
        network: Network::Host,
        nesting: false,
        mounts: Vec::new(),
        limits: Limits::default(),
    }
}

/// Says why a test does nothing.
pub(crate) fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
}

/// Ends a test that only root can run.
macro_rules! needs_root {
    () => {
        if !nix::unistd::geteuid().is_root() {
            return crate::fixture::skip("needs root");
        }
    };
}
pub(crate) use needs_root;

/// Processes of this machine that see a mount from `state`: the runner, its workers, and all of its sandboxes.
pub(crate) fn processes_below(state: &Path) -> Vec<(Pid, String)> {
    let state = state.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let mounts = std::fs::read_to_string(entry.path().join("mountinfo")).unwrap_or_default();
        if mounts.contains(&state) {
            let name = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push((Pid::from_raw(pid), String::from_utf8_lossy(&name).replace('\0', " ")));
        }
    }
    found
}

/// The control groups of a server, one for each hierarchy.
pub(crate) fn groups_of(state: &Path) -> Vec<PathBuf> {
    let name = format!("inspect-daytona-{}", state.file_name().unwrap().to_string_lossy());
    let mut found = Vec::new();
    let mut directories = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_name() == name.as_str() {
                found.push(entry.path());
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                directories.push(entry.path());
            }
        }
    }
    found
}

/// Processes of sandboxes alone.
pub(crate) fn inmates_of(state: &Path) -> Vec<(Pid, String)> {
    let mut found = processes_below(state);
    found.retain(|(_, name)| name.trim() != "inspect-daytona-runner");
    found
}

/// The runner that made a sandbox.
pub(crate) fn runner_of(sandbox: &Sandbox) -> Pid {
    let state = sandbox.spec.directory.ancestors().nth(2).unwrap();
    let found = processes_below(state);
    found
        .iter()
        .find(|(_, name)| name.trim() == "inspect-daytona-runner")
        .unwrap_or_else(|| panic!("{found:?}"))
        .0
}

/// An address of this machine for as long as a test runs; sandboxes see it as any other on the network.
pub(crate) struct Address(pub(crate) Ipv4Addr);

impl Address {
    /// Whether this machine has the program that takes one.
    pub(crate) fn can_be_made() -> bool {
        Command::new("ip").arg("-V").stdout(Stdio::null()).status().is_ok()
    }

    /// Takes one; needs root.
    pub(crate) fn new() -> Self {
        // a range that nothing else of this machine uses, and so large that two runs hardly meet
        let random = uuid::Uuid::new_v4().as_fields().0;
        let address = Ipv4Addr::from(0xC612_8000 | (random & 0x7FFF));
        ip(&["address", "add", &format!("{address}/32"), "dev", "lo"]);
        Self(address)
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        ip(&["address", "del", &format!("{}/32", self.0), "dev", "lo"]);
    }
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().unwrap();
    assert!(status.success(), "ip {arguments:?}");
}

/// This test program in a process of its own, running one ignored test.
pub(crate) struct Helper {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Helper {
    const MARK: &str = "helper: ";

    /// Starts it, as another user if `user` is given.
    pub(crate) fn start(test: &str, parent: &Path, user: Option<u32>) -> Self {
        let command = match user {
            None => Command::new(std::env::current_exe().unwrap()),
            Some(user) => as_user(Command::new("setpriv"), parent, user),
        };
        Self::spawn(command, test, parent)
    }

    /// Starts it as a user with subordinate ids, which this machine's files need not name: it sees others. It may open
    /// `/dev/net/tun`, and knows somebody to talk to.
    pub(crate) fn start_with_ranges(test: &str, parent: &Path, user: u32, peer: SocketAddr) -> Self {
        let name = nix::unistd::User::from_uid(user.into()).unwrap().unwrap().name;
        let ranges = parent.join("ranges");
        std::fs::write(&ranges, format!("{name}:100000:65536\n")).unwrap();
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--", "sh", "-euc"])
            .arg(
                "mount --bind \"$1\" /etc/subuid; mount --bind \"$1\" /etc/subgid; mknod \"$2\" c 10 200; \
                 chmod 666 \"$2\"; mount --bind \"$2\" /dev/net/tun; shift 2; exec setpriv \"$@\"",
            )
            .arg("sh")
            .arg(&ranges)
            .arg(parent.join("tun"))
            .env("INSPECT_DAYTONA_TEST_PEER", peer.to_string());
        Self::spawn(as_user(command, parent, user), test, parent)
    }

    /// Starts it as root without the capabilities that namespaces need.
    pub(crate) fn start_forbidden(test: &str, parent: &Path) -> Self {
        let mut command = Command::new("setpriv");
        command
            .args(["--bounding-set", "-all", "--inh-caps", "-all", "--"])
            .arg(std::env::current_exe().unwrap());
        Self::spawn(command, test, parent)
    }

    /// Starts it in a pid namespace in which memory files cannot be executed.
    pub(crate) fn start_without_memory_programs(test: &str, parent: &Path) -> Option<Self> {
        const SYSCTL: &str = "/proc/sys/vm/memfd_noexec";
        if !Path::new(SYSCTL).exists() {
            return None;
        }
        let mut command = Command::new("unshare");
        command
            .args(["--pid", "--fork", "--kill-child", "--mount-proc", "--", "sh", "-euc"])
            .arg(format!("echo 2 > {SYSCTL}; exec \"$@\""))
            .arg("sh")
            .arg(std::env::current_exe().unwrap());
        Some(Self::spawn(command, test, parent))
    }

    fn spawn(mut command: Command, test: &str, parent: &Path) -> Self {
        let mut child = command
            .args([test, "--exact", "--ignored", "--nocapture"])
            .env("INSPECT_DAYTONA_TEST_PARENT", parent)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// From within the helper: says a line.
    pub(crate) fn tell(line: &str) {
        // the test harness writes its own line before without an end
        println!("\n{}{line}", Self::MARK);
    }

    /// The next line that the helper says.
    pub(crate) fn line(&mut self) -> String {
        let mut said = Vec::new();
        for line in self.lines.by_ref() {
            let line = line.unwrap();
            if let Some(line) = line.strip_prefix(Self::MARK) {
                return line.to_owned();
            }
            said.push(line);
        }
        panic!("the helper ended: {}", said.join("\n"));
    }

    /// Kills it as the kernel would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end, which must be a success.
    pub(crate) fn succeed(mut self) {
        let said: Vec<String> = self.lines.by_ref().map_while(Result::ok).collect();
        assert!(self.child.wait().unwrap().success(), "{}", said.join("\n"));
    }
}

/// The arguments of `setpriv` to run this test program as another user.
fn as_user(mut setpriv: Command, parent: &Path, user: u32) -> Command {
    // the program itself may be where others cannot look
    let copy = parent.join("test-program");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    setpriv
        .args(["--reuid", &user.to_string(), "--regid", &user.to_string(), "--clear-groups", "--"])
        .arg(copy);
    setpriv
}

/// Runs a shell command through a toolbox.
pub(crate) async fn execute(toolbox: &Path, command: &str) -> (i64, String) {
    let body = serde_json::json!({ "command": command }).to_string();
    let request = Request::post("/process/execute")
        .header("host", "toolbox")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    let answer = tokio::time::timeout(DEADLINE, async {
        let stream = tokio::net::UnixStream::connect(toolbox).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        connection.abort();
        body
    })
    .await
    .expect("the toolbox does not answer");
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    let code = answer["exitCode"].as_i64().unwrap_or_else(|| panic!("{command}: {answer}"));
    (code, answer["result"].as_str().unwrap_or_default().to_owned())
}
