//! Creating exactly once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use inspect_daytona::api::sandbox::CreateSandbox;
use inspect_daytona::client::RUN_ID;
use inspect_daytona::{ErrorKind, Status};
use serde_json::json;

use crate::server::{Reply, Server, answer, client, empty, message, quick, raw, sandbox};

fn request() -> CreateSandbox {
    CreateSandbox {
        name: Some("name-s".to_owned()),
        labels: BTreeMap::from([("run".to_owned(), "r".to_owned())]),
        ..CreateSandbox::default()
    }
}

#[tokio::test]
async fn a_create_is_one_request_with_the_headers_that_daytona_reads() {
    let server = Server::start(|_, _| answer(200, &sandbox("s", "creating"))).await;
    let created = server.client().sandboxes().create(&request()).await.unwrap();
    assert_eq!(created.id, "s");
    let seen = server.seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].line(), "POST /api/sandbox");
    assert_eq!(seen[0].header("authorization").unwrap(), format!("Bearer {}", crate::server::KEY));
    assert_eq!(seen[0].header("x-daytona-source"), Some("inspect-daytona"));
    assert_eq!(seen[0].header("x-daytona-sdk-version"), Some("0.205.1"));
    assert_eq!(seen[0].header("content-type"), Some("application/json"));
    assert!(seen[0].header("user-agent").unwrap().starts_with("inspect-daytona/"));
    assert_eq!(seen[0].header("x-daytona-organization-id"), None);
}

#[tokio::test]
async fn a_lost_answer_is_made_good_by_the_name() {
    for lost in [Reply::Reset, empty(502), empty(504), Reply::Cut { promised: 100, body: b"{".to_vec() }] {
        let server = Server::start(move |request, number| match (number, request.method.as_str()) {
            (0, _) => lost.clone(),
            (_, "GET") => answer(200, &sandbox("s", "started")),
            _ => message(500, "a second create"),
        })
        .await;
        let created = server.client().sandboxes().create(&request()).await.unwrap();
        assert_eq!(created.id, "s");
        assert_eq!(server.lines(), ["POST /api/sandbox", "GET /api/sandbox/name-s"]);
    }
}

#[tokio::test]
async fn a_create_that_did_not_happen_is_repeated() {
    let server = Server::start(|request, number| match (number, request.method.as_str()) {
        (0, _) => empty(502),
        (_, "GET") => message(404, "Sandbox with ID or name name-s not found"),
        _ => answer(200, &sandbox("s", "creating")),
    })
    .await;
    assert_eq!(server.client().sandboxes().create(&request()).await.unwrap().id, "s");
    assert_eq!(server.lines(), ["POST /api/sandbox", "GET /api/sandbox/name-s", "POST /api/sandbox"]);
}

#[tokio::test]
async fn a_create_that_becomes_visible_late_is_adopted_after_the_conflict() {
    let conflict = Arc::new(AtomicBool::new(false));
    let server = Server::start(move |request, number| match (number, request.method.as_str()) {
        (0, _) => Reply::Reset,
        (_, "GET") if !conflict.load(Ordering::SeqCst) => message(404, "not found"),
        (_, "GET") => answer(200, &sandbox("s", "creating")),
        _ => {
            conflict.store(true, Ordering::SeqCst);
            message(409, "Sandbox with name name-s already exists")
        }
    })
    .await;
    assert_eq!(server.client().sandboxes().create(&request()).await.unwrap().id, "s");
}

#[tokio::test]
async fn a_stranger_is_never_adopted() {
    let server = Server::start(|request, number| match (number, request.method.as_str()) {
        (0, _) => Reply::Reset,
        (_, "GET") => {
            answer(200, &json!({"id": "x", "name": "name-s", "state": "started", "labels": {"run": "other"}}))
        }
        _ => message(500, "a second create"),
    })
    .await;
    let error = server.client().sandboxes().create(&request()).await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::AlreadyExists, Status::Permanent));

    // without labels nothing says whose it is
    let unlabelled = CreateSandbox { labels: BTreeMap::new(), ..request() };
    let server = Server::start(|_, number| match number {
        0 => Reply::Reset,
        _ => answer(200, &sandbox("s", "started")),
    })
    .await;
    let error = server.client().sandboxes().create(&unlabelled).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
}

