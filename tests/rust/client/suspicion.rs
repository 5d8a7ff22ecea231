//! Commands, and failures that may be the sandbox's.

use std::sync::Arc;
use std::time::Duration;

use inspect_daytona::api::toolbox::ExecuteRequest;
use inspect_daytona::client::Replay;
use inspect_daytona::{Error, ErrorKind, Status};
use serde_json::json;
use tokio::sync::Barrier;

use crate::server::{Reply, Server, answer, empty, message, raw, sandbox};

const WHILE: Duration = Duration::from_secs(20);
const NOT_STARTED: &str = "bad request: failed to resolve container IP after 3 attempts: no IP address found. \
                           Is the Sandbox started?";

fn request() -> ExecuteRequest {
    ExecuteRequest { command: "echo hi".to_owned(), ..ExecuteRequest::default() }
}

fn result() -> Reply {
    answer(200, &json!({"exitCode": 0, "result": "hi\n"}))
}

fn is_control(request: &crate::server::Request) -> bool {
    request.path.starts_with("/api/")
}

#[tokio::test]
async fn a_script_that_may_be_replayed_survives_everything_transient() {
    for reply in [
        Reply::Reset,
        Reply::Cut { promised: 99, body: vec![b'{'] },
        message(408, "request timeout"),
        empty(502),
        empty(503),
        raw(524, "text/html", "<html>"),
    ] {
        let server = Server::start(move |request, number| match number {
            0 => reply.clone(),
            _ if is_control(request) => answer(200, &sandbox("s", "started")),
            _ => result(),
        })
        .await;
        let answer = server.toolbox().await.execute(&request(), WHILE, Replay::Safe).await.unwrap();
        assert_eq!((answer.exit_code, answer.result.as_str()), (0, "hi\n"));
    }
}

#[tokio::test]
async fn a_script_that_may_not_be_replayed_is_sent_once() {
    let server = Server::start(|_, _| Reply::Reset).await;
    let error = server.toolbox().await.execute(&request(), WHILE, Replay::Never).await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::Transport, Status::Temporary));
    assert_eq!(server.lines(), ["POST /toolbox/s/process/execute"]);
}

#[tokio::test]
async fn silence_ends_with_our_deadline_and_never_with_a_commands_timeout() {
    let server = Server::start(|request, _| {
        if is_control(request) { answer(200, &sandbox("s", "started")) } else { Reply::Silence }
    })
    .await;
    let error = server
        .toolbox()
        .await
        .execute(&request(), Duration::from_millis(20), Replay::Safe)
        .await
        .unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::DeadlineExceeded, 4));
}

#[tokio::test]
async fn a_stopped_sandbox_is_reported_with_state_age_and_reason() {
    let server = Server::start(|request, _| {
        if !is_control(request) {
            return message(400, NOT_STARTED);
        }
        let mut sandbox = sandbox("s", "error");
        sandbox["errorReason"] = json!("out of memory");
        sandbox["createdAt"] = json!("2026-01-01T00:00:00.000Z");
        answer(200, &sandbox)
    })
    .await;
    let error = server.toolbox().await.execute(&request(), WHILE, Replay::Safe).await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::SandboxUnavailable, Status::Permanent));
    let text = error.to_string();
    assert!(text.starts_with("cannot run command (sandbox name-s): it is error (out of memory), "), "{text}");
    assert!(text.ends_with(" s after its creation"), "{text}");
    assert_eq!(server.lines(), ["POST /toolbox/s/process/execute", "GET /api/sandbox/s"]);
}

