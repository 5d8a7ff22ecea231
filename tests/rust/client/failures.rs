//! What a user is told, and what is tried again.

use std::time::Duration;

use inspect_daytona::api::sandbox::CreateSandbox;
use inspect_daytona::api::snapshot::CreateSnapshot;
use inspect_daytona::client::{Client, RetryPolicy};
use inspect_daytona::{ErrorKind, Status};

use crate::server::{
    KEY, PROXY, Reply, Server, again_with_proxy, answer, client, empty, message, quick, raw, sandbox,
};

#[tokio::test]
async fn reads_are_repeated_after_resets_and_server_errors() {
    let server = Server::start(|_, number| match number {
        0 => Reply::Reset,
        1 => empty(502),
        2 => Reply::Cut { promised: 50, body: vec![b'{'] },
        _ => answer(200, &sandbox("s", "started")),
    })
    .await;
    let client = server.client();
    assert_eq!(client.sandboxes().get("s").await.unwrap().id, "s");
    assert_eq!(client.requests()["get sandbox"], 4);
}

#[tokio::test]
async fn the_final_error_counts_the_attempts_and_keeps_the_status() {
    let server = Server::start(|_, _| message(503, "Service is currently under maintenance.")).await;
    let error = server.client().sandboxes().get("s").await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::Server, Status::Persistent));
    assert_eq!((error.attempts(), error.http_status()), (4, Some(503)));
    let text = error.to_string();
    assert!(text.starts_with("cannot get sandbox (sandbox s): Daytona answered 503"), "{text}");
    assert!(text.contains("maintenance") && text.contains("after 4 tries"), "{text}");
}

#[tokio::test]
async fn a_wait_that_a_throttler_asks_for_is_not_cut_short() {
    let server = Server::start(|_, _| Reply::Answer {
        status: 429,
        headers: vec![("Retry-After-authenticated", "3600".to_owned())],
        body: vec![],
    })
    .await;
    let error = server.client().sandboxes().get("s").await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::RateLimited, Status::Persistent));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3600)));
    assert_eq!(server.lines().len(), 1, "an hour is more than the total time of the retries");
}

#[tokio::test]
async fn what_is_not_daytona_is_named_with_its_url() {
    for reply in [
        raw(200, "text/html", "<!DOCTYPE html><title>Dashboard</title>"),
        raw(404, "text/html; charset=utf-8", "<html>nginx</html>"),
        raw(200, "application/json", r#"{"hello":"world"}"#),
        Reply::Answer {
            status: 307,
            headers: vec![("location", "https://elsewhere".to_owned())],
            body: vec![],
        },
    ] {
        let server = Server::start(move |_, _| reply.clone()).await;
        let error = server.client().sandboxes().get("s").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
        assert!(error.to_string().contains(&server.url()), "{error}");
        assert!(error.to_string().contains("DAYTONA_API_URL"), "{error}");
        assert_eq!(server.lines().len(), 1);
    }
}

#[tokio::test]
async fn an_unreachable_server_is_named_with_what_to_check() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let client = client(&format!("http://127.0.0.1:{port}/api"), quick());
    let error = client.sandboxes().get("s").await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Transport, 4));
    assert!(
        error.to_string().contains(&format!("127.0.0.1:{port} cannot be reached: tcp connect error")),
        "{error}"
    );
    assert!(error.to_string().contains("DAYTONA_API_URL"), "{error}");
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_is_a_transport_error() {
    let server = Server::start(|_, _| empty(200)).await;
    let client =
        client(&format!("https://127.0.0.1:{}/api", server.port), RetryPolicy { attempts: 1, ..quick() });
    let error = client.sandboxes().get("s").await.unwrap_err();
    // a machine without certificates says so instead
    assert!(matches!(error.kind(), ErrorKind::Transport | ErrorKind::System), "{error}");
}

