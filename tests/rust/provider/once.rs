//! A command runs exactly once and its result arrives, whatever the network does to the requests.

use std::time::Duration;

use inspect_daytona::ErrorKind;
use inspect_daytona::provider::{Command, Sandbox};
use serde_json::{Value, json};

use crate::fixture::{Fixture, LIMIT, command, output, shell, until, with_input};

/// A command that leaves a trace each time it runs.
fn traced() -> Command {
    with_input(shell("echo run >> trace; cat; echo err >&2; exit 7"), "in\0put")
}

async fn runs(sandbox: &Sandbox) -> usize {
    output(sandbox, "cat trace 2>/dev/null || true").await.lines().count()
}

async fn survives(fault: Value) {
    let fixture = Fixture::new().await;
    let sandbox = fixture.sandbox().await;
    output(&sandbox, "true").await;
    for round in 1..=3 {
        fixture.fault_execute(fault.clone()).await;
        let outcome = sandbox.exec(traced()).await.unwrap_or_else(|error| panic!("{fault}: {error}"));
        assert_eq!(
            (outcome.returncode, outcome.stdout.as_str(), outcome.stderr.as_str()),
            (7, "in\0put", "err\n"),
            "{fault}"
        );
        assert_eq!(runs(&sandbox).await, round, "{fault}");
    }
    fixture.finish().await;
}

#[tokio::test]
async fn a_proxy_that_delivers_a_request_twice_runs_it_once() {
    survives(json!({"kind": "replay"})).await;
    survives(json!({"kind": "replay", "overlap": true})).await;
}

#[tokio::test]
async fn a_lost_answer_is_fetched_again_and_not_computed_again() {
    survives(json!({"kind": "reset_after"})).await;
}

#[tokio::test]
async fn a_request_that_never_arrived_is_sent_again() {
    survives(json!({"kind": "reset_before"})).await;
}

#[tokio::test]
async fn a_cut_answer_is_fetched_again() {
    survives(json!({"kind": "cut_body", "bytes": 20})).await;
}

#[tokio::test]
async fn gateway_errors_with_empty_and_html_bodies_are_got_over() {
    survives(json!({"kind": "status", "status": 502, "body": ""})).await;
    survives(
        json!({"kind": "status", "status": 524, "body": "<html>timeout</html>", "contentType": "text/html"}),
    )
    .await;
}

#[tokio::test]
async fn the_very_first_exec_survives_a_lost_answer_too() {
    let fixture = Fixture::new().await;
    let sandbox = fixture.sandbox().await;
    fixture.fault_execute(json!({"kind": "reset_after"})).await;
    assert_eq!(sandbox.exec(traced()).await.unwrap().returncode, 7);
    assert_eq!(runs(&sandbox).await, 1);
    fixture.finish().await;
}

#[tokio::test]
async fn a_command_that_removes_the_shim_and_whose_answer_is_lost_is_not_run_again() {
    let fixture = Fixture::new().await;
    let sandbox = fixture.sandbox().await;
    output(&sandbox, "true").await;
    fixture.fault_execute(json!({"kind": "reset_after"})).await;
    let line = "echo run >> trace; rm -rf /var/tmp/.inspect-daytona-*";
    match sandbox.exec(shell(line)).await {
        // the result was still in memory
        Ok(outcome) => assert_eq!(outcome.returncode, 0),
        Err(error) => assert_eq!(error.kind(), ErrorKind::SandboxUnavailable, "{error:?}"),
    }
    assert_eq!(runs(&sandbox).await, 1);
    fixture.finish().await;
}

#[tokio::test]
async fn a_command_that_removes_the_shim_and_whose_request_is_replayed_is_not_run_again() {
    let fixture = Fixture::new().await;
    let sandbox = fixture.sandbox().await;
    output(&sandbox, "true").await;
    for fault in [json!({"kind": "replay"}), json!({"kind": "replay", "overlap": true})] {
        fixture.fault_execute(fault.clone()).await;
        let line = "echo run >> trace; rm -rf /var/tmp/.inspect-daytona-*; echo done";
        let outcome = sandbox.exec(shell(line)).await.unwrap_or_else(|error| panic!("{fault}: {error}"));
        assert_eq!((outcome.returncode, outcome.stdout.as_str()), (0, "done\n"), "{fault}");
        assert_eq!(output(&sandbox, "cat trace; rm trace").await, "run\n", "{fault}");
    }
    fixture.finish().await;
}

