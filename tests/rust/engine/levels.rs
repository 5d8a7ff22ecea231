//! The levels of ordinary users, each in a process of such a user.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use inspect_daytona::local::engine::{EngineChoice, NetworkOptions, StateDirectory, choose};
use inspect_daytona::local::spec::Network;

use crate::fixture::{Helper, Sandbox, needs_root, parent, skip, spec_in};

/// An ordinary user without subordinate ids.
const NOBODY: u32 = 65534;

/// A sandbox of the user that this process is, and what it must be able to do at any level.
async fn sandbox_of_an_ordinary_user(
    level: &str,
) -> (std::sync::Arc<dyn inspect_daytona::local::engine::Engine>, Sandbox) {
    let parent = PathBuf::from(std::env::var_os("INSPECT_DAYTONA_TEST_PARENT").unwrap());
    let state = StateDirectory::open(Some(&parent.join("state"))).unwrap();
    let directory = state.sandbox("a");
    let engine = choose(EngineChoice::Auto, &NetworkOptions::default(), state).await.unwrap();
    assert_eq!(engine.isolation().name, level);
    assert!(engine.isolation().lost.iter().any(|lost| lost.contains("read-only")));
    let mut spec = spec_in(&directory);
    spec.network = Network::Blocked;
    let running = engine.start(spec.clone()).await.unwrap();
    let sandbox = Sandbox { spec, running };
    assert_eq!(sandbox.output("id -un; pwd; hostname").await, "daytona\n/home/daytona\na");
    assert_eq!(sandbox.output("sudo -n id -u").await, "0");
    assert_eq!(sandbox.output("ls /home").await, "daytona");
    assert_ne!(sandbox.run("touch /usr/share/x").await.0, 0);
    assert_ne!(sandbox.run("sudo -n sh -c 'echo x > /proc/sys/kernel/core_pattern'").await.0, 0);
    sandbox.output("sudo -n sh -c 'echo 1 > /etc/made' && mkdir ~/d && echo 2 > ~/d/file && sudo -n mount -t tmpfs none /mnt").await;
    sandbox.output("python3 -c \"import socket; s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname())\"").await;
    (engine, sandbox)
}

/// Stop, start, delete.
async fn life_of(engine: &dyn inspect_daytona::local::engine::Engine, sandbox: Sandbox) {
    sandbox.stop().await;
    let running = engine.start(sandbox.spec.clone()).await.unwrap();
    let again = Sandbox { spec: sandbox.spec, running };
    assert_eq!(again.output("cat /etc/made ~/d/file").await, "1\n2");
    again.stop().await;
    engine.delete(again.spec.clone()).await.unwrap();
    assert!(!again.spec.directory.exists());
    engine.shutdown().await;
}

#[test]
fn a_user_without_subordinate_ids_has_one_uid() {
    needs_root!();
    let parent = parent();
    chown(parent.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    Helper::start("levels::with_one_uid", parent.path(), Some(NOBODY)).succeed();
    assert!(fs::read_dir(parent.path().join("state")).unwrap().count() == 1, "only the lock is left");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by a_user_without_subordinate_ids_has_one_uid"]
async fn with_one_uid() {
    let (engine, sandbox) = sandbox_of_an_ordinary_user("namespaces/single-uid").await;
    assert_eq!(sandbox.output("id -u; stat -c %u ~").await, "0\n0");
    assert!(engine.isolation().lost.iter().any(|lost| lost.contains("one user only")));
    life_of(&*engine, sandbox).await;
}

#[test]
fn a_user_with_subordinate_ids_has_users_inside() {
    needs_root!();
    if !Path::new("/usr/bin/newuidmap").exists() {
        return skip("needs uidmap");
    }
    let parent = parent();
    chown(parent.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    Helper::start_with_ranges("levels::with_subordinate_ids", parent.path(), NOBODY).succeed();
    assert!(fs::read_dir(parent.path().join("state")).unwrap().count() == 1, "only the lock is left");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by a_user_with_subordinate_ids_has_users_inside"]
async fn with_subordinate_ids() {
    let (engine, sandbox) = sandbox_of_an_ordinary_user("namespaces/subuid").await;
    assert_eq!(sandbox.output("id -u; id -nG; stat -c %U ~").await, "1000\ndaytona sudo\ndaytona");
    assert_eq!(sandbox.output("sudo -n -u www-data id -un").await, "www-data");
    sandbox.output("sudo -n chown www-data ~/d && test $(stat -c %U ~/d) = www-data").await;
    assert_ne!(sandbox.run("sudo -n -u www-data sudo -n id").await.0, 0);
    life_of(&*engine, sandbox).await;
}
