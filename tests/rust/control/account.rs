//! Keys, limits, quotas, and what the server says about itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use inspect_daytona::local::control::{
    LocalOptions, LocalServer, ManualClock, Quota, RateLimits, SystemClock,
};
use serde_json::{Value, json};

use crate::client::{Daytona, until};

#[tokio::test]
async fn a_wrong_or_missing_key_is_told_in_the_servers_words() {
    let daytona = Daytona::start().await;
    for key in [None, Some("Bearer wrong"), Some("Basic abc"), Some("Bearer ")] {
        let mut request = daytona.request(Method::GET, "/api/sandbox", &Value::Null);
        request.headers_mut().remove("authorization");
        if let Some(key) = key {
            request.headers_mut().insert("authorization", key.parse().unwrap());
        }
        let reply = daytona.try_call(request).await.unwrap();
        let body = reply.expect(401);
        assert_eq!(body["path"], "/api/sandbox");
        assert_eq!(body["statusCode"], 401);
        assert_eq!(body["error"], "Unauthorized");
        assert_eq!(body["message"], "Invalid credentials");
        assert!(body["timestamp"].as_str().unwrap().ends_with('Z'));
        assert_eq!(reply.headers["x-daytona-api-version"], "0.190.0");
    }
}

#[tokio::test]
async fn the_key_is_random_and_never_shown() {
    let daytona = Daytona::start().await;
    assert!(daytona.key.starts_with("dtn_") && daytona.key.len() == 68, "{}", daytona.key);
    assert_ne!(daytona.key, Daytona::start().await.key);
    assert!(!format!("{:?}", daytona.server).contains(&daytona.key));
    let current = daytona.get("/api/api-keys/current").await;
    assert!(!String::from_utf8_lossy(&current.body).contains(&daytona.key));
    assert!(current.expect(200)["permissions"].as_array().unwrap().contains(&json!("delete:sandboxes")));
}

#[tokio::test]
async fn public_routes_need_no_key_and_unknown_ones_are_404() {
    let daytona = Daytona::start().await;
    let get = |path: &str| {
        Request::get(path).header("host", &daytona.address).body(Full::<Bytes>::default()).unwrap()
    };
    for path in ["/api/health", "/api/health/ready", "/api/shared-regions", "/api/config"] {
        daytona.try_call(get(path)).await.unwrap().expect(200);
    }
    let config = daytona.try_call(get("/api/config")).await.unwrap().expect(200);
    assert_eq!(config["defaultSnapshot"], "daytonaio/sandbox:0.5.0-slim");
    assert_eq!(config["proxyToolboxUrl"], format!("http://{}/toolbox", daytona.address));
    for path in ["/api/socket.io/?EIO=4&transport=websocket", "/", "/api", "/api/sandbox/x/y/z"] {
        let reply = daytona.try_call(get(path)).await.unwrap();
        reply.refused(404, "Cannot GET /");
        assert!(!reply.message().contains("EIO"));
    }
    daytona.call(Method::PATCH, "/api/sandbox", Value::Null).await.refused(404, "Cannot PATCH /api/sandbox");
    daytona.try_call(get("/api/regions")).await.unwrap().refused(401, "Invalid credentials");
    assert_eq!(daytona.get("/api/regions").await.expect(200)[0]["id"], "local");
}

#[tokio::test]
async fn what_is_absent_says_so_and_is_not_taken_for_something_that_is_not_there() {
    let daytona = Daytona::start().await;
    let id = daytona.create(Value::Null).await;
    for (method, path, what) in [
        (Method::GET, "/api/secret/any".to_owned(), "secrets"),
        (Method::POST, "/api/secret".to_owned(), "secrets"),
        (Method::GET, "/api/warm-pools".to_owned(), "warm pools"),
        (Method::GET, format!("/api/sandbox/{id}/signing-key"), "URLs for files"),
        (Method::POST, format!("/api/sandbox/{id}/signing-key/rotate"), "URLs for files"),
        (Method::GET, format!("/api/sandbox/{id}/telemetry/metrics"), "telemetry"),
        (Method::POST, "/api/organizations".to_owned(), "organizations"),
    ] {
        let reply = daytona.call(method, &path, Value::Null).await;
        reply.refused(501, "is not implemented by local Daytona");
        assert!(reply.message().contains(what), "{path}: {}", reply.message());
    }
    for path in ["/secret/any", "/api/secrets", "/api/sandbox/secret/any"] {
        daytona.get(path).await.refused(404, "Cannot GET");
    }
}

