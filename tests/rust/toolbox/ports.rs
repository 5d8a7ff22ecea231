//! Ports, the proxy to them, and code runs.

use axum::body::Body;
use axum::http::{Method, StatusCode};
use axum::routing::{any, get};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

use crate::server::{Server, request};
use crate::socket::Socket;

/// A program behind a port: it tells what it was asked.
async fn program() -> u16 {
    let tell = any(async |request: axum::extract::Request| {
        let head =
            format!("{} {} {}", request.method(), request.uri(), request.headers()["host"].to_str().unwrap());
        let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
        (StatusCode::IM_A_TEAPOT, [("x-told", head)], body)
    });
    let echo = get(async |upgrade: axum::extract::WebSocketUpgrade| {
        upgrade.on_upgrade(async |mut socket| {
            while let Some(Ok(message)) = socket.recv().await {
                if socket.send(message).await.is_err() {
                    break;
                }
            }
        })
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let app = axum::Router::new().route("/socket", echo).fallback(tell);
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    port
}

#[tokio::test]
async fn a_request_goes_through_to_the_port() {
    let server = Server::start();
    let port = program().await;
    for (path, seen) in [("", "/"), ("/", "/"), ("/a%2Fb/c?d=e%20f", "/a%2Fb/c?d=e%20f"), ("?q=1", "/?q=1")] {
        let sent = request(Method::PUT, &format!("/proxy/{port}{path}"), Body::from("content"));
        let answer = server.call(sent).await;
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (418, &b"content"[..]), "{path}");
        assert_eq!(answer.header("x-told"), format!("PUT {seen} localhost:{port}"));
    }
}

#[tokio::test]
async fn a_websocket_goes_through_to_the_port() {
    let server = Server::start();
    let port = program().await;
    let mut socket = Socket::open(&server, &format!("/proxy/{port}/socket"), &[], &[]).await.unwrap();
    socket.send(Message::text("hello")).await;
    assert_eq!(socket.next().await, Some(Message::text("hello")));
}

#[tokio::test]
async fn a_closed_port_is_an_empty_502() {
    let server = Server::start();
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    server.get(&format!("/proxy/{port}/x")).await.is_empty_with(502);
    server.get("/proxy/none/x").await.is_empty_with(400);
}

#[tokio::test]
async fn listening_ports_are_told() {
    let server = Server::start();
    let mut taken = 3000..10_000;
    let (listener, port) = loop {
        let port = taken.next().expect("a free port");
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)).await {
            break (listener, port);
        }
    };
    let ports = server.get("/port").await.json();
    assert!(ports["ports"].as_array().unwrap().contains(&json!(port)), "{ports}");
    let in_use = format!("/port/{port}/in-use");
    assert_eq!(server.get(&in_use).await.json(), json!({"isInUse": true}));
    drop(listener);
    assert_eq!(server.get(&in_use).await.json(), json!({"isInUse": false}));
    for port in ["2999", "10000", "x"] {
        server.get(&format!("/port/{port}/in-use")).await.is_empty_with(400);
    }
}

#[tokio::test]
async fn python_code_runs_with_exact_arguments() {
    let server = Server::start();
    let body = json!({
        "code": "import os, sys\nprint(sys.argv[1:], os.environ['K'])\nprint('err', file=sys.stderr)\nsys.exit(3)",
        "language": "python",
        "argv": ["a b", "'; echo x"],
        "envs": {"K": "v", "PATH": std::env::var("PATH").unwrap()},
    });
    let answer = server.post("/process/code-run", body.to_string()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let json = answer.json();
    // a machine without the interpreter says so as a shell would
    if json["exitCode"] == 127 {
        assert_eq!(json["result"], "python3: command not found\n");
        return;
    }
    assert_eq!(json, json!({"exitCode": 3, "result": "['a b', \"'; echo x\"] v\nerr\n"}));
}

#[tokio::test]
async fn code_in_other_languages_is_refused_and_limits_hold() {
    let server = Server::with_env(&[("PATH", &std::env::var("PATH").unwrap())]);
    let ruby = server.post("/process/code-run", r#"{"code":"","language":"ruby"}"#).await;
    ruby.is_failure(400, "BAD_REQUEST", "bad request: unsupported language: ruby");
    assert_eq!(server.post("/process/code-run", r#"{"code":"x"}"#).await.status, 400);
    let body = json!({"code": "while True: pass", "language": "python", "timeout": 1}).to_string();
    assert_eq!(server.post("/process/code-run", body).await.status, 408);
    let body = json!({"code": "console.log(process.argv.slice(2))", "language": "javascript", "argv": ["x"]});
    let answer = server.post("/process/code-run", body.to_string()).await.json();
    let expected = if answer["exitCode"] == 127 { "node: command not found\n" } else { "[ 'x' ]\n" };
    assert_eq!(answer["result"], expected);
}
