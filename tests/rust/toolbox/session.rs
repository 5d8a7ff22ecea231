//! `/process/session`.

use axum::body::Body;
use axum::http::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::server::{Answer, PATIENCE, Server, eventually, request};
use crate::socket::{Ended, Socket};

const SDK: (&str, &str) = ("x-daytona-sdk-version", "0.226.1");

impl Server {
    async fn session(&self, id: &str) {
        let answer = self.post("/process/session", json!({ "sessionId": id }).to_string()).await;
        answer.is_empty_with(201);
    }

    async fn run_in(&self, id: &str, body: Value, headers: &[(&'static str, &str)]) -> Answer {
        let path = format!("/process/session/{id}/exec");
        let mut request = request(Method::POST, &path, Body::from(body.to_string()));
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        self.call(request).await
    }

    /// Runs a command to its end, as a new SDK does.
    async fn run(&self, id: &str, command: &str) -> Value {
        let answer = self.run_in(id, json!({ "command": command }), &[SDK]).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// Starts a command and returns its path.
    async fn start_in(&self, id: &str, body: Value) -> String {
        let answer = self.run_in(id, body, &[SDK]).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        let json = answer.json();
        assert_eq!(
            (&json["exitCode"], &json["output"], &json["stdout"]),
            (&Value::Null, &Value::Null, &Value::Null)
        );
        format!("/process/session/{id}/command/{}", json["cmdId"].as_str().unwrap())
    }

    async fn until_ended(&self, command: &str) -> Value {
        let ended = async {
            loop {
                let record = self.get(command).await.json();
                if record.get("exitCode").is_some() {
                    return record;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ended).await.expect("the command ends")
    }
}

#[tokio::test]
async fn commands_share_one_shell() {
    let server = Server::start();
    server.session("s1").await;
    server.run("s1", "cd /tmp; greet() { echo \"hi $1\"; }; X=5").await;
    let answer = server.run("s1", "greet you; pwd; echo $X $$ >&2; (exit 7)").await;
    assert_eq!((&answer["exitCode"], &answer["stdout"]), (&json!(7), &json!("hi you\n/tmp\n")));
    let shell = server.run("s1", "echo $X $$ >&2").await["stderr"].clone();
    assert_eq!(answer["stderr"], shell, "the shell is the same");
    assert_eq!(answer["output"].as_str().unwrap().matches('\u{1}').count(), 6);
}

#[tokio::test]
async fn the_shape_of_output_depends_on_the_sdk() {
    let server = Server::start();
    server.session("s").await;
    let command = json!({"command": "echo one; sleep 0.1; echo two >&2"});
    let marked = "\u{1}\u{1}\u{1}one\n\u{2}\u{2}\u{2}two\n";
    for (headers, output, stdout) in [
        (&[SDK][..], marked, json!("one\n")),
        (&[("x-daytona-sdk-version", "0.166.0")], marked, Value::Null),
        (&[("x-daytona-split-output", "true")], marked, Value::Null),
        (&[("x-daytona-sdk-version", "0.26.0")], "one\ntwo\n", Value::Null),
        (&[], "one\ntwo\n", Value::Null),
    ] {
        let answer = server.run_in("s", command.clone(), headers).await.json();
        assert_eq!((&answer["output"], &answer["stdout"]), (&json!(output), &stdout), "{headers:?}");
        let logs = format!("/process/session/s/command/{}/logs", answer["cmdId"].as_str().unwrap());
        let mut request = request(Method::GET, &logs, Body::empty());
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let logs = server.call(request).await;
        if stdout.is_null() {
            assert_eq!(logs.body, output.as_bytes(), "{headers:?}");
            assert!(logs.header("content-type").starts_with("text/plain"));
        } else {
            assert_eq!(logs.json(), json!({"output": marked, "stdout": "one\n", "stderr": "two\n"}));
        }
    }
}

#[tokio::test]
async fn output_is_exact() {
    let server = Server::start();
    server.session("s").await;
    let answer = server.run("s", r"printf 'a\r\n  b\\\0c\nno newline'").await;
    assert_eq!(answer["stdout"], "a\r\n  b\\\0c\nno newline");
    let answer = server
        .run("s", "head -c 3000000 /dev/zero | tr '\\0' x; head -c 10 /dev/zero | tr '\\0' y >&2")
        .await;
    assert_eq!(
        (answer["stdout"].as_str().unwrap().len(), &answer["stderr"]),
        (3_000_000, &json!("yyyyyyyyyy"))
    );
}

#[tokio::test]
async fn a_synchronous_command_reads_nothing() {
    let server = Server::start();
    server.session("s").await;
    assert_eq!(server.run("s", "cat; echo after").await["stdout"], "after\n");
}

#[tokio::test]
async fn sessions_are_listed_and_named_once() {
    let server = Server::start();
    server.session("b").await;
    server.session("a/../x y").await;
    server.run("b", "true").await;
    let list = server.get("/process/session").await.json();
    assert_eq!((&list[0]["sessionId"], &list[1]["sessionId"]), (&json!("a/../x y"), &json!("b")));
    let session = server.get("/process/session/b").await.json();
    assert_eq!(
        (&session["commands"][0]["command"], &session["commands"][0]["exitCode"]),
        (&json!("true"), &json!(0))
    );
    let again = server.post("/process/session", r#"{"sessionId":"b"}"#).await;
    again.is_failure(409, "CONFLICT", "conflict: session already exists");
    let reserved = server.post("/process/session", r#"{"sessionId":"entrypoint"}"#).await;
    assert_eq!((reserved.status.as_u16(), reserved.json()["code"].as_str()), (400, Some("BAD_REQUEST")));
    let malformed = server.post("/process/session", "{}").await;
    assert_eq!(
        (malformed.status.as_u16(), malformed.json()["code"].as_str()),
        (400, Some("INVALID_REQUEST_BODY"))
    );
}

#[tokio::test]
async fn what_is_not_there_is_told_as_the_daemon_does() {
    let server = Server::start();
    server.session("s").await;
    server.get("/process/session/x").await.is_failure(404, "NOT_FOUND", "not found: session not found");
    server.delete("/process/session/x").await.is_failure(404, "NOT_FOUND", "not found: session not found");
    assert_eq!(server.delete("/process/session/entrypoint").await.status, 400);
    assert_eq!(server.get("/process/session/entrypoint/logs").await.status, 404);
    let command = "/process/session/s/command/x";
    server.get(command).await.is_failure(404, "NOT_FOUND", "not found: command not found");
    assert_eq!(server.get(&format!("{command}/logs")).await.status, 404);
    assert_eq!(server.post(&format!("{command}/input"), r#"{"data":"x"}"#).await.status, 404);
    server.run_in("s", json!({"command": " \n"}), &[]).await.is_empty_with(400);
    let unknown = server.run_in("x", json!({"command": "true"}), &[]).await;
    assert_eq!(unknown.status, 500);
    let json = unknown.json();
    assert_eq!(
        (&json["timestamp"], &json["path"], json.get("code")),
        (&json!("0001-01-01T00:00:00Z"), &json!(""), None)
    );
}

#[tokio::test]
async fn an_asynchronous_command_takes_input_and_echoes_it() {
    let server = Server::start();
    server.session("s").await;
    for (suppress, expected) in [(false, "name?\nme\nhello me\n"), (true, "name?\nhello me\n")] {
        let body = json!({
            "command": "echo 'name?'; read name; echo \"hello $name\"; (exit 3)",
            "runAsync": true,
            "suppressInputEcho": suppress,
        });
        let command = server.start_in("s", body).await;
        let log = format!("{command}/logs");
        let asked = async {
            while server.get(&log).await.body != "name?\n" {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("no question"));
        assert!(server.get(&command).await.json().get("exitCode").is_none());
        server.post(&format!("{command}/input"), r#"{"data":"me"}"#).await.is_empty_with(204);
        assert_eq!(server.until_ended(&command).await["exitCode"], 3);
        assert_eq!(server.get(&log).await.body, expected);
        let late = server.post(&format!("{command}/input"), r#"{"data":"x"}"#).await;
        late.is_failure(410, "GONE", "gone: command has already completed with exit code 3");
    }
}

#[tokio::test]
async fn commands_of_a_session_wait_for_each_other() {
    let server = Server::start();
    server.session("s").await;
    let first =
        json!({"command": "while [ ! -e go ]; do sleep 0.02; done; echo first >> order", "async": true});
    server.start_in("s", first).await;
    let second = server.start_in("s", json!({"command": "echo second >> order", "async": true})).await;
    assert!(server.get(&second).await.json().get("exitCode").is_none());
    std::fs::write(server.work().join("go"), "").unwrap();
    server.until_ended(&second).await;
    assert_eq!(std::fs::read(server.work().join("order")).unwrap(), b"first\nsecond\n");
}

#[tokio::test]
async fn a_command_lasts_as_long_as_its_streams_are_held() {
    let server = Server::start();
    server.session("s").await;
    let answer = server.run("s", "(sleep 0.5; echo late) & echo early").await;
    assert_eq!(answer["stdout"], "early\nlate\n");
}

#[tokio::test]
async fn a_command_that_ends_the_shell_ends_and_the_next_one_fails() {
    let server = Server::start();
    server.session("s").await;
    let answer = server.run("s", "echo bye; exit 9").await;
    assert_eq!((&answer["exitCode"], &answer["stdout"]), (&json!(9), &json!("bye\n")));
    let next = server.run_in("s", json!({"command": "true"}), &[]).await;
    assert_eq!(next.status, 500);
    assert!(next.json()["message"].as_str().unwrap().contains("broken pipe"));
    server.delete("/process/session/s").await.is_empty_with(204);
}

#[tokio::test]
async fn a_deleted_session_leaves_no_process_and_no_file() {
    let server = Server::start();
    server.session("s").await;
    let script = "sleep 1000 & sh -c 'trap \"\" TERM; echo $$ > pid; sleep 1000; sleep 1000'";
    server.start_in("s", json!({"command": script, "runAsync": true})).await;
    eventually("the command runs", || {
        std::fs::read_to_string(server.work().join("pid")).is_ok_and(|pid| pid.ends_with('\n'))
    })
    .await;
    let pid = std::fs::read_to_string(server.work().join("pid")).unwrap();
    server.delete("/process/session/s").await.is_empty_with(204);
    assert!(!std::path::Path::new("/proc").join(pid.trim()).join("exe").exists(), "it ignored SIGTERM only");
    assert_eq!(server.get("/process/session/s").await.status, 404);
    assert_eq!(std::fs::read_dir(server.work().join(".daytona/sessions")).unwrap().count(), 0);
    server.session("s").await;
}

#[tokio::test]
async fn a_followed_log_comes_as_it_grows_and_closes_at_the_end() {
    let server = Server::start();
    server.session("s").await;
    let body = json!({"command": "echo one; read x; echo two >&2; head -c 5000 /dev/zero | tr '\\0' z", "runAsync": true});
    let command = server.start_in("s", body).await;
    let mut socket =
        Socket::open(&server, &format!("{command}/logs?follow=true"), &[SDK], &[]).await.unwrap();
    assert_eq!(socket.next().await, Some(Message::binary(&b"\x01\x01\x01one\n"[..])));
    socket.send(Message::Ping(vec![7].into())).await;
    assert_eq!(socket.next().await, Some(Message::Pong(vec![7].into())));
    server.post(&format!("{command}/input"), r#"{"data":""}"#).await.is_empty_with(204);
    let Ended { bytes, texts, code, longest, .. } = socket.drain().await;
    assert_eq!((code, texts.len()), (1000, 0));
    assert!(longest <= 1024, "{longest}");
    let [out, err] = streams(&bytes);
    assert_eq!(err, "two\n");
    assert_eq!(out, format!("\n{}", "z".repeat(5000)));
}

/// What a log holds of standard output and of standard error. Which of them comes first is the scheduler's matter.
fn streams(log: &[u8]) -> [String; 2] {
    let mut found = [Vec::new(), Vec::new()];
    let mut stream = None;
    let mut rest = log;
    while let Some(byte) = rest.first() {
        match rest {
            [1, 1, 1, after @ ..] => (stream, rest) = (Some(0), after),
            [2, 2, 2, after @ ..] => (stream, rest) = (Some(1), after),
            _ => {
                found[stream.expect("a mark comes first")].push(*byte);
                rest = &rest[1..];
            }
        }
    }
    found.map(|bytes| String::from_utf8(bytes).unwrap())
}

#[tokio::test]
async fn a_log_without_follow_closes_at_once_and_without_upgrade_is_a_stream() {
    let server = Server::start();
    server.session("s").await;
    let body = json!({"command": "echo one; read x; echo two", "runAsync": true, "suppressInputEcho": true});
    let command = server.start_in("s", body).await;
    let log = format!("{command}/logs");
    while server.get(&log).await.body.is_empty() {
        tokio::task::yield_now().await;
    }
    let protocol = "X-Daytona-SDK-Version~0.26.0";
    let socket = Socket::open(&server, &log, &[], &[protocol]).await.unwrap();
    assert_eq!(socket.protocol.as_deref(), Some(protocol));
    let ended = socket.drain().await;
    assert_eq!((ended.code, &ended.bytes[..]), (1000, &b"one\n"[..]));
    let path = format!("{log}?follow=true");
    let (stream, ()) = tokio::join!(server.get(&path), async {
        server.post(&format!("{command}/input"), r#"{"data":"x"}"#).await.is_empty_with(204);
    });
    assert_eq!(stream.body, "one\ntwo\n");
    assert_eq!(stream.header("content-type"), "application/octet-stream");
}

#[tokio::test]
async fn many_sessions_at_once_keep_their_results() {
    let server = Server::start();
    let sessions = (0..40).map(|number| {
        let server = &server;
        async move {
            let id = format!("s{number}");
            server.session(&id).await;
            for round in 0..3 {
                let answer = server.run(&id, &format!("echo {number}-{round}; (exit {number})")).await;
                assert_eq!(answer["stdout"], format!("{number}-{round}\n"));
                assert_eq!(answer["exitCode"], number);
            }
        }
    });
    futures_util::future::join_all(sessions).await;
}
