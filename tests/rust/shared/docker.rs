//! An image for the tests of a real Docker Engine, for which no registry is needed.

use std::path::Path;
use std::process::{Command, Stdio};

/// Runs docker; whether it succeeded.
fn docker(arguments: &[&str]) -> bool {
    let run = Command::new("docker").args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    run.is_ok_and(|status| status.success())
}

/// An image of one static program, by name. It ends with all that was built on it.
pub(crate) struct Base(pub(crate) String);

impl Base {
    /// Makes it; says so where that is not possible.
    pub(crate) fn new() -> Option<Self> {
        if !docker(&["version"]) {
            eprintln!("skipped, since no Docker Engine answers: apt-get install docker.io");
            return None;
        }
        let busybox = "/bin/busybox";
        // it fails for what needs no loader
        let is_static =
            Command::new("ldd").arg(busybox).output().is_ok_and(|listed| !listed.status.success());
        if !(is_static && Path::new(busybox).exists()) {
            eprintln!("skipped, since there is no static {busybox}: apt-get install busybox-static");
            return None;
        }
        let base = Self(format!("inspect-daytona-test/busybox:{}", uuid::Uuid::new_v4().simple()));
        let mut import = Command::new("docker");
        let mut import = import
            .args(["import", "-", &base.0])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut archive = tar::Builder::new(import.stdin.take().unwrap());
        archive.append_path_with_name(busybox, "bin/busybox").unwrap();
        for name in
            ["sh", "cat", "chmod", "chown", "echo", "id", "ls", "mkdir", "readlink", "sleep", "stat", "wc"]
        {
            archive
                .append_link(&mut header(tar::EntryType::Symlink, 0o777, 0), format!("bin/{name}"), "busybox")
                .unwrap();
        }
        let passwd = "root:x:0:0::/:/bin/sh\nme:x:7:8::/home/me:/bin/sh\n";
        for (path, text) in [("etc/passwd", passwd), ("etc/group", "root:x:0:\n")] {
            let mut header = header(tar::EntryType::Regular, 0o644, text.len() as u64);
            archive.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        drop(archive.into_inner().unwrap());
        assert!(import.wait().unwrap().success());
        Some(base)
    }

    /// A Dockerfile that no other test has, from its first stage on, which is called `base`.
    pub(crate) fn dockerfile(&self, rest: &str) -> String {
        format!("FROM {0} AS base\nLABEL inspect-daytona-test={0}\n{rest}", self.0)
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        let filter = format!("label=inspect-daytona-test={}", self.0);
        // a build that was cancelled may commit one more layer
        for _ in 0..50 {
            docker(&["image", "prune", "--all", "--force", "--filter", &filter]);
            let left = Command::new("docker")
                .args(["image", "ls", "--all", "--quiet", "--filter", &filter])
                .output();
            if left.is_ok_and(|left| left.stdout.is_empty()) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        docker(&["image", "rm", "--force", &self.0]);
    }
}

/// The head of an archive's entry, owned by root.
pub(crate) fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header
}
