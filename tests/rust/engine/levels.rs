//! The levels of ordinary users, each in a process of such a user.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use inspect_daytona::local::engine::{EngineChoice, NetworkChoice, NetworkOptions, StateDirectory, choose};
use inspect_daytona::local::spec::{Access, Mount, Network};

use crate::fixture::{Address, Helper, Sandbox, needs_root, parent, skip, spec_in};

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
    let gateway = engine.isolation().no_gateway.is_none();
    spec.network = if gateway { Network::Gateway(Access::Everything) } else { Network::Blocked };
    let source = directory.with_file_name(".volumes").join("a");
    spec.mounts = vec![Mount { source: source.clone(), subpath: None, target: "/data".into() }];
    let running = engine.start(spec.clone()).await.unwrap();
    let sandbox = Sandbox { spec, running };
    assert_eq!(
        sandbox.output("echo $GREETING; echo kept > /data/file; cat /data/file").await,
        "hello world\nkept"
    );
    assert_eq!(fs::read_to_string(source.join("file")).unwrap(), "kept\n");
    assert_eq!(sandbox.output("id -un; pwd; hostname").await, "daytona\n/home/daytona\na");
    assert_eq!(sandbox.output("sudo -n id -u").await, "0");
    assert_eq!(sandbox.output("ls /home").await, "daytona");
    // the files of all sandboxes are the user's own
    let state = parent.join("state").display().to_string();
    assert_eq!(sandbox.output(&format!("sudo -n ls -A {state}")).await, "");
    assert_ne!(sandbox.run(&format!("sudo -n umount {state}")).await.0, 0);
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
    // what works is used, and what does not is told with the reason
    let may_open = fs::File::options().read(true).write(true).open("/dev/net/tun").is_ok();
    match &engine.isolation().no_gateway {
        None => assert!(may_open),
        Some(reason) => {
            assert!(!may_open && reason.contains("/dev/net/tun"), "{reason}");
            assert!(engine.isolation().lost.iter().any(|lost| lost.contains("allow lists are refused")));
            let state = StateDirectory::open(sandbox.spec.directory.ancestors().nth(3)).unwrap();
            let network = NetworkOptions { choice: NetworkChoice::Gateway, ..NetworkOptions::default() };
            let error = choose(EngineChoice::Auto, &network, state).await.unwrap_err();
            assert!(error.to_string().contains("a network of their own"), "{error}");
        }
    }
    life_of(&*engine, sandbox).await;
}

#[test]
fn a_user_with_subordinate_ids_has_users_inside() {
    needs_root!();
    if !Path::new("/usr/bin/newuidmap").exists() {
        return skip("needs uidmap");
    }
    if !Address::can_be_made() {
        return skip("needs ip: apt-get install iproute2");
    }
    let parent = parent();
    chown(parent.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let peer = Address::new();
    let listener = std::net::TcpListener::bind((peer.0, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = std::io::Write::write_all(&mut stream.unwrap(), b"hello\n");
        }
    });
    Helper::start_with_ranges("levels::with_subordinate_ids", parent.path(), NOBODY, address).succeed();
    assert!(fs::read_dir(parent.path().join("state")).unwrap().count() == 1, "only the lock is left");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by a_user_with_subordinate_ids_has_users_inside"]
async fn with_subordinate_ids() {
    let (engine, sandbox) = sandbox_of_an_ordinary_user("namespaces/subuid").await;
    assert_eq!(sandbox.output("id -u; id -nG; stat -c %U ~").await, "1000\ndaytona sudo\ndaytona");
    // the helper sees a /dev/net/tun that everybody may open, as on most machines
    assert_eq!(engine.isolation().no_gateway, None);
    let address = std::env::var("INSPECT_DAYTONA_TEST_PEER").unwrap();
    let (host, port) = address.split_once(':').unwrap();
    assert_eq!(
        sandbox.output(&format!("timeout 30 bash -c 'exec 3<>/dev/tcp/{host}/{port} && cat <&3'")).await,
        "hello"
    );
    assert_eq!(sandbox.output("sudo -n -u www-data id -un").await, "www-data");
    sandbox.output("sudo -n chown www-data ~/d && test $(stat -c %U ~/d) = www-data").await;
    assert_ne!(sandbox.run("sudo -n -u www-data sudo -n id").await.0, 0);
    life_of(&*engine, sandbox).await;
}
