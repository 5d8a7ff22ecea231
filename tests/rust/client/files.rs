//! Bytes in and out: whole, exact, limited.

use std::time::Duration;

use bytes::Bytes;
use inspect_daytona::client::RetryPolicy;
use inspect_daytona::{ErrorKind, Status};
use serde_json::json;

use crate::server::{Reply, Server, answer, empty, raw};

/// Bytes in which every position differs from its neighbours, so that a shifted or repeated piece shows.
fn pattern(length: usize) -> Bytes {
    (0..length).map(|index| index.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect::<Vec<_>>().into()
}

#[tokio::test]
async fn sixty_four_mebibytes_go_up_and_come_down_unchanged() {
    let content = pattern(64 << 20);
    let expected = content.clone();
    let server = Server::start(move |request, _| {
        if request.method == "GET" {
            return raw(200, "application/octet-stream", expected.to_vec());
        }
        let start = request.body[..1024].windows(4).enumerate().filter(|(_, bytes)| bytes == b"\r\n\r\n");
        let start = start.map(|(index, _)| index + 4).nth(1).unwrap();
        let same = request.body[start..][..expected.len()] == expected[..];
        answer(200, &json!({"files": [{"path": "/big", "bytes": if same { expected.len() } else { 0 }}]}))
    })
    .await;
    let toolbox = server.toolbox().await;
    toolbox.upload("/big", content.clone()).await.unwrap();
    assert!(toolbox.download("/big", 64 << 20).await.unwrap() == content);
    assert_eq!(
        server.lines(),
        ["POST /toolbox/s/files/bulk-upload", "GET /toolbox/s/files/download?path=%2Fbig"]
    );
}

#[tokio::test]
async fn a_failed_upload_is_typed_and_names_the_file() {
    let server = Server::start(|_, _| {
        answer(400, &json!({"errors": ["/d: create: open /d: is a directory"], "files": []}))
    })
    .await;
    let error = server.toolbox().await.upload("/d", Bytes::new()).await.unwrap_err();
    assert_eq!((error.kind(), error.http_status()), (ErrorKind::IsADirectory, Some(400)));
    assert!(
        error.to_string().starts_with("cannot write file (sandbox name-s): /d: is a directory"),
        "{error}"
    );
    assert_eq!(server.lines().len(), 1);
}

#[tokio::test]
async fn an_upload_that_broke_off_behind_a_proxy_is_repeated() {
    for text in ["reading part: multipart: NextPart: EOF", "/f: write: unexpected EOF"] {
        let server = Server::start(move |_, number| match number {
            0 => answer(400, &json!({"errors": [text], "files": null})),
            _ => answer(200, &json!({"files": [{"path": "/f", "bytes": 3}]})),
        })
        .await;
        server.toolbox().await.upload("/f", Bytes::from_static(b"abc")).await.unwrap();
        assert_eq!(server.lines().len(), 2);
    }
}

#[tokio::test]
async fn an_upload_that_wrote_less_is_repeated() {
    let server = Server::start(|_, number| {
        answer(200, &json!({"files": [{"path": "/f", "bytes": if number == 0 { 2 } else { 3 }}]}))
    })
    .await;
    server.toolbox().await.upload("/f", Bytes::from_static(b"abc")).await.unwrap();
    assert_eq!(server.lines().len(), 2);
}

#[tokio::test]
async fn a_cut_download_is_never_taken_for_the_file() {
    let server = Server::start(|_, number| match number {
        0 => Reply::Cut { promised: 10, body: b"01234".to_vec() },
        1 => Reply::Unbounded { body: b"012".to_vec() },
        2 => Reply::Reset,
        _ => raw(200, "application/octet-stream", "0123456789"),
    })
    .await;
    assert_eq!(server.toolbox().await.download("f", 100).await.unwrap(), "0123456789");
    assert_eq!(server.lines().len(), 4);
}

#[tokio::test]
async fn a_download_is_limited_by_its_promise_and_by_its_bytes() {
    for reply in [
        Reply::Stall { body: b"0123456789".to_vec() },
        Reply::Unbounded { body: b"01234567890".to_vec() },
        raw(200, "application/octet-stream", "01234567890"),
    ] {
        let server = Server::start(move |_, _| reply.clone()).await;
        let error = server.toolbox().await.download("f", 10).await.unwrap_err();
        assert_eq!((error.kind(), error.status()), (ErrorKind::OutputLimit, Status::Permanent));
        assert_eq!(server.lines().len(), 1);
    }
    let server = Server::start(|_, _| raw(200, "application/octet-stream", "0123456789")).await;
    assert_eq!(server.toolbox().await.download("f", 10).await.unwrap().len(), 10);
    let server = Server::start(|_, _| raw(200, "application/octet-stream", "")).await;
    assert!(server.toolbox().await.download("f", 0).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_download_that_goes_silent_ends() {
    let server = Server::start(|_, _| Reply::Stall { body: vec![b'x'; 1000] }).await;
    let mut options = server.client().options().clone();
    options.retry = RetryPolicy { attempts: 1, ..options.retry };
    let client = inspect_daytona::client::Client::new(options).unwrap();
    let mut sandbox: inspect_daytona::api::sandbox::Sandbox =
        serde_json::from_value(crate::server::sandbox("s", "started")).unwrap();
    sandbox.toolbox_proxy_url = Some(format!("http://127.0.0.1:{}/toolbox", server.port));
    let toolbox = client.toolbox(&sandbox).await.unwrap();
    let download = tokio::spawn(async move { toolbox.download("f", 100 << 20).await });
    while server.lines().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // from here on the clock jumps to the next deadline whenever nothing else happens
    tokio::time::pause();
    let error = download.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transport, "long before the deadline of the whole request: {error}");
    assert!(error.to_string().contains("stopped coming after 1000 of 1001 bytes"), "{error}");
}

#[tokio::test]
async fn silent_answers_about_files_keep_their_status() {
    for (status, kind) in
        [(404, ErrorKind::FileNotFound), (403, ErrorKind::PermissionDenied), (400, ErrorKind::InvalidRequest)]
    {
        let server = Server::start(move |_, _| empty(status)).await;
        let error = server.toolbox().await.download("/no/such", 10).await.unwrap_err();
        assert_eq!((error.kind(), error.http_status()), (kind, Some(status)));
        assert!(error.message().starts_with("/no/such: "), "{error}");
        assert_eq!(server.lines().len(), 1);
    }
}

#[tokio::test]
async fn facts_about_files_and_directories_are_read() {
    let server = Server::start(|request, _| match request.path.as_str() {
        "/toolbox/s/work-dir" => answer(200, &json!({"dir": "/root"})),
        "/toolbox/s/files/folder?path=%2Fa&mode=755" => empty(201),
        _ => answer(
            200,
            &json!({"name": "a", "size": 2, "mode": "-rw-r--r--", "modTime": "", "isDir": false, "owner": "0",
                    "group": "0", "permissions": "0644"}),
        ),
    })
    .await;
    let toolbox = server.toolbox().await;
    assert_eq!(toolbox.work_dir().await.unwrap(), "/root");
    toolbox.make_folder("/a", "755").await.unwrap();
    assert_eq!(toolbox.info("/a/a").await.unwrap().size, 2);
}
