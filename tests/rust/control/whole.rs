//! The control plane with the real engine and the real toolbox. Skipped where this machine has no namespaces to give.

use std::sync::Arc;

use inspect_daytona::ErrorKind;
use inspect_daytona::local::control::{LocalOptions, LocalServer};
use serde_json::{Value, json};

use crate::client::{Daytona, until};

/// A server with the strongest isolation that works here.
pub(crate) async fn daytona() -> Option<Daytona> {
    let directory = tempfile::tempdir().unwrap();
    let options = LocalOptions { directory: Some(directory.path().to_owned()), ..LocalOptions::default() };
    match LocalServer::start(options).await {
        Ok(server) => Some(Daytona::of(server, None, directory)),
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            eprintln!("skipped, since this machine cannot isolate sandboxes: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

pub(crate) async fn execute(daytona: &Daytona, id: &str, command: &str) -> String {
    let body = json!({ "command": command, "timeout": 20 });
    let reply = daytona.post(&format!("/toolbox/{id}/process/execute"), body).await.expect(200);
    assert_eq!(reply["exitCode"], 0, "{reply}");
    reply["result"].as_str().unwrap().trim().to_owned()
}

#[tokio::test]
async fn a_command_runs_in_a_sandbox_whose_files_survive_a_stop() {
    let Some(daytona) = daytona().await else { return };
    let id = daytona.create(json!({"env": {"GREETING": "hello"}})).await;
    let said = execute(&daytona, &id, "echo $GREETING $DAYTONA_SANDBOX_ID; echo kept > ~/file").await;
    assert_eq!(said, format!("hello {id}"));
    daytona.post(&format!("/api/sandbox/{id}/stop"), Value::Null).await.expect(200);
    daytona.wait_for(&id, "stopped").await;
    daytona.post(&format!("/api/sandbox/{id}/start"), Value::Null).await.expect(200);
    assert_eq!(execute(&daytona, &id, "cat ~/file").await, "kept");
    daytona.delete(&format!("/api/sandbox/{id}")).await.expect(200);
    daytona.wait_for(&id, "gone").await;
    daytona.server.shutdown().await;
}

#[tokio::test]
async fn a_sandbox_whose_first_process_is_killed_is_stopped_and_starts_again() {
    let Some(daytona) = daytona().await else { return };
    let id = daytona.create(Value::Null).await;
    daytona.post(&format!("/api/admin/sandboxes/{id}/kill"), Value::Null).await.expect(204);
    daytona.wait_for(&id, "stopped").await;
    daytona.post(&format!("/api/sandbox/{id}/start"), Value::Null).await.expect(200);
    assert_eq!(execute(&daytona, &id, "echo back").await, "back");
    daytona.server.shutdown().await;
}

#[tokio::test]
async fn blocked_network_leaves_only_the_loopback_interface_whatever_is_listed() {
    let Some(daytona) = daytona().await else { return };
    for body in [json!({}), json!({"networkAllowList": "0.0.0.0/0"}), json!({"domainAllowList": "a.test"})] {
        let mut body = body;
        body["networkBlockAll"] = json!(true);
        let id = daytona.create(body).await;
        assert_eq!(execute(&daytona, &id, "tail -n +3 /proc/net/dev | cut -d: -f1").await, "lo");
    }
    daytona.server.shutdown().await;
}

#[tokio::test]
async fn shutdown_leaves_no_sandbox_and_no_files() {
    let Some(daytona) = daytona().await else { return };
    let daytona = Arc::new(daytona);
    let creates = (0..8).map(|_| daytona.create(json!({})));
    let ids = futures_util::future::join_all(creates).await;
    execute(&daytona, &ids[0], "echo data > /tmp/file; sleep 1000 > /dev/null 2>&1 &").await;
    let Some(Daytona { server, directory, .. }) = Arc::into_inner(daytona) else {
        panic!("the server is shared")
    };
    server.shutdown().await;
    let left: Vec<_> =
        std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.iter().all(|path| path.is_file()), "{left:?}");
}

#[tokio::test]
async fn a_build_over_the_default_image_starts_where_as_and_with_what_it_says() {
    let Some(daytona) = daytona().await else { return };
    let dockerfile = "FROM daytonaio/sandbox:0.5.0-slim\nENV A=\"b c\"\nWORKDIR /opt/made/here\nUSER root\n\
                      ENTRYPOINT [\"sh\", \"-c\", \"echo said $A; sleep 1000\"]\n";
    let sandbox = daytona.post("/api/sandbox", json!({"buildInfo": {"dockerfileContent": dockerfile}})).await;
    let id = sandbox.expect(200)["id"].as_str().unwrap().to_owned();
    daytona.wait_for(&id, "started").await;
    assert_eq!(execute(&daytona, &id, "id -u; pwd; echo $A").await, "0\n/opt/made/here\nb c");
    until("the entrypoint", || async {
        let log = daytona.get(&format!("/toolbox/{id}/process/session/entrypoint/logs")).await;
        (log.status == 200 && String::from_utf8_lossy(&log.body).contains("said b c")).then_some(())
    })
    .await;
    // it is not among the sessions that clients have made
    assert_eq!(daytona.get(&format!("/toolbox/{id}/process/session")).await.expect(200), json!([]));
    daytona.server.shutdown().await;
}
