//! Faults on demand, and the counts of requests.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use crate::client::Daytona;

async fn daytona_with(rule: Value) -> (Daytona, String) {
    let daytona = Daytona::start().await;
    let id = daytona.create(Value::Null).await;
    daytona.post("/api/admin/faults", rule).await.expect(201);
    (daytona, id)
}

#[tokio::test]
async fn a_status_is_answered_as_often_as_asked_with_any_body() {
    let html = "<html>error code: 502</html>";
    for (fault, status, kind, body) in [
        (json!({"kind": "status", "status": 502, "body": ""}), 502, None, Some("")),
        (
            json!({"kind": "status", "status": 524, "body": html, "contentType": "text/html"}),
            524,
            Some("text/html"),
            Some(html),
        ),
        (json!({"kind": "status", "status": 500}), 500, Some("application/json"), None),
    ] {
        let rule =
            json!({"method": "POST", "path": "/toolbox/*/process/execute", "times": 1, "fault": fault});
        let (daytona, id) = daytona_with(rule).await;
        let path = format!("/toolbox/{id}/process/execute");
        let reply = daytona.post(&path, json!("a")).await;
        assert_eq!(reply.status.as_u16(), status);
        assert_eq!(reply.headers.get("content-type").map(|kind| kind.to_str().unwrap()), kind);
        if let Some(body) = body {
            assert_eq!(reply.body, body);
        }
        // the first one was not carried out
        assert_eq!(daytona.post(&path, json!("a")).await.expect(200)["result"], "\"a\" 1");
    }
}

#[tokio::test]
async fn rate_limits_and_quotas_can_be_pretended() {
    let (daytona, _) = daytona_with(json!({
        "path": "/api/sandbox", "times": 1,
        "fault": {"kind": "throttle", "throttler": "sandbox-create", "seconds": 7},
    }))
    .await;
    let quota = json!({"path": "/api/sandbox", "times": 1, "fault": {"kind": "quota", "resource": "cpu"}});
    daytona.post("/api/admin/faults", quota).await.expect(201);
    let reply = daytona.post("/api/sandbox", json!({})).await;
    reply.refused(429, "ThrottlerException: Too Many Requests");
    assert_eq!(reply.headers["retry-after-sandbox-create"], "7");
    daytona
        .post("/api/sandbox", json!({}))
        .await
        .refused(400, "Total CPU limit exceeded. Maximum allowed: 10.");
    daytona.post("/api/sandbox", json!({})).await.expect(200);
}

#[tokio::test]
async fn a_reset_breaks_the_connection_before_or_after_the_work() {
    for (kind, expected) in [("reset_before", 1), ("reset_after", 2)] {
        let rule = json!({"path": "/toolbox/**", "times": 1, "fault": {"kind": kind}});
        let (daytona, id) = daytona_with(rule).await;
        let path = format!("/toolbox/{id}/process/execute");
        let broken = daytona.try_call(daytona.request(Method::POST, &path, &json!("a"))).await;
        assert!(broken.is_err(), "{kind}: an answer");
        let result = daytona.post(&path, json!("a")).await.expect(200)["result"].clone();
        assert_eq!(result, format!("\"a\" {expected}"), "{kind}");
    }
}

#[tokio::test]
async fn a_reset_is_a_reset_and_not_an_orderly_close() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (daytona, _) = daytona_with(json!({"path": "/api/config", "fault": {"kind": "reset_before"}})).await;
    let mut stream = tokio::net::TcpStream::connect(&daytona.address).await.unwrap();
    stream.write_all(b"GET /api/config HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let error = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_create_can_succeed_without_an_answer() {
    let (daytona, _) = daytona_with(
        json!({"method": "post", "path": "/api/sandbox", "times": 1, "fault": {"kind": "reset_after"}}),
    )
    .await;
    let request = daytona.request(Method::POST, "/api/sandbox", &json!({"name": "lost"}));
    assert!(daytona.try_call(request).await.is_err());
    assert_eq!(daytona.get("/api/sandbox/lost").await.expect(200)["state"], "started");
}

#[tokio::test]
async fn a_body_is_cut_after_so_many_bytes() {
    let (daytona, id) = daytona_with(
        json!({"path": "/toolbox/*/zeros/*", "times": 1, "fault": {"kind": "cut_body", "bytes": 100_000}}),
    )
    .await;
    let path = format!("/toolbox/{id}/zeros/{}", 1 << 20);
    assert!(daytona.try_call(daytona.request(Method::GET, &path, &Value::Null)).await.is_err());
    assert_eq!(daytona.get(&path).await.body.len(), 1 << 20);
    let cut = json!({"path": "/api/config", "times": 1, "fault": {"kind": "cut_body", "bytes": 10}});
    daytona.post("/api/admin/faults", cut).await.expect(201);
    assert!(daytona.try_call(daytona.request(Method::GET, "/api/config", &Value::Null)).await.is_err());
}

