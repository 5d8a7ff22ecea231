//! A Dockerfile with files, from the task's directory to a command in the sandbox, with a real Docker Engine.

use std::path::Path;

use inspect_daytona::local::control::LocalOptions;
use inspect_daytona::provider::{Images, Settings};
use serde_json::{Value, json};

use super::docker_base::Base;
use super::fixture::{Fixture, command, name, output, with_input};

fn settings(directory: &Path, build: &Value) -> Settings {
    with(directory, build, &json!({}))
}

/// Settings with more in `x-daytona`.
fn with(directory: &Path, build: &Value, extension: &Value) -> Settings {
    let model = json!({"services": {"default": {"build": build}}, "x-daytona": extension});
    Settings::from_json(&json!({"source": {"model": model}, "directory": directory}).to_string()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dockerfile_with_files_arguments_and_target_becomes_what_samples_run_in() {
    let Some(base) = Base::new() else { return };
    let fixture = Fixture::with(LocalOptions::default()).await;
    let project = tempfile::tempdir().unwrap();
    let at = |path: &str| project.path().join(path);
    std::fs::create_dir_all(at("app/secret")).unwrap();
    std::fs::write(at("app/run.sh"), "#!/bin/sh\necho ran $1\n").unwrap();
    std::fs::set_permissions(at("app/run.sh"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(at("app/secret/key"), "ignored").unwrap();
    // more than one part of an upload
    std::fs::write(at("app/large"), vec![7; 20 << 20]).unwrap();
    std::fs::write(at(".dockerignore"), "**/secret\n").unwrap();
    let dockerfile = base
        .dockerfile("ARG WORD=default\nENV WORD=$WORD\nCOPY app /app\nWORKDIR /app\nFROM base\nRUN exit 1\n");
    std::fs::write(at("Dockerfile"), dockerfile).unwrap();
    let settings =
        settings(project.path(), &json!({"context": ".", "target": "base", "args": {"WORD": "given"}}));
    let images = Images::default();
    settings.prepare(&fixture.client, &images, &|_| {}).await.unwrap();
    let sandbox = fixture.run.create(name(), settings.clone()).await.unwrap();
    assert_eq!(output(&sandbox, "./run.sh $WORD").await, "ran given\n");
    assert_eq!(output(&sandbox, "wc -c < large").await.trim(), (20 << 20).to_string());
    assert_eq!(output(&sandbox, "ls -A /app").await, "large\nrun.sh\n");
    let parts = |requests: std::collections::BTreeMap<String, u64>| {
        requests
            .iter()
            .filter(|(route, _)| route.starts_with("PUT") && route.contains("storage"))
            .map(|(_, count)| count)
            .sum::<u64>()
    };
    let uploaded = parts(fixture.requests().await);
    settings.prepare(&fixture.client, &Images::default(), &|_| {}).await.unwrap();
    let requests = fixture.requests().await;
    assert_eq!(requests["POST /api/snapshots"], 1);
    assert_eq!(parts(requests), uploaded, "nothing is uploaded twice");
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_fails_tells_the_end_of_its_log() {
    let Some(base) = Base::new() else { return };
    let fixture = Fixture::with(LocalOptions::default()).await;
    let project = tempfile::tempdir().unwrap();
    let dockerfile = base.dockerfile("RUN echo out of $((6 * 7)) cheese; exit 9\n");
    std::fs::write(project.path().join("Dockerfile"), dockerfile).unwrap();
    let settings = settings(project.path(), &json!("."));
    let error = settings.prepare(&fixture.client, &Images::default(), &|_| {}).await.unwrap_err();
    assert_eq!(error.kind(), inspect_daytona::ErrorKind::BuildFailed);
    assert!(error.to_string().contains("out of 42 cheese"), "{error}");
    fixture.finish().await;
}

/// Requests of a kind since they were counted.
async fn requests(fixture: &Fixture, part: &str) -> u64 {
    fixture.requests().await.iter().filter(|(route, _)| route.contains(part)).map(|(_, count)| count).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_built_image_brings_the_program_that_runs_commands_so_that_nothing_is_uploaded() {
    let Some(base) = Base::new() else { return };
    let fixture = Fixture::with(LocalOptions::default()).await;
    let project = tempfile::tempdir().unwrap();
    let dockerfile = base.dockerfile("RUN mkdir -m 1777 /var /var/tmp /tmp\nUSER me:8\n");
    std::fs::write(project.path().join("Dockerfile"), dockerfile).unwrap();
    for settings in
        [settings(project.path(), &json!(".")), with(project.path(), &json!("."), &json!({"prepare": false}))]
    {
        settings.prepare(&fixture.client, &Images::default(), &|_| {}).await.unwrap();
        fixture.forget_requests().await;
        let sandbox = fixture.run.create(name(), settings).await.unwrap();
        assert_eq!(output(&sandbox, "echo ran").await, "ran\n");
        assert_eq!(requests(&fixture, "bulk-upload").await, 0);
        assert_eq!(requests(&fixture, "process/execute").await, 1);
        let found =
            output(&sandbox, "stat -c '%a %u %g' /opt/inspect-daytona/*/shim /opt/inspect-daytona").await;
        assert!(found.starts_with("755 0 0\n755 0 0"), "{found}");
        let input = with_input(command(&["wc", "-c"]), vec![0; 1 << 20]);
        assert_eq!(sandbox.exec(input).await.unwrap().stdout.trim(), (1 << 20).to_string());
    }
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_copies_its_whole_context_holds_nothing_of_ours() {
    let Some(base) = Base::new() else { return };
    let fixture = Fixture::with(LocalOptions::default()).await;
    let project = tempfile::tempdir().unwrap();
    std::fs::write(project.path().join("task.py"), "").unwrap();
    let dockerfile = base.dockerfile("RUN mkdir -m 1777 /var /var/tmp /tmp\nCOPY . /app\nCOPY * /files/\n");
    std::fs::write(project.path().join("Dockerfile"), dockerfile).unwrap();
    let sandbox = fixture.run.create(name(), settings(project.path(), &json!("."))).await.unwrap();
    assert_eq!(
        output(&sandbox, "ls -A /app /files").await,
        "/app:\nDockerfile\ntask.py\n\n/files:\nDockerfile\ntask.py\n"
    );
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_vanished_from_the_image_is_uploaded() {
    let Some(base) = Base::new() else { return };
    let fixture = Fixture::with(LocalOptions::default()).await;
    let project = tempfile::tempdir().unwrap();
    let dockerfile = base.dockerfile("RUN mkdir -m 1777 /var /var/tmp /tmp\n");
    std::fs::write(project.path().join("Dockerfile"), dockerfile).unwrap();
    let sandbox = fixture.run.create(name(), settings(project.path(), &json!("."))).await.unwrap();
    assert_eq!(output(&sandbox, "chmod 0 /opt/inspect-daytona/*/shim; echo locked").await, "locked\n");
    // root may execute only what somebody may
    assert_eq!(output(&sandbox, "echo runs all the same").await, "runs all the same\n");
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_with_each_sandbox_that_fails_tells_the_end_of_its_log_and_leaves_nothing() {
    let Some(base) = Base::new() else { return };
    let fixture = Fixture::with(LocalOptions::default()).await;
    let project = tempfile::tempdir().unwrap();
    let dockerfile = base.dockerfile("RUN echo out of $((6 * 7)) cheese; exit 9\n");
    std::fs::write(project.path().join("Dockerfile"), dockerfile).unwrap();
    let settings = with(project.path(), &json!("."), &json!({"prepare": false}));
    let error = fixture.run.create(name(), settings).await.unwrap_err();
    assert_eq!(error.kind(), inspect_daytona::ErrorKind::BuildFailed, "{error}");
    assert!(error.to_string().contains("out of 42 cheese"), "{error}");
    let counts = fixture.run.counts();
    assert_eq!((counts.created, counts.deleted), (1, 1));
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dockerfile_may_use_what_only_buildkit_has() {
    let Some(base) = Base::new() else { return };
    let docker = |arguments: &[&str]| std::process::Command::new("docker").args(arguments).output().unwrap();
    if !docker(&["buildx", "version"]).status.success() {
        eprintln!("skipped, since there is no BuildKit: apt-get install docker-buildx");
        return;
    }
    let version = docker(&["version", "--format", "{{.Server.Version}}"]).stdout;
    let major = String::from_utf8_lossy(&version).split('.').next().unwrap().parse::<u32>().unwrap();
    let fixture = Fixture::with(LocalOptions::default()).await;
    let project = tempfile::tempdir().unwrap();
    std::fs::write(project.path().join("secret"), "hidden\n").unwrap();
    // older Engines fetch what knows here-documents from a registry
    let (here, said) = match major {
        ..23 => ("", "hidden\n"),
        _ => {
            ("COPY <<WORDS /here\nhello\nWORDS\nRUN <<LINES\ncat /here >> /words\nLINES\n", "hidden\nhello\n")
        }
    };
    let dockerfile = base.dockerfile(&format!(
        "RUN mkdir -m 1777 /var /var/tmp /tmp\n\
         RUN --mount=type=bind,source=secret,target=/secret cat /secret > /words\n{here}"
    ));
    std::fs::write(project.path().join("Dockerfile"), dockerfile).unwrap();
    let sandbox = fixture.run.create(name(), settings(project.path(), &json!("."))).await.unwrap();
    assert_eq!(output(&sandbox, "cat /words").await, said);
    fixture.finish().await;
}
