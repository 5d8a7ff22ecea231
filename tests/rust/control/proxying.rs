//! The way into sandboxes.

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Daytona, until};

const MIB: usize = 1 << 20;

#[tokio::test]
async fn a_request_arrives_without_its_key_and_with_its_exact_path() {
    let daytona = Daytona::start().await;
    let id = daytona.create(Value::Null).await;
    let path = "/files/a%2Fb%20c?path=%2Ftmp&x=1";
    let seen = daytona.get(&format!("/toolbox/{id}{path}")).await.expect(200);
    assert_eq!(seen["path"], path);
    let headers = seen["headers"].to_string().to_lowercase();
    assert!(!headers.contains("authorization") && !headers.contains(&daytona.key), "{headers}");
    assert!(headers.contains("content-type: application/json"), "{headers}");
}

#[tokio::test]
async fn sixty_four_mebibytes_pass_in_both_directions() {
    let daytona = Daytona::start().await;
    let id = daytona.create(Value::Null).await;
    let sent = Bytes::from((0..251).cycle().take(64 * MIB).collect::<Vec<u8>>());
    let request = Request::post(format!("/toolbox/{id}/echo"))
        .header("host", &daytona.address)
        .header("authorization", format!("Bearer {}", daytona.key))
        .body(Full::from(sent.clone()))
        .unwrap();
    let reply = daytona.try_call(request).await.unwrap();
    assert!(reply.body == sent);
    assert_eq!(daytona.get(&format!("/toolbox/{id}/zeros/{}", 64 * MIB)).await.body.len(), 64 * MIB);
}

#[tokio::test]
async fn an_answer_arrives_while_its_request_is_still_being_sent() {
    // an echo that is not buffered: the first bytes come back before the last are sent
    let daytona = Daytona::start().await;
    let id = daytona.create(Value::Null).await;
    let mut stream = tokio::net::TcpStream::connect(&daytona.address).await.unwrap();
    let head = format!(
        "POST /toolbox/{id}/echo HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ntransfer-encoding: chunked\r\n\r\n\
         5\r\nfirst\r\n",
        daytona.key
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"first\r\n") {
        let read = stream.read_buf(&mut seen).await.unwrap();
        assert_ne!(read, 0, "{}", String::from_utf8_lossy(&seen));
    }
    stream.write_all(b"4\r\nlast\r\n0\r\n\r\n").await.unwrap();
    while !seen.ends_with(b"last\r\n0\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn an_upgrade_is_passed_through() {
    let daytona = Daytona::start().await;
    let id = daytona.create(Value::Null).await;
    let mut request = daytona.request(Method::GET, &format!("/toolbox/{id}/upgrade"), &Value::Null);
    request.headers_mut().insert("connection", "Upgrade".parse().unwrap());
    request.headers_mut().insert("upgrade", "websocket".parse().unwrap());
    let response = daytona.send(request).await.unwrap();
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["upgrade"], "websocket");
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    stream.write_all(b"hello").await.unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"hello");
}

#[tokio::test]
async fn refusals_have_the_status_and_text_of_the_real_proxies() {
    let daytona = Daytona::start().await;
    let id = daytona.create(Value::Null).await;
    let unknown = "/toolbox/00000000-0000-4000-8000-000000000000/process/execute";
    let reply = daytona.post(unknown, json!({})).await;
    reply.refused(401, "unauthorized: authentication failed: Bearer token is invalid");
    assert_eq!(reply.json()["method"], "POST");
    assert_eq!(reply.json()["path"], unknown);
    let mut request = daytona.request(Method::GET, &format!("/toolbox/{id}/headers"), &Value::Null);
    request.headers_mut().insert("authorization", "Bearer wrong".parse().unwrap());
    daytona.try_call(request).await.unwrap().refused(401, "Bearer token is invalid");
    let mut request = daytona.request(Method::GET, &format!("/toolbox/{id}/headers"), &Value::Null);
    request.headers_mut().remove("authorization");
    daytona.try_call(request).await.unwrap().refused(401, "missing authentication");
    daytona.get(&format!("/toolbox/{id}")).await.refused(404, "not found");
    daytona.engine().break_toolbox(&id);
    let reply = until("a dead toolbox", || async {
        let reply = daytona.get(&format!("/toolbox/{id}/headers")).await;
        (reply.status != 200).then_some(reply)
    })
    .await;
    assert_eq!((reply.status.as_u16(), reply.body.len()), (502, 0));
    assert_eq!(daytona.get(&format!("/api/sandbox/{id}")).await.expect(200)["state"], "started");
}

