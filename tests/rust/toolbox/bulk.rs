//! Bulk routes and large bodies.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use axum::body::{Body, Bytes};
use axum::http::{Method, Request};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use crate::files::binary;
use crate::server::{As, Server, request};

/// A bulk upload of these parts; those that end in `.file` have a file name.
pub(crate) fn upload(parts: &[(&str, &[u8])]) -> Request<Body> {
    let mut body = Vec::new();
    for (name, content) in parts {
        let file_name = if name.contains("].file") { "; filename=\"x\"" } else { "" };
        body.extend_from_slice(
            format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"{file_name}\r\n\r\n").as_bytes(),
        );
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--XX--\r\n");
    let mut request = request(Method::POST, "/files/bulk-upload", Body::from(body));
    request.headers_mut().insert("content-type", "multipart/form-data; boundary=XX".parse().unwrap());
    request
}

/// The parts of a bulk download: name, disposition and content.
fn parts(body: &[u8]) -> Vec<(String, Vec<u8>)> {
    const BOUNDARY: &[u8] = b"--DAYTONA-FILE-BOUNDARY";
    assert!(body.starts_with(BOUNDARY) && body.ends_with(b"\r\n--DAYTONA-FILE-BOUNDARY--\r\n"), "{body:?}");
    let mut rest = &body[BOUNDARY.len() + 2..];
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let head = rest.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let headers = String::from_utf8(rest[..head].to_vec()).unwrap();
        let length = headers.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
        let content = &rest[head + 4..head + 4 + length.parse::<usize>().unwrap()];
        parts.push((headers, content.to_vec()));
        rest = &rest[head + 4 + content.len()..];
        rest = rest.strip_prefix(b"\r\n--DAYTONA-FILE-BOUNDARY").unwrap();
        rest = rest.strip_prefix(b"--\r\n").or(rest.strip_prefix(b"\r\n")).unwrap();
    }
    parts
}

#[tokio::test]
async fn a_bulk_upload_writes_exact_files_and_makes_parents() {
    let server = Server::start();
    let content = [binary(100_000), b"\r\n--XX".to_vec(), b"\r\n--X".to_vec()].concat();
    // a delimiter must not occur in a part, so the near miss is kept and the hit is changed
    let content = String::from_utf8_lossy(&content).replace("--XX", "--YY").into_bytes();
    let upload = upload(&[
        ("files[0].path", b"a/b/one"),
        ("files[0].file", &content),
        ("other", b"ignored"),
        ("files[1].path", b"  two \n"),
        ("files[1].file", b""),
    ]);
    let answer = server.call(upload).await;
    assert_eq!(answer.status, 200);
    let files = json!([{"path": "a/b/one", "bytes": content.len()}, {"path": "two", "bytes": 0}]);
    assert_eq!(answer.json(), json!({ "files": files }));
    assert_eq!(fs::read(server.work().join("a/b/one")).unwrap(), content);
    assert_eq!(fs::read(server.work().join("two")).unwrap(), b"");
    let parent = fs::metadata(server.work().join("a/b")).unwrap();
    assert_eq!(parent.permissions().mode() & 0o777, 0o755);
}

#[tokio::test]
async fn a_partial_bulk_upload_is_400_and_keeps_what_worked() {
    let server = Server::start();
    fs::create_dir(server.work().join("directory")).unwrap();
    fs::write(server.work().join("file"), "").unwrap();
    let upload = upload(&[
        ("files[0].path", b"good"),
        ("files[0].file", b"1"),
        ("files[1].path", b"directory"),
        ("files[1].file", b"2"),
        ("files[2].file", b"3"),
        ("files[2].path", b"too-late"),
        ("files[3].path", b"file/below"),
        ("files[3].file", b"4"),
        ("files[4].path", b"last"),
        ("files[4].file", b"5"),
    ]);
    let answer = server.call(upload).await;
    assert_eq!(answer.status, 400);
    let expected = json!([
        "directory: create: open directory: is a directory",
        "file[2]: missing .path metadata",
        "file/below: mkdir: mkdir file: not a directory",
    ]);
    assert_eq!(answer.json()["errors"], expected);
    assert_eq!(answer.json()["files"], json!([{"path": "good", "bytes": 1}, {"path": "last", "bytes": 1}]));
    assert_eq!(fs::read(server.work().join("last")).unwrap(), b"5");
    assert!(!server.work().join("too-late").exists());
}

#[tokio::test]
async fn a_cut_bulk_upload_is_an_error() {
    let server = Server::start();
    let mut cut = request(
        Method::POST,
        "/files/bulk-upload",
        Body::from("--XX\r\nContent-Disposition: form-data; name=\"files[0].path\"\r\n\r\ncut"),
    );
    cut.headers_mut().insert("content-type", "multipart/form-data; boundary=XX".parse().unwrap());
    let answer = server.call(cut).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["errors"].as_array().map(Vec::len), Some(1), "{answer:?}");
    server.post("/files/bulk-upload", "not a form").await.is_empty_with(400);
}

