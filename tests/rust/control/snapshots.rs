//! Snapshots and volumes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use inspect_daytona::local::control::{DockerChoice, ImageSource, LocalOptions, ManualClock};
use inspect_daytona::local::spec::RootFs;
use serde_json::{Value, json};

use crate::client::{Daytona, until};

async fn daytona() -> (Daytona, ManualClock) {
    let root = ImageSource::Directory("/usr".into());
    let options = LocalOptions {
        images: BTreeMap::from([("python:3.12".to_owned(), root)]),
        docker: DockerChoice::Off,
        ..LocalOptions::default()
    };
    let clock = ManualClock::new();
    (Daytona::with(options, Arc::new(clock.clone())).await, clock)
}

#[tokio::test]
async fn a_mapped_image_becomes_a_snapshot_that_sandboxes_start_from() {
    let (daytona, _) = daytona().await;
    let body = json!({"name": "mine", "imageName": "python:3.12", "cpu": 2, "memory": 4, "disk": 5});
    let snapshot = daytona.post("/api/snapshots", body.clone()).await.expect(200);
    assert_eq!(
        (&snapshot["state"], &snapshot["mem"], &snapshot["general"]),
        (&json!("active"), &json!(4), &json!(false))
    );
    daytona.post("/api/snapshots", body).await.refused(409, "Snapshot with name \"mine\" already exists");
    let id = snapshot["id"].as_str().unwrap();
    for key in ["mine", id] {
        assert_eq!(daytona.get(&format!("/api/snapshots/{key}")).await.expect(200)["id"], id);
        let sandbox = daytona.post("/api/sandbox", json!({"snapshot": key})).await.expect(200);
        assert_eq!(
            (&sandbox["snapshot"], &sandbox["cpu"], &sandbox["disk"]),
            (&json!("mine"), &json!(2), &json!(5))
        );
    }
    assert_eq!(daytona.engine().started.lock().unwrap()[0].root, RootFs::Directory("/usr".into()));
}

#[tokio::test]
async fn an_image_that_is_not_mapped_says_how_to_map_it() {
    let (daytona, _) = daytona().await;
    let snapshot =
        daytona.post("/api/snapshots", json!({"name": "s", "imageName": "node:22"})).await.expect(200);
    assert_eq!(snapshot["state"], "pending");
    let snapshot = until("an error", || async {
        let snapshot = daytona.get("/api/snapshots/s").await.expect(200);
        (snapshot["state"] == "error").then_some(snapshot)
    })
    .await;
    let reason = snapshot["errorReason"].as_str().unwrap();
    assert!(reason.contains("INSPECT_DAYTONA_LOCAL_IMAGES=node:22=/"), "{reason}");
    daytona.post("/api/sandbox", json!({"snapshot": "s"})).await.refused(400, "Snapshot s is error");
}

#[tokio::test]
async fn requests_for_snapshots_are_checked() {
    let (daytona, _) = daytona().await;
    for (body, text) in [
        (json!({"name": "a b", "imageName": "python:3.12"}), "name can only contain"),
        (json!({"name": "a", "imageName": "python:latest"}), "Images with tag \":latest\" are not allowed"),
        (json!({"name": "a", "imageName": "python"}), "Image name must include a tag"),
        (json!({"name": "a"}), "either an image name or build info"),
        (
            json!({"name": "a", "buildInfo": {"dockerfileContent": " "}}),
            "dockerfileContent should not be empty",
        ),
        (
            json!({"name": "a", "imageName": "b:1", "buildInfo": {"dockerfileContent": "FROM a"}}),
            "Cannot specify an image name",
        ),
        (
            json!({"name": "a", "entrypoint": ["b"], "buildInfo": {"dockerfileContent": "FROM a"}}),
            "Cannot specify an entrypoint",
        ),
        (json!({"imageName": "python:3.12"}), "name"),
    ] {
        daytona.post("/api/snapshots", body).await.refused(400, text);
    }
}