#[tokio::test]
async fn bodies_are_read_as_the_real_server_reads_them() {
    let daytona = Daytona::start().await;
    let id = daytona.create(Value::Null).await;
    let post = |body: String| {
        let mut request = daytona.request(Method::POST, "/api/sandbox", &Value::Null);
        *request.body_mut() = Full::from(body);
        daytona.try_call(request)
    };
    post("{".to_owned()).await.unwrap().refused(400, "Invalid JSON in request body");
    post("[".to_owned()).await.unwrap().refused(400, "Invalid JSON in request body");
    post(format!("\"{}\"", "a".repeat(101 * 1024))).await.unwrap().refused(413, "too large");
    // SDKs send the type without a body
    daytona.post(&format!("/api/sandbox/{id}/stop"), Value::Null).await.expect(200);
}

#[tokio::test]
async fn each_throttler_counts_for_itself() {
    let clock = ManualClock::new();
    let rate_limits = RateLimits { general: 100, create: 1, lifecycle: 2 };
    let daytona =
        Daytona::with(LocalOptions { rate_limits, ..LocalOptions::default() }, Arc::new(clock.clone())).await;
    let created = daytona.post("/api/sandbox", json!({})).await;
    let id = created.expect(200)["id"].as_str().unwrap().to_owned();
    assert_eq!(created.headers["x-ratelimit-limit-sandbox-create"], "1");
    assert_eq!(created.headers["x-ratelimit-remaining-sandbox-create"], "0");
    assert_eq!(created.headers["x-ratelimit-reset-sandbox-create"], "60");
    let refused = daytona.post("/api/sandbox", json!({})).await;
    refused.refused(429, "ThrottlerException: Too Many Requests");
    assert_eq!(refused.headers["retry-after-sandbox-create"], "60");
    assert!(!refused.headers.contains_key("retry-after"));
    let read = daytona.get(&format!("/api/sandbox/{id}")).await;
    assert_eq!(read.headers["x-ratelimit-remaining-authenticated"], "99");
    let stopped = daytona.post(&format!("/api/sandbox/{id}/stop"), Value::Null).await;
    assert_eq!(stopped.headers["x-ratelimit-remaining-sandbox-lifecycle"], "1");
    clock.advance(Duration::from_secs(60));
    daytona.post("/api/sandbox", json!({})).await.expect(200);
}

#[tokio::test]
async fn quotas_are_counted_by_what_a_sandbox_uses_in_its_state() {
    let quota = Quota { total_cpu: Some(1), total_disk: Some(6), ..Quota::default() };
    let daytona =
        Daytona::with(LocalOptions { quota, ..LocalOptions::default() }, Arc::new(SystemClock)).await;
    let first = daytona.create(Value::Null).await;
    let refused = daytona.post("/api/sandbox", json!({})).await;
    refused.refused(400, "Total CPU limit exceeded. Maximum allowed: 1.\n");
    daytona.post(&format!("/api/sandbox/{first}/stop"), Value::Null).await.expect(200);
    daytona.wait_for(&first, "stopped").await;
    let second = daytona.create(Value::Null).await;
    daytona
        .post(&format!("/api/sandbox/{first}/start"), Value::Null)
        .await
        .refused(400, "Total CPU limit exceeded");
    daytona.post(&format!("/api/sandbox/{second}/stop"), Value::Null).await.expect(200);
    daytona.wait_for(&second, "stopped").await;
    daytona
        .post("/api/sandbox", json!({}))
        .await
        .refused(400, "Total disk limit exceeded. Maximum allowed: 6GiB.");
    daytona.post(&format!("/api/sandbox/{first}/archive"), Value::Null).await.expect(200);
    until("room", || async { (daytona.post("/api/sandbox", json!({})).await.status == 200).then_some(()) })
        .await;
    let usage = daytona.get("/api/organizations/any/usage").await.expect(200);
    assert_eq!(usage["regionUsage"][0]["currentCpuUsage"], 1);
    assert_eq!(usage["regionUsage"][0]["currentDiskUsage"], 6);
}

