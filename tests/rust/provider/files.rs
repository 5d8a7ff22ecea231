//! Files: exact bytes, exact errors.

use bytes::Bytes;
use inspect_daytona::ErrorKind;
use serde_json::json;

use crate::fixture::{Fixture, command, output};

#[tokio::test]
async fn bytes_come_back_as_they_were_written() {
    let fixture = Fixture::new().await;
    let sandbox = fixture.sandbox().await;
    let all: Vec<u8> = (0..=255).cycle().take(3 << 20).collect();
    for (path, contents) in [
        ("deep/er/file", Bytes::from(all)),
        ("empty", Bytes::new()),
        ("with space é", Bytes::from_static(b"x")),
    ] {
        sandbox.write_file(path, contents.clone()).await.unwrap();
        assert_eq!(sandbox.read_file(path, 10 << 20).await.unwrap(), contents, "{path}");
    }
    fixture.finish().await;
}

#[tokio::test]
async fn paths_with_white_space_at_their_ends_are_kept() {
    let fixture = Fixture::new().await;
    let sandbox = fixture.sandbox().await;
    sandbox.write_file("trailing ", Bytes::from_static(b"1")).await.unwrap();
    sandbox.write_file("new\n", Bytes::from_static(b"2")).await.unwrap();
    assert_eq!(sandbox.read_file("trailing ", 10).await.unwrap(), "1");
    assert_eq!(output(&sandbox, "cat 'new\n'").await, "2");
    fixture.finish().await;
}

#[tokio::test]
async fn each_failure_is_the_operating_systems_and_names_the_callers_path() {
    let fixture = Fixture::new().await;
    let sandbox = fixture.sandbox().await;
    output(
        &sandbox,
        "mkdir d; echo x > plain; echo x > locked; chmod 200 locked; echo x > fixed; chmod 400 fixed",
    )
    .await;
    for (path, kind) in [
        ("missing", ErrorKind::FileNotFound),
        ("plain/below", ErrorKind::FileNotFound),
        ("d", ErrorKind::IsADirectory),
        ("/etc", ErrorKind::IsADirectory),
        ("locked", ErrorKind::PermissionDenied),
    ] {
        let error = sandbox.read_file(path, 1000).await.unwrap_err();
        assert_eq!((error.kind(), error.message()), (kind, path));
    }
    for (path, kind) in [
        ("d", ErrorKind::IsADirectory),
        ("fixed", ErrorKind::PermissionDenied),
        ("/root/x", ErrorKind::PermissionDenied),
    ] {
        let error = sandbox.write_file(path, Bytes::from_static(b"y")).await.unwrap_err();
        assert_eq!((error.kind(), error.message()), (kind, path));
    }
    assert_eq!(sandbox.read_file("/etc/passwd", 10).await.unwrap_err().kind(), ErrorKind::OutputLimit);
    assert_eq!(sandbox.read_file("a\0b", 10).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    fixture.finish().await;
}

#[tokio::test]
async fn files_of_root_are_read_for_the_eval() {
    let fixture = Fixture::new().await;
    let sandbox = fixture.sandbox().await;
    output(&sandbox, "sudo sh -c 'head -c 9000000 /dev/zero > /root/big; echo secret > /root/small'").await;
    assert_eq!(sandbox.read_file("/root/small", 100).await.unwrap(), "secret\n");
    assert_eq!(sandbox.read_file("/root/big", 10 << 20).await.unwrap().len(), 9_000_000);
    assert_eq!(sandbox.read_file("/root/big", 1 << 20).await.unwrap_err().kind(), ErrorKind::OutputLimit);
    fixture.finish().await;
}

#[tokio::test]
async fn files_of_the_kernel_are_not_empty() {
    let fixture = Fixture::new().await;
    let sandbox = fixture.sandbox().await;
    let status = sandbox.read_file("/proc/self/status", 1 << 20).await.unwrap();
    assert!(status.starts_with(b"Name:"), "{status:?}");
    fixture.finish().await;
}

#[tokio::test]
async fn another_default_user_writes_files_as_itself() {
    let fixture = Fixture::new().await;
    let sandbox = fixture.sandbox_with(json!({"os_user": "root"})).await.unwrap();
    sandbox.write_file("/root/new/file", Bytes::from(vec![7; 300_000])).await.unwrap();
    let owner = sandbox.exec(command(&["stat", "-c", "%U %s", "/root/new/file"])).await.unwrap();
    assert_eq!(owner.stdout, "root 300000\n");
    assert_eq!(sandbox.read_file("/root/new/file", 1 << 20).await.unwrap().len(), 300_000);
    let error = sandbox.write_file("/root", Bytes::new()).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::IsADirectory, "/root"));
    fixture.finish().await;
}

#[tokio::test]
async fn a_file_that_cannot_be_written_says_why_by_either_way() {
    let fixture = Fixture::new().await;
    let long = "n".repeat(300);
    for user in [None, Some("root")] {
        let sandbox = fixture.sandbox_with(json!({"os_user": user})).await.unwrap();
        output(
            &sandbox,
            "echo x > plain; ln -s loop loop; ln -s nowhere/x dangling; cp $(command -v sleep) busy
             sudo sh -c 'mkdir /fixed; mount -t tmpfs -o ro tmpfs /fixed' && (./busy 600 >/dev/null 2>&1 &)
             until [ \"$(readlink /proc/*/exe | grep -c busy)\" != 0 ]; do sleep 0.01; done",
        )
        .await;
        for (path, kind, code) in [
            (long.as_str(), ErrorKind::FileSystem, "ENAMETOOLONG"),
            ("plain/below", ErrorKind::FileSystem, "ENOTDIR"),
            ("plain/far/below", ErrorKind::FileSystem, "ENOTDIR"),
            ("loop", ErrorKind::FileSystem, "ELOOP"),
            ("busy", ErrorKind::FileSystem, "ETXTBSY"),
            ("/dev/full", ErrorKind::FileSystem, "ENOSPC"),
            ("/fixed/x", ErrorKind::PermissionDenied, "EROFS"),
            ("dangling", ErrorKind::FileNotFound, "ENOENT"),
        ] {
            let error = sandbox.write_file(path, Bytes::from_static(b"y")).await.unwrap_err();
            let found = (error.kind(), error.code(), error.message());
            assert_eq!(found, (kind, Some(code), path), "{user:?}: {error:?}");
        }
    }
    fixture.finish().await;
}

#[tokio::test]
async fn an_interrupted_transfer_is_repeated_whole() {
    let fixture = Fixture::new().await;
    let sandbox = fixture.sandbox().await;
    let contents = Bytes::from(vec![9; 2 << 20]);
    fixture.fault("POST", "/toolbox/*/files/bulk-upload", 1, json!({"kind": "reset_after"})).await;
    sandbox.write_file("f", contents.clone()).await.unwrap();
    fixture.fault("GET", "/toolbox/*/files/download", 1, json!({"kind": "cut_body", "bytes": 1000})).await;
    assert_eq!(sandbox.read_file("f", 10 << 20).await.unwrap(), contents);
    fixture.finish().await;
}
