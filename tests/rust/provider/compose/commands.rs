//! Commands and files of a service: what a sandbox of its own promises, in a container.

use std::time::Duration;

use inspect_daytona::ErrorKind;
use inspect_daytona::provider::{Command, Sandbox};
use serde_json::json;

use super::project::{Project, daytona, possible};
use crate::fixture::{Fixture, command, output, shell, with_input};

/// A container as root with everything, one as a user with hardly anything, and one without a shell.
async fn services() -> Option<(Fixture, Vec<(String, Sandbox)>)> {
    if !possible() {
        return None;
    }
    let fixture = daytona().await;
    let project = Project::new(
        "services:\n  default:\n    build: image\n    command: sleep infinity\n    working_dir: /srv\n    \
         environment: {GREETING: hello}\n  bound:\n    build: image\n    command: sleep infinity\n    user: '1000:1001'\n    \
         read_only: true\n    cap_drop: [ALL]\n    security_opt: ['no-new-privileges:true']\n    mem_limit: 64m\n    \
         tmpfs: ['/tmp:mode=1777']\n  bare:\n    command: ['/busybox', sleep, infinity]\n    build:\n      context: image\n      \
         dockerfile_inline: |\n        FROM scratch\n        COPY busybox /busybox\n",
    );
    let services = project.create(&fixture).await.unwrap();
    let names: Vec<_> = services.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["default", "bound", "bare"]);
    Some((fixture, services))
}

