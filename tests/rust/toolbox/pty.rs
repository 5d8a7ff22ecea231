//! `/process/pty`.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::server::{Server, eventually};
use crate::socket::Socket;

const EXIT_CONTROL: &str = "X-Daytona-Pty-Exit-Control";

async fn control(socket: &mut Socket) -> Value {
    match socket.next().await {
        Some(Message::Text(text)) => serde_json::from_str(&text).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_terminal_is_made_and_used_over_one_socket() {
    let server = Server::start();
    std::fs::create_dir(server.work().join("below")).unwrap();
    let path =
        format!("/process/pty/create-connect?id=t&cols=100&rows=30&cwd={}/below", server.work().display());
    // {"FROM_CLIENT":"yes"}
    let protocols = [EXIT_CONTROL, "X-Daytona-Pty-Envs~eyJGUk9NX0NMSUVOVCI6InllcyJ9"];
    let mut socket = Socket::open(&server, &path, &[], &protocols).await.unwrap();
    assert_eq!(socket.protocol.as_deref(), Some(EXIT_CONTROL));
    assert_eq!(control(&mut socket).await, json!({"type": "control", "status": "connected"}));
    socket.send(Message::text("stty size; tty; echo \"=$FROM_CLIENT=$TERM=\"; pwd; echo E''ND\r")).await;
    let shown = socket.until(|shown| shown.contains("END\r\n")).await;
    for expected in ["30 100\r\n", "/dev/pts/", "=yes=xterm-256color=\r\n", "/below\r\n"] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    socket.send(Message::binary(&b"exit 9\r"[..])).await;
    let ended = socket.drain().await;
    assert_eq!(ended.code, 1011);
    let told: Value = serde_json::from_str(&ended.reason).unwrap();
    assert_eq!(told, json!({"exitCode": 9, "exitReason": "non-zero exit"}));
    let exited: Value = serde_json::from_str(&ended.texts[0]).unwrap();
    assert_eq!((&exited["status"], &exited["exitCode"]), (&json!("exited"), &json!(9)));
    assert_eq!(server.get("/process/pty/t").await.status, 404);
}

#[tokio::test]
async fn a_created_terminal_is_shown_to_several_clients() {
    let server = Server::start();
    let answer = server.post("/process/pty", r#"{"id":"t"}"#).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (201, json!({"sessionId": "t"})));
    let info = server.get("/process/pty/t").await.json();
    assert_eq!((&info["cols"], &info["rows"], &info["active"]), (&json!(80), &json!(24), &json!(true)));
    assert_eq!(server.get("/process/pty").await.json()["sessions"], json!([info]));
    let mut one = Socket::open(&server, "/process/pty/t/connect", &[], &[]).await.unwrap();
    let mut two = Socket::open(&server, "/process/pty/t/connect", &[], &[]).await.unwrap();
    for socket in [&mut one, &mut two] {
        assert_eq!(control(socket).await["status"], "connected");
    }
    let resized = server.post("/process/pty/t/resize", r#"{"cols":132,"rows":43}"#).await;
    assert_eq!((resized.status.as_u16(), &resized.json()["cols"]), (200, &json!(132)));
    one.send(Message::text("stty size; exit\r")).await;
    for socket in [one, two] {
        let ended = socket.drain().await;
        assert!(String::from_utf8_lossy(&ended.bytes).contains("43 132\r\n"), "{ended:?}");
        assert_eq!((ended.code, ended.reason.as_str(), ended.texts.len()), (1000, r#"{"exitCode":0}"#, 0));
    }
}

#[tokio::test]
async fn a_lazy_terminal_starts_with_its_first_client() {
    let server = Server::start();
    let body = json!({"id": "t", "lazyStart": true, "envs": {"GREETING": "changed"}}).to_string();
    assert_eq!(server.post("/process/pty", body).await.status, 201);
    let info = server.get("/process/pty/t").await.json();
    assert_eq!((&info["active"], &info["lazyStart"]), (&json!(false), &json!(true)));
    let mut socket = Socket::open(&server, "/process/pty/t/connect", &[], &[]).await.unwrap();
    control(&mut socket).await;
    socket.send(Message::text("echo \"=$GREETING=\"\r")).await;
    socket.until(|shown| shown.contains("=changed=\r\n")).await;
    assert_eq!(server.get("/process/pty/t").await.json()["active"], true);
}

#[tokio::test]
async fn a_deleted_terminal_takes_its_processes_along() {
    let server = Server::start();
    let mut socket = Socket::open(&server, "/process/pty/create-connect?id=t", &[], &[]).await.unwrap();
    control(&mut socket).await;
    socket.send(Message::text("sh -c 'echo $$ > pid; sleep 1000; sleep 1000'\r")).await;
    let pid = server.work().join("pid");
    eventually("the command runs", || std::fs::read_to_string(&pid).is_ok_and(|pid| pid.ends_with('\n')))
        .await;
    let pid = std::fs::read_to_string(pid).unwrap();
    let answer = server.delete("/process/pty/t").await;
    assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"message": "PTY session deleted"})));
    assert_eq!(socket.drain().await.code, 1011);
    eventually("it is dead", || !std::path::Path::new("/proc").join(pid.trim()).join("exe").exists()).await;
}

#[tokio::test]
async fn refusals_have_a_shape_of_their_own() {
    let server = Server::start();
    for (body, status) in
        [("{", 400), ("{}", 400), (r#"{"id":"x","cols":1001}"#, 400), (r#"{"id":"x","cols":-1}"#, 400)]
    {
        let answer = server.post("/process/pty", body).await;
        assert_eq!(answer.status, status, "{body}");
        assert!(answer.json()["error"].is_string());
    }
    server.post("/process/pty", r#"{"id":"t","lazyStart":true}"#).await;
    assert_eq!(server.post("/process/pty", r#"{"id":"t"}"#).await.status, 409);
    let taken = Socket::open(&server, "/process/pty/create-connect?id=t", &[], &[]).await;
    assert_eq!(taken.err(), Some(409));
    for (size, status) in [(r#"{"cols":0,"rows":1}"#, 400), (r#"{"cols":1,"rows":1001}"#, 400), ("{}", 400)] {
        assert_eq!(server.post("/process/pty/t/resize", size).await.status, status, "{size}");
    }
    assert_eq!(server.post("/process/pty/x/resize", r#"{"cols":1,"rows":1}"#).await.status, 410);
    assert_eq!(server.get("/process/pty/x").await.status, 404);
    assert_eq!(server.delete("/process/pty/x").await.status, 404);
    let mut unknown = Socket::open(&server, "/process/pty/x/connect", &[], &[]).await.unwrap();
    assert_eq!(control(&mut unknown).await["status"], "error");
    unknown.drain().await;
}

#[tokio::test]
async fn much_output_arrives_whole_at_a_reading_client() {
    let server = Server::start();
    let mut socket = Socket::open(&server, "/process/pty/create-connect?id=t", &[], &[]).await.unwrap();
    control(&mut socket).await;
    socket.send(Message::text("stty -echo; head -c 2000000 /dev/zero | tr '\\0' x; exit\r")).await;
    let ended = socket.drain().await;
    let count = String::from_utf8_lossy(&ended.bytes).matches('x').count();
    // the echo of the command itself has one
    assert!((2_000_000..2_000_010).contains(&count), "{count}, {} {}", ended.code, ended.reason);
    assert!(ended.longest <= 32 * 1024);
}
