//! Settings of a sandbox that exists.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::Method;
use inspect_daytona::local::control::{LocalOptions, Quota, SystemClock};
use inspect_daytona::local::spec::{Access, Cidr, Network};
use serde_json::{Value, json};

use crate::client::Daytona;

#[tokio::test]
async fn labels_are_replaced_as_a_whole() {
    let daytona = Daytona::start().await;
    let id = daytona.create(json!({"labels": {"a": "1"}})).await;
    let labels = json!({"labels": {"b": "2"}});
    let reply = daytona.call(Method::PUT, &format!("/api/sandbox/{id}/labels"), labels.clone()).await;
    assert_eq!(reply.expect(200), labels);
    assert_eq!(daytona.get(&format!("/api/sandbox/{id}")).await.expect(200)["labels"], labels["labels"]);
}

#[tokio::test]
async fn intervals_are_set_and_checked() {
    let daytona = Daytona::start().await;
    let id = daytona.create(Value::Null).await;
    for (path, field, value) in [
        ("autostop/0", "autoStopInterval", json!(0)),
        ("autostop/7", "autoStopInterval", json!(7)),
        ("autoarchive/0", "autoArchiveInterval", json!(43200)),
        ("autoarchive/99999", "autoArchiveInterval", json!(43200)),
        ("autodelete/-1", "autoDeleteInterval", json!(-1)),
        ("autodelete/5", "autoDeleteInterval", json!(5)),
        ("public/true", "public", json!(true)),
        ("public/yes", "public", json!(false)),
        ("autopause/0", "autoPauseInterval", json!(0)),
    ] {
        let sandbox = daytona.post(&format!("/api/sandbox/{id}/{path}"), Value::Null).await.expect(200);
        assert_eq!(sandbox[field], value, "{path}");
    }
    assert!(
        daytona.post(&format!("/api/sandbox/{id}/ttl/9"), Value::Null).await.expect(200)["autoDestroyAt"]
            .is_string()
    );
    assert_eq!(
        daytona.post(&format!("/api/sandbox/{id}/ttl/0"), Value::Null).await.expect(200)["autoDestroyAt"],
        Value::Null
    );
    for path in ["autostop/-1", "autostop/x", "ttl/-1", "autoarchive/99999999999999999999"] {
        assert_eq!(
            daytona.post(&format!("/api/sandbox/{id}/{path}"), Value::Null).await.status,
            400,
            "{path}"
        );
    }
}

#[tokio::test]
async fn the_network_of_a_running_sandbox_changes() {
    let daytona = Daytona::start().await;
    let id = daytona.create(Value::Null).await;
    let path = format!("/api/sandbox/{id}/network-settings");
    daytona.post(&path, json!({})).await.refused(400, "At least one");
    daytona.post(&path, json!({"networkAllowList": "10.0.0.0"})).await.refused(400, "IPv4 network");
    let change = async |body: Value| {
        let sandbox = daytona.post(&path, body).await.expect(200);
        (
            sandbox["networkBlockAll"].clone(),
            sandbox["networkAllowList"].clone(),
            sandbox["domainAllowList"].clone(),
        )
    };
    let list = json!("10.0.0.0/8");
    assert_eq!(change(json!({"networkAllowList": list})).await, (json!(false), list, Value::Null));
    daytona.post(&path, json!({"domainAllowList": "a.test"})).await.refused(400, "exclude");
    let domains = json!({"networkAllowList": "", "domainAllowList": "a.test"});
    assert_eq!(change(domains.clone()).await, (json!(false), Value::Null, json!("a.test")));
    // nothing to do
    change(domains).await;
    // a block wins over what is listed beside it
    let both = json!({"networkBlockAll": true, "networkAllowList": "10.0.0.0/8", "domainAllowList": ""});
    assert_eq!(change(both).await, (json!(true), json!("10.0.0.0/8"), Value::Null));
    assert_eq!(change(json!({"networkBlockAll": true})).await, (json!(true), Value::Null, Value::Null));
    assert_eq!(change(json!({"networkBlockAll": false})).await, (json!(false), Value::Null, Value::Null));
    let changes: Vec<Network> =
        daytona.engine().networks.lock().unwrap().iter().map(|(_, network)| network.clone()).collect();
    let cidrs = vec![Cidr::parse("10.0.0.0/8").unwrap()];
    assert_eq!(
        changes,
        [
            Network::Gateway(Access::Networks(cidrs)),
            Network::Gateway(Access::Domains(vec!["a.test".into()])),
            Network::Blocked,
            Network::Gateway(Access::Everything),
        ]
    );
}