#[tokio::test(flavor = "multi_thread")]
async fn short_commands_reads_and_writes_are_one_request_each() {
    let Some((fixture, services)) = services().await else { return };
    for (_, service) in &services[..2] {
        let (requests, outcome) = fixture.count(service.exec(command(&["true"]))).await;
        assert_eq!((requests, outcome.unwrap().returncode), (1, 0));
        let (requests, outcome) = fixture.count(service.exec(with_input(command(&["cat"]), "in"))).await;
        assert_eq!((requests, outcome.unwrap().stdout.as_str()), (1, "in"));
        let (requests, written) = fixture.count(service.write_file("/tmp/file", "text".into())).await;
        written.unwrap();
        assert_eq!(requests, 1);
        let (requests, read) = fixture.count(service.read_file("/tmp/file", 100)).await;
        assert_eq!((requests, &read.unwrap()[..]), (1, &b"text"[..]));
    }
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_inputs_users_and_directories_are_those_of_the_container() {
    let Some((fixture, services)) = services().await else { return };
    let (default, bound, bare) = (&services[0].1, &services[1].1, &services[2].1);
    let outcome = default.exec(shell("pwd; echo $GREETING; printf 'e\\377' >&2; kill -9 $$")).await.unwrap();
    assert_eq!((outcome.returncode, outcome.stdout.as_str()), (137, "/srv\nhello\n"));
    assert_eq!(outcome.stderr, "e\u{fffd}");
    assert_eq!(output(bound, "id -u; id -g").await, "1000\n1001\n");
    for (user, id) in [("root", "0\n"), ("7:8", "7\n")] {
        let as_user = Command { user: Some(user.to_owned()), ..shell("id -u") };
        assert_eq!(default.exec(as_user).await.unwrap().stdout, id, "{user}");
    }
    let nobody = Command { user: Some("nosuch".to_owned()), ..shell("true") };
    let outcome = default.exec(nobody).await.unwrap();
    assert_eq!(outcome.returncode, 126, "{outcome:?}");
    assert!(outcome.stderr.contains("nosuch"), "{outcome:?}");
    let elsewhere = Command { cwd: Some("tmp".to_owned()), ..shell("pwd") };
    assert_eq!(default.exec(elsewhere).await.unwrap().returncode, 126, "there is no /srv/tmp");
    // without a shell
    let outcome = bare.exec(command(&["/busybox", "echo", "bare"])).await.unwrap();
    assert_eq!((outcome.returncode, outcome.stdout.as_str()), (0, "bare\n"));
    assert_eq!(bare.exec(command(&["/bin/sh"])).await.unwrap().returncode, 127);
    bare.write_file("/new/file", "text".into()).await.unwrap();
    assert_eq!(&bare.read_file("/new/file", 10).await.unwrap()[..], b"text");
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_inputs_outputs_and_files_are_exact_also_beyond_a_containers_memory() {
    let Some((fixture, services)) = services().await else { return };
    let (default, bound) = (&services[0].1, &services[1].1);
    let bytes: Vec<u8> =
        (0..30_000_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    default.write_file("large", bytes.clone().into()).await.unwrap();
    assert_eq!(default.read_file("large", 100_000_000).await.unwrap(), bytes);
    assert_eq!(default.read_file("/srv/large", 1000).await.unwrap_err().kind(), ErrorKind::OutputLimit);
    let counted = default.exec(with_input(command(&["wc", "-c"]), bytes.clone())).await.unwrap();
    assert_eq!(counted.stdout.trim(), "30000000");
    let outcome = default.exec(shell("yes 0123456 | head -c 20000000; echo end >&2")).await.unwrap();
    assert_eq!((outcome.stdout.len(), outcome.stderr.as_str()), (10 << 20, "end\n"), "the tail is kept");
    // 64 MiB are all that this container has
    let outcome = bound.exec(shell("head -c 9000000 /dev/zero | tr '\\0' x")).await.unwrap();
    assert_eq!((outcome.returncode, outcome.stdout.len()), (0, 9_000_000));
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_kills_the_whole_tree_in_the_container_and_keeps_what_was_said() {
    let Some((fixture, services)) = services().await else { return };
    for (_, service) in &services[..2] {
        let tree = "trap '' TERM; echo said; (setsid sleep 987 & sleep 987) & sleep 987";
        let outcome =
            service.exec(Command { timeout: Some(Duration::from_secs(1)), ..shell(tree) }).await.unwrap();
        assert!(outcome.timed_out, "{outcome:?}");
        assert_eq!(outcome.stdout, "said\n");
        assert_eq!(output(service, "ps | grep -c '[s]leep 987' || true").await, "0\n");
    }
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_once_whatever_is_repeated_and_whoever_dies() {
    let Some((fixture, services)) = services().await else { return };
    let default = &services[0].1;
    for fault in [
        json!({"kind": "replay"}),
        json!({"kind": "replay", "overlap": true}),
        json!({"kind": "reset_after"}),
    ] {
        fixture.fault_execute(fault.clone()).await;
        let outcome = default.exec(shell("echo x >>/tmp/once; sleep 0.2; wc -l </tmp/once")).await.unwrap();
        assert_eq!(outcome.stdout.trim(), "1", "{fault}");
        output(default, "rm /tmp/once").await;
    }
    // the resident is killed under a command, whose supervisor lives on
    let dying = shell("echo x >>/tmp/once; pkill -9 -f 'shim serve'; sleep 1; echo ended");
    let outcome = default.exec(dying).await.unwrap();
    assert_eq!((outcome.returncode, outcome.stdout.as_str()), (0, "ended\n"), "{outcome:?}");
    assert_eq!(output(default, "wc -l </tmp/once").await.trim(), "1");
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_cannot_lead_the_machine_to_other_files_or_sockets() {
    let Some((fixture, services)) = services().await else { return };
    let (default, bound) = (&services[0].1, &services[1].1);
    // a user cannot see who listens, nor take a name beforehand
    let outcome = bound
        .exec(shell(
            "ls /.inspect-daytona/state; ls /.inspect-daytona/program >/dev/null && \
                                    ! touch /.inspect-daytona/program/x 2>/dev/null",
        ))
        .await
        .unwrap();
    assert_eq!((outcome.returncode, outcome.stdout.as_str()), (0, ""), "{outcome:?}");
    assert!(outcome.stderr.contains("ermission denied"), "{outcome:?}");
    // root can spoil what runs in its own container, and nothing else
    for attack in [
        "cd /.inspect-daytona/state && for d in *; do rm $d/socket; ln -s /run/docker.sock $d/socket; done",
        "cd /.inspect-daytona/state && for d in *; do rm -rf $d; ln -s /run $d; done",
    ] {
        let _spoiled = default.exec(shell(attack)).await;
        let error = default.exec(shell("true")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SandboxUnavailable, "{error}");
    }
    assert_eq!(output(bound, "echo unharmed").await, "unharmed\n");
    fixture.finish().await;
}
