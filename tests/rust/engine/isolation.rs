//! What a sandbox is from inside, as root on this machine.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use inspect_daytona::local::spec::Network;
use tempfile::TempDir;

use crate::fixture::{Server, needs_root};

#[tokio::test(flavor = "multi_thread")]
async fn a_default_sandbox_is_daytonas_with_passwordless_sudo() {
    needs_root!();
    let server = Server::new().await;
    assert_eq!(server.engine.isolation().name, "namespaces/root-idmap");
    let sandbox = server.start(server.spec()).await;
    assert_eq!(sandbox.output("id -un; id -u; id -g; id -nG").await, "daytona\n1000\n1000\ndaytona sudo");
    assert_eq!(sandbox.output("sudo -n id -u").await, "0");
    assert_eq!(sandbox.output("sudo -n -u '#1' id -u").await, "1");
    assert_eq!(
        sandbox.output("pwd; echo $HOME $USER $GREETING").await,
        "/home/daytona\n/home/daytona daytona hello world"
    );
    assert_eq!(sandbox.output("stat -c %u /proc/1").await, "1000");
    assert_eq!(
        sandbox.output("hostname; cat /etc/hostname").await,
        format!("{0}\n{0}", sandbox.spec.hostname)
    );
    assert_eq!(sandbox.output("getent hosts $(hostname) | cut -d' ' -f1").await, "127.0.1.1");
    assert_eq!(sandbox.output("touch ~/a /tmp/b /var/tmp/c /dev/shm/d && echo ok").await, "ok");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_roots_of_sandboxes_are_not_the_machines() {
    needs_root!();
    let server = Server::new().await;
    let sandbox = server.start(server.spec()).await;
    sandbox.output("sudo -n touch /usr/bin/planted /etc/planted /root/planted").await;
    for path in ["/usr/bin/planted", "/etc/planted", "/root/planted"] {
        assert!(!fs::exists(path).unwrap(), "{path} reached the machine");
    }
    let owner = fs::metadata(sandbox.spec.directory.join("upper/usr/bin/planted")).unwrap().uid();
    assert!(owner > 65535, "the sandbox's root is uid {owner} of the machine");
    for refused in [
        "sudo -n sh -c 'echo x > /proc/sys/kernel/core_pattern'",
        "sudo -n sh -c 'echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger'",
        "sudo -n sh -c 'echo 1 > /sys/kernel/uevent_helper'",
        "sudo -n mknod /tmp/disk b 254 0",
        "sudo -n mount /dev/vda /mnt",
        "sudo -n mount -o remount,rw /sys",
        "sudo -n umount /dev/null",
        "sudo -n dmesg --clear",
        "sudo -n date -s '2001-01-01'",
        "sudo -n hwclock --systohc",
        "sudo -n insmod /dev/null",
        "sudo -n cat /proc/kcore",
        "cat /proc/1/environ",
    ] {
        let (code, output) = sandbox.run(refused).await;
        assert_ne!(code, 0, "{refused}: {output}");
    }
    // what a root may do to itself
    for allowed in [
        "sudo -n mount -t tmpfs none /mnt",
        "sudo -n hostname other",
        "sudo -n chown 1234:567 /tmp",
        "sudo -n unshare -n true",
    ] {
        sandbox.output(allowed).await;
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_machines_people_and_secrets_are_hidden() {
    needs_root!();
    let server = Server::new().await;
    let secret = tempfile::Builder::new().prefix("secret").tempdir_in("/var/lib").unwrap();
    fs::write(secret.path().join("file"), "secret").unwrap();
    fs::set_permissions(secret.path(), PermissionsExt::from_mode(0o700)).unwrap();
    // hidden are those that were there when the engine started
    let second = Server::new().await;
    let sandbox = second.start(second.spec()).await;
    let path = secret.path().display();
    assert_eq!(sandbox.output(&format!("sudo -n ls -A {path}")).await, "");
    assert_eq!(sandbox.output("ls /home").await, "daytona");
    assert_eq!(sandbox.output("sudo -n ls -A /root /var/tmp /tmp").await, "/root:\n\n/tmp:\n\n/var/tmp:");
    let shadow = sandbox.output("sudo -n cut -d: -f2 /etc/shadow | sort -u").await;
    assert_eq!(shadow, "*");
    assert_eq!(sandbox.run("ls /work /farm /old_root").await.0, 2);
    sandbox.stop().await;
    second.end().await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_of_what_was_installed_by_hand_are_hidden_and_the_rest_is_not() {
    needs_root!();
    let mut kept = Vec::new();
    for top in ["/opt", "/usr/local"] {
        let program = tempfile::Builder::new().prefix("program").tempdir_in(top).unwrap();
        let at = |name: &str| program.path().join(name);
        fs::create_dir(at("private")).unwrap();
        for (name, mode) in [("key", 0o600), ("group", 0o640), ("open", 0o644), ("private/open", 0o644)] {
            fs::write(at(name), "text").unwrap();
            fs::set_permissions(at(name), PermissionsExt::from_mode(mode)).unwrap();
        }
        fs::set_permissions(at("private"), PermissionsExt::from_mode(0o750)).unwrap();
        fs::set_permissions(program.path(), PermissionsExt::from_mode(0o755)).unwrap();
        kept.push(program);
    }
    let server = Server::new().await;
    let sandbox = server.start(server.spec()).await;
    for program in &kept {
        let path = program.path().display();
        let found = sandbox.output(&format!("cd {path} && sudo -n ls -A . private && cat open")).await;
        assert_eq!(found, ".:\nopen\nprivate\n\nprivate:\ntext");
        sandbox.output(&format!("sudo -n sh -c 'echo mine > {path}/key'")).await;
        assert_eq!(fs::read_to_string(program.path().join("key")).unwrap(), "text");
    }
    sandbox.stop().await;
    server.end().await;
}

/// A tmpfs over a directory for as long as a test runs.
struct Covered(TempDir);

impl Covered {
    fn new(directory: TempDir) -> Self {
        let covered = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(directory.path()).status();
        assert!(covered.unwrap().success());
        Self(directory)
    }
}

impl Drop for Covered {
    fn drop(&mut self) {
        let uncovered = Command::new("umount").arg(self.0.path()).status();
        assert!(uncovered.unwrap().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_below_opt_is_not_entered_and_secrets_that_it_covers_are_hidden() {
    needs_root!();
    let directory = tempfile::Builder::new().prefix("program").tempdir_in("/opt").unwrap();
    let at = |name: &str| directory.path().join(name);
    for (name, mode) in [("key", 0o600), ("open", 0o644)] {
        fs::write(at(name), "text").unwrap();
        fs::set_permissions(at(name), PermissionsExt::from_mode(mode)).unwrap();
    }
    fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let covered = Covered::new(directory);
    // of a name that would hide the file below, if it were taken for what sandboxes see
    fs::write(covered.0.path().join("open"), "text").unwrap();
    fs::set_permissions(covered.0.path().join("open"), PermissionsExt::from_mode(0o600)).unwrap();
    let server = Server::new().await;
    let sandbox = server.start(server.spec()).await;
    let path = covered.0.path().display();
    assert_eq!(sandbox.output(&format!("sudo -n ls -A {path}; cat {path}/open")).await, "open\ntext");
    sandbox.stop().await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_other_sandboxes_are_hidden_wherever_they_are() {
    needs_root!();
    for (mode, name) in [(0o700, "private"), (0o755, "shared")] {
        // where nobody looks for secrets
        let parent = tempfile::Builder::new().prefix("idt-").tempdir_in("/usr/share").unwrap();
        fs::set_permissions(parent.path(), PermissionsExt::from_mode(mode)).unwrap();
        let server = Server::below(parent).await;
        let spec = server.spec();
        let sandbox = server.start(spec.clone()).await;
        let state = server.state.display().to_string();
        let hidden =
            if mode == 0o700 { server.state.parent().unwrap().display().to_string() } else { state.clone() };
        assert_eq!(sandbox.output(&format!("sudo -n ls -A {hidden}")).await, "", "{name}");
        for escape in [
            format!("sudo -n umount {hidden}"),
            format!("sudo -n mkdir /mnt/a && sudo -n mount --bind /usr/share /mnt/a && ls /mnt/a{state}"),
            format!("sudo -n unshare -m sh -c 'umount {hidden}; ls {state}/sandboxes'"),
            format!("sudo -n unshare -Um sh -c 'umount {hidden}; ls {state}/sandboxes'"),
            format!("sudo -n mv {hidden} /usr/share/elsewhere"),
        ] {
            assert_ne!(sandbox.run(&escape).await.0, 0, "{escape}");
        }
        sandbox.stop().await;
        let again = server.start(spec).await;
        assert_eq!(again.output(&format!("sudo -n ls -A {hidden}")).await, "", "{name}");
        again.stop().await;
        server.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn administration_works_inside() {
    needs_root!();
    let server = Server::new().await;
    let sandbox = server.start(server.spec()).await;
    for command in [
        "sudo -n adduser --disabled-password --gecos '' somebody",
        "sudo -n su somebody -c 'touch ~/mine && test $(stat -c %U ~/mine) = somebody'",
        "sudo -n userdel -r somebody && ! id somebody",
        "sudo -n useradd -m other && sudo -n chown other /opt",
        "dpkg --version && sudo -n dpkg --audit && apt-get --version",
        "test $(ps -e -o pid= | wc -l) -lt 10",
        "python3 -c 'import ssl, sqlite3'",
        "script -qc 'tty' /dev/null | grep pts",
    ] {
        sandbox.output(command).await;
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_network_is_a_loopback_interface() {
    needs_root!();
    let server = Server::new().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connect = format!("python3 -c \"import socket; socket.create_connection(('127.0.0.1', {port}), 5)\"");
    let open = server.start(server.spec()).await;
    open.output(&connect).await;
    let mut spec = server.spec();
    spec.network = Network::Blocked;
    let blocked = server.start(spec).await;
    let (_, output) = blocked.run(&connect).await;
    assert!(output.contains("ConnectionRefusedError"), "{output}");
    let (_, output) =
        blocked.run("python3 -c \"import socket; socket.create_connection(('192.0.2.1', 80), 5)\"").await;
    assert!(output.contains("Network is unreachable"), "{output}");
    let own = "python3 -c \"import socket; s = socket.create_server(('127.0.0.1', 0)); \
               socket.create_connection(s.getsockname(), 5)\"";
    blocked.output(own).await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_server_is_in_a_sandbox() {
    needs_root!();
    // cargo sets them for tests
    assert!(std::env::vars().any(|(name, _)| name == "CARGO_PKG_NAME"), "run by cargo");
    let server = Server::new().await;
    let other = server.spec();
    let mut first = other.clone();
    first.env.insert("ONLY_OF_THE_FIRST".into(), "first-sandbox-secret".into());
    server.start(first).await;
    let sandbox = server.start(server.spec()).await;
    let environments =
        sandbox.output("sudo -n sh -c 'cat /proc/*/environ /proc/*/cmdline' | tr '\\0' '\\n'").await;
    assert!(
        environments.contains("GREETING=hello world") && !environments.contains("CARGO"),
        "{environments}"
    );
    // the memory of the first process, read by the sandbox's root
    let search = "import re,sys\nfor line in open('/proc/1/maps'):\n  a,b=[int(x,16) for x in line.split()[0].split('-')]\n  \
                  if 'r' not in line.split()[1] or 'vvar' in line or 'vsyscall' in line: continue\n  \
                  m=open('/proc/1/mem','rb',0); m.seek(a)\n  \
                  d=m.read(b-a)\n  print('found' if b'first-sandbox'+b'-secret' in d or b'CARGO_PKG'+b'_NAME=' in d else 'clean')";
    sandbox.output(&format!("cat > /tmp/search.py <<'END'\n{search}\nEND")).await;
    let found = sandbox.output("sudo -n python3 /tmp/search.py | sort | uniq -c").await;
    assert!(found.contains("clean") && !found.contains("found"), "{found}");
    server.end().await;
}