#[tokio::test]
async fn a_network_that_cannot_be_changed_stays_as_it_was_and_a_stopped_sandbox_has_its_own_at_its_start() {
    let daytona = Daytona::start().await;
    let id = daytona.create(Value::Null).await;
    let path = format!("/api/sandbox/{id}/network-settings");
    daytona.engine().fixed_network.store(true, Ordering::SeqCst);
    daytona.post(&path, json!({"networkBlockAll": true})).await.refused(400, "stop it first");
    assert_eq!(daytona.get(&format!("/api/sandbox/{id}")).await.expect(200)["networkBlockAll"], false);
    daytona.post(&format!("/api/sandbox/{id}/stop"), Value::Null).await.expect(200);
    daytona.wait_for(&id, "stopped").await;
    assert_eq!(
        daytona.post(&path, json!({"networkBlockAll": true})).await.expect(200)["networkBlockAll"],
        true
    );
    daytona.post(&format!("/api/sandbox/{id}/start"), Value::Null).await.expect(200);
    let spec = daytona.engine().started.lock().unwrap()[1].clone();
    assert_eq!(spec.network, Network::Blocked);
}

#[tokio::test]
async fn a_running_sandbox_gets_more_cores_and_memory_through_resizing() {
    let options = LocalOptions {
        quota: Quota { max_cpu: Some(4), total_memory: Some(6), ..Quota::default() },
        ..LocalOptions::default()
    };
    let daytona = Daytona::with(options, Arc::new(SystemClock)).await;
    let id = daytona.create(Value::Null).await;
    let (path, at) = (format!("/api/sandbox/{id}/resize"), format!("/api/sandbox/{id}"));
    daytona.post(&path, json!({})).await.refused(400, "At least one");
    daytona.post(&path, json!({"cpu": 0})).await.refused(400, "cpu must not be less than 1");
    daytona.post(&path, json!({"disk": 9})).await.refused(400, "only while it is stopped");
    daytona.post(&path, json!({"cpu": 5})).await.refused(400, "exceeds maximum allowed per sandbox");
    daytona.post(&path, json!({"memory": 7})).await.refused(400, "Total memory limit exceeded");
    let engine = daytona.engine();
    engine.slow_limits.store(true, Ordering::SeqCst);
    let (resized, ()) = tokio::join!(daytona.post(&path, json!({"cpu": 2, "memory": 4, "disk": 3})), async {
        daytona.wait_for(&id, "resizing").await;
        // it runs on, and nothing else may be done to it
        daytona.get(&format!("/toolbox/{id}/headers")).await.expect(200);
        daytona.post(&format!("{at}/stop"), Value::Null).await.refused(409, "in progress");
        daytona.post(&path, json!({"cpu": 3})).await.refused(409, "in progress");
        engine.release();
    });
    let sandbox = resized.expect(200);
    assert_eq!((&sandbox["state"], &sandbox["desiredState"]), (&json!("started"), &json!("started")));
    assert_eq!((&sandbox["cpu"], &sandbox["memory"], &sandbox["disk"]), (&json!(2), &json!(4), &json!(3)));
    daytona.post(&path, json!({"cpu": 1})).await.refused(400, "only while it is stopped");
    daytona.post(&path, json!({"memory": 2})).await.refused(400, "only while it is stopped");
    let raised = engine.limits.lock().unwrap().clone();
    let [(raised, limits)] = raised.as_slice() else { panic!("{raised:?}") };
    assert_eq!((raised.as_str(), limits.cpus, limits.memory), (id.as_str(), Some(2), Some(4 << 30)));
}

#[tokio::test]
async fn limits_that_cannot_be_raised_stay_as_they_were() {
    let daytona = Daytona::start().await;
    let id = daytona.create(Value::Null).await;
    daytona.engine().fixed_limits.store(true, Ordering::SeqCst);
    let path = format!("/api/sandbox/{id}");
    daytona.post(&format!("{path}/resize"), json!({"cpu": 2})).await.refused(400, "invalid argument");
    let sandbox = daytona.get(&path).await.expect(200);
    assert_eq!((&sandbox["state"], &sandbox["cpu"]), (&json!("started"), &json!(1)));
}

