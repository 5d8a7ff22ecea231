//! Machines whose Docker Engine is a script, for what a real one does not do on demand.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use inspect_daytona::local::control::{DockerChoice, ImageSource, LocalOptions};
use serde_json::json;

use super::creation::Creation;
use super::project::{Project, nothing_is_left, possible};
use crate::fixture::{Fixture, until};

/// Services that no script starts.
pub(crate) const ANY: &str = "services: {default: {image: 'a:1'}, web: {image: 'b:1'}}";

/// A root file system whose Docker Engine is a script; `docker` does nothing but fail, except for its Compose.
pub(crate) fn with_engine(script: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir_in("/var/tmp").unwrap();
    for directory in ["bin", "etc", "tmp", "var/log", "var/tmp", "usr/bin"] {
        std::fs::create_dir_all(root.path().join(directory)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.path().join("bin/busybox")).unwrap();
    for name in [
        "sh", "id", "tr", "touch", "tail", "sleep", "date", "grep", "cat", "setsid", "mkdir", "cp", "chmod",
        "rm", "tar",
    ] {
        std::os::unix::fs::symlink("busybox", root.path().join("bin").join(name)).unwrap();
    }
    let docker = "#!/bin/sh\n[ \"$1\" = compose ]\n";
    for (path, text) in [("usr/bin/dockerd", script), ("usr/bin/docker", docker)] {
        put_script(root.path(), path, text);
    }
    root
}

/// Makes a script a program of the root file system.
fn put_script(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A Daytona whose machines start from this root file system.
pub(crate) async fn daytona_of(root: &Path) -> Fixture {
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
    let project = Project::new(ANY);
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
    let project = Project::new(ANY);
    let text = project.create(&fixture).await.expect_err("it must not start").to_string();
    assert_eq!(fixture.run.counts().created, 1);
    assert!(text.contains("no luck") && text.contains("could not be deleted"), "{text}");
    assert!(!text.contains("Two sandboxes"), "{text}");
    fixture.finish().await;
}

/// The verdict on the machine does not need them.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_an_engine_is_given_up_while_files_are_being_sent() {
    if !possible() {
        return;
    }
    let root = with_engine("#!/bin/sh\nuntil [ -e /tmp/go ]; do sleep 0.1; done\necho no luck\nexit 1\n");
    let fixture = daytona_of(root.path()).await;
    // the first upload is the program's that runs commands
    let uploads = "/toolbox/*/files/bulk-upload";
    fixture.delay("POST", uploads, 0).await;
    fixture.delay("POST", uploads, 600_000).await;
    let creation = Creation::begin(&fixture, Project::new(ANY));
    let first = creation.machine(&fixture).await;
    until("the files are being sent", async || {
        fixture
            .requests()
            .await
            .get("POST /toolbox/{sandbox}/files/bulk-upload")
            .is_some_and(|sent| *sent == 2)
    })
    .await;
    creation.until_in_machine(&fixture, "touch /tmp/go").await;
    creation.machine_after(&fixture, &first).await;
    creation.until_in_machine(&fixture, "touch /tmp/go").await;
    let text = creation.error().await.to_string();
    assert!(text.contains("no luck") && text.contains("Two sandboxes"), "{text}");
    nothing_is_left(&fixture, 2).await;
    fixture.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_images_own_entrypoint_starts_the_engine() {
    if !possible() {
        return;
    }
    let root = with_engine("#!/bin/sh\necho not by itself\nexit 1\n");
    put_script(root.path(), "usr/bin/dockerd-entrypoint.sh", "#!/bin/sh\necho \"prepared for $*\"\nexit 3\n");
    let fixture = daytona_of(root.path()).await;
    let text = Project::new(ANY).create(&fixture).await.expect_err("it must not start").to_string();
    assert!(text.contains("prepared for dockerd --host=unix:///var/run/docker.sock"), "{text}");
    assert!(text.contains("exit code 3") && !text.contains("not by itself"), "{text}");
    nothing_is_left(&fixture, 2).await;
    fixture.finish().await;
}

/// As Docker's image brings them beside those that its kernel may lack.
#[tokio::test(flavor = "multi_thread")]
async fn rules_are_made_the_old_way_where_the_new_one_fails() {
    if !possible() {
        return;
    }
    let root = with_engine("#!/bin/sh\nexec sleep 600\n");
    // what the rules were is what the services fail with
    let docker = "#!/bin/sh\ncase $* in *' up '*) sort /tmp/rules; exit 1 ;; esac\n";
    put_script(root.path(), "usr/bin/docker", docker);
    std::os::unix::fs::symlink("busybox", root.path().join("bin/sort")).unwrap();
    for program in ["iptables", "ip6tables"] {
        put_script(root.path(), &format!("usr/sbin/{program}"), "#!/bin/sh\nexit 3\n");
        let noting = format!("#!/bin/sh\n[ $2 = -I ] && echo {program} $* >>/tmp/rules\n");
        put_script(root.path(), &format!("usr/local/sbin/.iptables-legacy/{program}"), &noting);
    }
    let fixture = daytona_of(root.path()).await;
    let project = Project::new(
        "services: {default: {image: 'a:1', networks: [lab]}, web: {image: 'b:1'}}\n\
         networks: {lab: {driver_opts: {com.docker.network.bridge.name: lab0}}}\n",
    );
    let text = project.create(&fixture).await.expect_err("it must not start").to_string();
    for program in ["iptables", "ip6tables"] {
        for link in ["docker0", "br-+", "lab0"] {
            for port in [2280, 22220, 22222, 33333] {
                let rule = format!("{program} -w -I INPUT -i {link} -p tcp --dport {port} -j DROP");
                assert!(text.contains(&rule), "{rule}: {text}");
            }
        }
    }
    nothing_is_left(&fixture, 1).await;
    fixture.finish().await;
}