#[tokio::test]
async fn a_sandbox_is_not_reached_by_its_name() {
    let daytona = Daytona::start().await;
    daytona.create(json!({"name": "a"})).await;
    daytona.get("/toolbox/a/headers").await.refused(401, "invalid");
}

#[tokio::test]
async fn a_preview_token_opens_the_toolbox_and_is_not_passed_on() {
    let daytona = Daytona::start().await;
    let id = daytona.create(Value::Null).await;
    let preview = daytona.get(&format!("/api/sandbox/{id}/ports/80/preview-url")).await.expect(200);
    let token = preview["token"].as_str().unwrap();
    let without_key = |path: String| Request::get(path).header("host", &daytona.address);
    let request = without_key(format!("/toolbox/{id}/headers?a=1&DAYTONA_SANDBOX_AUTH_KEY={token}"));
    let seen = daytona.try_call(request.body(Full::default()).unwrap()).await.unwrap().expect(200);
    assert_eq!(seen["path"], "/headers?a=1");
    let request = without_key(format!("/toolbox/{id}/headers")).header("x-daytona-preview-token", token);
    let seen = daytona.try_call(request.body(Full::default()).unwrap()).await.unwrap().expect(200);
    assert!(!seen.to_string().contains(token));
    let request = without_key(format!("/toolbox/{id}/headers")).header("x-daytona-preview-token", "wrong");
    daytona
        .try_call(request.body(Full::default()).unwrap())
        .await
        .unwrap()
        .refused(401, "Preview token is invalid");
}

#[tokio::test]
async fn preview_hosts_lead_to_ports() {
    let daytona = Daytona::start().await;
    let id = daytona.create(Value::Null).await;
    let visit =
        |host: String| Request::get("/api/sandbox/x").header("host", host).body(Full::default()).unwrap();
    let host = format!("8080-{id}.localhost");
    assert_eq!(daytona.try_call(visit(host.clone())).await.unwrap().status, 401);
    let signed = daytona.get(&format!("/api/sandbox/{id}/ports/8080/signed-preview-url")).await.expect(200);
    let signed_host = signed["url"].as_str().unwrap().trim_start_matches("http://").to_owned();
    assert_eq!(daytona.try_call(visit(signed_host.clone())).await.unwrap().body, "8080 api/sandbox/x");
    let token = signed["token"].as_str().unwrap();
    let expire = format!("/api/sandbox/{id}/ports/8080/signed-preview-url/{token}/expire");
    daytona.post(&expire, Value::Null).await.expect(200);
    assert_eq!(daytona.try_call(visit(signed_host)).await.unwrap().status, 404);
    daytona.post(&format!("/api/sandbox/{id}/public/true"), Value::Null).await.expect(200);
    assert_eq!(daytona.try_call(visit(host)).await.unwrap().body, "8080 api/sandbox/x");
}

#[tokio::test]
async fn a_redirect_stays_below_the_sandbox() {
    let daytona = Daytona::start().await;
    let id = daytona.create(Value::Null).await;
    let reply = daytona.get(&format!("/toolbox/{id}/redirect")).await;
    assert_eq!(reply.headers["location"], format!("/toolbox/{id}/files/elsewhere"));
}

#[tokio::test]
async fn the_end_of_a_sandbox_cuts_its_answers() {
    let daytona = Daytona::start().await;
    let id = daytona.create(Value::Null).await;
    let response = daytona
        .send(daytona.request(Method::GET, &format!("/toolbox/{id}/zeros/{}", 256 * MIB), &Value::Null))
        .await
        .unwrap();
    daytona.post(&format!("/api/admin/sandboxes/{id}/kill"), Value::Null).await.expect(204);
    assert!(response.into_body().collect().await.is_err());
}
