//! Directories that sandboxes share.

use std::fs;
use std::path::PathBuf;

use inspect_daytona::local::spec::{Mount, SandboxSpec};

use crate::fixture::{Server, needs_root, parent};

fn source(server: &Server) -> PathBuf {
    server.state.join("sandboxes/.volumes/a")
}

fn with(server: &Server, mounts: &[(Option<&str>, &str)]) -> SandboxSpec {
    let mut spec = server.spec();
    let mount = |(subpath, target): &(Option<&str>, &str)| Mount {
        source: source(server),
        subpath: subpath.map(PathBuf::from),
        target: PathBuf::from(target),
    };
    spec.mounts = mounts.iter().map(mount).collect();
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_sandbox_writes_another_reads_whoever_the_users_are() {
    needs_root!();
    let server = Server::new().await;
    let first = server.start(with(&server, &[(None, "/data")])).await;
    first.output("echo from daytona > /data/file; sudo -n sh -c 'echo from root > /data/roots'").await;
    let second = server.start(with(&server, &[(None, "/home/daytona/here/data")])).await;
    assert_eq!(second.output("cat ~/here/data/file ~/here/data/roots").await, "from daytona\nfrom root");
    assert_eq!(second.output("stat -c %U ~/here/data/file ~/here/data/roots").await, "daytona\nroot");
    second.output("sudo -n -u www-data touch /home/daytona/here/data/third").await;
    second.output("echo more >> ~/here/data/file; rm -f ~/here/data/roots").await;
    assert_eq!(first.output("cat /data/file; ls -A /data").await, "from daytona\nmore\nfile\nthird");
    first.stop().await;
    let again = server.start(first.spec.clone()).await;
    assert_eq!(again.output("cat /data/file").await, "from daytona\nmore");
    again.stop().await;
    second.stop().await;
    server.engine.delete(again.spec.clone()).await.unwrap();
    assert!(source(&server).join("file").exists(), "a volume outlives its sandboxes");
    server.engine.remove(source(&server)).await.unwrap();
    assert!(!source(&server).exists());
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_volume_is_all_that_is_seen_of_it() {
    needs_root!();
    let server = Server::new().await;
    let whole = server.start(with(&server, &[(None, "/data")])).await;
    whole.output("mkdir -p /data/a && echo secret > /data/other").await;
    let part = server.start(with(&server, &[(Some("a/b"), "/part"), (Some("a"), "/above")])).await;
    part.output("echo deep > /part/file").await;
    assert_eq!(part.output("ls -A /part; ls -A /above; cat /above/b/file").await, "file\nb\ndeep");
    assert_eq!(whole.output("cat /data/a/b/file").await, "deep");
    assert_ne!(part.run("cat /part/../other /above/../other").await.0, 0);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_in_a_volume_lead_out_of_neither_it_nor_the_sandbox() {
    needs_root!();
    let outside = parent();
    fs::write(outside.path().join("secret"), "of the machine").unwrap();
    let server = Server::new().await;
    let writer = server.start(with(&server, &[(None, "/data")])).await;
    let target = outside.path().display();
    writer.output(&format!("ln -s {target} /data/absolute; ln -s ../../../.. /data/climbing; ln -s {target}/new /data/dangling")).await;
    assert_ne!(writer.run("cat /data/absolute/secret").await.0, 0);
    for part in ["absolute", "climbing/etc", "absolute/made", "dangling"] {
        let error = server.engine.start(with(&server, &[(Some(part), "/part")])).await.unwrap_err();
        assert!(error.to_string().contains("of the volume for /part"), "{part}: {error}");
    }
    let mut names: Vec<_> =
        fs::read_dir(outside.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    assert_eq!(names, ["secret"], "nothing was made outside");
    // nor does the place of the mount: this one was replaced while the sandbox did not run
    writer.output(&format!("sudo -n ln -s {target} /srv/there")).await;
    writer.stop().await;
    let mut spec = writer.spec.clone();
    spec.mounts[0].target = "/srv/there/data".into();
    // whether it can be made in the sandbox or not
    let _ = server.engine.start(spec).await;
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_gives_nobody_the_rights_of_its_writers() {
    needs_root!();
    let server = Server::new().await;
    let sandbox = server.start(with(&server, &[(None, "/data")])).await;
    sandbox.output("sudo -n sh -c 'cp /usr/bin/id /data/id && chmod 4755 /data/id'").await;
    assert_eq!(sandbox.output("/data/id -u").await, "1000");
    server.end().await;
}
