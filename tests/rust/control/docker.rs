//! Images and builds with a real Docker Engine, and sandboxes of them with the real engine.

use std::process::Command;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::builds::log;
use crate::client::{Daytona, until};
use crate::docker_base::{Base, header};
use crate::storage::Client;
use crate::whole::{daytona, execute};

async fn settled(daytona: &Daytona, name: &str) -> Value {
    // builds take longer than anything else here, so one wait is followed by others
    for _ in 0..10 {
        let path = format!("/api/snapshots/{name}");
        let snapshot = daytona.get(&path).await.expect(200);
        if ["active", "error", "build_failed"].contains(&snapshot["state"].as_str().unwrap()) {
            return snapshot;
        }
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    }
    crate::builds::settled(daytona, name).await
}

/// A context as a client uploads it.
fn context() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, mode, text) in [("src/run.sh", 0o750, "echo ran\n"), ("Dockerfile", 0o644, "FROM nothing\n")] {
        let mut header = header(tar::EntryType::Regular, mode, text.len() as u64);
        archive.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    archive.append_link(&mut header(tar::EntryType::Symlink, 0o777, 0), "src/link", "run.sh").unwrap();
    archive.into_inner().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dockerfile_with_a_context_is_built_and_its_sandbox_is_what_it_says() {
    let Some(base) = Base::new() else { return };
    let Some(daytona) = daytona().await else { return };
    let client = Client::new(&daytona).await;
    client.put("hash1", context()).await;
    let dockerfile = base.dockerfile(
        "COPY src /src\nRUN mkdir -p /home/me && echo built > /built && chown 7:8 /home/me\nENV GREETING=\"hello you\"\n\
         WORKDIR /srv/app\nUSER me:9\nCMD [\"false\"]\n",
    );
    let request =
        json!({"name": "s", "buildInfo": {"dockerfileContent": dockerfile, "contextHashes": ["hash1"]}});
    daytona.post("/api/snapshots", request).await.expect(200);
    let snapshot = settled(&daytona, "s").await;
    assert_eq!(snapshot["state"], "active", "{snapshot}");
    assert_eq!(snapshot["entrypoint"], json!(["sleep", "infinity"]));
    let said = log(&daytona, "snapshots", snapshot["id"].as_str().unwrap()).await;
    assert!(said.contains("COPY src /src"), "{said}");
    let id = daytona.create(json!({"snapshot": "s", "user": "nobody"})).await;
    let command = "id -u; id -g; pwd; echo $GREETING $DAYTONA_SANDBOX_USER; cat /built; stat -c '%a %u' /src/run.sh; \
                   readlink /src/link; stat -c %u:%g /home/me";
    let said = execute(&daytona, &id, command).await;
    // an ordinary user's server has one user in its sandboxes
    let (user, owner) = if nix::unistd::geteuid().is_root() { ("7\n9", "7:8") } else { ("0\n0", "0:0") };
    assert_eq!(said, format!("{user}\n/srv/app\nhello you nobody\nbuilt\n750 0\nrun.sh\n{owner}"));
    daytona.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_build_says_what_failed_in_the_reason_and_in_the_log() {
    let Some(base) = Base::new() else { return };
    let Some(daytona) = daytona().await else { return };
    let dockerfile = base.dockerfile("RUN echo about to fail && exit 7\n");
    let request = json!({"buildInfo": {"dockerfileContent": dockerfile}});
    let sandbox = daytona.post("/api/sandbox", request).await.expect(200);
    let id = sandbox["id"].as_str().unwrap();
    let said = log(&daytona, "sandbox", id).await;
    assert!(said.contains("about to fail") && said.contains("docker build failed"), "{said}");
    let sandbox = daytona.wait_for(id, "build_failed").await;
    let reason = sandbox["errorReason"].as_str().unwrap();
    assert!(reason.starts_with("docker build failed") && reason.contains("about to fail"), "{reason}");
    let request = json!({"name": "s", "buildInfo": {"dockerfileContent": base.dockerfile(""), "contextHashes": ["absent"]}});
    daytona.post("/api/snapshots", request).await.expect(200);
    let snapshot = settled(&daytona, "s").await;
    assert_eq!(
        (&snapshot["state"], &snapshot["errorReason"]),
        (&json!("build_failed"), &json!("the context absent has not been uploaded"),)
    );
    daytona.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn identical_builds_are_one() {
    let Some(base) = Base::new() else { return };
    let Some(daytona) = daytona().await else { return };
    // every run of this line gives another file
    let dockerfile = base.dockerfile("RUN sleep 1; cat /proc/sys/kernel/random/uuid > /id\n");
    let build = json!({"dockerfileContent": dockerfile});
    let snapshots = (0..3).map(|index| {
        daytona.post("/api/snapshots", json!({"name": format!("s{index}"), "buildInfo": build}))
    });
    let sandboxes = (0..3).map(|_| daytona.post("/api/sandbox", json!({ "buildInfo": build })));
    let (snapshots, sandboxes) = tokio::join!(join_all(snapshots), join_all(sandboxes));
    for snapshot in snapshots {
        snapshot.expect(200);
    }
    let mut ids = Vec::new();
    for sandbox in sandboxes {
        let sandbox = sandbox.expect(200);
        assert!(
            ["pending_build", "building_snapshot"].contains(&sandbox["state"].as_str().unwrap()),
            "{sandbox}"
        );
        ids.push(sandbox["id"].as_str().unwrap().to_owned());
    }
    for name in ["s0", "s1", "s2"] {
        assert_eq!(settled(&daytona, name).await["state"], "active");
        ids.push(daytona.create(json!({ "snapshot": name })).await);
    }
    let mut said = Vec::new();
    for id in ids {
        daytona.wait_for(&id, "started").await;
        said.push(execute(&daytona, &id, "cat /id").await);
    }
    said.dedup();
    assert_eq!(said.len(), 1, "{said:?}");
    daytona.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_by_name_is_a_root_file_system_and_leaves_no_container() {
    let Some(base) = Base::new() else { return };
    let Some(daytona) = daytona().await else { return };
    daytona.post("/api/snapshots", json!({"name": "s", "imageName": base.0})).await.expect(200);
    let snapshot = settled(&daytona, "s").await;
    assert_eq!(snapshot["state"], "active", "{snapshot}");
    let id = daytona.create(json!({"snapshot": "s"})).await;
    assert_eq!(execute(&daytona, &id, "id -u; pwd; readlink /bin/sh").await, "0\n/\nbusybox");
    daytona
        .post("/api/snapshots", json!({"name": "t", "imageName": "inspect-daytona-test/absent:1"}))
        .await
        .expect(200);
    let failed = settled(&daytona, "t").await;
    assert_eq!(failed["state"], "error");
    assert!(failed["errorReason"].as_str().unwrap().starts_with("docker pull failed"), "{failed}");
    daytona.server.shutdown().await;
    until("no container", || async {
        let filter = format!("ancestor={}", base.0);
        let found =
            Command::new("docker").args(["ps", "--all", "--quiet", "--filter", &filter]).output().unwrap();
        found.stdout.is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_waits_can_be_deleted_and_the_end_of_the_server_ends_those_that_run() {
    let Some(base) = Base::new() else { return };
    let Some(daytona) = daytona().await else { return };
    let mut ids = Vec::new();
    for index in 0..5 {
        let dockerfile = base.dockerfile(&format!("LABEL index={index}\nRUN sleep 1000\n"));
        let sandbox =
            daytona.post("/api/sandbox", json!({"buildInfo": {"dockerfileContent": dockerfile}})).await;
        ids.push(sandbox.expect(200)["id"].as_str().unwrap().to_owned());
        if index < 4 {
            daytona.wait_for(&ids[index], "building_snapshot").await;
        }
    }
    daytona.delete(&format!("/api/sandbox/{}", ids[0])).await.refused(409, "change in progress");
    assert_eq!(daytona.get(&format!("/api/sandbox/{}", ids[4])).await.expect(200)["state"], "pending_build");
    daytona.delete(&format!("/api/sandbox/{}", ids[4])).await.expect(200);
    daytona.wait_for(&ids[4], "gone").await;
    tokio::time::timeout(std::time::Duration::from_secs(20), daytona.server.shutdown())
        .await
        .expect("an end");
    until("the end of the builds", || async {
        let filter = format!("ancestor={}", base.0);
        let found =
            Command::new("docker").args(["ps", "--all", "--quiet", "--filter", &filter]).output().unwrap();
        found.stdout.is_empty().then_some(())
    })
    .await;
}
