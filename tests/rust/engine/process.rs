//! The engine without namespaces.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use inspect_daytona::local::engine::{EngineChoice, NetworkOptions, StateDirectory, choose};
use inspect_daytona::local::spec::Network;

use crate::fixture::{DEADLINE, Helper, Server, execute, needs_root, parent, spec_in};

/// Whether a process with this command line runs.
fn runs(command: &str) -> bool {
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").trim() == command
    })
}

async fn until(wanted: bool, command: &str) {
    let begun = Instant::now();
    while runs(command) != wanted {
        assert!(begun.elapsed() < DEADLINE, "{command}: runs is not {wanted}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_sandbox_writes_to_its_own_directory_only() {
    let server = Server::with(EngineChoice::Process).await;
    let isolation = server.engine.isolation();
    assert_eq!(isolation.name, "process");
    assert!(isolation.lost.iter().any(|lost| lost.contains("no sudo")), "{isolation:?}");
    let elsewhere = parent();
    fs::set_permissions(elsewhere.path(), fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(elsewhere.path().join("secret"), "secret").unwrap();
    let sandbox = server.start(server.spec()).await;
    sandbox.output("echo x > ~/file && echo y > $TMPDIR/file && cat ~/file && test $(pwd) = $HOME").await;
    let path = elsewhere.path().display();
    for refused in [
        format!("echo x > {path}/file"),
        format!("cat {path}/secret"),
        "echo x > /tmp/inspect-daytona-process".into(),
    ] {
        let (code, output) = sandbox.run(&refused).await;
        assert!(code != 0 && output.contains("ermission denied"), "{refused}: {output}");
    }
    assert_eq!(sandbox.output("grep -h ^CapEff: /proc/self/status | cut -f2").await, "0000000000000000");
    assert_eq!(sandbox.output("grep -h ^CapBnd: /proc/self/status | cut -f2").await, "0000000000000000");
    let own = std::process::id();
    let (code, output) = sandbox.run(&format!("kill -0 {own}")).await;
    assert_ne!(code, 0, "{output}");
    assert_ne!(sandbox.run(&format!("cat /proc/{own}/environ")).await.0, 0);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_network_has_no_sockets() {
    let server = Server::with(EngineChoice::Process).await;
    let mut spec = server.spec();
    spec.network = Network::Blocked;
    let sandbox = server.start(spec).await;
    for family in ["AF_INET", "AF_INET6", "AF_NETLINK"] {
        let (_, output) = sandbox
            .run(&format!("python3 -c 'import socket; socket.socket(socket.{family}, socket.SOCK_DGRAM)'"))
            .await;
        assert!(output.contains("Network is unreachable"), "{family}: {output}");
    }
    sandbox.output("python3 -c 'import socket; socket.socketpair()'").await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_kills_what_has_detached_and_nothing_else() {
    let server = Server::with(EngineChoice::Process).await;
    let (first, second) = (server.start(server.spec()).await, server.start(server.spec()).await);
    first.output("(setsid nohup sleep 76543.1 >/dev/null 2>&1 &); true").await;
    second.output("(setsid nohup sleep 76543.2 >/dev/null 2>&1 &); true").await;
    until(true, "sleep 76543.1").await;
    until(true, "sleep 76543.2").await;
    first.stop().await;
    assert!(!runs("sleep 76543.1"));
    assert!(runs("sleep 76543.2"));
    server.end().await;
    until(false, "sleep 76543.2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_leaves_no_process() {
    let parent = parent();
    let mut helper = Helper::start("process::server_that_is_killed", parent.path(), None);
    let toolbox = PathBuf::from(helper.line());
    execute(&toolbox, "(setsid nohup sleep 76543.3 >/dev/null 2>&1 &); true").await;
    until(true, "sleep 76543.3").await;
    helper.kill();
    until(false, "sleep 76543.3").await;
    // which sweeps
    Server::with(EngineChoice::Process).await.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by a_killed_server_leaves_no_process"]
async fn server_that_is_killed() {
    let parent = PathBuf::from(std::env::var_os("INSPECT_DAYTONA_TEST_PARENT").unwrap());
    let state = StateDirectory::open(Some(&parent)).unwrap();
    let directory = state.sandbox("a");
    let engine = choose(EngineChoice::Process, &NetworkOptions::default(), state).await.unwrap();
    let running = engine.start(spec_in(&directory)).await.unwrap();
    Helper::tell(&running.toolbox.display().to_string());
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_are_never_exchanged_for_processes_silently() {
    needs_root!();
    let parent = parent();
    fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let helper = Helper::start_forbidden("process::server_that_may_not", parent.path());
    helper.succeed();
    assert!(Path::new("/proc").exists());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by namespaces_are_never_exchanged_for_processes_silently"]
async fn server_that_may_not() {
    let parent = PathBuf::from(std::env::var_os("INSPECT_DAYTONA_TEST_PARENT").unwrap());
    let state = StateDirectory::open(Some(&parent)).unwrap();
    let path = state.path().to_owned();
    let error = choose(EngineChoice::Auto, &NetworkOptions::default(), state).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("EPERM"), "{text}");
    assert!(text.contains("INSPECT_DAYTONA_LOCAL_ENGINE=process"), "{text}");
    assert!(!path.exists());
}