#[tokio::test]
async fn a_bulk_download_has_a_part_for_each_path_in_order() {
    let server = Server::start();
    let content = binary(150_000);
    fs::write(server.work().join("é.json"), &content).unwrap();
    fs::write(server.work().join("empty"), "").unwrap();
    fs::create_dir(server.work().join("directory")).unwrap();
    let paths = json!(["é.json", "missing", "empty", "directory", "", "empty/below"]);
    let answer = server.post("/files/bulk-download", json!({ "paths": paths }).to_string()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "multipart/form-data; boundary=DAYTONA-FILE-BOUNDARY");
    let parts = parts(&answer.body);
    let errors: Vec<Option<(u64, String)>> = parts
        .iter()
        .map(|(headers, content)| {
            headers.contains("name=\"error\"").then(|| {
                let error: Value = serde_json::from_slice(content).unwrap();
                (error["statusCode"].as_u64().unwrap(), error["code"].as_str().unwrap().to_owned())
            })
        })
        .collect();
    let error = |status, code: &str| Some((status, code.to_owned()));
    let expected = [
        None,
        error(404, "FILE_NOT_FOUND"),
        None,
        error(400, "INVALID_FILE_PATH"),
        error(400, "INVALID_FILE_PATH"),
        error(500, "FILE_READ_FAILED"),
    ];
    assert_eq!(errors, expected);
    assert!(parts[0].0.contains("filename*=utf-8''%C3%A9.json") && parts[0].0.contains("application/json"));
    assert_eq!((&parts[0].1, parts[2].1.len()), (&content, 0));
    let missing: Value = serde_json::from_slice(&parts[1].1).unwrap();
    assert_eq!(missing["message"], "file not found: missing");
}

#[tokio::test]
async fn a_bulk_download_of_nothing_is_refused() {
    let server = Server::start();
    for body in ["", "{}", r#"{"paths":[]}"#, r#"{"paths":"x"}"#] {
        let answer = server.post("/files/bulk-download", body).await;
        assert_eq!(answer.status, 400);
        assert!(answer.json()["error"].as_str().unwrap().starts_with("request body must be "), "{answer:?}");
    }
}

#[tokio::test]
async fn large_bodies_stream_through_without_growing_the_process() {
    const SIZE: usize = 64 << 20;
    const CHUNK: usize = 64 << 10;
    let server = Server::spawn(As::Subreaper).await;
    let chunk = Bytes::from(binary(CHUNK));
    // what a first request needs once is no growth
    server.post("/files/upload-v2?path=small", chunk.clone()).await;
    server.get("/files/download?path=small").await;
    let before = peak_memory(server.pid());

    let head = b"--XX\r\nContent-Disposition: form-data; name=\"files[0].path\"\r\n\r\nform\r\n\
                 --XX\r\nContent-Disposition: form-data; name=\"files[0].file\"; filename=\"x\"\r\n\r\n";
    let content = || stream::iter(std::iter::repeat_n(chunk.clone(), SIZE / CHUNK));
    let form = stream::iter([Bytes::from_static(head)]).chain(content());
    let form = form.chain(stream::iter([Bytes::from_static(b"\r\n--XX--\r\n")])).map(Ok::<_, std::io::Error>);
    let mut upload = request(Method::POST, "/files/bulk-upload", Body::from_stream(form));
    upload.headers_mut().insert("content-type", "multipart/form-data; boundary=XX".parse().unwrap());
    assert_eq!(server.call(upload).await.json()["files"][0]["bytes"], SIZE);
    let raw = Body::from_stream(content().map(Ok::<_, std::io::Error>));
    assert_eq!(server.call(request(Method::POST, "/files/upload-v2?path=raw", raw)).await.status, 200);

    for name in ["form", "raw"] {
        let answer =
            server.send(request(Method::GET, &format!("/files/download?path={name}"), Body::empty())).await;
        let mut received = 0;
        let mut body = Body::new(answer.into_body()).into_data_stream();
        while let Some(data) = body.next().await {
            for byte in data.unwrap() {
                assert_eq!(byte, chunk[received % CHUNK], "{name} at {received}");
                received += 1;
            }
        }
        assert_eq!(received, SIZE);
    }
    let body = json!({"paths": ["form"]}).to_string();
    let answer = server.post("/files/bulk-download", body).await;
    assert!(answer.body.len() > SIZE);

    let growth = peak_memory(server.pid()) - before;
    assert!(growth < 8 << 10, "the process grew by {growth} KiB");
}

/// The largest resident size of a process so far, in KiB.
fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