#[tokio::test]
async fn a_bad_key_is_not_tried_again() {
    let server = Server::start(|_, _| message(401, "Invalid credentials")).await;
    let error = server.client().current_api_key().await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::Unauthenticated, Status::Permanent));
    assert!(error.to_string().contains("DAYTONA_API_KEY"), "{error}");
    assert_eq!(server.lines(), ["GET /api/api-keys/current"]);
}

#[tokio::test]
async fn a_credential_appears_in_no_text() {
    let echo = format!("bad header: Bearer {KEY}");
    let server = Server::start(move |_, number| match number % 3 {
        0 => message(400, &echo),
        1 => raw(400, "text/plain", echo.clone()),
        _ => raw(200, "application/json", format!("\"{echo}\"")),
    })
    .await;
    let client = server.client();
    let mut texts =
        vec![format!("{client:?}"), format!("{:?}", client.options()), format!("{:?}", client.sandboxes())];
    for _ in 0..3 {
        let error = client.sandboxes().get("s").await.unwrap_err();
        texts.push(format!("{error} {error:?}"));
    }
    texts.push(format!("{:?}", server.toolbox().await));
    for text in texts {
        assert!(!text.contains(KEY), "{text}");
    }
}

#[tokio::test]
async fn every_attempt_is_observed_with_what_is_left() {
    let server = Server::start(|_, number| Reply::Answer {
        status: if number == 0 { 502 } else { 404 },
        headers: vec![("X-RateLimit-Remaining-authenticated", "41".to_owned())],
        body: vec![],
    })
    .await;
    let mut options = server.client().options().clone();
    let (send, receive) = std::sync::mpsc::channel();
    options.observer = Some(std::sync::Arc::new(move |seen: &inspect_daytona::client::Observation<'_>| {
        let _ = send.send((seen.operation, seen.status, seen.remaining.to_vec()));
    }));
    assert!(Client::new(options).unwrap().sandboxes().find("s").await.unwrap().is_none());
    let left = vec![("authenticated".to_owned(), 41)];
    assert_eq!(receive.recv().unwrap(), ("get sandbox", Some(502), left.clone()));
    assert_eq!(receive.recv().unwrap(), ("get sandbox", Some(404), left));
}

#[tokio::test]
async fn a_proxy_is_never_used_for_this_machine() {
    if std::env::var_os(PROXY).is_none() {
        let output =
            again_with_proxy("failures::a_proxy_is_never_used_for_this_machine", "http://127.0.0.1:1").await;
        assert!(output.status.success(), "{output:?}");
        return;
    }
    let server = Server::start(|_, _| answer(200, &sandbox("s", "started"))).await;
    server.client().sandboxes().get("s").await.unwrap();
}

#[tokio::test]
async fn a_proxy_is_used_for_other_machines() {
    if std::env::var_os(PROXY).is_none() {
        let proxy = Server::start(|_, _| answer(200, &sandbox("s", "started"))).await;
        let url = format!("http://127.0.0.1:{}", proxy.port);
        let output = again_with_proxy("failures::a_proxy_is_used_for_other_machines", &url).await;
        assert!(output.status.success(), "{output:?}");
        if !String::from_utf8_lossy(&output.stdout).contains("SKIPPED") {
            assert_eq!(proxy.lines(), ["GET http://daytona.invalid/api/sandbox/s"]);
        }
        return;
    }
    match client("http://daytona.invalid/api", quick()).sandboxes().get("s").await {
        Err(error) if error.kind() == ErrorKind::System => println!("SKIPPED: no certificates here: {error}"),
        result => assert_eq!(result.unwrap().id, "s"),
    }
}

#[test]
fn futures_may_move_between_threads() {
    fn sendable<T: Send>(_: T) {}
    let client = client("http://127.0.0.1:1/api", quick());
    sendable(client.sandboxes().create(&CreateSandbox::default()));
    sendable(client.sandboxes().delete("s", Duration::ZERO));
    sendable(client.sandboxes().wait_started("s", Duration::ZERO));
    sendable(client.snapshots().create(&CreateSnapshot::default()));
    sendable(client.explain(inspect_daytona::Error::new(ErrorKind::Server, ""), "s"));
}