#[tokio::test]
async fn containers_are_the_only_class_and_others_are_refused() {
    let (daytona, _) = daytona().await;
    let request =
        |name: &str, class: &str| json!({"name": name, "imageName": "python:3.12", "sandboxClass": class});
    let snapshot = daytona.post("/api/snapshots", request("a", "container")).await.expect(200);
    assert_eq!(snapshot["sandboxClass"], "container");
    let sandbox = daytona.post("/api/sandbox", json!({"snapshot": "a"})).await.expect(200);
    assert_eq!(sandbox["sandboxClass"], "container");
    let refused = daytona.post("/api/snapshots", request("b", "linux-vm")).await;
    refused.refused(400, "No runners available for sandbox class linux-vm");
    let refused = daytona.post("/api/snapshots", request("b", "toaster")).await;
    refused.refused(400, "sandboxClass must be one of the following values");
    assert_eq!(daytona.get("/api/snapshots/b").await.status, 404);
}

#[tokio::test]
async fn snapshots_are_listed_general_ones_last() {
    let (daytona, _) = daytona().await;
    for name in ["b", "a"] {
        daytona.post("/api/snapshots", json!({"name": name, "imageName": "python:3.12"})).await.expect(200);
    }
    let page = daytona.get("/api/snapshots?sort=name&order=asc").await.expect(200);
    let names: Vec<_> =
        page["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "b", "daytonaio/sandbox:0.5.0-slim", "python:3.12"]);
    assert_eq!((&page["total"], &page["totalPages"]), (&json!(4), &json!(1)));
    let page = daytona.get("/api/snapshots?name=SLIM&limit=1&page=1").await.expect(200);
    assert_eq!(page["items"][0]["name"], "daytonaio/sandbox:0.5.0-slim");
    let encoded = daytona.get("/api/snapshots/daytonaio%2Fsandbox:0.5.0-slim").await.expect(200);
    assert_eq!(encoded["general"], true);
}

#[tokio::test]
async fn snapshots_are_deactivated_activated_and_deleted_by_id() {
    let (daytona, clock) = daytona().await;
    let snapshot =
        daytona.post("/api/snapshots", json!({"name": "s", "imageName": "python:3.12"})).await.expect(200);
    let id = snapshot["id"].as_str().unwrap();
    daytona.post("/api/snapshots/s/deactivate", Value::Null).await.refused(400, "uuid is expected");
    daytona.post(&format!("/api/snapshots/{id}/deactivate"), Value::Null).await.expect(204);
    daytona.post("/api/sandbox", json!({"snapshot": "s"})).await.refused(400, "Snapshot s is inactive");
    daytona
        .post(&format!("/api/snapshots/{id}/activate"), Value::Null)
        .await
        .refused(400, "deactivated recently");
    clock.advance(Duration::from_secs(600));
    let activated = daytona.post(&format!("/api/snapshots/{id}/activate"), Value::Null).await.expect(200);
    assert_eq!(activated["state"], "active");
    daytona.delete(&format!("/api/snapshots/{id}")).await.expect(200);
    daytona.get("/api/snapshots/s").await.refused(404, "not found");
    let general = daytona.get("/api/snapshots/python:3.12").await.expect(200)["id"].clone();
    daytona.delete(&format!("/api/snapshots/{}", general.as_str().unwrap())).await.refused(403, "general");
}

#[tokio::test]
async fn volumes_are_made_found_and_deleted() {
    let (daytona, _) = daytona().await;
    let volume = daytona.post("/api/volumes", json!({"name": "v"})).await.expect(200);
    assert_eq!(volume["state"], "pending_create");
    let id = volume["id"].as_str().unwrap();
    assert_eq!(daytona.get(&format!("/api/volumes/{id}")).await.expect(200)["state"], "ready");
    assert_eq!(daytona.get("/api/volumes/by-name/v").await.expect(200)["id"], id);
    daytona
        .post("/api/volumes", json!({"name": "v"}))
        .await
        .refused(400, "Volume with name v already exists");
    daytona.delete(&format!("/api/volumes/{id}")).await.expect(200);
    until("its deletion", || async {
        let state = daytona.get(&format!("/api/volumes/{id}")).await.expect(200)["state"].clone();
        (state == "deleted").then_some(())
    })
    .await;
    daytona.get("/api/volumes/by-name/v").await.refused(404, "not found");
    assert_eq!(daytona.get("/api/volumes").await.expect(200), json!([]));
    assert_eq!(daytona.get("/api/volumes?includeDeleted=true").await.expect(200)[0]["name"], "v-deleted");
}

#[tokio::test]
async fn a_volume_reaches_the_engine_and_is_kept_while_a_sandbox_has_it() {
    let daytona = Daytona::start().await;
    let volume = daytona.post("/api/volumes", json!({"name": "v"})).await.expect(200);
    let id = volume["id"].as_str().unwrap();
    let sandbox = daytona
        .create(json!({"volumes": [{"volumeId": "v", "mountPath": "/data", "subpath": "a/b"}, {"volumeId": id, "mountPath": "/all"}]}))
        .await;
    let spec = daytona.engine().started.lock().unwrap()[0].clone();
    let mounted: Vec<_> =
        spec.mounts.iter().map(|mount| (mount.target.to_str(), mount.subpath.as_deref())).collect();
    assert_eq!(mounted, [(Some("/data"), Some(std::path::Path::new("a/b"))), (Some("/all"), None)]);
    assert!(spec.mounts.iter().all(|mount| mount.source.ends_with(id)), "{:?}", spec.mounts);
    let record = daytona.get(&format!("/api/sandbox/{sandbox}")).await.expect(200);
    assert_eq!(record["volumes"][0], json!({"volumeId": id, "mountPath": "/data", "subpath": "a/b"}));
    assert_ne!(daytona.get(&format!("/api/volumes/{id}")).await.expect(200)["lastUsedAt"], json!(null));
    daytona.delete(&format!("/api/volumes/{id}")).await.refused(409, &sandbox);
    for (mount, status, text) in [
        (json!({"volumeId": "v", "mountPath": "data"}), 400, "absolute path"),
        (json!({"volumeId": "v", "mountPath": "/etc/x"}), 400, "system directory"),
        (json!({"volumeId": "v", "mountPath": "/data", "subpath": "../x"}), 400, "must be relative"),
        (json!({"volumeId": "w", "mountPath": "/data"}), 404, "Volume 'w' not found"),
    ] {
        daytona.post("/api/sandbox", json!({"volumes": [mount]})).await.refused(status, text);
    }
    daytona.delete(&format!("/api/sandbox/{sandbox}")).await.expect(200);
    daytona.delete(&format!("/api/volumes/{id}")).await.expect(200);
    until("its deletion", || async {
        let state = daytona.get(&format!("/api/volumes/{id}")).await.expect(200)["state"].clone();
        (state == "deleted").then_some(())
    })
    .await;
    daytona
        .post("/api/sandbox", json!({"volumes": [{"volumeId": id, "mountPath": "/data"}]}))
        .await
        .refused(400, "deleted");
}

#[tokio::test]
async fn snapshots_of_a_sandbox_are_none_and_another_region_is_refused() {
    let (daytona, _) = daytona().await;
    let page = daytona.get("/api/snapshots?sourceSandboxId=any").await.expect(200);
    assert_eq!((&page["items"], &page["total"]), (&json!([]), &json!(0)));
    let body = |region: &str| json!({"name": "r", "imageName": "python:3.12", "regionId": region});
    daytona.post("/api/snapshots", body("us")).await.refused(404, "Region not found");
    daytona.post("/api/snapshots", body("local")).await.expect(200);
}
