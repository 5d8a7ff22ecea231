//! Lists, deletion, stopping, waiting, URLs.

use std::collections::BTreeMap;
use std::time::Duration;

use inspect_daytona::{ErrorKind, Status};
use serde_json::json;

use crate::server::{Reply, Server, answer, empty, message, raw, sandbox};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_list_joins_its_pages_and_names_each_sandbox_once() {
    let server = Server::start(|_, number| match number {
        0 => answer(
            200,
            &json!({"items": [sandbox("a", "started"), sandbox("b", "started")], "nextCursor": "1"}),
        ),
        1 => answer(
            200,
            &json!({"items": [sandbox("b", "started"), sandbox("gone", "destroying")], "nextCursor": "2"}),
        ),
        _ => answer(200, &json!({"items": [sandbox("c", "stopped")], "nextCursor": null})),
    })
    .await;
    let labels = BTreeMap::from([("run".to_owned(), "r".to_owned())]);
    let found = server.client().sandboxes().list(&labels).await.unwrap();
    assert_eq!(found.iter().map(|sandbox| sandbox.id.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    let lines = server.lines();
    assert!(lines[0].ends_with("&sort=createdAt&order=asc&labels=%7B%22run%22%3A%22r%22%7D"), "{lines:?}");
    assert!(lines[2].ends_with("&cursor=2"), "{lines:?}");
}

#[tokio::test]
async fn a_list_that_does_not_end_is_an_error() {
    let server = Server::start(|_, _| answer(200, &json!({"items": [], "nextCursor": "same"}))).await;
    let error = server.client().sandboxes().list(&BTreeMap::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert_eq!(server.lines().len(), 2);
}

#[tokio::test]
async fn a_delete_waits_for_the_state_change_to_end() {
    let server = Server::start(|request, number| match (request.method.as_str(), number) {
        ("DELETE", 0) => message(409, "Sandbox state change in progress"),
        ("GET", _) => answer(200, &sandbox("s", "starting")),
        _ => answer(200, &sandbox("s", "destroying")),
    })
    .await;
    server.client().sandboxes().delete("s", SOON).await.unwrap();
    assert_eq!(server.lines(), ["DELETE /api/sandbox/s", "GET /api/sandbox/s", "DELETE /api/sandbox/s"]);
}

#[tokio::test]
async fn a_delete_of_what_is_gone_or_going_is_done() {
    let server = Server::start(|_, _| message(404, "Sandbox with ID or name s not found")).await;
    server.client().sandboxes().delete("s", SOON).await.unwrap();
    assert_eq!(server.lines(), ["DELETE /api/sandbox/s"]);
    let server = Server::start(|request, _| match request.method.as_str() {
        "DELETE" => message(409, "Sandbox state change in progress"),
        _ => answer(200, &sandbox("s", "destroying")),
    })
    .await;
    server.client().sandboxes().delete("s", SOON).await.unwrap();
    assert_eq!(server.lines().len(), 2);
}

#[tokio::test]
async fn a_delete_is_bounded_and_says_that_it_was_refused() {
    let server = Server::start(|request, _| match request.method.as_str() {
        "DELETE" => message(409, "Sandbox state change in progress"),
        _ => answer(200, &sandbox("s", "creating")),
    })
    .await;
    let error = server.client().sandboxes().delete("s", Duration::from_millis(1)).await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::Conflict, Status::Persistent));
    let server = Server::start(|_, _| message(403, "Access denied")).await;
    let error = server.client().sandboxes().delete("s", SOON).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Forbidden);
    assert_eq!((error.hint(), server.lines().len()), (None, 1));
}

#[tokio::test]
async fn stopping_what_is_stopped_is_done() {
    let server = Server::start(|request, _| match request.method.as_str() {
        "POST" => message(400, "Sandbox is not in a stoppable state"),
        _ => answer(200, &sandbox("s", "stopped")),
    })
    .await;
    server.client().sandboxes().stop("s", true).await.unwrap();
    assert_eq!(server.lines()[0], "POST /api/sandbox/s/stop?force=true");
}

