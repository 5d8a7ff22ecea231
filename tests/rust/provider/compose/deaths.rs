//! What becomes of services whose container, or whose Engine, dies later.

use std::time::Duration;

use inspect_daytona::ErrorKind;
use inspect_daytona::provider::Command;

use super::project::{IDLE, Project, daytona, in_machine, possible};
use crate::fixture::{output, shell, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_ends_later_is_an_unavailable_sandbox_that_says_why() {
    if !possible() {
        return;
    }
    let fixture = daytona().await;
    let project = Project::new(
        "services:\n  default:\n    build: image\n    command: sleep infinity\n  web:\n    build: image\n    \
         command: sh -c 'echo serving; trap \"exit 9\" TERM; while :; do sleep 0.1; done'\n",
    );
    let services = project.create(&fixture).await.unwrap();
    let web = &services[1].1;
    assert_eq!(output(web, "echo here").await, "here\n");
    // it ends, and whatever runs in it with it
    let _ended = web.exec(shell("kill -TERM 1; sleep 30")).await;
    let error = web.exec(shell("true")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SandboxUnavailable);
    let text = error.to_string();
    for part in ["service web", "exit code 9", "serving"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(output(&services[0].1, "echo still here").await, "still here\n");
    fixture.finish().await;
}

/// The shell that is the container's first process takes more memory than the container may have.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_runs_out_of_memory_says_so() {
    if !possible() {
        return;
    }
    let fixture = daytona().await;
    let project = Project::new(
        "services:\n  default:\n    build: image\n    command: sleep infinity\n  hungry:\n    build: image\n    \
         mem_limit: 24m\n    memswap_limit: 24m\n    command: sh -c 'until test -e /tmp/eat; do sleep 0.1; done; \
         eaten=$$(head -c 200000000 /dev/zero | tr \"\\0\" x)'\n",
    );
    let services = project.create(&fixture).await.unwrap();
    let hungry = &services[1].1;
    output(hungry, "touch /tmp/eat").await;
    let ended = || async { hungry.exec(shell("true")).await.is_err() };
    until("the container is killed", ended).await;
    let error = hungry.exec(shell("true")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SandboxUnavailable);
    let text = error.to_string();
    for part in ["service hungry", "exit code 137", "out of memory"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_its_policy_restarts_is_used_again() {
    if !possible() {
        return;
    }
    let fixture = daytona().await;
    let project = Project::new(
        "services:\n  default:\n    build: image\n    command: sleep infinity\n  web:\n    build: image\n    restart: always\n    \
         command: sh -c 'trap \"exit 9\" TERM; while :; do sleep 0.1; done'\n",
    );
    let services = project.create(&fixture).await.unwrap();
    let web = &services[1].1;
    output(web, "echo kept >/tmp/file").await;
    let begun = output(web, "cut -d ' ' -f 22 /proc/1/stat").await;
    for _ in 0..3 {
        let _ended = web.exec(shell("kill -TERM 1; sleep 30")).await;
        assert_eq!(output(web, "echo again").await, "again\n");
    }
    assert_ne!(output(web, "cut -d ' ' -f 22 /proc/1/stat").await, begun);
    assert_eq!(output(web, "cat /tmp/file").await, "kept\n");
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_outlive_the_engine_and_whoever_needs_it_is_told_that_it_is_gone() {
    if !possible() {
        return;
    }
    let fixture = daytona().await;
    let project = Project::new(IDLE);
    let services = project.create(&fixture).await.unwrap();
    let web = &services[1].1;
    assert_eq!(output(web, "echo before").await, "before\n");
    let gone = "pkill -9 dockerd; for i in $(seq 100); do pgrep dockerd >/dev/null || { echo gone; break; }; sleep 0.1; done";
    assert_eq!(in_machine(&fixture, web, gone).await, "gone\n");
    assert_eq!(output(web, "echo after").await, "after\n");
    web.write_file("/tmp/file", "text".into()).await.unwrap();
    let of_another =
        Command { user: Some("12:34".to_owned()), timeout: Some(Duration::from_secs(30)), ..shell("true") };
    let error = web.exec(of_another).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SandboxUnavailable, "{error}");
    assert!(error.to_string().contains("Docker"), "{error}");
    fixture.finish().await;
}
