//! The Docker Engine of the machine: started by somebody else, without a packet filter, dying while services start.

use inspect_daytona::ErrorKind;
use inspect_daytona::api::snapshot::CreateSnapshot;

use super::creation::Creation;
use super::project::{IDLE, Project, daytona, in_machine, nothing_is_left, possible};
use crate::fixture::{Fixture, output, until};

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

/// A Daytona with the snapshot `own`, which starts `script` with each machine.
async fn with_entrypoint(script: &str) -> (Fixture, Project) {
    let fixture = daytona().await;
    let own = CreateSnapshot {
        name: "own".to_owned(),
        image_name: Some("docker:28.3.3-dind".to_owned()),
        entrypoint: Some(["/bin/sh", "-c", script].map(str::to_owned).to_vec()),
        ..CreateSnapshot::default()
    };
    fixture.client.snapshots().create(&own).await.unwrap();
    (fixture, Project::new(&format!("{IDLE}x-daytona: {{snapshot: own}}\n")))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_the_machine_starts_itself_is_the_only_one() {
    if !possible() {
        return;
    }
    let early = "exec dockerd";
    // when ours answers
    let late = "until docker version; do sleep 0.1; done; dockerd; touch /tmp/ended; exec sleep infinity";
    for script in [early, late] {
        let (fixture, project) = with_entrypoint(script).await;
        if script == early {
            // it has its time
            fixture.delay("POST", "/toolbox/*/files/bulk-upload", 3000).await;
        }
        let services = project.create(&fixture).await.unwrap();
        let service = &services[1].1;
        assert_eq!(output(service, "echo here").await, "here\n");
        let log = in_machine(&fixture, service, "ls /var/log/inspect-daytona-dockerd.log 2>/dev/null").await;
        assert_eq!(log.is_empty(), script == early, "{script}: {log}");
        if script == late {
            let ended = "test -e /tmp/ended && echo ended";
            until("the second one ends", async || in_machine(&fixture, service, ended).await == "ended\n")
                .await;
        }
        assert_eq!(in_machine(&fixture, service, "pgrep -c -x dockerd").await, "1\n", "{script}");
        fixture.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packet_filter_that_takes_no_rules_is_warned_of() {
    if !possible() {
        return;
    }
    // the Engine's own rules are for other chains
    let script = "for name in iptables ip6tables; do \
                  printf '#!/bin/sh\ncase \"$*\" in *INPUT*) exit 4 ;; esac\nexec /usr/sbin/%s \"$@\"\n' $name >/usr/local/sbin/$name; \
                  chmod 755 /usr/local/sbin/$name; done; exec sleep infinity";
    let (fixture, project) = with_entrypoint(script).await;
    // it has its time
    fixture.delay("POST", "/toolbox/*/files/bulk-upload", 3000).await;
    let (services, warnings) = project.create_told(&fixture).await;
    services.unwrap();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    for (warning, part) in warnings.iter().zip(["that have a network reach the toolbox", "with IPv6 reach"]) {
        assert!(warning.contains(part), "{warning}");
    }
    fixture.finish().await;
}