#[tokio::test]
async fn what_can_never_fit_says_so() {
    let quota = Quota { max_memory: Some(2), ..Quota::default() };
    let images = [("big:1".to_owned(), inspect_daytona::local::control::ImageSource::Host)].into();
    let daytona =
        Daytona::with(LocalOptions { quota, images, ..LocalOptions::default() }, Arc::new(SystemClock)).await;
    let body = json!({"name": "big", "imageName": "big:1", "memory": 8});
    daytona.post("/api/snapshots", body).await.expect(200);
    let refused = daytona.post("/api/sandbox", json!({"snapshot": "big"})).await;
    refused.refused(400, "Memory request 8GB exceeds maximum allowed per sandbox (2GB).\n");
}

#[tokio::test]
async fn whoever_comes_by_another_address_is_led_back_there() {
    let options =
        LocalOptions { host: "0.0.0.0".parse().unwrap(), allow_remote: true, ..LocalOptions::default() };
    let daytona = Daytona::with(options, Arc::new(SystemClock)).await;
    // what this machine is told to use is an address of its own
    assert!(daytona.server.url().starts_with("http://127.0.0.1:"), "{}", daytona.server.url());
    let id = daytona.create(Value::Null).await;
    let ask = |host: &'static str, path: String| {
        let mut request = daytona.request(Method::GET, &path, &Value::Null);
        request.headers_mut().insert("host", host.parse().unwrap());
        daytona.try_call(request)
    };
    for (path, field, expected) in [
        (format!("/api/sandbox/{id}"), "toolboxProxyUrl", "http://machine:4000/toolbox"),
        (format!("/api/sandbox/{id}/toolbox-proxy-url"), "url", "http://machine:4000/toolbox"),
        ("/api/object-storage/push-access".to_owned(), "storageUrl", "http://machine:4000"),
        ("/api/config".to_owned(), "proxyToolboxUrl", "http://machine:4000/toolbox"),
    ] {
        assert_eq!(ask("machine:4000", path.clone()).await.unwrap().expect(200)[field], expected, "{path}");
    }
    let logs = ask("machine:4000", format!("/api/sandbox/{id}/build-logs-url")).await.unwrap().expect(200);
    assert_eq!(logs["url"], format!("http://machine:4000/sandboxes/{id}/build-logs"));
    let list = ask("machine:4000", "/api/sandbox".to_owned()).await.unwrap().expect(200);
    assert_eq!(list["items"][0]["toolboxProxyUrl"], "http://machine:4000/toolbox");
    // a host that is none leaves what this machine uses
    let plain = ask("me@machine", format!("/api/sandbox/{id}")).await.unwrap().expect(200);
    assert_eq!(plain["toolboxProxyUrl"], format!("http://{}/toolbox", daytona.address));
}

#[tokio::test]
async fn an_address_that_others_reach_is_refused_unless_asked_for() {
    let options = LocalOptions { host: "0.0.0.0".parse().unwrap(), ..LocalOptions::default() };
    let error = LocalServer::start(options).await.unwrap_err();
    assert!(error.to_string().contains("INSPECT_DAYTONA_LOCAL_ALLOW_REMOTE"), "{error}");
}
