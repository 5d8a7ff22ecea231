//! `/files`, one by one.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use axum::body::Body;
use axum::http::Method;
use serde_json::{Value, json};

use crate::server::{As, Server, encode, is_root, request};

/// Every byte value, and some more than fits a pipe.
pub(crate) fn binary(length: usize) -> Vec<u8> {
    (0..length).map(|index| u8::try_from((index * 7 + index / 256) % 256).unwrap()).collect()
}

/// A form with one part.
pub(crate) fn form(part: &str, content: &[u8]) -> axum::http::request::Request<Body> {
    let mut body = format!(
        "--XX\r\nContent-Disposition: form-data; name=\"{part}\"; filename=\"x\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    )
    .into_bytes();
    body.extend_from_slice(content);
    body.extend_from_slice(b"\r\n--XX--\r\n");
    let mut request = request(Method::POST, "/", Body::from(body));
    request.headers_mut().insert("content-type", "multipart/form-data; boundary=XX".parse().unwrap());
    request
}

#[tokio::test]
async fn an_upload_writes_the_exact_bytes_and_makes_parents() {
    let server = Server::start();
    let content = binary(200_000);
    for (route, path, mode) in [("upload", "a/b/one", 0o750), ("upload-v2", "c/d/two", 0o755)] {
        let mut request = form("file", &content);
        *request.uri_mut() = format!("/files/{route}?path={}", encode(path)).parse().unwrap();
        let answer = server.call(request).await;
        if route == "upload" {
            answer.is_empty_with(200);
        } else {
            assert_eq!(answer.json(), json!({"name": "two", "path": "c/d/two", "type": "file"}));
        }
        assert_eq!(fs::read(server.work().join(path)).unwrap(), content);
        let parent = fs::metadata(server.work().join(path).parent().unwrap()).unwrap();
        assert_eq!(parent.permissions().mode() & 0o777, mode);
    }
}

#[tokio::test]
async fn a_raw_upload_replaces_a_file_and_keeps_its_mode() {
    let server = Server::start();
    let path = server.work().join("script");
    fs::write(&path, "a much longer text than what comes").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let answer = server.post("/files/upload-v2?path=script", binary(10)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(fs::read(&path).unwrap(), binary(10));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755);
}

#[tokio::test]
async fn every_failure_of_an_upload_is_an_empty_400() {
    let server = Server::start();
    fs::create_dir(server.work().join("directory")).unwrap();
    fs::write(server.work().join("file"), "").unwrap();
    for (query, part) in [
        ("", "file"),
        ("?path=", "file"),
        ("?path=directory", "file"),
        ("?path=file/x", "file"),
        ("?path=x", "other"),
    ] {
        for route in ["upload", "upload-v2"] {
            let mut request = form(part, b"x");
            *request.uri_mut() = format!("/files/{route}{query}").parse().unwrap();
            server.call(request).await.is_empty_with(400);
        }
    }
    server.post("/files/upload?path=x", "not a form").await.is_empty_with(400);
}

#[tokio::test]
async fn a_refused_upload_is_read_to_its_end_so_that_the_answer_arrives() {
    let server = Server::start();
    fs::create_dir(server.work().join("directory")).unwrap();
    let content = binary(16 << 20);
    server.post("/files/upload-v2?path=directory", content.clone()).await.is_empty_with(400);
    for route in ["upload", "upload-v2"] {
        let mut request = form("file", &content);
        *request.uri_mut() = format!("/files/{route}?path=directory").parse().unwrap();
        server.call(request).await.is_empty_with(400);
    }
}

#[tokio::test]
async fn a_download_is_exact_and_names_the_file() {
    let server = Server::start();
    let content = binary(300_000);
    fs::write(server.work().join("é \"x\".bin"), &content).unwrap();
    let answer = server.get(&format!("/files/download?path={}", encode("é \"x\".bin"))).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-length")), (200, "300000"));
    assert_eq!(answer.body, content);
    assert_eq!(answer.header("content-type"), "application/octet-stream");
    assert_eq!(answer.header("accept-ranges"), "bytes");
    let disposition = answer.header("content-disposition");
    assert!(disposition.ends_with("filename*=utf-8''%C3%A9%20%22x%22.bin"), "{disposition}");
    assert!(answer.header("last-modified").ends_with(" GMT"));
}

#[tokio::test]
async fn an_empty_file_downloads_as_nothing() {
    let server = Server::start();
    fs::write(server.work().join("empty"), "").unwrap();
    server.get("/files/download?path=empty").await.is_empty_with(200);
}

#[tokio::test]
async fn ranges_are_parts_of_the_file() {
    let server = Server::start();
    let content = binary(200_000);
    fs::write(server.work().join("file"), &content).unwrap();
    for (range, expected) in
        [("bytes=10-19", 10..20), ("bytes=199990-", 199_990..200_000), ("bytes=-5", 199_995..200_000)]
    {
        let mut request = request(Method::GET, "/files/download?path=file", Body::empty());
        request.headers_mut().insert("range", range.parse().unwrap());
        let answer = server.call(request).await;
        assert_eq!(answer.status, 206, "{range}");
        let shown = format!("bytes {}-{}/200000", expected.start, expected.end - 1);
        assert_eq!(answer.header("content-range"), shown);
        assert_eq!(answer.body, content[expected]);
    }
    let mut request = request(Method::GET, "/files/download?path=file", Body::empty());
    request.headers_mut().insert("range", "bytes=200000-".parse().unwrap());
    let answer = server.call(request).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-range")), (416, "bytes */200000"));
}

#[tokio::test]
async fn a_range_of_another_version_gives_the_whole_file() {
    let server = Server::start();
    fs::write(server.work().join("file"), "0123456789").unwrap();
    let modified = server.get("/files/download?path=file").await.header("last-modified").to_owned();
    for (version, status) in [(modified.as_str(), 206), ("Thu, 01 Jan 1970 00:00:00 GMT", 200)] {
        let mut request = request(Method::GET, "/files/download?path=file", Body::empty());
        request.headers_mut().insert("range", "bytes=1-2".parse().unwrap());
        request.headers_mut().insert("if-range", version.parse().unwrap());
        assert_eq!(server.call(request).await.status, status);
    }
    let mut request = request(Method::GET, "/files/download?path=file", Body::empty());
    request.headers_mut().insert("if-modified-since", modified.parse().unwrap());
    assert_eq!(server.call(request).await.status, 304);
}

#[tokio::test]
async fn what_cannot_be_downloaded_has_a_status_and_no_body() {
    let server = Server::start();
    fs::create_dir(server.work().join("directory")).unwrap();
    fs::write(server.work().join("file"), "").unwrap();
    nix::unistd::mkfifo(&server.work().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (query, status) in [
        ("", 400),
        ("?path=missing", 404),
        ("?path=directory", 400),
        ("?path=file/below", 400),
        ("?path=fifo", 400),
    ] {
        server.get(&format!("/files/download{query}")).await.is_empty_with(status);
    }
}

#[tokio::test]
async fn a_path_need_not_be_text() {
    let server = Server::start();
    let name = OsStr::from_bytes(b"\xff\xfe name");
    assert_eq!(server.post(&format!("/files/upload-v2?path={}", encode(name)), "x").await.status, 200);
    assert_eq!(fs::read(server.work().join(name)).unwrap(), b"x");
    assert_eq!(server.get(&format!("/files/download?path={}", encode(name))).await.body, "x");
}

#[tokio::test]
async fn info_tells_what_a_file_is() {
    let server = Server::start();
    let path = server.work().join("file");
    fs::write(&path, "hello").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4640)).unwrap();
    symlink("file", server.work().join("link")).unwrap();
    for name in ["file", "link"] {
        let info = server.get(&format!("/files/info?path={}", encode(server.work().join(name)))).await.json();
        assert_eq!(info["name"], name);
        assert_eq!((&info["size"], &info["isDir"]), (&json!(5), &json!(false)));
        assert_eq!((&info["mode"], &info["permissions"]), (&json!("urw-r-----"), &json!("0640")));
        assert_eq!(info["owner"], nix::unistd::getuid().to_string());
        assert!(info["modTime"].as_str().unwrap().ends_with(" +0000 UTC"));
        assert!(info["modifiedAt"].as_str().unwrap().ends_with('Z'));
        assert!(info.get("path").is_none());
    }
    server.get("/files/info?path=missing").await.is_empty_with(404);
    server.get("/files/info?path=file/below").await.is_empty_with(400);
    server.get("/files/info").await.is_empty_with(400);
}

