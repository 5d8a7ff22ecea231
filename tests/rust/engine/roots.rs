//! Root file systems from elsewhere.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use inspect_daytona::local::spec::{RootFs, SandboxSpec};
use tempfile::TempDir;

use crate::fixture::{Server, needs_root, parent, skip};

/// Copies the libraries of a program; a static one has none.
fn copy_libraries(program: &str, directory: &Path) {
    let listed = Command::new("ldd").arg(program).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    for library in listed.split_whitespace().filter(|word| word.starts_with('/')) {
        let target = directory.join(&library[1..]);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(library, target).unwrap();
    }
}

/// A root file system of one program.
fn busybox(directory: &Path) -> bool {
    let Some(program) = ["/bin/busybox", "/usr/bin/busybox"].iter().find(|path| Path::new(path).exists())
    else {
        return false;
    };
    for name in ["bin", "etc", "home/me"] {
        fs::create_dir_all(directory.join(name)).unwrap();
    }
    fs::copy(program, directory.join("bin/busybox")).unwrap();
    copy_libraries(program, directory);
    for name in ["sh", "cat", "id", "ls", "touch", "stat", "hostname", "mount", "rm"] {
        symlink("busybox", directory.join("bin").join(name)).unwrap();
    }
    fs::write(directory.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nme:x:7:8::/home/me:/bin/sh\n")
        .unwrap();
    fs::write(directory.join("etc/group"), "root:x:0:\nme:x:8:\nmore:x:9:me\n").unwrap();
    fs::write(directory.join("only-here"), "image\n").unwrap();
    std::os::unix::fs::chown(directory.join("home/me"), Some(7), Some(8)).unwrap();
    true
}

/// An image, a server, and what a sandbox with the image as its root is made from.
async fn of_an_image() -> Option<(TempDir, Server, SandboxSpec)> {
    let image = parent();
    if !busybox(image.path()) {
        return None;
    }
    let server = Server::new().await;
    let spec = SandboxSpec { root: RootFs::Directory(image.path().to_owned()), ..server.spec() };
    Some((image, server, spec))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_can_be_the_root() {
    needs_root!();
    let Some((image, server, mut spec)) = of_an_image().await else { return skip("needs busybox") };
    spec.user = "me".into();
    let sandbox = server.start(spec.clone()).await;
    assert_eq!(sandbox.output("id; pwd").await, "uid=7(me) gid=8(me) groups=8(me),9(more)\n/home/me");
    assert_eq!(sandbox.output("cat /only-here /etc/hostname").await, format!("image\n{}", spec.hostname));
    assert_eq!(sandbox.run("ls /usr/bin/python3").await.0, 1);
    sandbox.output("touch /home/me/new").await;
    sandbox.stop().await;
    spec.user = "root".into();
    let sandbox = server.start(spec).await;
    assert_eq!(sandbox.output("id -u; stat -c %u /home/me/new /only-here").await, "0\n7\n0");
    sandbox.output("rm /only-here").await;
    assert!(image.path().join("only-here").exists());
    assert!(!image.path().join("home/me/new").exists());
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_may_come_with_a_group_and_a_working_directory_is_made() {
    needs_root!();
    let Some((_image, server, mut spec)) = of_an_image().await else { return skip("needs busybox") };
    spec.work_dir = Some("/srv/made/here".into());
    for (user, expected) in [("me:more", "7\n9\n/srv/made/here"), ("7:5", "7\n5\n/srv/made/here")] {
        spec.id = format!("{}-{}", spec.id, user.len());
        spec.directory.set_file_name(&spec.id);
        spec.user = user.into();
        let sandbox = server.start(spec.clone()).await;
        assert_eq!(sandbox.output("id -u; id -g; pwd").await, expected);
        sandbox.stop().await;
    }
    spec.user = "me:absent".into();
    let error = server.engine.start(spec).await.unwrap_err();
    assert!(error.to_string().contains("cannot run in group absent"), "{error}");
    server.end().await;
}