#[tokio::test]
async fn what_a_model_may_see_names_no_infrastructure() {
    let dial = "bad gateway: Post \"http://10.0.0.1:2280/x\": dial tcp 10.0.0.1:2280: connection refused";
    for state in ["started", "stopped"] {
        let server = Server::start(move |request, _| {
            let mut sandbox = sandbox("s", state);
            sandbox["errorReason"] = json!("runner 10.0.0.1:3003 is lost");
            if is_control(request) { answer(200, &sandbox) } else { message(502, dial) }
        })
        .await;
        let toolbox = server.toolbox().await;
        let error = toolbox.execute(&request(), WHILE, Replay::Safe).await.unwrap_err();
        assert!(!error.to_string().contains("10.0.0.1"), "{error}");
    }
    let server = Server::start(|_, _| Reply::Reset).await;
    let (toolbox, port) = (server.toolbox().await, server.port.to_string());
    let reset = toolbox.execute(&request(), WHILE, Replay::Never).await.unwrap_err();
    drop(server);
    // the socket closes when the server's task was told
    let refused = loop {
        let error = toolbox.execute(&request(), WHILE, Replay::Never).await.unwrap_err();
        if error.to_string().contains("cannot be reached") {
            break error;
        }
    };
    for error in [reset, refused] {
        assert!(!error.to_string().contains(&port), "{error}");
        assert!(error.to_string().contains("the sandbox's toolbox"), "{error}");
        assert!(format!("{error:?}").contains(&port), "the user finds it in the source: {error:?}");
    }
}

#[tokio::test]
async fn a_deleted_sandbox_is_not_a_bad_key_or_a_missing_file() {
    for reply in [
        message(401, "unauthorized: authentication failed: Bearer token is invalid"),
        message(404, "not found: sandbox container not found: s"),
        empty(502),
    ] {
        let server = Server::start(move |request, _| {
            if is_control(request) {
                message(404, "Sandbox with ID or name s not found")
            } else {
                reply.clone()
            }
        })
        .await;
        let error = server.toolbox().await.download("/f", 10).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SandboxUnavailable, "{error}");
        assert!(error.to_string().contains("does not exist any more"), "{error}");
        assert_eq!(server.lines().len(), 2);
    }
}

#[tokio::test]
async fn a_deleted_sandbox_that_keeps_silent_is_asked_once() {
    let server = Server::start(|request, _| {
        if is_control(request) { message(404, "Sandbox with ID or name s not found") } else { Reply::Silence }
    })
    .await;
    let toolbox = server.toolbox().await;
    let error = toolbox.execute(&request(), Duration::from_millis(20), Replay::Safe).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SandboxUnavailable);
    assert_eq!(server.lines(), ["POST /toolbox/s/process/execute", "GET /api/sandbox/s"]);
}

#[tokio::test]
async fn a_running_sandbox_is_given_time() {
    let server = Server::start(|request, number| match (is_control(request), number) {
        (true, _) => answer(200, &sandbox("s", "started")),
        (_, 0) => message(400, NOT_STARTED),
        (_, 2) => message(401, "unauthorized: authentication failed: Bearer token is invalid"),
        _ => result(),
    })
    .await;
    server.toolbox().await.execute(&request(), WHILE, Replay::Never).await.unwrap();
    assert_eq!(server.lines().iter().filter(|line| line.starts_with("POST")).count(), 3);
}

#[tokio::test]
async fn a_bad_key_is_said_by_the_control_plane() {
    let server = Server::start(|_, _| message(401, "Invalid credentials")).await;
    let error = server.toolbox().await.work_dir().await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::Unauthenticated, Status::Permanent));
    assert_eq!(server.lines().len(), 2);
}

#[tokio::test]
async fn an_explanation_leaves_what_it_cannot_explain() {
    let server = Server::start(|_, _| empty(500)).await;
    let error = Error::new(ErrorKind::Server, "502").with_http_status(502).temporary();
    let explained = server.client().explain(error, "s").await;
    assert_eq!((explained.kind(), explained.message()), (ErrorKind::Server, "502"));
}

#[tokio::test]
async fn a_hundred_commands_run_at_the_same_time() {
    let all = Arc::new(Barrier::new(100));
    let server = Server::start_async(move |_, _| {
        let all = Arc::clone(&all);
        async move {
            all.wait().await;
            result()
        }
    })
    .await;
    let toolbox = server.toolbox().await;
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let toolbox = toolbox.clone();
            tokio::spawn(async move { toolbox.execute(&request(), WHILE, Replay::Never).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap().exit_code, 0);
    }
    assert_eq!(toolbox.client().requests()["run command"], 100);
}

#[tokio::test]
async fn dropping_a_future_drops_its_request() {
    let server = Server::start(|_, _| Reply::Silence).await;
    let toolbox = server.toolbox().await;
    let task = tokio::spawn(async move { toolbox.execute(&request(), WHILE, Replay::Safe).await });
    while server.lines().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert_eq!(server.lines().len(), 1);
}