#[tokio::test]
async fn a_list_is_sorted_and_leaves_out_dangling_links() {
    let server = Server::start();
    fs::create_dir_all(server.work().join("directory/below")).unwrap();
    fs::write(server.work().join("directory/below/deep"), "").unwrap();
    fs::write(server.work().join("b"), "").unwrap();
    symlink("b", server.work().join("a-link")).unwrap();
    symlink("/no/such/target", server.work().join("dangling")).unwrap();
    symlink("..", server.work().join("directory/circle")).unwrap();
    let names = |list: &Value, key: &str| -> Vec<String> {
        list.as_array().unwrap().iter().map(|entry| entry[key].as_str().unwrap().to_owned()).collect()
    };
    for path in ["/files", "/files/", "/files?path=.", &format!("/files?path={}", encode(server.work()))] {
        let list = server.get(path).await.json();
        assert_eq!(names(&list, "name"), ["a-link", "b", "directory"], "{path}");
    }
    let list = server.get("/files?path=directory&depth=9").await.json();
    assert_eq!(names(&list, "path"), ["directory/below", "directory/below/deep", "directory/circle"]);
    let list = server.get("/files?path=directory&depth=1").await.json();
    assert_eq!(names(&list, "path"), ["directory/below", "directory/circle"]);
    server.get("/files?path=missing").await.is_empty_with(404);
    server.get("/files?path=b").await.is_empty_with(400);
    server.get("/files?depth=0").await.is_empty_with(400);
}

