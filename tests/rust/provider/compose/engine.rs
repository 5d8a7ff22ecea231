//! A Docker Engine that dies while services start.

use inspect_daytona::ErrorKind;

use super::creation::Creation;
use super::project::{Project, daytona, nothing_is_left, possible};
use crate::fixture::output;

const KILL: &str = "pkill -KILL -x dockerd";

/// A build that goes on until something ends it.
pub(crate) const LONG_BUILD: &str = "services:\n  default:\n    command: sleep infinity\n    build:\n      context: image\n      \
                          dockerfile_inline: |\n        FROM scratch\n        COPY busybox /bin/busybox\n        \
                          RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n        RUN sleep 600 || true\n  \
                          web: {build: image, command: sleep infinity}\n";
/// A service that is never healthy, which nobody waits for but us.
pub(crate) const NEVER_HEALTHY: &str = "services:\n  default: {build: image, command: sleep infinity}\n  web:\n    build: image\n    \
                             command: sleep 600\n    healthcheck: {test: [CMD, 'false'], interval: 1s, retries: 1000}\n";

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_dies_during_a_build_is_no_failed_build_and_another_sandbox_does_it() {
    if !possible() {
        return;
    }
    let fixture = daytona().await;
    let creation = Creation::begin(&fixture, Project::new(LONG_BUILD));
    let first = creation.machine(&fixture).await;
    creation.until_runs(&fixture, "sleep 600").await;
    creation.until_in_machine(&fixture, KILL).await;
    creation.machine_after(&fixture, &first).await;
    creation.until_runs(&fixture, "sleep 600").await;
    creation.until_in_machine(&fixture, "pkill -x sleep").await;
    let warnings = creation.warnings();
    let services = creation.task.await.unwrap().unwrap();
    assert_eq!(output(&services[1].1, "echo here").await, "here\n");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for part in [
        "Docker Engine died",
        "exit code 137",
        "x-daytona.resources.memory",
        "API listen on",
        "docker compose build failed",
        "Another sandbox is tried",
    ] {
        assert!(warnings[0].contains(part), "{part}: {}", warnings[0]);
    }
    let counts = fixture.run.counts();
    assert_eq!((counts.created, counts.deleted, fixture.server.statistics().left), (2, 1, 1));
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_dies_in_two_sandboxes_fails_the_sample_with_its_log() {
    if !possible() {
        return;
    }
    let fixture = daytona().await;
    let creation = Creation::begin(&fixture, Project::new(NEVER_HEALTHY));
    let mut machine = String::new();
    for _ in 0..2 {
        machine = creation.machine_after(&fixture, &machine).await;
        creation.until_runs(&fixture, "sleep 600").await;
        // only the look at what became of the services is left
        creation.until_in_machine(&fixture, "! pgrep -f 'compose.json [u]p'").await;
        creation.until_in_machine(&fixture, KILL).await;
    }
    let error = creation.error().await;
    nothing_is_left(&fixture, 2).await;
    assert_eq!(error.kind(), ErrorKind::CreationFailed);
    let text = error.to_string();
    for part in ["Docker Engine died", "exit code 137", "API listen on", "Two sandboxes could not run"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    fixture.finish().await;
}
