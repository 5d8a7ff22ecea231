//! A Dockerfile with files, from the task's directory to a command in the sandbox, with a real Docker Engine.

#![expect(clippy::print_stderr, reason = "a skipped test says why")]

use std::path::Path;
use std::process::{Command, Stdio};

use inspect_daytona::local::control::LocalOptions;
use inspect_daytona::provider::{Images, Settings};
use serde_json::{Value, json};

use super::fixture::{Fixture, name, output};

fn docker(arguments: &[&str]) -> bool {
    let run = Command::new("docker").args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    run.is_ok_and(|status| status.success())
}

/// An image of one static program, for which no registry is needed. It ends with what was built on it.
struct Base(String);

impl Base {
    fn new() -> Option<Self> {
        let busybox = "/bin/busybox";
        if !docker(&["version"]) || !Path::new(busybox).exists() {
            eprintln!(
                "skipped, since it needs a Docker Engine and a static {busybox}: apt-get install docker.io busybox-static"
            );
            return None;
        }
        let base = Self(format!("inspect-daytona-test/provider:{}", unique()));
        let mut import = Command::new("docker")
            .args(["import", "-", &base.0])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut archive = tar::Builder::new(import.stdin.take().unwrap());
        archive.append_path_with_name(busybox, "bin/busybox").unwrap();
        for name in ["sh", "cat", "chmod", "echo", "id", "ls", "mkdir", "stat", "wc"] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            header.set_size(0);
            archive.append_link(&mut header, format!("bin/{name}"), "busybox").unwrap();
        }
        for (path, text) in [("etc/passwd", "root:x:0:0::/:/bin/sh\n"), ("etc/group", "root:x:0:\n")] {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(text.len() as u64);
            archive.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        drop(archive.into_inner().unwrap());
        assert!(import.wait().unwrap().success());
        Some(base)
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        let label = format!("label=inspect-daytona-test={}", self.0);
        let built = Command::new("docker").args(["image", "ls", "-q", "--filter", &label]).output();
        let ids =
            built.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        for id in ids.lines().chain([self.0.as_str()]) {
            docker(&["image", "rm", "--force", id]);
        }
    }
}

/// Something that no other test has: the random end of a sandbox's name.
fn unique() -> String {
    name().rsplit('-').next().unwrap_or_default().to_owned()
}

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
    let dockerfile = format!(
        "FROM {0} AS wanted\nLABEL inspect-daytona-test={0}\nARG WORD=default\nENV WORD=$WORD\nCOPY app /app\nWORKDIR /app\n\
         FROM wanted\nRUN exit 1\n",
        base.0
    );
    std::fs::write(at("Dockerfile"), dockerfile).unwrap();
    let settings =
        settings(project.path(), &json!({"context": ".", "target": "wanted", "args": {"WORD": "given"}}));
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
    let dockerfile = format!(
        "FROM {0}\nLABEL inspect-daytona-test={0}\nRUN echo out of $((6 * 7)) cheese; exit 9\n",
        base.0
    );
    std::fs::write(project.path().join("Dockerfile"), dockerfile).unwrap();
    let settings = settings(project.path(), &json!("."));
    let error = settings.prepare(&fixture.client, &Images::default(), &|_| {}).await.unwrap_err();
    assert_eq!(error.kind(), inspect_daytona::ErrorKind::BuildFailed);
    assert!(error.to_string().contains("out of 42 cheese"), "{error}");
    fixture.finish().await;
}
