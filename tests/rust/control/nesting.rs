//! Docker's image with an Engine in it, where no Engine can fetch it.

use std::collections::BTreeMap;

use inspect_daytona::local::control::{DockerChoice, ImageSource, LocalOptions, LocalServer};
use serde_json::{Value, json};

use crate::builds::settled;
use crate::client::Daytona;
use crate::whole::execute;

const IMAGE: &str = "docker:28.3.3-dind";

/// A server as root, without a Docker Engine beside it.
async fn daytona(images: BTreeMap<String, ImageSource>) -> Option<Daytona> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return None;
    }
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let options = LocalOptions {
        directory: Some(directory.path().to_owned()),
        docker: DockerChoice::Off,
        images,
        ..LocalOptions::default()
    };
    Some(Daytona::of(LocalServer::start(options).await.unwrap(), None, directory))
}

/// A sandbox of this Dockerfile, if this machine has what it takes.
async fn sandbox(daytona: &Daytona, dockerfile: &str) -> Option<String> {
    let request = json!({"cpu": 2, "memory": 2, "buildInfo": {"dockerfileContent": dockerfile}});
    let sandbox = daytona.post("/api/sandbox", request).await.expect(200);
    let id = sandbox["id"].as_str().unwrap().to_owned();
    loop {
        let sandbox = daytona.get(&format!("/api/sandbox/{id}")).await.expect(200);
        match sandbox["state"].as_str().unwrap() {
            "started" => return Some(id),
            "build_failed" => {
                let reason = sandbox["errorReason"].as_str().unwrap();
                assert!(
                    reason.contains("they lack ") && reason.contains("apt-get install docker.io"),
                    "{reason}"
                );
                eprintln!("skipped: {reason}");
                return None;
            }
            "error" => panic!("{sandbox}"),
            _ => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    }
}

const START: &str = "sh -c 'setsid dockerd >/dev/null 2>&1 </dev/null & \
                     until docker version >/dev/null 2>&1; do sleep 0.1; done; docker info --format {{.Driver}}'";

#[tokio::test(flavor = "multi_thread")]
async fn the_image_with_an_engine_is_made_of_the_machines_own() {
    let Some(daytona) = daytona(BTreeMap::new()).await else { return };
    let dockerfile = format!("FROM {IMAGE}\nENV GREETING=hello\nWORKDIR /srv\n");
    let Some(id) = sandbox(&daytona, &dockerfile).await else { return daytona.server.shutdown().await };
    assert_eq!(execute(&daytona, &id, "id -un; pwd; echo $GREETING").await, "root\n/srv\nhello");
    assert_eq!(execute(&daytona, &id, START).await, "overlay2");
    assert!(execute(&daytona, &id, "docker compose version").await.contains("version"));
    daytona.post(&format!("/api/sandbox/{id}/stop"), Value::Null).await.expect(200);
    daytona.wait_for(&id, "stopped").await;
    daytona.post(&format!("/api/sandbox/{id}/start"), Value::Null).await.expect(200);
    assert_eq!(execute(&daytona, &id, START).await, "overlay2");
    // a snapshot of it, by the name alone
    daytona.post("/api/snapshots", json!({"name": "engine", "imageName": IMAGE})).await.expect(200);
    assert_eq!(settled(&daytona, "engine").await["state"], "active");
    let other = daytona.create(json!({"snapshot": "engine"})).await;
    assert_eq!(
        execute(&daytona, &other, "id -un; pwd; ls -A /var/lib/docker /run").await,
        "root\n/\n/run:\nlock\n\n/var/lib/docker:"
    );
    daytona.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapped_root_file_system_with_an_engine_is_for_containers_and_another_one_is_not() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let mut images = BTreeMap::new();
    for (name, program) in [("with:1", "dockerd"), ("without:1", "other")] {
        let root = directory.path().join(program);
        std::fs::create_dir_all(root.join("usr/local/bin")).unwrap();
        std::fs::create_dir_all(root.join("bin")).unwrap();
        std::fs::write(root.join("usr/local/bin").join(program), "").unwrap();
        std::fs::copy("/bin/busybox", root.join("bin/sh")).unwrap();
        images.insert(name.to_owned(), ImageSource::Directory(root));
    }
    let Some(daytona) = daytona(images).await else { return };
    let mut said = Vec::new();
    for name in ["with:1", "without:1"] {
        let id = sandbox(&daytona, &format!("FROM {name}\n")).await.unwrap();
        said.push(
            execute(&daytona, &id, "while read -r _ _ _ _ at _; do echo $at; done < /proc/self/mountinfo")
                .await,
        );
    }
    let has = |index: usize, target: &str| said[index].lines().any(|line| line == target);
    for target in ["/run", "/var/lib/docker", "/sys/fs/cgroup"] {
        assert!(has(0, target) && !has(1, target), "{target}: {said:?}");
    }
    daytona.server.shutdown().await;
}
