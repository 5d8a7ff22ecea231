//! Services that end just before commands are to run in them.

use inspect_daytona::ErrorKind;
use inspect_daytona::shim::protocol::quote;

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

/// Begins a project whose service `seed` ends with `code` as soon as its file `/go` is there. All is ready then, and
/// `docker` is the script `wrapper`.
pub(crate) async fn begin(fixture: &Fixture, wrapper: &str, code: u8) -> Creation {
    let project = Project::new(&format!(
        "services:\n  seed:\n    build: image\n    command: sh -c 'until test -e /go; do sleep 0.1; done; echo over; exit {code}'\n  \
         default: {{build: image, command: sleep infinity}}\n  web:\n    build: image\n    command: sleep infinity\n    \
         healthcheck: {{test: [CMD, test, -e, /go], interval: 1s, retries: 60}}\n"
    ));
    let creation = Creation::begin(fixture, project);
    let docker = "/usr/local/bin/docker";
    let install = format!("printf %s {} >{docker} && chmod 755 {docker}", quote(wrapper));
    creation.until_in_machine(fixture, &install).await;
    let id = |service: &str| {
        format!("$(/usr/bin/docker ps --quiet --filter label=com.docker.compose.service={service} | grep .)")
    };
    creation.until_in_machine(fixture, &format!("test -n {}", id("seed"))).await;
    // web is not ready before this
    creation.until_in_machine(fixture, &format!("/usr/bin/docker exec {} touch /go", id("web"))).await;
    creation
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_has_run_to_its_end_at_the_last_moment_is_no_environment() {
    if !possible() {
        return;
    }
    let fixture = daytona().await;
    let services = begin(&fixture, WRAPPER, 0).await.task.await.unwrap().unwrap();
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
    let error = begin(&fixture, WRAPPER, 3).await.error().await;
    nothing_is_left(&fixture, 1).await;
    assert_eq!(error.kind(), ErrorKind::CreationFailed, "{error}");
    let text = error.to_string();
    assert!(text.contains("service seed ended with exit code 3") && text.contains("over"), "{text}");
    fixture.finish().await;
}
