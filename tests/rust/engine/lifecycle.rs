//! Start, stop, delete, and every way for a server to end.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use inspect_daytona::ErrorKind;
use inspect_daytona::local::engine::{EngineChoice, NetworkOptions, StateDirectory, choose};

use crate::fixture::{
    DEADLINE, Helper, Server, execute, groups_of, inmates_of, needs_root, parent, processes_below, runner_of,
};

#[tokio::test(flavor = "multi_thread")]
async fn files_survive_a_stop() {
    needs_root!();
    let server = Server::new().await;
    let first = server.start(server.spec()).await;
    first.output("echo kept > ~/file; echo x | sudo -n tee /etc/made /usr/local/made /rootfile; sudo -n rm /etc/shells").await;
    assert_eq!(first.stop().await.code, 137);
    assert!(!first.running.toolbox.exists());
    let second = server.start(first.spec.clone()).await;
    assert_eq!(
        second
            .output("cat ~/file /etc/made /usr/local/made /rootfile; ls /etc/shells 2>&1 || true")
            .await
            .lines()
            .next(),
        Some("kept")
    );
    assert_eq!(second.run("test -e /etc/shells").await.0, 1);
    assert_eq!(second.output("stat -c %U ~/file").await, "daytona");
    second.stop().await;
    server.engine.delete(second.spec.clone()).await.unwrap();
    assert!(!second.spec.directory.exists());
    // a second time there is nothing to do
    server.engine.delete(second.spec.clone()).await.unwrap();
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_sandboxes_at_once() {
    needs_root!();
    let server = Server::new().await;
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let sandboxes = join_all((0..50).map(|_| server.start(server.spec()))).await;
    let names = join_all(
        sandboxes.iter().map(|sandbox| sandbox.output("hostname; sleep 1000 >/dev/null 2>&1 & true")),
    )
    .await;
    for (sandbox, name) in sandboxes.iter().zip(names) {
        assert_eq!(name, sandbox.spec.hostname);
    }
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts);
    join_all(sandboxes.iter().map(super::fixture::Sandbox::stop)).await;
    let deleted = join_all(sandboxes.iter().map(|sandbox| server.engine.delete(sandbox.spec.clone()))).await;
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_is_dropped_leaves_no_process() {
    needs_root!();
    let server = Server::new().await;
    let spec = server.spec();
    let started = tokio::time::timeout(Duration::from_millis(1), server.engine.start(spec.clone())).await;
    if let Ok(Ok(running)) = started {
        // in time after all, so that nothing was dropped
        (running.killer.0)();
    }
    // the next start is behind it, and its exit proves that requests are still answered
    let other = server.start(server.spec()).await;
    other.stop().await;
    let hostname = spec.hostname.clone();
    let begun = Instant::now();
    while !inmates_of(&server.state).is_empty() {
        assert!(begun.elapsed() < DEADLINE, "{hostname} runs: {:?}", inmates_of(&server.state));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.engine.delete(spec).await.unwrap();
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_name_the_step_and_the_sandbox() {
    needs_root!();
    let server = Server::new().await;
    let mut nobody = server.spec();
    nobody.user = "somebody".into();
    let error = server.engine.start(nobody.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::System);
    assert_eq!(
        error.to_string(),
        format!(
            "cannot start sandbox (sandbox {}): cannot run as user somebody: the sandbox has no such user",
            nobody.id
        )
    );
    let mut nowhere = server.spec();
    // one that is missing is made, but not where nobody can make any
    nowhere.work_dir = Some("/proc/nowhere".into());
    let error = server.engine.start(nowhere).await.unwrap_err();
    assert!(error.to_string().contains("/proc/nowhere: ENOENT"), "{error}");
    assert!(inmates_of(&server.state).is_empty());
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_runs_is_neither_started_again_nor_deleted() {
    needs_root!();
    let server = Server::new().await;
    let sandbox = server.start(server.spec()).await;
    let error = server.engine.start(sandbox.spec.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let error = server.engine.delete(sandbox.spec.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(sandbox.output("echo alive").await, "alive");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_very_deep_tree_and_files_of_others_are_deleted() {
    needs_root!();
    let server = Server::new().await;
    let sandbox = server.start(server.spec()).await;
    sandbox.output("python3 -c \"import os\nfor _ in range(1500): os.mkdir('d'); os.chdir('d')\"").await;
    sandbox.output("sudo -n mkdir -m 000 /opt/closed && sudo -n touch /opt/closed/file && sudo -n chown 4711 /opt/closed").await;
    sandbox.stop().await;
    server.engine.delete(sandbox.spec.clone()).await.unwrap();
    assert!(!sandbox.spec.directory.exists());
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_in_memory_may_be_forbidden() {
    needs_root!();
    let parent = parent();
    match Helper::start_without_memory_programs("lifecycle::server_without_memory_programs", parent.path()) {
        Some(helper) => helper.succeed(),
        None => crate::fixture::skip("needs vm.memfd_noexec (Linux 6.3)"),
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by programs_in_memory_may_be_forbidden"]
async fn server_without_memory_programs() {
    assert_eq!(fs::read_to_string("/proc/sys/vm/memfd_noexec").unwrap().trim(), "2");
    let server = Server::new().await;
    let sandbox = server.start(server.spec()).await;
    assert_eq!(sandbox.output("id -un; sudo -n id -u").await, "daytona\n0");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_runner_ends_its_sandboxes_and_fails_what_waits() {
    needs_root!();
    let server = Server::new().await;
    let sandbox = server.start(server.spec()).await;
    sandbox.output("setsid sleep 1000 >/dev/null 2>&1 & true").await;
    let runner = runner_of(&sandbox);
    let waiting: Vec<_> = (0..20).map(|_| server.engine.start(server.spec())).collect();
    let waiting = join_all(waiting);
    nix::sys::signal::kill(runner, nix::sys::signal::Signal::SIGKILL).unwrap();
    let results = tokio::time::timeout(DEADLINE, waiting).await.expect("pending starts hang");
    for error in results.into_iter().filter_map(Result::err) {
        assert!(error.to_string().contains("ended"), "{error}");
    }
    assert_eq!(sandbox.exit().await.code, 137);
    let error = server.engine.start(server.spec()).await.unwrap_err();
    assert!(
        error.to_string().contains("cannot ask the runner: it has ended (signal: 9 (SIGKILL))"),
        "{error}"
    );
    server.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_leaves_no_process_and_its_remains_are_swept() {
    needs_root!();
    let parent = parent();
    let mut helper = Helper::start("lifecycle::server_that_is_killed", parent.path(), None);
    let toolbox = PathBuf::from(helper.line());
    let state = toolbox.ancestors().nth(2).unwrap().to_owned();
    execute(
        &toolbox,
        "setsid nohup sleep 1000 >/dev/null 2>&1 & sudo -n setsid sleep 1000 >/dev/null 2>&1 & true",
    )
    .await;
    assert!(processes_below(&state).len() > 1);
    let groups = groups_of(&state);
    helper.kill();
    let begun = Instant::now();
    while !processes_below(&state).is_empty() {
        assert!(begun.elapsed() < DEADLINE, "{:?}", processes_below(&state));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(state.exists());
    let engine = choose(
        EngineChoice::Auto,
        &NetworkOptions::default(),
        StateDirectory::open(Some(parent.path())).unwrap(),
    )
    .await
    .unwrap();
    let begun = Instant::now();
    while state.exists() {
        assert!(begun.elapsed() < DEADLINE, "{} was not swept", state.display());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for group in groups {
        assert!(!group.exists(), "{} was not swept", group.display());
    }
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by a_killed_server_leaves_no_process_and_its_remains_are_swept"]
async fn server_that_is_killed() {
    let parent = PathBuf::from(std::env::var_os("INSPECT_DAYTONA_TEST_PARENT").unwrap());
    let state = StateDirectory::open(Some(&parent)).unwrap();
    let directory = state.sandbox("a");
    let engine = choose(EngineChoice::Auto, &NetworkOptions::default(), state).await.unwrap();
    let mut spec = crate::fixture::spec_in(&directory);
    spec.limits.pids = Some(100);
    let running = engine.start(spec).await.unwrap();
    Helper::tell(&running.toolbox.display().to_string());
    std::future::pending::<()>().await;
}
