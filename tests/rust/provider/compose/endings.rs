//! Services that end just before commands are to run in them.

use inspect_daytona::provider::Sandbox;
use inspect_daytona::{ErrorKind, Result};

use super::creation::Creation;
use super::project::{Project, daytona, nothing_is_left, possible};
use crate::fixture::Fixture;

/// In the machine: the first command of Docker's that would run in a container lets `seed` end, and waits for that.
const WRAPPER: &str = r#"#!/bin/sh
real=/usr/bin/docker
if [ "$1" = exec ]; then
  seed=$($real ps --all --quiet --filter label=com.docker.compose.service=seed)
  $real exec "$seed" touch /go 2>/dev/null
  $real wait "$seed" >/dev/null
fi
exec $real "$@"
"#;

/// Creates a project whose service `seed` ends with `code` after the last look at the services.
async fn ends_late(fixture: &Fixture, code: u8) -> Result<Vec<(String, Sandbox)>> {
    let creation = Creation::begin(
        fixture,
        Project::new(&format!(
            "services:\n  seed:\n    build: image\n    command: sh -c 'until test -e /go; do sleep 0.1; done; echo over; exit {code}'\n  \
             default: {{build: image, command: sleep infinity}}\n  web:\n    build: image\n    command: sleep infinity\n    \
             healthcheck: {{test: [CMD, test, -e, /go], interval: 1s, retries: 60}}\n"
        )),
    );
    // web is not ready before this
    let install = format!(
        "printf %s '{}' >/usr/local/bin/docker && chmod 755 /usr/local/bin/docker",
        WRAPPER.replace('\'', "'\\''")
    );
    creation.until_in_machine(fixture, &install).await;
    let of = |service: &str| {
        format!("$(/usr/bin/docker ps --quiet --filter label=com.docker.compose.service={service} | grep .)")
    };
    creation.until_in_machine(fixture, &format!("test -n {}", of("seed"))).await;
    creation.until_in_machine(fixture, &format!("/usr/bin/docker exec {} touch /go", of("web"))).await;
    creation.task.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_has_run_to_its_end_at_the_last_moment_is_no_environment() {
    if !possible() {
        return;
    }
    let fixture = daytona().await;
    let services = ends_late(&fixture, 0).await.unwrap();
    let names: Vec<_> = services.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["default", "web"]);
    for (_, service) in &services {
        assert_eq!(crate::fixture::output(service, "echo here").await, "here\n");
    }
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_fails_at_the_last_moment_tells_its_exit_code_and_last_words() {
    if !possible() {
        return;
    }
    let fixture = daytona().await;
    let error = ends_late(&fixture, 3).await.expect_err("a service failed");
    nothing_is_left(&fixture, 1).await;
    assert_eq!(error.kind(), ErrorKind::CreationFailed, "{error}");
    let text = error.to_string();
    assert!(text.contains("service seed ended with exit code 3") && text.contains("over"), "{text}");
    fixture.finish().await;
}
