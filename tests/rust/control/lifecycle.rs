//! Sandboxes are created, started, stopped and deleted as on the real server.

use std::sync::Arc;

use http::Method;
use inspect_daytona::local::control::{LocalOptions, SystemClock};
use inspect_daytona::local::engine::NetworkChoice;
use inspect_daytona::local::spec::{Access, Cidr, Network};
use serde_json::{Value, json};

use crate::client::{Daytona, until};

#[tokio::test]
async fn a_created_sandbox_has_everything_that_an_sdk_reads() {
    let daytona = Daytona::start().await;
    let body =
        json!({"env": {"A": "1"}, "labels": {"code-toolbox-language": "python"}, "volumes": [], "new": 1});
    let reply = daytona.post("/api/sandbox", body).await;
    let sandbox = reply.expect(200);
    assert_eq!(reply.headers["x-daytona-api-version"], "0.190.0");
    assert_eq!(sandbox["name"], sandbox["id"]);
    for (field, value) in [
        ("kvm", json!(false)),
        ("cpu", json!(1)),
        ("gpu", json!(0)),
        ("memory", json!(1)),
        ("disk", json!(3)),
        ("state", json!("started")),
        ("desiredState", json!("started")),
        ("target", json!("local")),
        ("snapshot", json!("daytonaio/sandbox:0.5.0-slim")),
        ("user", json!("daytona")),
        ("public", json!(false)),
        ("networkBlockAll", json!(false)),
        ("env", json!({"A": "1"})),
        ("labels", json!({"code-toolbox-language": "python"})),
        ("autoStopInterval", json!(15)),
        ("autoArchiveInterval", json!(10080)),
        ("autoDeleteInterval", json!(-1)),
        ("sandboxClass", json!("container")),
        ("isolation", json!("fixture")),
        ("toolboxProxyUrl", json!(format!("http://{}/toolbox", daytona.address))),
    ] {
        assert_eq!(sandbox[field], value, "{field}");
    }
    let spec = daytona.engine().started.lock().unwrap()[0].clone();
    assert_eq!(spec.env["A"], "1");
    assert_eq!(spec.env["DAYTONA_SANDBOX_ID"], sandbox["id"].as_str().unwrap());
    assert_eq!(spec.limits.memory, Some(1 << 30));
}

#[tokio::test]
async fn a_sandbox_is_found_by_id_and_by_name() {
    let daytona = Daytona::start().await;
    let id = daytona.create(json!({"name": "inspect-a/1"})).await;
    assert_eq!(daytona.get("/api/sandbox/inspect-a%2F1").await.expect(200)["id"], id.as_str());
    assert_eq!(daytona.get(&format!("/api/sandbox/{id}")).await.expect(200)["name"], "inspect-a/1");
    daytona.get("/api/sandbox/other").await.refused(404, "Sandbox with ID or name other not found");
}

#[tokio::test]
async fn a_name_is_taken_until_deletion_is_requested() {
    let daytona = Daytona::start().await;
    let id = daytona.create(json!({"name": "a"})).await;
    daytona
        .post("/api/sandbox", json!({"name": "a"}))
        .await
        .refused(409, "Sandbox with name a already exists");
    let deleted = daytona.delete("/api/sandbox/a").await.expect(200);
    assert!(deleted["name"].as_str().unwrap().starts_with("DESTROYED_a_"), "{deleted}");
    assert_eq!(deleted["desiredState"], "destroyed");
    assert_eq!(deleted["state"], "destroying");
    daytona.create(json!({"name": "a"})).await;
    daytona.wait_for(&id, "gone").await;
    assert_eq!(daytona.engine().deleted.lock().unwrap().as_slice(), std::slice::from_ref(&id));
    daytona.delete(&format!("/api/sandbox/{id}")).await.refused(404, "not found");
}

