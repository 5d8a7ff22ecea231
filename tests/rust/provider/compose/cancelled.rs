//! Services that are given up, or whose machine is killed, at each step of their start.

use std::time::Duration;

use inspect_daytona::ErrorKind;
use inspect_daytona::api::sandbox::SandboxState;
use inspect_daytona::api::toolbox::ExecuteRequest;
use inspect_daytona::client::Replay;

use super::project::{Project, daytona, possible};
use crate::fixture::{Fixture, name, until};

/// Services of which one builds for long, or is never healthy.
fn slow(step: &str) -> Project {
    let (dockerfile, check) = match step {
        "build" => ("        RUN [\"/bin/busybox\", \"sleep\", \"600\"]\n", "test: ['NONE']"),
        _ => ("", "test: [CMD, 'false'], interval: 1s, retries: 1000"),
    };
    Project::new(&format!(
        "services:\n  default:\n    build: image\n    command: sleep infinity\n    \
         depends_on: {{web: {{condition: service_healthy}}}}\n  web:\n    command: /bin/busybox sleep 600\n    \
         healthcheck: {{{check}}}\n    build:\n      context: image\n      dockerfile_inline: |\n        \
         FROM scratch\n        COPY busybox /bin/busybox\n{dockerfile}"
    ))
}

/// Waits until the command line of a process in the machine `name` contains `words`.
async fn runs(fixture: &Fixture, name: &str, words: &str) {
    until(words, || async {
        let Ok(Some(sandbox)) = fixture.client.sandboxes().find(name).await else { return false };
        if sandbox.state != SandboxState::Started {
            return false;
        }
        let Ok(toolbox) = fixture.client.toolbox(&sandbox).await else { return false };
        // the look itself must not be what is found
        let pattern = format!("[{}]{}", &words[..1], &words[1..]).replace(' ', ".");
        let command = format!("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -q -- '{pattern}'");
        let request = ExecuteRequest { command, ..ExecuteRequest::default() };
        let found = toolbox.execute(&request, Duration::from_secs(10), Replay::Safe).await;
        found.is_ok_and(|answer| answer.exit_code == 0)
    })
    .await;
}

const STEPS: [(&str, &str); 3] = [("engine", "dockerd "), ("build", "sleep 600"), ("up", "sleep 600")];

#[tokio::test(flavor = "multi_thread")]
async fn services_that_are_given_up_at_any_step_leave_no_sandbox() {
    if !possible() {
        return;
    }
    for (step, words) in STEPS {
        let fixture = daytona().await;
        let (project, name) = (slow(step), name());
        let creation = {
            let (run, name, settings) = (fixture.run.clone(), name.clone(), project.settings());
            tokio::spawn(async move { run.create_services(name, settings).await.map(drop) })
        };
        runs(&fixture, &name, words).await;
        fixture.run.abandon(&name);
        creation.abort();
        until("the sandbox is gone", || async { fixture.server.statistics().left == 0 }).await;
        assert_eq!(fixture.run.counts().created, 1, "{step}");
        fixture.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_killed_while_services_start_is_told_as_such() {
    if !possible() {
        return;
    }
    let fixture = daytona().await;
    let (project, name) = (slow("up"), name());
    let creation = {
        let (run, name, settings) = (fixture.run.clone(), name.clone(), project.settings());
        tokio::spawn(async move { run.create_services(name, settings).await.map(drop) })
    };
    runs(&fixture, &name, "sleep 600").await;
    let machine = fixture.client.sandboxes().find(&name).await.unwrap().unwrap();
    fixture.kill_id(&machine.id).await;
    let error = creation.await.unwrap().expect_err("its machine is dead");
    assert_eq!(error.kind(), ErrorKind::SandboxUnavailable, "{error}");
    fixture.finish().await;
}
