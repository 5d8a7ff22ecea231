//! Commands in a sandbox that lacks something for a while, or whose files of ours are gone.

use inspect_daytona::ErrorKind;
use inspect_daytona::local::control::LocalOptions;
use inspect_daytona::provider::Sandbox;

use crate::fixture::{Fixture, output, shell, until, with_input};

/// What is kept of commands in the sandbox, and what was uploaded for them.
const KEPT: &str = "ls -d /var/tmp/.inspect-daytona-*/1000/* /var/tmp/.inspect-daytona-*/in-* 2>/dev/null | grep -E '[0-9a-f]{32}' || true";

/// A sandbox that may have few processes, if this machine can see to that.
async fn few_processes() -> Option<(Fixture, Sandbox)> {
    let options = LocalOptions { pids: Some(48), ..LocalOptions::default() };
    let fixture = Fixture::with(options).await;
    let sandbox = fixture.sandbox().await;
    let crowd = sandbox.exec(shell("for i in $(seq 60); do sleep 3 & done")).await.unwrap();
    if crowd.returncode == 0 {
        eprintln!("skipped: there is no control group that limits processes here");
        fixture.finish().await;
        return None;
    }
    Some((fixture, sandbox))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_waits_for_a_sandbox_that_is_out_of_processes_for_a_moment() {
    let Some((fixture, sandbox)) = few_processes().await else { return };
    assert_eq!(output(&sandbox, "echo run >> trace; cat trace").await, "run\n");
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_cannot_begin_is_an_error_and_not_a_status() {
    let Some((fixture, sandbox)) = few_processes().await else { return };
    until("processes end", || async { sandbox.exec(shell("true")).await.is_ok() }).await;
    let _crowd = sandbox.exec(shell("for i in $(seq 60); do sleep 600 & done")).await;
    let error = sandbox.exec(shell("true")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SandboxUnavailable, "{error}");
    fixture.finish().await;
}

/// When it is asked for, 45 s after its start, neither a shell nor sudo can be started.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_of_another_user_that_takes_all_processes_is_awaited_and_not_run_again() {
    let Some((fixture, sandbox)) = few_processes().await else { return };
    let crowd = "import subprocess, time\n\
                 try:\n    \
                 while True: subprocess.Popen(['sleep', '20'])\n\
                 except OSError: pass\n\
                 time.sleep(18)\n\
                 print(open('/tmp/trace').read(), end='')";
    let line = format!("echo run >> /tmp/trace; sleep 38; exec python3 -c \"{crowd}\"");
    let mut command = shell(&line);
    command.user = Some("0".to_owned());
    let outcome = sandbox.exec(command).await.unwrap();
    assert_eq!((outcome.returncode, outcome.stdout.as_str()), (0, "run\n"), "{}", outcome.stderr);
    fixture.finish().await;
}

/// Longer than one request waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_command_outlives_the_shim_that_started_it() {
    let fixture = Fixture::new().await;
    let sandbox = fixture.sandbox().await;
    let line = "echo run >> trace; rm -rf /var/tmp/.inspect-daytona-*; sleep 48; echo ended";
    assert_eq!(output(&sandbox, line).await, "ended\n");
    assert_eq!(output(&sandbox, "cat trace").await, "run\n");
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_command_leaves_neither_its_result_nor_its_input() {
    let fixture = Fixture::new().await;
    let sandbox = fixture.sandbox().await;
    for line in ["sleep 4323", "head -c 3000000 /dev/zero; sleep 4323"] {
        let running = {
            let (sandbox, line) = (sandbox.clone(), format!("touch up; {line}"));
            tokio::spawn(async move { sandbox.exec(with_input(shell(&line), vec![b'x'; 1 << 20])).await })
        };
        until("the command runs", || async { sandbox.read_file("up", 10).await.is_ok() }).await;
        running.abort();
        // a look is a command itself, which the next one acknowledges
        until("its traces are gone", || async { output(&sandbox, KEPT).await.lines().count() <= 2 }).await;
        output(&sandbox, "rm up").await;
    }
    assert_eq!(output(&sandbox, "ps -eo args | grep -c '^sleep 4323' || true").await.trim(), "0");
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_command_ends_although_the_shim_that_started_it_is_gone() {
    let fixture = Fixture::new().await;
    let sandbox = fixture.sandbox().await;
    let running = {
        let sandbox = sandbox.clone();
        tokio::spawn(
            async move { sandbox.exec(shell("rm -rf /var/tmp/.inspect-daytona-*; sleep 4324")).await },
        )
    };
    until("the command runs", || async { runs_here("sleep 4324") }).await;
    running.abort();
    // seen from outside, since a command would put the shim back before the kill comes
    until("no process of it is left", || async { !runs_here("sleep 4324") }).await;
    fixture.finish().await;
}

/// Whether a process of this machine, its sandboxes included, has these arguments.
fn runs_here(arguments: &str) -> bool {
    let wanted: Vec<u8> =
        arguments.bytes().map(|byte| if byte == b' ' { 0 } else { byte }).chain([0]).collect();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .any(|found| found == wanted)
}