#[tokio::test]
async fn a_wait_tolerates_a_late_sandbox_and_ends_with_started() {
    let server = Server::start(|_, number| match number {
        0 => message(404, "not found"),
        1 => answer(200, &sandbox("s", "pulling_snapshot")),
        2 => answer(200, &sandbox("s", "a state of tomorrow")),
        _ => answer(200, &sandbox("s", "started")),
    })
    .await;
    assert_eq!(server.client().sandboxes().wait_started("s", SOON).await.unwrap().id, "s");
    assert_eq!(server.lines().len(), 4);
}

#[tokio::test]
async fn a_wait_ends_with_the_reason_or_the_last_state() {
    let mut failed = sandbox("s", "error");
    failed["errorReason"] = json!("Timeout while pulling");
    let server = Server::start(move |_, _| answer(200, &failed)).await;
    let error = server.client().sandboxes().wait_started("s", SOON).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CreationFailed);
    assert_eq!(error.to_string(), "cannot start sandbox (sandbox s): it is error: Timeout while pulling");
    let server = Server::start(|_, _| answer(200, &sandbox("s", "creating"))).await;
    let error = server.client().sandboxes().wait_started("s", Duration::from_millis(60)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert!(error.to_string().contains("creating"), "{error}");
    let server = Server::start(|_, _| Reply::Silence).await;
    let error = server.client().sandboxes().wait_started("s", Duration::from_millis(60)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert!(error.to_string().contains("did not answer"), "{error}");
}

#[tokio::test]
async fn a_missing_toolbox_url_is_asked_for_once_per_region() {
    let server = Server::start(|_, _| answer(200, &json!({"url": "http://127.0.0.1:1/toolbox/"}))).await;
    let client = server.client();
    for id in ["a", "b"] {
        let sandbox = serde_json::from_value(sandbox(id, "started")).unwrap();
        assert_eq!(client.sandboxes().toolbox_url(&sandbox).await.unwrap(), "http://127.0.0.1:1/toolbox");
    }
    assert_eq!(server.lines(), ["GET /api/sandbox/a/toolbox-proxy-url"]);
}

#[tokio::test]
async fn an_old_server_without_time_to_live_says_unsupported() {
    let server = Server::start(|_, _| message(404, "Cannot POST /api/sandbox/s/ttl/30")).await;
    let error = server.client().sandboxes().set_ttl("s", 30).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let server = Server::start(|_, _| empty(201)).await;
    server.client().sandboxes().keep_alive("s").await.unwrap();
    assert_eq!(server.lines(), ["POST /api/sandbox/s/last-activity"]);
}

#[tokio::test]
async fn a_snapshot_whose_answer_was_lost_is_found_by_its_name() {
    let snapshot = json!({"id": "i", "name": "n", "state": "pending"});
    let server = Server::start(move |request, number| match (request.method.as_str(), number) {
        ("POST", 0) => empty(502),
        ("POST", _) => message(409, "Snapshot with name \"n\" already exists for this organization"),
        _ => answer(200, &snapshot),
    })
    .await;
    let request =
        inspect_daytona::api::snapshot::CreateSnapshot { name: "n".to_owned(), ..Default::default() };
    assert_eq!(server.client().snapshots().create(&request).await.unwrap().id, "i");
    assert_eq!(server.lines(), ["POST /api/snapshots", "POST /api/snapshots", "GET /api/snapshots/n"]);
}

#[tokio::test]
async fn a_build_log_is_read_from_where_the_server_says_without_showing_its_query() {
    let server = Server::start(|request, _| match request.path.as_str() {
        "/api/snapshots/i/build-logs-url" => {
            let host = request.header("host").unwrap();
            answer(200, &json!({"url": format!("http://{host}/log?token=hunter2")}))
        }
        _ => raw(404, "text/html", "<html>"),
    })
    .await;
    let error = server.client().snapshots().build_log("i").await.unwrap_err();
    assert!(server.lines().contains(&"GET /log?token=hunter2".to_owned()));
    assert!(error.to_string().contains("/log answered 404"), "{error}");
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
}