#[tokio::test]
async fn a_name_that_was_taken_before_is_an_error_at_once() {
    let server = Server::start(|_, _| message(409, "Sandbox with name name-s already exists")).await;
    let error = server.client().sandboxes().create(&request()).await.unwrap_err();
    assert_eq!((error.kind(), error.sandbox()), (ErrorKind::AlreadyExists, Some("name-s")));
    assert_eq!(server.lines(), ["POST /api/sandbox"]);
}

#[tokio::test]
async fn a_create_that_a_proxy_repeated_is_adopted_by_its_run() {
    let labels = BTreeMap::from([(RUN_ID.to_owned(), "0123".to_owned())]);
    let of_a_run = CreateSandbox { labels, ..request() };
    for (owner, adopted) in [("0123", true), ("4567", false)] {
        let server = Server::start(move |request, _| match request.method.as_str() {
            "GET" => answer(
                200,
                &json!({"id": "s", "name": "name-s", "state": "creating", "labels": {RUN_ID: owner}}),
            ),
            _ => message(409, "Sandbox with name name-s already exists"),
        })
        .await;
        match server.client().sandboxes().create(&of_a_run).await {
            Ok(created) => assert_eq!((created.id.as_str(), adopted), ("s", true)),
            Err(error) => assert_eq!((error.kind(), adopted), (ErrorKind::AlreadyExists, false)),
        }
        assert_eq!(server.lines(), ["POST /api/sandbox", "GET /api/sandbox/name-s"]);
    }
}

#[tokio::test]
async fn without_a_name_nothing_that_may_have_happened_is_repeated() {
    let unnamed = CreateSandbox { name: None, ..request() };
    for lost in [Reply::Reset, empty(502)] {
        let server = Server::start(move |_, _| lost.clone()).await;
        let error = server.client().sandboxes().create(&unnamed).await.unwrap_err();
        assert_eq!(server.lines(), ["POST /api/sandbox"]);
        assert_eq!(error.status(), Status::Temporary);
        assert!(error.to_string().contains("may have been created"), "{error}");
    }
    let limited = Server::start(|_, number| match number {
        0 => Reply::Answer {
            status: 429,
            headers: vec![("Retry-After-sandbox-create", "0".to_owned())],
            body: vec![],
        },
        _ => answer(200, &sandbox("s", "creating")),
    })
    .await;
    limited.client().sandboxes().create(&unnamed).await.unwrap();
    assert_eq!(limited.lines().len(), 2);
}

#[tokio::test]
async fn quota_and_capacity_are_left_to_the_caller() {
    for (text, kind) in [
        ("Total CPU limit exceeded. Maximum allowed: 10.", ErrorKind::QuotaExceeded),
        ("No available runners", ErrorKind::NoCapacity),
    ] {
        let server = Server::start(move |_, _| message(400, text)).await;
        let error = server.client().sandboxes().create(&request()).await.unwrap_err();
        assert_eq!((error.kind(), error.status()), (kind, Status::Temporary));
        assert_eq!(server.lines().len(), 1);
    }
}

#[tokio::test]
async fn the_target_of_the_client_is_the_default() {
    let server = Server::start(|_, _| answer(200, &sandbox("s", "creating"))).await;
    let mut options = client(&server.url(), quick()).options().clone();
    options.target = Some("eu".to_owned());
    let client = inspect_daytona::client::Client::new(options).unwrap();
    client.sandboxes().create(&request()).await.unwrap();
    client.sandboxes().create(&CreateSandbox { target: Some("us".to_owned()), ..request() }).await.unwrap();
    let seen = server.seen.lock().unwrap().clone();
    let targets: Vec<serde_json::Value> = seen
        .iter()
        .map(|request| serde_json::from_slice::<serde_json::Value>(&request.body).unwrap()["target"].clone())
        .collect();
    assert_eq!(targets, ["eu", "us"]);
}

#[tokio::test]
async fn an_unreadable_success_is_reported_and_not_repeated() {
    let server = Server::start(|_, _| raw(200, "text/html", "<html>")).await;
    let error = server.client().sandboxes().create(&request()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert_eq!(server.lines().len(), 1);
}
