//! `POST /process/execute`.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Method;
use serde_json::json;

use crate::server::{PATIENCE, Server, eventually, request};

#[tokio::test]
async fn both_streams_come_back_in_one_result() {
    let server = Server::start();
    assert_eq!(server.execute("echo out; echo err >&2; exit 42").await, (42, "out\nerr\n".to_owned()));
    assert_eq!(server.execute("exit 300").await.0, 44);
}

#[tokio::test]
async fn a_command_that_is_not_found_is_127() {
    let server = Server::start();
    let (code, result) = server.execute("no-such-command-here").await;
    assert_eq!(code, 127);
    assert!(result.contains("no-such-command-here"), "{result}");
}

#[tokio::test]
async fn a_killed_shell_is_minus_one_and_a_killed_child_128_and_signal() {
    let server = Server::start();
    assert_eq!(server.execute("echo before; kill -9 $$").await, (-1, "before\n".to_owned()));
    // 34 is a real-time signal
    assert_eq!(server.execute("kill -34 $$").await.0, -1);
    assert_eq!(server.execute("sh -c 'kill -9 $$'").await.0, 137);
}

#[tokio::test]
async fn a_missing_directory_is_a_start_failure_that_does_not_name_it() {
    let server = Server::start();
    let body = json!({"command": "true", "cwd": "/no/such/directory"}).to_string();
    let answer = server.post("/process/execute", body).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["exitCode"], -1);
    let result = answer.json()["result"].as_str().unwrap().to_owned();
    assert!(result.starts_with("fork/exec /"), "{result}");
    assert!(result.ends_with(": no such file or directory") && !result.contains("directory/"), "{result}");
}

#[tokio::test]
async fn directories_are_relative_to_the_work_directory() {
    let server = Server::start();
    std::fs::create_dir(server.work().join("below")).unwrap();
    let work = std::fs::canonicalize(server.work()).unwrap();
    assert_eq!(server.execute("pwd -P").await.1.trim(), work.to_str().unwrap());
    let answer =
        server.post("/process/execute", json!({"command": "pwd -P", "cwd": "below"}).to_string()).await;
    assert_eq!(answer.json()["result"].as_str().unwrap().trim(), work.join("below").to_str().unwrap());
}

#[tokio::test]
async fn the_environment_is_the_toolbox_s_and_the_request_s_and_nothing_else() {
    let server = Server::with_env(&[("OVERRIDDEN", "before")]);
    let body = json!({"command": "env", "envs": {"OVERRIDDEN": "after", "EMPTY": "", "MULTI": "a\nb"}});
    let result = server.post("/process/execute", body.to_string()).await.json()["result"].to_string();
    for expected in ["OVERRIDDEN=after", "GREETING=hello", "EMPTY=\\n", "MULTI=a\\nb", "PATH=/"] {
        assert!(result.contains(expected), "{expected}: {result}");
    }
    assert!(!result.contains("CARGO") && !result.contains("OVERRIDDEN=before"), "{result}");
}

#[tokio::test]
async fn names_of_variables_are_checked() {
    let server = Server::start();
    for name in ["1A", "", "A-B", "A=B", "É"] {
        let body = json!({"command": "true", "envs": {name: "x"}}).to_string();
        let answer = server.post("/process/execute", body).await;
        assert_eq!(answer.status, 400, "{name}");
        assert_eq!(answer.json()["code"], "BAD_REQUEST");
    }
}

#[tokio::test]
async fn malformed_requests_are_400_with_the_daemon_s_body() {
    let server = Server::start();
    for blank in ["", " ", "\n\t "] {
        let answer = server.post("/process/execute", json!({ "command": blank }).to_string()).await;
        answer.is_failure(400, "BAD_REQUEST", "bad request: command cannot be empty or whitespace-only");
        let json = answer.json();
        assert_eq!(
            (json["path"].as_str(), json["method"].as_str()),
            (Some("/process/execute"), Some("POST"))
        );
        assert!(json["timestamp"].as_str().unwrap().ends_with('Z'));
    }
    for body in [
        "",
        "{",
        "[]",
        r#"{"command":1}"#,
        r#"{"command":"x","timeout":-1}"#,
        r#"{"command":"x","timeout":1.5}"#,
        r#"{"command":"x","timeout":"1"}"#,
    ] {
        let answer = server.post("/process/execute", body).await;
        assert_eq!(answer.status, 400, "{body}");
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.starts_with("bad request: invalid request body: "), "{message}");
    }
    let unknown = r#"{"command":"echo ok","env":{"1":"x"},"cwd":null,"envs":null,"timeout":null}"#;
    assert_eq!(server.post("/process/execute", unknown).await.json()["result"], "ok\n");
}

#[tokio::test]
async fn a_timeout_kills_the_group_and_discards_the_output() {
    let server = Server::start();
    let body =
        json!({"command": "echo lost; sleep 1000 & echo $! > pid; sleep 1000", "timeout": 1}).to_string();
    let answer = server.post("/process/execute", body).await;
    answer.is_failure(408, "REQUEST_TIMEOUT", "request timeout: command execution timeout");
    let pid = std::fs::read_to_string(server.work().join("pid")).unwrap();
    eventually("the background process is dead", || !is_alive(pid.trim())).await;
}