#[tokio::test]
async fn a_sandbox_that_ends_while_it_is_resized_is_stopped() {
    let daytona = Daytona::start().await;
    let id = daytona.create(Value::Null).await;
    daytona.engine().slow_limits.store(true, Ordering::SeqCst);
    let path = format!("/api/sandbox/{id}/resize");
    let (resized, ()) = tokio::join!(daytona.post(&path, json!({"cpu": 2})), async {
        daytona.wait_for(&id, "resizing").await;
        daytona.post(&format!("/api/admin/sandboxes/{id}/kill"), Value::Null).await.expect(204);
        daytona.engine().release();
    });
    assert_eq!(resized.expect(200)["state"], "stopped");
}

#[tokio::test]
async fn a_stopped_sandbox_is_resized_for_its_next_start() {
    let daytona = Daytona::start().await;
    let id = daytona.create(Value::Null).await;
    let path = format!("/api/sandbox/{id}/resize");
    daytona.post(&format!("/api/sandbox/{id}/stop"), Value::Null).await.expect(200);
    daytona.wait_for(&id, "stopped").await;
    daytona.post(&path, json!({"disk": 1})).await.refused(400, "disk size cannot be decreased");
    let sandbox = daytona.post(&path, json!({"cpu": 3, "memory": 4})).await.expect(200);
    assert_eq!(sandbox["state"], "stopped");
    let sandbox = daytona.post(&path, json!({"cpu": 2})).await.expect(200);
    assert_eq!((&sandbox["cpu"], &sandbox["memory"], &sandbox["disk"]), (&json!(2), &json!(4), &json!(3)));
    daytona.post(&format!("/api/sandbox/{id}/start"), Value::Null).await.expect(200);
    let limits = daytona.engine().started.lock().unwrap()[1].limits.clone();
    assert_eq!((limits.cpus, limits.memory), (Some(2), Some(4 << 30)));
}

#[tokio::test]
async fn urls_and_tokens_have_the_documented_shapes() {
    let daytona = Daytona::start().await;
    let id = daytona.create(json!({"name": "a"})).await;
    let port = daytona.address.rsplit(':').next().unwrap();
    let preview = daytona.get("/api/sandbox/a/ports/8080/preview-url").await.expect(200);
    assert_eq!(preview["url"], format!("http://8080-{id}.localhost:{port}"));
    assert_eq!(preview["token"].as_str().unwrap().len(), 32);
    daytona.get("/api/sandbox/a/ports/0/preview-url").await.refused(400, "Invalid port");
    daytona.get("/api/sandbox/a/ports/65536/preview-url").await.refused(400, "Invalid port");
    let signed =
        daytona.get("/api/sandbox/a/ports/80/signed-preview-url?expiresInSeconds=60").await.expect(200);
    assert_eq!(signed["port"], 80);
    let token = signed["token"].as_str().unwrap();
    assert_eq!(signed["url"], format!("http://80-{token}.localhost:{port}"));
    let path = "/api/sandbox/a/ports/80/signed-preview-url?expiresInSeconds=86401";
    daytona.get(path).await.refused(400, "must not be greater");
    let toolbox = daytona.get(&format!("/api/sandbox/{id}/toolbox-proxy-url")).await.expect(200);
    assert_eq!(toolbox["url"], format!("http://{}/toolbox", daytona.address));
    assert!(daytona.get("/api/sandbox/a/build-logs-url").await.expect(200)["url"].is_string());
}

#[tokio::test]
async fn ssh_is_refused_and_no_token_is_valid() {
    let daytona = Daytona::start().await;
    let id = daytona.create(Value::Null).await;
    let path = format!("/api/sandbox/{id}/ssh-access");
    let refused = daytona.post(&format!("{path}?expiresInMinutes=5"), Value::Null).await;
    refused.refused(400, "local Daytona has no ssh");
    assert!(!refused.message().contains("localhost"));
    daytona.post("/api/sandbox/none/ssh-access", Value::Null).await.refused(404, "none");
    let validate = "/api/sandbox/ssh-access/validate?token=any";
    assert_eq!(daytona.get(validate).await.expect(200), json!({"valid": false, "sandboxId": null}));
    assert_eq!(daytona.delete(&format!("{path}?token=any")).await.expect(200)["id"], id);
}

#[tokio::test]
async fn activity_is_accepted_with_and_without_a_body() {
    let daytona = Daytona::start().await;
    let id = daytona.create(Value::Null).await;
    let path = format!("/api/sandbox/{id}/last-activity");
    assert_eq!(daytona.post(&path, Value::Null).await.status, 201);
    assert_eq!(daytona.post(&path, json!({"activityType": "toolbox"})).await.status, 201);
    daytona.post("/api/sandbox/none/last-activity", Value::Null).await.refused(404, "none");
}
