//! Resource limits, where this machine has control groups for them.

use std::fs;
use std::path::PathBuf;

use inspect_daytona::local::spec::Limits;

use crate::fixture::{Sandbox, Server, groups_of, needs_root};

/// The groups of a sandbox.
fn groups(server: &Server, sandbox: &Sandbox) -> Vec<PathBuf> {
    let groups = groups_of(&server.state);
    groups.into_iter().map(|path| path.join(&sandbox.spec.id)).filter(|path| path.exists()).collect()
}

macro_rules! needs {
    ($server:expr, $what:literal) => {
        if $server.engine.isolation().lost.iter().any(|lost| lost.contains($what)) {
            crate::fixture::skip(concat!($what, " cannot be limited here"));
            $server.end().await;
            return;
        }
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_over_the_limit_is_killed_and_told() {
    needs_root!();
    let server = Server::new().await;
    needs!(server, "Memory limits");
    let mut spec = server.spec();
    spec.limits = Limits { memory: Some(64 << 20), ..Limits::default() };
    let sandbox = server.start(spec.clone()).await;
    assert_eq!(sandbox.output("python3 -c 'print(len(bytearray(16 << 20)))'").await, "16777216");
    let (code, _) = sandbox.run("python3 -c 'bytearray(256 << 20)'; echo code $?").await;
    assert_eq!(code, 0);
    let (_, output) = sandbox.run("python3 -c 'bytearray(256 << 20)'; echo code $?").await;
    assert!(output.contains("code 137"), "{output}");
    assert!(sandbox.stop().await.out_of_memory);
    let again = server.start(spec).await;
    assert!(!again.stop().await.out_of_memory);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_runs_has_more_memory_and_cores_once_its_limits_are_raised() {
    needs_root!();
    let server = Server::new().await;
    needs!(server, "Memory limits");
    let mut spec = server.spec();
    spec.limits = Limits { memory: Some(64 << 20), cpus: Some(1), pids: Some(100) };
    let sandbox = server.start(spec.clone()).await;
    let allocate = "python3 -c 'bytearray(128 << 20)'; echo code $?";
    assert!(sandbox.run(allocate).await.1.contains("code 137"));
    let more = Limits { memory: Some(256 << 20), cpus: Some(2), pids: Some(100) };
    server.engine.raise_limits(spec.id.clone(), more.clone()).await.unwrap();
    assert_eq!(sandbox.output(allocate).await, "code 0");
    assert!(sandbox.run("python3 -c 'bytearray(512 << 20)'; echo code $?").await.1.contains("code 137"));
    let found = groups(&server, &sandbox);
    let read = |file: &str| found.iter().find_map(|path| fs::read_to_string(path.join(file)).ok());
    if let Some(quota) = read("cpu.cfs_quota_us").or_else(|| read("cpu.max")) {
        assert!(quota.starts_with("200000"), "{quota}");
    }
    sandbox.stop().await;
    // nothing is left to be raised, and nothing is made
    server.engine.raise_limits(spec.id, more).await.unwrap();
    assert!(groups(&server, &sandbox).is_empty());
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_over_the_limit_cannot_be_made() {
    needs_root!();
    let server = Server::new().await;
    needs!(server, "Limits on the number of processes");
    let mut spec = server.spec();
    spec.limits = Limits { pids: Some(24), ..Limits::default() };
    let sandbox = server.start(spec).await;
    let (_, output) = sandbox.run("for i in $(seq 40); do sleep 1000 >/dev/null 2>/dev/null & done").await;
    assert!(output.to_lowercase().contains("fork"), "{output}");
    sandbox.stop().await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cores_are_limited() {
    needs_root!();
    let server = Server::new().await;
    needs!(server, "CPU limits");
    let mut spec = server.spec();
    spec.limits = Limits { cpus: Some(1), ..Limits::default() };
    let sandbox = server.start(spec).await;
    let found = groups(&server, &sandbox);
    let quota = found.iter().find_map(|path| {
        fs::read_to_string(path.join("cpu.cfs_quota_us"))
            .or_else(|_| fs::read_to_string(path.join("cpu.max")))
            .ok()
    });
    assert!(quota.is_some_and(|text| text.starts_with("100000")));
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_wants_more_cores_than_it_has_is_throttled() {
    needs_root!();
    let server = Server::new().await;
    needs!(server, "CPU limits");
    let mut spec = server.spec();
    spec.limits = Limits { cpus: Some(1), ..Limits::default() };
    let sandbox = server.start(spec).await;
    let found = groups(&server, &sandbox);
    let throttled = || {
        let statistics = found.iter().find_map(|path| {
            let text = fs::read_to_string(path.join("cpu.stat")).ok()?;
            text.lines().find_map(|line| line.strip_prefix("nr_throttled ")?.parse::<u64>().ok())
        });
        statistics.expect("a group counts how often it was throttled")
    };
    assert_eq!(throttled(), 0);
    // others on this machine must not keep it below its limit
    for group in &found {
        for group in [group, group.parent().unwrap()] {
            let _ = fs::write(group.join("cpu.shares"), "262144");
            let _ = fs::write(group.join("cpu.weight"), "10000");
        }
    }
    sandbox
        .output("for i in 1 2 3 4; do (timeout 60 sh -c 'while :; do :; done' >/dev/null 2>&1 &); done")
        .await;
    let deadline = std::time::Instant::now() + crate::fixture::DEADLINE;
    while throttled() < 3 {
        assert!(std::time::Instant::now() < deadline, "four loops were never throttled to one core");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_made_inside_are_removed_with_the_sandbox() {
    needs_root!();
    let server = Server::new().await;
    let mut spec = server.spec();
    spec.limits = Limits { cpus: Some(1), memory: Some(256 << 20), pids: Some(100) };
    let sandbox = server.start(spec).await;
    let found = groups(&server, &sandbox);
    if found.is_empty() {
        crate::fixture::skip("no cgroups here");
        return server.end().await;
    }
    for group in &found {
        // as a nested Docker would
        fs::create_dir_all(group.join("docker/abc")).unwrap();
    }
    sandbox.stop().await;
    for group in &found {
        assert!(!group.exists(), "{} is left", group.display());
    }
    let own: Vec<PathBuf> = found.iter().map(|path| path.parent().unwrap().to_owned()).collect();
    server.end().await;
    assert!(own.iter().all(|path| !path.exists()), "{own:?}");
}
