//! How many requests operations take: numbers that do not vary.

use bytes::Bytes;
use serde_json::json;

use crate::fixture::{Fixture, command, output, shell, with_input};

#[tokio::test]
async fn a_sample_starts_with_one_create_one_upload_and_what_waiting_takes() {
    let fixture = Fixture::new().await;
    fixture.forget_requests().await;
    let sandbox = fixture.sandbox().await;
    let requests = fixture.requests().await;
    let of = |route: &str| requests.get(route).copied().unwrap_or_default();
    assert_eq!(of("POST /api/sandbox"), 1, "{requests:?}");
    let uploads: u64 =
        requests.iter().filter(|(route, _)| route.contains("bulk-upload")).map(|(_, count)| count).sum();
    assert_eq!(uploads, 1, "{requests:?}");
    let waits: u64 =
        requests.iter().filter(|(route, _)| route.starts_with("GET /api/sandbox")).map(|(_, n)| n).sum();
    assert_eq!(requests.values().sum::<u64>(), 2 + waits, "nothing else: {requests:?}");
    assert_eq!(fixture.count(sandbox.exec(command(&["true"]))).await.0, 1, "not even the first exec");
    fixture.finish().await;
}

#[tokio::test]
async fn everyday_operations_take_one_request() {
    let fixture = Fixture::new().await;
    let sandbox = fixture.sandbox().await;
    output(&sandbox, "true").await;
    assert_eq!(fixture.count(sandbox.exec(command(&["true"]))).await.0, 1, "short exec");
    let small = with_input(command(&["cat"]), "x".repeat(60_000));
    assert_eq!(fixture.count(sandbox.exec(small)).await.0, 1, "exec with small input");
    assert_eq!(fixture.count(sandbox.write_file("a/b", Bytes::from_static(b"x"))).await.0, 1, "write");
    assert_eq!(fixture.count(sandbox.read_file("a/b", 1000)).await.0, 1, "read");
    assert_eq!(fixture.count(sandbox.read_file("missing", 1000)).await.0, 1, "read of a missing file");
    fixture.finish().await;
}

#[tokio::test]
async fn large_payloads_take_one_more() {
    let fixture = Fixture::new().await;
    let sandbox = fixture.sandbox().await;
    let (requests, outcome) =
        fixture.count(sandbox.exec(with_input(command(&["wc", "-c"]), vec![0; 5 << 20]))).await;
    assert_eq!((requests, outcome.unwrap().stdout.as_str()), (2, "5242880\n"), "large input");
    let arguments = vec!["x".repeat(64 << 10); 16];
    let mut large = command(&["printf", "%s"]);
    large.argv.extend(arguments);
    let (requests, outcome) = fixture.count(sandbox.exec(large)).await;
    assert_eq!((requests, outcome.unwrap().stdout.len()), (2, 1 << 20), "large command");
    let (requests, outcome) = fixture.count(sandbox.exec(shell("head -c 3000000 /dev/zero"))).await;
    assert_eq!((requests, outcome.unwrap().stdout.len()), (2, 3_000_000), "large output");
    fixture.finish().await;
}

#[tokio::test]
async fn a_command_of_another_user_takes_no_more() {
    let fixture = Fixture::new().await;
    let sandbox = fixture.sandbox_with(json!({"os_user": "root"})).await.unwrap();
    let (requests, outcome) = fixture.count(sandbox.exec(command(&["id", "-u"]))).await;
    assert_eq!((requests, outcome.unwrap().stdout.as_str()), (1, "0\n"));
    let (requests, written) = fixture.count(sandbox.write_file("/root/x", Bytes::from_static(b"x"))).await;
    written.unwrap();
    assert_eq!(requests, 1);
    fixture.finish().await;
}
