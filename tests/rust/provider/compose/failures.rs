//! What keeps services from starting: its message, and that no sandbox is left.

use inspect_daytona::local::control::{DockerChoice, LocalOptions};
use inspect_daytona::{Error, ErrorKind};

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