#[tokio::test]
async fn a_removed_shim_is_put_back_for_the_next_command() {
    let fixture = Fixture::new().await;
    let sandbox = fixture.sandbox().await;
    output(&sandbox, "rm -rf /var/tmp/.inspect-daytona-*").await;
    assert_eq!(output(&sandbox, "echo back").await, "back\n");
    assert_eq!(fixture.count(sandbox.exec(command(&["true"]))).await.0, 1);
    fixture.finish().await;
}

#[tokio::test]
async fn a_directory_that_executes_nothing_is_left_for_the_next_one() {
    let fixture = Fixture::new().await;
    let sandbox = fixture.sandbox().await;
    output(&sandbox, "sudo mount -t tmpfs -o noexec,mode=1777 none /var/tmp").await;
    assert_eq!(output(&sandbox, "echo elsewhere").await, "elsewhere\n");
    fixture.finish().await;
}

#[tokio::test]
async fn a_hundred_commands_at_once_get_their_own_outputs() {
    let fixture = Fixture::new().await;
    let sandbox = fixture.sandbox().await;
    let tasks: Vec<_> = (0..100)
        .map(|index| {
            let sandbox = sandbox.clone();
            tokio::spawn(async move {
                let line = format!("cat; echo e{index} >&2; exit {}", index % 50);
                let outcome = sandbox.exec(with_input(shell(&line), format!("o{index}"))).await.unwrap();
                assert_eq!(outcome.stdout, format!("o{index}"));
                assert_eq!(outcome.stderr, format!("e{index}\n"));
                assert_eq!(outcome.returncode, index % 50);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    fixture.finish().await;
}

#[tokio::test]
async fn results_that_arrived_are_removed_from_the_sandbox() {
    let fixture = Fixture::new().await;
    let sandbox = fixture.sandbox().await;
    for _ in 0..30 {
        output(&sandbox, "head -c 100000 /dev/zero").await;
    }
    // one for this very command, one that is acknowledged with it
    let kept = output(&sandbox, "ls /var/tmp/.inspect-daytona-*/1000 | grep -cE '^[0-9a-f]{32}$'").await;
    assert!(kept.trim().parse::<u32>().unwrap() <= 2, "{kept}");
    fixture.finish().await;
}

#[tokio::test]
async fn a_dropped_exec_kills_its_whole_tree() {
    let fixture = Fixture::new().await;
    let sandbox = fixture.sandbox().await;
    let running = {
        let sandbox = sandbox.clone();
        tokio::spawn(async move {
            sandbox.exec(shell("setsid sleep 4321 & trap '' TERM; touch up; sleep 4321")).await
        })
    };
    until("the command runs", || async { sandbox.read_file("up", 10).await.is_ok() }).await;
    running.abort();
    until("no process of it is left", || async {
        output(&sandbox, "ps -eo args | grep -c '^sleep 4321' || true").await.trim() == "0"
    })
    .await;
    fixture.finish().await;
}

#[tokio::test]
async fn a_timeout_keeps_what_was_written_and_leaves_no_process() {
    let fixture = Fixture::new().await;
    let sandbox = fixture.sandbox().await;
    let timeout = Some(Duration::from_millis(500));
    let outcome = sandbox
        .exec(Command {
            timeout,
            ..shell("echo partial; echo err >&2; (trap '' TERM; sleep 4322) & sleep 4322")
        })
        .await
        .unwrap();
    assert!(outcome.timed_out);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("partial\n", "err\n"));
    assert_eq!(output(&sandbox, "ps -eo args | grep -c '^sleep 4322' || true").await.trim(), "0");
    fixture.finish().await;
}

#[tokio::test]
async fn a_sandbox_that_dies_during_a_command_is_unavailable_and_says_why() {
    let fixture = Fixture::new().await;
    let sandbox = fixture.sandbox().await;
    let running = {
        let sandbox = sandbox.clone();
        tokio::spawn(async move { sandbox.exec(shell("touch up; sleep 4323")).await })
    };
    until("the command runs", || async { sandbox.read_file("up", 10).await.is_ok() }).await;
    fixture.kill(&sandbox).await;
    let error = tokio::time::timeout(LIMIT, running).await.expect("not for ever").unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SandboxUnavailable, "{error:?}");
    assert!(error.to_string().contains("stopped"), "{error}");
    let again = sandbox.exec(command(&["true"])).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::SandboxUnavailable, "{again:?}");
    fixture.finish().await;
}
