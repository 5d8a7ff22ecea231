//! Builds and images that need no Docker.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use inspect_daytona::local::control::{DockerChoice, ImageSource, LocalOptions, SystemClock};
use inspect_daytona::local::spec::RootFs;
use serde_json::{Value, json};

use crate::client::{Daytona, until};

/// Writes a root file system of one file, gzipped if the name says so.
fn archive(path: &Path) {
    let mut builder = tar::Builder::new(std::fs::File::create(path).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(6);
    builder.append_data(&mut header, "etc/only-here", &b"image\n"[..]).unwrap();
    builder.into_inner().unwrap();
}

async fn daytona(images: &[(&str, ImageSource)]) -> Daytona {
    let images: BTreeMap<_, _> =
        images.iter().map(|(name, source)| ((*name).to_owned(), source.clone())).collect();
    let options = LocalOptions { images, docker: DockerChoice::Off, ..LocalOptions::default() };
    Daytona::with(options, Arc::new(SystemClock)).await
}

fn build(dockerfile: &str) -> Value {
    json!({ "dockerfileContent": dockerfile })
}

/// Waits until a snapshot has an end state.
pub(crate) async fn settled(daytona: &Daytona, name: &str) -> Value {
    until("the end of a build", || async {
        let snapshot = daytona.get(&format!("/api/snapshots/{name}")).await.expect(200);
        let state = snapshot["state"].as_str().unwrap().to_owned();
        (!["pending", "building", "pulling"].contains(&state.as_str())).then_some(snapshot)
    })
    .await
}

/// The log of a snapshot's or sandbox's build, to its end.
pub(crate) async fn log(daytona: &Daytona, kind: &str, id: &str) -> String {
    let url = daytona.get(&format!("/api/{kind}/{id}/build-logs-url")).await.expect(200);
    let url = url["url"].as_str().unwrap();
    let path = url.strip_prefix(&format!("http://{}", daytona.address)).unwrap();
    let reply = daytona.get(&format!("{path}?follow=true")).await;
    assert_eq!(reply.status.as_u16(), 200, "{:?}", reply.body);
    String::from_utf8_lossy(&reply.body).into_owned()
}

#[tokio::test]
async fn a_dockerfile_of_settings_over_a_mapped_image_needs_no_builder() {
    let daytona = daytona(&[("python:3.12", ImageSource::Directory("/usr".into()))]).await;
    let dockerfile =
        "FROM python:3.12\nENV A=1 B=$A\nWORKDIR /work\nUSER me\nENTRYPOINT [\"serve\"]\nCMD [\"x\"]\n";
    let request = json!({"name": "s", "buildInfo": build(dockerfile), "cpu": 2});
    let snapshot = daytona.post("/api/snapshots", request).await.expect(200);
    assert_eq!(snapshot["state"], "pending");
    let reference = snapshot["buildInfo"]["snapshotRef"].as_str().unwrap();
    assert!(reference.starts_with("daytona-") && reference.ends_with(":daytona"), "{reference}");
    let snapshot = settled(&daytona, "s").await;
    assert_eq!((&snapshot["state"], &snapshot["entrypoint"]), (&json!("active"), &json!(["serve"])));
    assert!(log(&daytona, "snapshots", snapshot["id"].as_str().unwrap()).await.contains("FROM python:3.12"));
    daytona.create(json!({"snapshot": "s", "env": {"B": "own"}, "user": "someone"})).await;
    let spec = daytona.engine().started.lock().unwrap()[0].clone();
    assert_eq!((spec.root, spec.user.as_str()), (RootFs::Directory("/usr".into()), "me"));
    assert_eq!((spec.env["A"].as_str(), spec.env["B"].as_str()), ("1", "own"));
    assert_eq!(spec.entrypoint, ["serve"]);
    assert_eq!(spec.env["DAYTONA_SANDBOX_USER"], "someone");
    assert_eq!((spec.work_dir.as_deref(), spec.limits.cpus), (Some(Path::new("/work")), Some(2)));
    // the same build is there already
    let again = daytona.post("/api/snapshots", json!({"name": "t", "buildInfo": build(dockerfile)})).await;
    assert_eq!(again.expect(200)["state"], "active");
}

#[tokio::test]
async fn a_sandbox_is_built_with_the_resources_that_it_asks_for() {
    let daytona = daytona(&[("python:3.12", ImageSource::Host)]).await;
    let request = json!({"buildInfo": build("FROM python:3.12\nENV A=1\n"), "cpu": 2, "memory": 3, "disk": 4, "env": {"C": "2"}});
    let sandbox = daytona.post("/api/sandbox", request.clone()).await.expect(200);
    assert_eq!((&sandbox["state"], &sandbox["snapshot"]), (&json!("pending_build"), &Value::Null));
    let id = sandbox["id"].as_str().unwrap();
    let sandbox = daytona.wait_for(id, "started").await;
    assert_eq!((&sandbox["cpu"], &sandbox["memory"], &sandbox["disk"]), (&json!(2), &json!(3), &json!(4)));
    let spec = daytona.engine().started.lock().unwrap()[0].clone();
    assert_eq!((spec.limits.cpus, spec.limits.memory), (Some(2), Some(3 << 30)));
    assert_eq!((spec.root, spec.user.as_str()), (RootFs::Host, "daytona"));
    assert_eq!(json!(spec.env["DAYTONA_SANDBOX_SNAPSHOT"]), sandbox["buildInfo"]["snapshotRef"]);
    assert_eq!((spec.env["A"].as_str(), spec.env["C"].as_str()), ("1", "2"));
    assert!(log(&daytona, "sandbox", id).await.contains("FROM python:3.12"));
    // what is built is not waited for
    let second = daytona.post("/api/sandbox", request).await.expect(200);
    assert_eq!(second["state"], "creating");
    daytona.wait_for(second["id"].as_str().unwrap(), "started").await;
    daytona.post("/api/sandbox", json!({"cpu": 2})).await.refused(400, "Cannot specify Sandbox resources");
    let both = json!({"snapshot": "python:3.12", "buildInfo": build("FROM python:3.12")});
    daytona.post("/api/sandbox", both).await.refused(400, "Cannot specify a snapshot");
}

#[tokio::test]
async fn without_docker_a_build_fails_and_says_what_to_do() {
    let daytona = daytona(&[("python:3.12", ImageSource::Host)]).await;
    for (index, (dockerfile, reason)) in [
        ("FROM python:3.12\nRUN make\n", "line 2 of the Dockerfile, `RUN make`, needs a builder"),
        ("FROM node:22\n", "INSPECT_DAYTONA_LOCAL_IMAGES=node:22=/path"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("s{index}");
        daytona
            .post("/api/snapshots", json!({"name": name, "buildInfo": build(dockerfile)}))
            .await
            .expect(200);
        let snapshot = settled(&daytona, &name).await;
        assert_eq!(snapshot["state"], "build_failed");
        for text in [reason, "apt-get install docker.io", "INSPECT_DAYTONA_LOCAL_DOCKER=off"] {
            assert!(snapshot["errorReason"].as_str().unwrap().contains(text), "{}", snapshot["errorReason"]);
        }
        assert!(log(&daytona, "snapshots", snapshot["id"].as_str().unwrap()).await.contains(reason));
        daytona.post("/api/sandbox", json!({"snapshot": name})).await.refused(400, "is build_failed");
        let sandbox = daytona.post("/api/sandbox", json!({"buildInfo": build(dockerfile)})).await.expect(200);
        let id = sandbox["id"].as_str().unwrap();
        let sandbox = daytona.wait_for(id, "build_failed").await;
        assert!(sandbox["errorReason"].as_str().unwrap().contains(reason), "{sandbox}");
        daytona.post(&format!("/api/sandbox/{id}/start"), Value::Null).await.refused(400, "errored");
        daytona.delete(&format!("/api/sandbox/{id}")).await.expect(200);
        daytona.wait_for(id, "gone").await;
    }
    assert!(daytona.engine().started.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_archive_is_unpacked_once_for_all_who_want_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("root.tar");
    archive(&path);
    let daytona = daytona(&[("image:1", ImageSource::Archive(path))]).await;
    let built = json!({"buildInfo": build("FROM image:1\nENV A=1\n")});
    let creates = (0..8).map(|_| daytona.create(json!({"snapshot": "image:1"})));
    let (_, snapshot, sandbox) = tokio::join!(
        futures_util::future::join_all(creates),
        daytona.post("/api/snapshots", json!({"name": "own", "imageName": "image:1"})),
        daytona.post("/api/sandbox", built),
    );
    snapshot.expect(200);
    daytona.wait_for(sandbox.expect(200)["id"].as_str().unwrap(), "started").await;
    assert_eq!(settled(&daytona, "own").await["state"], "active");
    let roots: Vec<_> = daytona
        .engine()
        .started
        .lock()
        .unwrap()
        .iter()
        .map(|spec| (spec.root.clone(), spec.user.clone()))
        .collect();
    assert_eq!(roots.len(), 9);
    let RootFs::Directory(root) = &roots[0].0 else { panic!("{roots:?}") };
    assert!(
        roots.iter().all(|other| *other == (RootFs::Directory(root.clone()), "root".to_owned())),
        "{roots:?}"
    );
    assert_eq!(std::fs::read_to_string(root.join("etc/only-here")).unwrap(), "image\n");
    assert_eq!(std::fs::read_dir(root.parent().unwrap()).unwrap().count(), 1);
}

#[tokio::test]
async fn an_archive_that_cannot_be_unpacked_is_an_error_that_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("root.tar");
    std::fs::write(&path, [0; 1024]).unwrap();
    let daytona = daytona(&[("image:1", ImageSource::Archive(path.clone()))]).await;
    daytona.post("/api/sandbox", json!({"snapshot": "image:1"})).await.refused(400, "the archive is empty");
    // one that has been repaired is tried again
    archive(&path);
    daytona.create(json!({"snapshot": "image:1"})).await;
}

#[tokio::test]
async fn logs_need_the_key_and_exist_for_what_was_built() {
    let daytona = daytona(&[]).await;
    let id = daytona.create(Value::Null).await;
    daytona.get(&format!("/sandboxes/{id}/build-logs")).await.refused(404, "was not built");
    daytona.get("/snapshots/absent/build-logs").await.refused(404, "not found");
    for path in [format!("/sandboxes/{id}/build-logs"), format!("/api/sandbox/{id}/build-logs")] {
        let mut request = daytona.request(http::Method::GET, &path, &Value::Null);
        request.headers_mut().remove("authorization");
        daytona.try_call(request).await.unwrap().refused(401, "Invalid credentials");
    }
}