#[tokio::test]
async fn a_folder_is_made_with_its_parents_and_may_exist() {
    let server = Server::start();
    fs::write(server.work().join("file"), "").unwrap();
    server.post("/files/folder?path=a/b&mode=700", "").await.is_empty_with(201);
    server.post("/files/folder?path=a/b&mode=755", "").await.is_empty_with(201);
    assert_eq!(fs::metadata(server.work().join("a/b")).unwrap().permissions().mode() & 0o777, 0o700);
    for query in ["path=file&mode=755", "path=file/x&mode=755", "path=x&mode=9", "mode=755"] {
        server.post(&format!("/files/folder?{query}"), "").await.is_empty_with(400);
    }
}

#[tokio::test]
async fn a_move_never_overwrites_and_never_goes_into_a_directory() {
    let server = Server::start();
    fs::write(server.work().join("one"), "1").unwrap();
    fs::create_dir(server.work().join("directory")).unwrap();
    server.post("/files/move?source=one&destination=directory", "").await.is_empty_with(409);
    server.post("/files/move?source=one&destination=no/parent", "").await.is_empty_with(404);
    server.post("/files/move?source=missing&destination=two", "").await.is_empty_with(404);
    server.post("/files/move?source=one", "").await.is_empty_with(400);
    server.post("/files/move?source=one&destination=directory/two", "").await.is_empty_with(200);
    assert_eq!(fs::read(server.work().join("directory/two")).unwrap(), b"1");
    assert!(!server.work().join("one").exists());
}

#[tokio::test]
async fn a_deletion_of_a_directory_must_be_recursive() {
    let server = Server::start();
    fs::create_dir_all(server.work().join("directory/below")).unwrap();
    fs::write(server.work().join("file"), "").unwrap();
    symlink("directory", server.work().join("link")).unwrap();
    symlink("/no/such/target", server.work().join("dangling")).unwrap();
    server.delete("/files?path=missing").await.is_empty_with(404);
    server.delete("/files?path=dangling").await.is_empty_with(404);
    server.delete("/files").await.is_empty_with(400);
    server.delete("/files?path=directory").await.is_empty_with(400);
    server.delete("/files?path=link").await.is_empty_with(400);
    server.delete("/files?path=link&recursive=true").await.is_empty_with(204);
    assert!(server.work().join("directory/below").exists(), "the target of a link is not deleted");
    server.delete("/files?path=file").await.is_empty_with(204);
    server.delete("/files/?path=directory&recursive=true").await.is_empty_with(204);
    assert!(!server.work().join("directory").exists() && !server.work().join("file").exists());
}

