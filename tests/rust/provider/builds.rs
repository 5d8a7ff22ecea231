//! A Dockerfile with files, from the task's directory to a command in the sandbox, with a real Docker Engine.

use std::path::Path;

use inspect_daytona::local::control::LocalOptions;
use inspect_daytona::provider::{Images, Settings};
use serde_json::{Value, json};

use super::docker_base::Base;
use super::fixture::{Fixture, name, output};

fn settings(directory: &Path, build: &Value) -> Settings {
    let model = json!({"services": {"default": {"build": build}}});
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
