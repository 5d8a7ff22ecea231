//! What keeps services from starting: its message, and that no sandbox is left.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use inspect_daytona::local::control::{DockerChoice, ImageSource, LocalOptions};
use inspect_daytona::{Error, ErrorKind};
use serde_json::json;

use super::project::{Project, daytona, nothing_is_left, possible};
use crate::fixture::Fixture;

/// Starts a project that must not start, and sees that nothing is left of it.
async fn failure(fixture: Fixture, project: &Project) -> Error {
    let error = project.create(&fixture).await.expect_err("it must not start");
    nothing_is_left(&fixture, 1).await;
    fixture.finish().await;
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_fails_shows_the_end_of_its_output() {
    if !possible() {
        return;
    }
    let project = Project::new(
        "services:\n  default:\n    build: image\n    command: sleep infinity\n  broken:\n    build:\n      context: image\n      \
         dockerfile_inline: |\n        FROM scratch\n        COPY busybox /bin/busybox\n        \
         RUN [\"/bin/busybox\", \"sh\", \"-c\", \"echo the reason; exit 7\"]\n",
    );
    let error = failure(daytona().await, &project).await;
    assert_eq!(error.kind(), ErrorKind::BuildFailed);
    let text = error.to_string();
    assert!(text.contains("docker compose build failed") && text.contains("the reason"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_does_not_exist_is_named() {
    if !possible() {
        return;
    }
    let project = Project::new(
        "services:\n  default:\n    build: image\n    command: sleep infinity\n  gone:\n    image: registry.invalid/gone:1\n",
    );
    let error = failure(daytona().await, &project).await;
    assert_eq!(error.kind(), ErrorKind::CreationFailed);
    let text = error.to_string();
    assert!(text.contains("docker compose up failed") && text.contains("registry.invalid"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unhealthy_service_shows_its_checks_and_its_output() {
    if !possible() {
        return;
    }
    let check = "healthcheck: {test: [CMD-SHELL, 'echo not yet; exit 3'], interval: 1s, retries: 2}";
    for depends in ["", "    depends_on: {web: {condition: service_healthy}}\n"] {
        let project = Project::new(&format!(
            "services:\n  default:\n    build: image\n    command: sleep infinity\n{depends}  web:\n    build: image\n    \
             command: sh -c 'echo from web; sleep infinity'\n    {check}\n"
        ));
        let text = failure(daytona().await, &project).await.to_string();
        for part in ["service web runs but is unhealthy", "ended with 3: not yet", "from web"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_ends_tells_its_exit_code_and_last_words() {
    if !possible() {
        return;
    }
    let project = Project::new(
        "services:\n  default:\n    build: image\n    command: sleep infinity\n  web:\n    build: image\n    \
         command: sh -c 'echo last words; exit 4'\n",
    );
    let text = failure(daytona().await, &project).await.to_string();
    assert!(text.contains("service web ended with exit code 4") && text.contains("last words"), "{text}");
    let project = Project::new(
        "services:\n  default:\n    build: image\n    command: 'true'\n  web:\n    build: image\n    command: sleep infinity\n",
    );
    let text = failure(daytona().await, &project).await.to_string();
    assert!(text.contains("service default") && text.contains("sleep infinity"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_two_services_want_is_named() {
    if !possible() {
        return;
    }
    let project = Project::new(
        "services:\n  default:\n    build: image\n    command: sleep infinity\n    ports: ['8080:80']\n  web:\n    build: image\n    \
         command: sleep infinity\n    ports: ['8080:81']\n",
    );
    let text = failure(daytona().await, &project).await.to_string();
    assert!(text.contains("docker compose up failed") && text.contains("8080"), "{text}");
    assert!(text.contains("allocated") || text.contains("already in use"), "{text}");
}

/// A root file system whose Docker Engine is a script.
fn with_engine(script: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir_in("/var/tmp").unwrap();
    for directory in ["bin", "etc", "tmp", "var/log", "var/tmp", "usr/bin"] {
        std::fs::create_dir_all(root.path().join(directory)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.path().join("bin/busybox")).unwrap();
    for name in
        ["sh", "id", "tail", "sleep", "date", "grep", "cat", "setsid", "mkdir", "cp", "chmod", "rm", "tar"]
    {
        std::os::unix::fs::symlink("busybox", root.path().join("bin").join(name)).unwrap();
    }
    let docker = "#!/bin/sh\n[ \"$1\" = compose ]\n";
    for (path, text) in [("usr/bin/dockerd", script), ("usr/bin/docker", docker)] {
        let path = root.path().join(path);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    root
}

async fn daytona_of(root: &Path) -> Fixture {
    let images = [("docker:28.3.3-dind".to_owned(), ImageSource::Directory(root.to_owned()))];
    let options =
        LocalOptions { docker: DockerChoice::Off, images: images.into(), ..LocalOptions::default() };
    Fixture::with(options).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_dies_is_tried_in_one_more_sandbox_and_then_shows_its_log() {
    if !possible() {
        return;
    }
    let project = Project::new("services: {default: {image: 'a:1'}, web: {image: 'b:1'}}");
    for (script, reason) in [
        ("#!/bin/sh\necho failed to start daemon: no luck\nexit 1\n", "ended with exit code 1"),
        (
            "#!/bin/sh\necho mkdir /sys/fs/cgroup/init: read-only file system\nexec sleep 60\n",
            "its control groups are read-only",
        ),
    ] {
        let root = with_engine(script);
        let fixture = daytona_of(root.path()).await;
        let error = project.create(&fixture).await.expect_err("it must not start");
        nothing_is_left(&fixture, 2).await;
        let text = error.to_string();
        assert!(text.contains("Two sandboxes could not run a Docker Engine"), "{text}");
        assert!(text.contains(reason), "{text}");
        assert!(text.contains(script.lines().nth(1).unwrap().trim_start_matches("echo ")), "{text}");
        fixture.finish().await;
    }
}

/// A key that may not delete, say.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_dies_is_not_tried_again_beside_a_sandbox_that_cannot_be_deleted() {
    if !possible() {
        return;
    }
    let root = with_engine("#!/bin/sh\necho no luck\nexit 1\n");
    let fixture = daytona_of(root.path()).await;
    fixture.fault("DELETE", "/api/sandbox/*", 1, json!({"kind": "status", "status": 403})).await;
    let project = Project::new("services: {default: {image: 'a:1'}, web: {image: 'b:1'}}");
    let text = project.create(&fixture).await.expect_err("it must not start").to_string();
    assert_eq!(fixture.run.counts().created, 1);
    assert!(text.contains("no luck") && text.contains("could not be deleted"), "{text}");
    assert!(!text.contains("Two sandboxes"), "{text}");
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_with_what_to_do() {
    if !possible() {
        return;
    }
    let disk = Disk::of("96m");
    let options = LocalOptions {
        docker: DockerChoice::Off,
        directory: Some(disk.0.path().to_owned()),
        ..LocalOptions::default()
    };
    let fixture = Fixture::with(options).await;
    let project = Project::new(
        "services:\n  default:\n    build: image\n    command: sleep infinity\n  large:\n    build:\n      context: image\n      \
         dockerfile_inline: |\n        FROM scratch\n        COPY busybox /bin/busybox\n        \
         RUN [\"/bin/busybox\", \"dd\", \"if=/dev/zero\", \"of=/large\", \"bs=1M\", \"count=200\"]\n",
    );
    let text = failure(fixture, &project).await.to_string();
    assert!(text.to_lowercase().contains("no space left on device"), "{text}");
    assert!(text.contains("x-daytona.resources.disk"), "{text}");
}

/// A small disk.
struct Disk(tempfile::TempDir);

impl Disk {
    fn of(size: &str) -> Self {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let options = format!("size={size},mode=755");
        nix::mount::mount(
            Some("tmpfs"),
            directory.path(),
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            Some(options.as_str()),
        )
        .unwrap();
        Self(directory)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _gone = nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}