#[tokio::test]
async fn permissions_are_set_without_the_special_bits() {
    let server = Server::start();
    let path = server.work().join("file");
    fs::write(&path, "").unwrap();
    server.post("/files/permissions?path=file&mode=04755", "").await.is_empty_with(200);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o755);
    server.post("/files/permissions?path=file&mode=8", "").await.is_empty_with(400);
    server.post("/files/permissions?path=file&owner=nobody-at-all", "").await.is_empty_with(400);
    server.post("/files/permissions?path=missing&mode=644", "").await.is_empty_with(404);
    if is_root("permissions_are_set_without_the_special_bits") {
        use std::os::unix::fs::MetadataExt as _;
        server.post("/files/permissions?path=file&owner=daemon&group=12", "").await.is_empty_with(200);
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (1, 12));
    }
}

#[tokio::test]
async fn names_are_searched_by_pattern_and_contents_by_text() {
    let server = Server::start();
    fs::create_dir(server.work().join("src")).unwrap();
    fs::write(server.work().join("src/a.rs"), "one\nneedle [x]\r\nthree needle [x]").unwrap();
    fs::write(server.work().join("src/b.txt"), b"\0needle [x]\n").unwrap();
    fs::write(server.work().join("c.rs"), "nothing").unwrap();
    let answer = server.get("/files/search?path=.&pattern=*.rs").await.json();
    assert_eq!(answer, json!({"files": ["c.rs", "src/a.rs"]}));
    let answer = server.get("/files/search?path=missing&pattern=*").await;
    assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"files": []})));
    let answer = server.get("/files/find?path=src&pattern=needle%20%5Bx%5D").await.json();
    let expected = json!([
        {"file": "src/a.rs", "line": 2, "content": "needle [x]"},
        {"file": "src/a.rs", "line": 3, "content": "three needle [x]"},
    ]);
    assert_eq!(answer, expected);
    assert_eq!(server.get("/files/find?path=missing&pattern=x").await.json(), json!([]));
    server.get("/files/find?path=src").await.is_empty_with(400);
}

#[tokio::test]
async fn a_replacement_is_literal_and_reported_per_file() {
    let server = Server::start();
    fs::write(server.work().join("a"), "x.x.xx").unwrap();
    let body = json!({"files": ["a", "missing"], "pattern": "x.", "newValue": "$1"}).to_string();
    let answer = server.post("/files/replace", body).await.json();
    assert_eq!(answer[0], json!({"file": "a", "success": true}));
    assert_eq!((&answer[1]["file"], &answer[1]["success"]), (&json!("missing"), &json!(false)));
    assert!(answer[1]["error"].as_str().unwrap().ends_with("no such file or directory"));
    assert_eq!(fs::read(server.work().join("a")).unwrap(), b"$1$1xx");
    server.post("/files/replace", "{}").await.is_empty_with(400);
}

#[tokio::test]
async fn a_user_without_permission_is_refused() {
    if !is_root("a_user_without_permission_is_refused") {
        return;
    }
    let server = Server::spawn(As::Nobody).await;
    let closed = server.work().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::write(closed.join("file"), "").unwrap();
    fs::write(server.work().join("secret"), "").unwrap();
    fs::create_dir(server.work().join("read-only")).unwrap();
    fs::write(server.work().join("read-only/file"), "").unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(server.work().join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    server.get("/files/download?path=secret").await.is_empty_with(403);
    server.get("/files/info?path=closed/file").await.is_empty_with(403);
    server.get("/files?path=closed").await.is_empty_with(403);
    server.post("/files/upload-v2?path=secret", "x").await.is_empty_with(400);
    server.post("/files/folder?path=read-only/x&mode=755", "").await.is_empty_with(400);
    server.post("/files/move?source=read-only/file&destination=x", "").await.is_empty_with(403);
    server.delete("/files?path=read-only/file").await.is_empty_with(400);
    server.delete("/files?path=closed/file").await.is_empty_with(400);
    server.post("/files/permissions?path=secret&mode=666", "").await.is_empty_with(403);
    server.post("/files/permissions?path=secret&owner=nobody", "").await.is_empty_with(400);
    assert_eq!(server.execute("id -u").await.1, "65534\n");
    let body = json!({"paths": ["secret"]}).to_string();
    let answer = server.post("/files/bulk-download", body).await;
    assert!(String::from_utf8_lossy(&answer.body).contains("FILE_ACCESS_DENIED"), "{answer:?}");
    let upload = crate::bulk::upload(&[("files[0].path", b"secret"), ("files[0].file", b"x")]);
    let answer = server.call(upload).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["errors"], json!(["secret: create: open secret: permission denied"]));
}