#[tokio::test]
async fn a_replayed_request_is_carried_out_twice_and_counted_once() {
    for overlap in [false, true] {
        let (daytona, id) = daytona_with(json!({
            "path": "/toolbox/*/process/execute", "times": 2, "fault": {"kind": "replay", "overlap": overlap},
        }))
        .await;
        let path = format!("/toolbox/{id}/process/execute");
        daytona.post(&path, json!("a")).await.expect(200);
        // more than Daytona's proxies keep for a replay, so delivered once
        daytona.post(&path, json!("b".repeat(300 * 1024))).await.expect(200);
        let result = crate::client::until("four executions", || async {
            let reply = daytona.post(&path, json!("c")).await.expect(200);
            let count: usize = reply["result"].as_str().unwrap().rsplit(' ').next().unwrap().parse().unwrap();
            (count >= 4).then_some(count)
        })
        .await;
        assert!(result >= 4, "{result}");
        let counts = daytona.get("/api/admin/requests").await.expect(200);
        let requests = counts["POST /toolbox/{sandbox}/process/execute"].as_u64().unwrap();
        assert_eq!(u64::try_from(result).unwrap(), requests + 1, "overlap {overlap}");
    }
}

#[tokio::test]
async fn a_replayed_create_conflicts_with_itself() {
    let (daytona, _) =
        daytona_with(json!({"method": "POST", "path": "/api/sandbox", "fault": {"kind": "replay"}})).await;
    daytona.post("/api/sandbox", json!({"name": "twice"})).await.refused(409, "already exists");
    daytona.get("/api/sandbox/twice").await.expect(200);
}

#[tokio::test]
async fn a_delay_comes_before_everything_else() {
    let (daytona, _) = daytona_with(json!({"path": "/api/config", "delayMilliseconds": 60})).await;
    let before = Instant::now();
    daytona.get("/api/config").await.expect(200);
    assert!(before.elapsed() >= Duration::from_millis(60));
}

#[tokio::test]
async fn rules_are_listed_removed_and_checked() {
    let (daytona, _) =
        daytona_with(json!({"path": "/api/health", "fault": {"kind": "status", "status": 503}})).await;
    daytona.get("/api/health").await.refused(503, "injected");
    let rules = daytona.get("/api/admin/faults").await.expect(200);
    assert_eq!((&rules[0]["id"], &rules[0]["struck"]), (&json!(1), &json!(1)));
    daytona.delete("/api/admin/faults/1").await.expect(204);
    daytona.delete("/api/admin/faults/1").await.refused(404, "no fault 1");
    daytona.get("/api/health").await.expect(200);
    for rule in [
        json!({"path": "api", "fault": {"kind": "reset_after"}}),
        json!({"path": "/a", "fault": {"kind": "explode"}}),
        json!({"path": "/a", "fault": {"kind": "status", "status": 1}}),
        json!({"path": "/a"}),
        json!({}),
    ] {
        assert_eq!(daytona.post("/api/admin/faults", rule.clone()).await.status, 400, "{rule}");
    }
}

#[tokio::test]
async fn requests_are_counted_by_route_and_administration_is_not() {
    let daytona = Daytona::start().await;
    let id = daytona.create(Value::Null).await;
    daytona.delete("/api/admin/requests").await.expect(204);
    daytona.get(&format!("/api/sandbox/{id}")).await.expect(200);
    daytona.get("/api/sandbox/none").await.refused(404, "none");
    daytona.get(&format!("/toolbox/{id}/headers")).await.expect(200);
    daytona.get("/api/nothing").await.refused(404, "Cannot GET /api/nothing");
    let counts = daytona.get("/api/admin/requests").await.expect(200);
    assert_eq!(
        counts,
        json!({"GET /api/sandbox/{sandbox}": 2, "GET /toolbox/{sandbox}/headers": 1, "GET unmatched": 1})
    );
}

#[tokio::test]
async fn administration_needs_the_key() {
    let daytona = Daytona::start().await;
    for (method, path) in [(Method::GET, "/api/admin/requests"), (Method::POST, "/api/admin/faults")] {
        let mut request = daytona.request(method, path, &Value::Null);
        request.headers_mut().remove("authorization");
        daytona.try_call(request).await.unwrap().refused(401, "Invalid credentials");
    }
}