#[tokio::test]
async fn what_left_the_group_survives_the_timeout_and_delays_the_answer() {
    let server = Server::start();
    // the `setsid` process ends by itself when the file appears
    let script = "setsid sh -c 'echo $$ > pid; while [ ! -e stop ]; do sleep 0.05; done' & sleep 1000";
    let body = json!({"command": script, "timeout": 1}).to_string();
    let mut answer = Box::pin(server.post("/process/execute", body));
    let early = tokio::time::timeout(Duration::from_millis(2500), &mut answer).await;
    assert!(early.is_err(), "answered while a process held the output");
    assert!(is_alive(std::fs::read_to_string(server.work().join("pid")).unwrap().trim()));
    std::fs::write(server.work().join("stop"), "").unwrap();
    assert_eq!(answer.await.status, 408);
}

#[tokio::test]
async fn an_answer_waits_for_every_holder_of_the_output() {
    let server = Server::start();
    let script = "(while [ ! -e stop ]; do sleep 0.05; done; echo late) & echo started; exit 3";
    let mut answer = Box::pin(server.execute(script));
    assert!(tokio::time::timeout(Duration::from_millis(500), &mut answer).await.is_err());
    std::fs::write(server.work().join("stop"), "").unwrap();
    assert_eq!(answer.await, (3, "started\nlate\n".to_owned()));
}

#[tokio::test]
async fn a_redirected_background_process_delays_nothing() {
    let server = Server::start();
    let began = Instant::now();
    let (code, pid) = server.execute("sleep 1000 >/dev/null 2>&1 & echo $!").await;
    assert!(code == 0 && began.elapsed() < PATIENCE);
    assert!(is_alive(pid.trim()));
    server.execute(&format!("kill {pid}")).await;
}

#[tokio::test]
async fn a_finished_shell_with_a_held_output_still_times_out() {
    let server = Server::start();
    let body = json!({"command": "sleep 1000 & exit 0", "timeout": 1}).to_string();
    assert_eq!(server.post("/process/execute", body).await.status, 408);
}

#[tokio::test]
async fn a_command_outlives_its_caller() {
    let server = Server::start();
    let body = json!({"command": "echo > started; while [ ! -e go ]; do sleep 0.05; done; echo > finished"});
    let call = request(Method::POST, "/process/execute", Body::from(body.to_string()));
    tokio::select! {
        _ = server.send(call) => panic!("it cannot have ended"),
        () = eventually("the command runs", || server.work().join("started").exists()) => {}
    }
    std::fs::write(server.work().join("go"), "").unwrap();
    eventually("the command ends", || server.work().join("finished").exists()).await;
}

#[tokio::test]
async fn output_is_text_with_each_invalid_byte_replaced_and_markup_escaped() {
    let server = Server::start();
    let body = json!({"command": r"printf 'a\342\202b\377\000\001<&>\342\202\254'"}).to_string();
    let answer = server.post("/process/execute", body).await;
    assert_eq!(answer.json()["result"], "a\u{fffd}\u{fffd}b\u{fffd}\0\u{1}<&>€");
    assert!(String::from_utf8_lossy(&answer.body).contains(r"\u003c\u0026\u003e"), "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/json; charset=utf-8");
}

#[tokio::test]
async fn the_script_comes_on_standard_input_and_may_be_large() {
    let server = Server::start();
    let mut script = "#".repeat(3 << 20);
    script.push_str("\ncat <<'END' | wc -c\nabc\nEND\n");
    assert_eq!(server.execute(&script).await.1.trim(), "4");
    let large = server.execute("head -c 8000000 /dev/zero | tr '\\0' x").await.1;
    assert!(large.len() == 8_000_000 && large.bytes().all(|byte| byte == b'x'));
}

#[tokio::test]
async fn a_shell_that_stops_reading_does_not_hang_the_request() {
    let server = Server::start();
    let mut script = "exit 5\n".to_owned();
    script.push_str(&"#".repeat(1 << 20));
    assert_eq!(server.execute(&script).await.0, 5);
}

#[tokio::test]
async fn two_hundred_commands_at_once_keep_their_own_results() {
    let server = Server::start();
    let calls = (0..200).map(|number| {
        let server = &server;
        async move {
            let script = format!("sleep 0.2; echo {number}; exit {}", number % 100);
            assert_eq!(server.execute(&script).await, (number % 100, format!("{number}\n")));
        }
    });
    futures_util::future::join_all(calls).await;
}

#[tokio::test]
async fn changes_of_the_environment_hold_for_later_commands() {
    let server = Server::with_env(&[("TOKEN", "secret-1"), ("OLD", "x")]);
    let body = json!({"set": {"NEW": "value"}, "unset": ["OLD"], "unsetValuePrefix": "secret-"}).to_string();
    assert_eq!(server.post("/env", body).await.status, 200);
    assert_eq!(server.execute("echo $NEW/$OLD/$TOKEN").await.1, "value//\n");
}

#[tokio::test]
async fn directories_and_version_are_told() {
    let server = Server::start();
    let work = server.work().to_str().unwrap().to_owned();
    for path in ["/work-dir", "/user-home-dir", "/project-dir"] {
        assert_eq!(server.get(path).await.json(), json!({ "dir": work }));
    }
    assert_eq!(server.get("/version").await.json(), json!({"version": "v0.190.0"}));
}

#[tokio::test]
async fn an_unknown_route_is_plain_text_and_a_missing_one_says_so() {
    let server = Server::start();
    for answer in [server.get("/no/such/route").await, server.post("/version", "").await] {
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (404, &b"404 page not found"[..]));
        assert!(answer.header("content-type").starts_with("text/plain"));
    }
    let answer = server.post("/lsp/start", "{}").await;
    assert_eq!((answer.status.as_u16(), answer.json()["code"].as_str()), (501, Some("NOT_IMPLEMENTED")));
}

fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // a zombie whose parent does not wait is dead enough
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}
