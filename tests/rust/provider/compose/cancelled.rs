//! Services that are given up, or whose machine is killed, at each step of their start.

use inspect_daytona::ErrorKind;
use serde_json::json;

use super::creation::Creation;
use super::endings;
use super::engine::{LONG_BUILD, NEVER_HEALTHY};
use super::project::{IDLE, Project, daytona, nothing_is_left, possible};
use super::scripted::{ANY, daytona_of, with_engine};
use crate::fixture::{Fixture, until};

/// A service that another one waits for in vain.
const IN_VAIN: &str = "services:\n  default:\n    build: image\n    command: sleep infinity\n    \
                       depends_on: {web: {condition: service_healthy}}\n  web:\n    build: image\n    command: sleep 600\n    \
                       healthcheck: {test: [CMD, 'false'], interval: 1s, retries: 1000}\n";
/// Longer than any test waits.
const LONG: u64 = 600_000;
const SANDBOX: &str = "GET /api/sandbox/{sandbox}";
const UPLOAD: &str = "POST /toolbox/{sandbox}/files/bulk-upload";

/// Gives a creation up, as a sample that is cancelled does, and sees that its machines go by themselves.
async fn give_up(fixture: Fixture, creation: Creation, created: u64) {
    assert!(!creation.task.is_finished());
    creation.task.abort();
    fixture.run.abandon(&creation.name);
    nothing_is_left(&fixture, created).await;
    fixture.finish().await;
}

/// Waits until so many requests of a kind have arrived.
async fn arrived(fixture: &Fixture, route: &str, times: u64) {
    until(route, async || fixture.requests().await.get(route).is_some_and(|count| *count >= times)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_given_up_before_there_is_a_machine_leave_none() {
    if !possible() {
        return;
    }
    // the snapshot is being made
    let fixture = daytona().await;
    fixture.delay("POST", "/api/snapshots", LONG).await;
    let creation = Creation::begin(&fixture, Project::new(IDLE));
    arrived(&fixture, "POST /api/snapshots", 1).await;
    give_up(fixture, creation, 0).await;
    // the machine is being made, and will be
    let fixture = daytona().await;
    fixture.delay("POST", "/api/sandbox", 2000).await;
    let creation = Creation::begin(&fixture, Project::new(IDLE));
    arrived(&fixture, "POST /api/sandbox", 1).await;
    give_up(fixture, creation, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_given_up_while_their_machine_starts_leave_none() {
    if !possible() {
        return;
    }
    let fixture = daytona().await;
    let refusal = json!({"statusCode": 400, "message": "Snapshot quota exceeded. Maximum allowed: 30"});
    let refusal = json!({"kind": "status", "status": 400, "body": refusal.to_string()});
    fixture.fault("POST", "/api/snapshots", 1, refusal).await;
    fixture.delay("GET", "/api/sandbox/*", LONG).await;
    let creation = Creation::begin(&fixture, Project::new(IDLE));
    arrived(&fixture, SANDBOX, 1).await;
    give_up(fixture, creation, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_given_up_while_files_are_sent_leave_no_machine() {
    if !possible() {
        return;
    }
    // the program that runs commands, and the project
    for upload in [1, 2] {
        let fixture = daytona().await;
        if upload == 2 {
            fixture.delay("POST", "/toolbox/*/files/bulk-upload", 0).await;
        }
        fixture.delay("POST", "/toolbox/*/files/bulk-upload", LONG).await;
        let creation = Creation::begin(&fixture, Project::new(IDLE));
        arrived(&fixture, UPLOAD, upload).await;
        give_up(fixture, creation, 1).await;
    }
    // the project is being unpacked, by a program that takes its time
    let fixture = daytona().await;
    fixture.delay("POST", "/toolbox/*/files/bulk-upload", 0).await;
    fixture.delay("POST", "/toolbox/*/files/bulk-upload", 5000).await;
    let creation = Creation::begin(&fixture, Project::new(IDLE));
    let slow = "printf '#!/bin/sh\nexec sleep 777\n' >/usr/local/bin/tar && chmod 755 /usr/local/bin/tar";
    creation.until_in_machine(&fixture, slow).await;
    creation.until_runs(&fixture, "sleep 777").await;
    give_up(fixture, creation, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_given_up_while_docker_works_for_them_leave_no_machine() {
    if !possible() {
        return;
    }
    for (project, words) in [(IDLE, "dockerd "), (LONG_BUILD, "sleep 600"), (IN_VAIN, "sleep 600")] {
        let fixture = daytona().await;
        let creation = Creation::begin(&fixture, Project::new(project));
        creation.until_runs(&fixture, words).await;
        give_up(fixture, creation, 1).await;
    }
    // compose is through, but one service is not
    let fixture = daytona().await;
    let creation = Creation::begin(&fixture, Project::new(NEVER_HEALTHY));
    creation.until_runs(&fixture, "sleep 600").await;
    creation.until_in_machine(&fixture, "! pgrep -f 'compose.json [u]p'").await;
    give_up(fixture, creation, 1).await;
    // commands are being made possible in the containers
    let fixture = daytona().await;
    let creation = endings::begin(
        &fixture,
        "#!/bin/sh\n[ $1 != exec ] || exec sleep 777\nexec /usr/bin/docker \"$@\"\n",
        0,
    )
    .await;
    creation.until_runs(&fixture, "sleep 777").await;
    give_up(fixture, creation, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_given_up_on_their_second_machine_leave_neither() {
    if !possible() {
        return;
    }
    let root = with_engine("#!/bin/sh\nuntil [ -e /tmp/go ]; do sleep 0.1; done\nexit 1\n");
    let fixture = daytona_of(root.path()).await;
    let creation = Creation::begin(&fixture, Project::new(ANY));
    let first = creation.machine(&fixture).await;
    creation.until_in_machine(&fixture, "touch /tmp/go").await;
    creation.machine_after(&fixture, &first).await;
    creation.until_runs(&fixture, "usr/bin/dockerd").await;
    give_up(fixture, creation, 2).await;
    // the first one is being deleted: there is to be no second one
    let fixture = daytona_of(root.path()).await;
    fixture.delay("DELETE", "/api/sandbox/*", 2000).await;
    let creation = Creation::begin(&fixture, Project::new(ANY));
    creation.machine(&fixture).await;
    creation.until_in_machine(&fixture, "touch /tmp/go").await;
    arrived(&fixture, "DELETE /api/sandbox/{sandbox}", 1).await;
    give_up(fixture, creation, 1).await;
}

/// Without a word to the run, as a task that is aborted.
#[tokio::test(flavor = "multi_thread")]
async fn services_that_nobody_waits_for_any_more_are_given_up_at_once() {
    if !possible() {
        return;
    }
    let fixture = daytona().await;
    let creation = Creation::begin(&fixture, Project::new(LONG_BUILD));
    creation.until_runs(&fixture, "sleep 600").await;
    creation.task.abort();
    nothing_is_left(&fixture, 1).await;
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_killed_while_services_start_is_told_as_such() {
    if !possible() {
        return;
    }
    let fixture = daytona().await;
    let creation = Creation::begin(&fixture, Project::new(IN_VAIN));
    creation.until_runs(&fixture, "sleep 600").await;
    let name = creation.name.clone();
    fixture.kill_id(&creation.machine(&fixture).await).await;
    let error = creation.error().await;
    assert_eq!(error.kind(), ErrorKind::SandboxUnavailable, "{error}");
    let text = error.to_string();
    assert!(text.contains(&name) && text.contains("it is stopped"), "{text}");
    nothing_is_left(&fixture, 1).await;
    fixture.finish().await;
}