#[tokio::test]
async fn a_stopped_sandbox_starts_again_and_refuses_a_second_stop() {
    let daytona = Daytona::start().await;
    let id = daytona.create(Value::Null).await;
    let path = |action: &str| format!("/api/sandbox/{id}/{action}");
    assert_eq!(daytona.post(&path("start"), Value::Null).await.expect(200)["state"], "started");
    let token = daytona.get(&path("ports/80/preview-url")).await.expect(200)["token"].clone();
    assert_eq!(daytona.post(&path("stop"), Value::Null).await.expect(200)["state"], "stopping");
    daytona.wait_for(&id, "stopped").await;
    daytona
        .post(&path("stop?force=true"), Value::Null)
        .await
        .refused(400, "Sandbox is not in a stoppable state");
    daytona.post(&path("stop?force=yes"), Value::Null).await.refused(400, "boolean string is expected");
    assert_eq!(daytona.post(&path("start"), Value::Null).await.expect(200)["state"], "started");
    let rotated = daytona.get(&path("ports/80/preview-url")).await.expect(200)["token"].clone();
    assert_ne!(token, rotated);
    assert_eq!(daytona.engine().started.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_sandbox_in_transition_refuses_every_other_transition() {
    let daytona = Daytona::start().await;
    let create = daytona.post("/api/sandbox", json!({"name": "slow", "env": {"TEST_START": "wait"}}));
    let others = async {
        until("creating", || async {
            let reply = daytona.get("/api/sandbox/slow").await;
            (reply.status == 200 && reply.json()["state"] == "creating").then_some(())
        })
        .await;
        for (method, action) in [
            (Method::DELETE, ""),
            (Method::POST, "/stop"),
            (Method::POST, "/start"),
            (Method::POST, "/archive"),
        ] {
            let reply = daytona.call(method, &format!("/api/sandbox/slow{action}"), Value::Null).await;
            reply.refused(409, "Sandbox state change in progress");
        }
        daytona.engine().release();
    };
    let (created, ()) = tokio::join!(create, others);
    assert_eq!(created.expect(200)["state"], "started");
    daytona.delete("/api/sandbox/slow").await.expect(200);
}

#[tokio::test]
async fn a_failed_start_is_a_400_and_keeps_its_name_until_deleted() {
    let daytona = Daytona::start().await;
    let body = json!({"name": "bad", "env": {"TEST_START": "fail"}});
    daytona
        .post("/api/sandbox", body.clone())
        .await
        .refused(400, "Sandbox failed to start: no space left on device");
    let failed = daytona.get("/api/sandbox/bad").await.expect(200);
    assert_eq!(failed["state"], "error");
    assert_eq!(failed["errorReason"], "no space left on device");
    daytona.post("/api/sandbox", body).await.refused(409, "already exists");
    daytona.post("/api/sandbox/bad/start", Value::Null).await.refused(400, "Sandbox is in an errored state");
    daytona.post("/api/sandbox/bad/recover", Value::Null).await.refused(400, "not in a recoverable state");
    let id = failed["id"].as_str().unwrap();
    daytona.delete("/api/sandbox/bad").await.expect(200);
    daytona.get(&format!("/api/sandbox/{id}")).await.refused(404, "not found");
    until("removal", || async {
        daytona.engine().deleted.lock().unwrap().contains(&id.to_owned()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_sandbox_that_dies_while_it_starts_is_an_error_and_can_be_recovered() {
    let daytona = Daytona::start().await;
    let body = json!({"name": "dies", "env": {"TEST_START": "die"}});
    daytona.post("/api/sandbox", body).await.refused(400, "its memory limit was reached (exit code 137)");
    assert_eq!(daytona.get("/api/sandbox/dies").await.expect(200)["recoverable"], true);
    let recovered = daytona.post("/api/sandbox/dies/recover?skipStart=true", Value::Null).await.expect(200);
    assert_eq!(recovered["state"], "stopped");
}

#[tokio::test]
async fn a_killed_sandbox_is_stopped_and_says_so_to_its_users() {
    let daytona = Daytona::start().await;
    let id = daytona.create(Value::Null).await;
    daytona.post(&format!("/api/admin/sandboxes/{id}/kill"), Value::Null).await.expect(204);
    assert_eq!(daytona.wait_for(&id, "stopped").await["desiredState"], "stopped");
    let reply = daytona.post(&format!("/toolbox/{id}/process/execute"), json!({})).await;
    reply.refused(
        400,
        "failed to resolve container IP after 3 attempts: no IP address found. Is the Sandbox started?",
    );
    daytona.post(&format!("/api/sandbox/{id}/start"), Value::Null).await.expect(200);
    daytona.post(&format!("/toolbox/{id}/process/execute"), json!({})).await.expect(200);
}

#[tokio::test]
async fn stopping_an_ephemeral_sandbox_deletes_it() {
    let daytona = Daytona::start().await;
    let id = daytona.create(json!({"autoDeleteInterval": 0})).await;
    let stopped = daytona.post(&format!("/api/sandbox/{id}/stop"), Value::Null).await.expect(200);
    assert_eq!(stopped["desiredState"], "destroyed");
    assert!(stopped["name"].as_str().unwrap().starts_with("DESTROYED_"));
    daytona.wait_for(&id, "gone").await;
}

#[tokio::test]
async fn an_archived_sandbox_is_restored_by_a_start() {
    let daytona = Daytona::start().await;
    let id = daytona.create(Value::Null).await;
    let path = |action: &str| format!("/api/sandbox/{id}/{action}");
    daytona.post(&path("archive"), Value::Null).await.refused(400, "Sandbox is not stopped");
    daytona.post(&path("stop"), Value::Null).await.expect(200);
    daytona.wait_for(&id, "stopped").await;
    daytona.post(&path("archive"), Value::Null).await.expect(200);
    daytona.wait_for(&id, "archived").await;
    let state = daytona.post(&path("start"), Value::Null).await.expect(200)["state"].clone();
    assert!(["archived", "restoring", "started"].contains(&state.as_str().unwrap()), "{state}");
    daytona.wait_for(&id, "started").await;
}

#[tokio::test]
async fn what_containers_cannot_do_is_422_and_what_we_cannot_do_is_400() {
    let daytona = Daytona::start().await;
    let id = daytona.create(Value::Null).await;
    let path = |action: &str| format!("/api/sandbox/{id}/{action}");
    daytona.post(&path("pause"), Value::Null).await.refused(422, "pause");
    daytona.post(&path("fork"), json!({"name": "b"})).await.refused(422, "fork");
    daytona.post(&path("autopause/5"), Value::Null).await.refused(422, "pause");
    daytona.post(&path("snapshot"), json!({"name": "s"})).await.refused(400, "cannot make snapshots");
    assert_eq!(daytona.get(&path("forks")).await.expect(200), json!([]));
    daytona.get(&path("parent")).await.refused(404, "no parent");
}

#[tokio::test]
async fn a_create_request_is_checked_before_anything_is_made() {
    let daytona = Daytona::start().await;
    for (body, status, text) in [
        (
            json!({"snapshot": "x", "buildInfo": {"dockerfileContent": "FROM a"}}),
            400,
            "Cannot specify a snapshot when",
        ),
        (json!({"buildInfo": {"dockerfileContent": ""}}), 400, "dockerfileContent should not be empty"),
        (
            json!({"buildInfo": {"dockerfileContent": "FROM a"}, "gpu": 1}),
            400,
            "No runners available with a GPU",
        ),
        (json!({"cpu": 2}), 400, "Cannot specify Sandbox resources when using a snapshot"),
        (json!({"gpuType": ["H100"]}), 400, "Cannot specify GPU type"),
        (
            json!({"snapshot": "none"}),
            400,
            "Snapshot none not found. Did you add it through the Daytona Dashboard?",
        ),
        (json!({"target": "us"}), 404, "Region not found"),
        (json!({"autoStopInterval": -1}), 400, "Auto-stop interval must be non-negative"),
        (json!({"name": "<b>"}), 400, "HTML"),
        (json!({"networkAllowList": "10.0.0.0"}), 400, "expected an IPv4 network"),
        (json!({"domainAllowList": "http://example.org"}), 400, "expected a host name"),
        (json!({"networkAllowList": "10.0.0.0/8", "domainAllowList": "a.test"}), 400, "exclude each other"),
        (json!({"networkBlockAll": true, "networkAllowList": "10.0.0.0"}), 400, "expected an IPv4 network"),
        (json!({"volumes": [{"volumeId": "v", "mountPath": "/v"}]}), 404, "Volume 'v' not found"),
        (json!({"secrets": [{"A": "b"}]}), 400, "does not support secrets"),
        (json!({"linkedSandbox": "x"}), 400, "does not support linkedSandbox"),
        (json!({"kvm": true}), 400, "does not support kvm"),
        (json!({"env": {"A=B": "c"}}), 400, "not a valid environment variable"),
        (json!({"labels": 5}), 400, "labels"),
    ] {
        let shown = body.to_string();
        let reply = daytona.post("/api/sandbox", body).await;
        assert_eq!(reply.status.as_u16(), status, "{shown}");
        reply.refused(status, if text == "labels" { "invalid type" } else { text });
    }
    assert!(daytona.engine().started.lock().unwrap().is_empty());
}

#[tokio::test]
async fn blocked_network_reaches_the_engine() {
    let daytona = Daytona::start().await;
    let id = daytona.create(json!({"networkBlockAll": true})).await;
    let spec = daytona.engine().started.lock().unwrap()[0].clone();
    assert_eq!(spec.network, inspect_daytona::local::spec::Network::Blocked);
    assert_eq!(daytona.get(&format!("/api/sandbox/{id}")).await.expect(200)["networkBlockAll"], true);
}

#[tokio::test]
async fn a_block_wins_over_an_allow_list_and_the_record_keeps_both() {
    // a block needs no gateway
    for daytona in [Daytona::start().await, Daytona::without_gateway().await] {
        for (list, text) in [("networkAllowList", "10.0.0.0/8,172.16.0.0/12"), ("domainAllowList", "a.test")]
        {
            let id = daytona.create(json!({"networkBlockAll": true, list: text})).await;
            let sandbox = daytona.get(&format!("/api/sandbox/{id}")).await.expect(200);
            assert_eq!((&sandbox["networkBlockAll"], &sandbox[list]), (&json!(true), &json!(text)));
        }
        for spec in daytona.engine().started.lock().unwrap().iter() {
            assert_eq!(spec.network, Network::Blocked);
        }
    }
}

#[tokio::test]
async fn allow_lists_reach_the_engine_and_are_refused_where_it_cannot_keep_them() {
    let daytona = Daytona::start().await;
    for body in [
        json!({}),
        json!({"networkAllowList": "10.0.0.0/8, 192.0.2.0/24"}),
        json!({"domainAllowList": "*.a.test"}),
    ] {
        let id = daytona.create(body.clone()).await;
        let sandbox = daytona.get(&format!("/api/sandbox/{id}")).await.expect(200);
        for list in ["networkAllowList", "domainAllowList"] {
            assert_eq!(sandbox.get(list), body.get(list), "{list}");
        }
    }
    let networks: Vec<Network> =
        daytona.engine().started.lock().unwrap().iter().map(|spec| spec.network.clone()).collect();
    let cidrs = ["10.0.0.0/8", "192.0.2.0/24"].map(|cidr| Cidr::parse(cidr).unwrap()).to_vec();
    let expected = [Access::Everything, Access::Networks(cidrs), Access::Domains(vec!["*.a.test".into()])];
    assert_eq!(networks, expected.map(Network::Gateway));

    let daytona = Daytona::without_gateway().await;
    for list in ["networkAllowList", "domainAllowList"] {
        let body = json!({list: if list == "networkAllowList" { "10.0.0.0/8" } else { "a.test" }});
        daytona.post("/api/sandbox", body).await.refused(400, "the fixture has none");
    }
    daytona.create(json!({})).await;
    assert_eq!(daytona.engine().started.lock().unwrap()[0].network, Network::Host);
}

#[tokio::test]
async fn only_unlimited_sandboxes_get_the_machines_network_where_that_is_chosen() {
    let mut options = LocalOptions::default();
    options.network.choice = NetworkChoice::Machine;
    let daytona = Daytona::with(options, Arc::new(SystemClock)).await;
    for body in [json!({}), json!({"domainAllowList": "a.test"}), json!({"networkBlockAll": true})] {
        daytona.create(body).await;
    }
    let networks: Vec<Network> =
        daytona.engine().started.lock().unwrap().iter().map(|spec| spec.network.clone()).collect();
    let listed = Network::Gateway(Access::Domains(vec!["a.test".into()]));
    assert_eq!(networks, [Network::Host, listed, Network::Blocked]);
}

#[tokio::test]
async fn a_removal_that_fails_at_first_is_tried_again() {
    let daytona = Daytona::start().await;
    let id = daytona.create(Value::Null).await;
    daytona.engine().failing_deletions.store(1, std::sync::atomic::Ordering::SeqCst);
    daytona.delete(&format!("/api/sandbox/{id}")).await.expect(200);
    daytona.delete(&format!("/api/sandbox/{id}")).await.refused(409, "state change in progress");
    daytona.wait_for(&id, "gone").await;
    assert_eq!(*daytona.engine().deleted.lock().unwrap(), [id]);
}

#[tokio::test]
async fn shutdown_ends_every_sandbox() {
    let daytona = Daytona::start().await;
    let mut ids = vec![daytona.create(Value::Null).await, daytona.create(Value::Null).await];
    let stopped = daytona.create(Value::Null).await;
    daytona.post(&format!("/api/sandbox/{stopped}/stop"), Value::Null).await.expect(200);
    ids.push(stopped);
    let engine = std::sync::Arc::clone(daytona.engine());
    let Daytona { server, address, .. } = daytona;
    server.shutdown().await;
    let mut deleted = engine.deleted.lock().unwrap().clone();
    deleted.sort();
    ids.sort();
    assert_eq!(deleted, ids);
    assert!(*engine.is_shut_down.borrow());
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_dropped_server_ends_its_sandboxes_too() {
    let daytona = Daytona::start().await;
    let id = daytona.create(Value::Null).await;
    let engine = std::sync::Arc::clone(daytona.engine());
    drop(daytona);
    until("shutdown", || async { (*engine.is_shut_down.borrow()).then_some(()) }).await;
    assert_eq!(*engine.deleted.lock().unwrap(), [id]);
}
