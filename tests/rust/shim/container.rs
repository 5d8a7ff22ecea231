//! What the tests have instead of a Docker container: namespaces of processes and mounts, and a `docker` that enters
//! them. The shim that relays runs outside, as on the machine around.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use inspect_daytona::shim::protocol::{Addressee, Call, Reply, Start, find_reply};

use crate::sandbox::{LONG, Sandbox, eventually, new_id, parent_of, start_call};

/// Enters the container as docker would: `$base` is its directory.
const DOCKER: &str = r#"#!/bin/sh
base=@BASE@
case $1 in
exec)
  if [ -e "$base/stopped" ]; then echo "Error response from daemon: container c is not running" >&2; exit 1; fi
  user=
  for word; do case $word in --user=*) user=${word#--user=} ;; esac; done
  if [ "$user" = nosuch ]; then
    echo "unable to find user nosuch: no matching entries in passwd file" >&2
    exit 126
  fi
  echo start >>"$base/starts"
  exec nsenter -t "$(cat "$base/pid")" -m -p -- \
    ${user:+setpriv --reuid=$user --regid=$user --clear-groups} "$base/program/shim" serve
  ;;
inspect) if [ -e "$base/stopped" ]; then echo "exited 137 true "; else echo "running 0 false "; fi ;;
logs) echo "last words" ;;
esac
"#;

pub(crate) struct Container {
    /// The machine around.
    pub(crate) machine: Sandbox,
    base: PathBuf,
    /// The container's first process.
    init: Child,
    pub(crate) to: Addressee,
    /// The most that files of a reply may hold.
    pub(crate) limit: u64,
}

/// Whether the test may go on; it says so when not.
pub(crate) fn has_namespaces() -> bool {
    let works = Command::new("unshare").args(["--mount", "--pid", "--fork", "true"]).output();
    let works = works.is_ok_and(|output| output.status.success());
    if !works {
        println!("skipped: a container needs root and util-linux (apt-get install util-linux)");
    }
    works
}

impl Container {
    pub(crate) fn new() -> Self {
        let machine = Sandbox::new();
        let base = machine.path().join("container");
        for (directory, mode) in [("", 0o755), ("program", 0o755), ("state", 0o1733), ("bin", 0o755)] {
            fs::create_dir(base.join(directory)).unwrap();
            fs::set_permissions(base.join(directory), Permissions::from_mode(mode)).unwrap();
        }
        let copied = Command::new("cp").arg(machine.shim()).arg(base.join("program/shim")).status();
        assert!(copied.unwrap().success());
        let docker = base.join("bin/docker");
        fs::write(&docker, DOCKER.replace("@BASE@", base.to_str().unwrap())).unwrap();
        fs::set_permissions(&docker, Permissions::from_mode(0o755)).unwrap();
        let ready = base.join("ready");
        let init = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c"])
            .arg(r#"readlink /proc/self/ns/pid >"$0.new"; mv "$0.new" "$0"; exec sleep infinity"#)
            .arg(&ready)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        eventually("the container runs", || ready.exists());
        let first = processes().into_iter().find(|pid| parent_of(*pid) == Some(init.id())).unwrap();
        fs::write(base.join("pid"), first.to_string()).unwrap();
        let to = Addressee {
            container: "c".to_owned(),
            directory: base.join("state").to_str().unwrap().to_owned(),
            name: new_id().to_string(),
        };
        Self { machine, base, init, to, limit: 1 << 30 }
    }

    /// A file of the container's.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.base.join(name)
    }

    /// The directory of the resident.
    pub(crate) fn state(&self) -> PathBuf {
        Path::new(&self.to.directory).join(&self.to.name)
    }

    /// What the relay prints for a call.
    pub(crate) fn relay(&self, call: &Call) -> String {
        self.relay_to(&self.to, call)
    }

    pub(crate) fn relay_to(&self, to: &Addressee, call: &Call) -> String {
        let script = to.script(self.machine.shim().to_str().unwrap(), self.limit, call);
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        self.machine.execute_as(Command::new("sh").env("PATH", path), &script)
    }

    pub(crate) fn deliver(&self, call: &Call) -> Reply {
        let text = self.relay(call);
        find_reply(&text, call.id).unwrap_or_else(|| panic!("no reply in {text:?}"))
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, start: Start) -> Reply {
        self.deliver(&start_call(self.machine.id(), start))
    }

    /// The shim's processes in the container.
    fn shims(&self) -> Vec<u32> {
        let program = self.path("program/shim");
        let is_shim = |pid: &u32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program);
        processes().into_iter().filter(is_shim).collect()
    }

    /// Kills the resident alone.
    pub(crate) fn kill_resident(&self) {
        let shims = self.shims();
        let residents: Vec<_> = shims
            .iter()
            .filter(|pid| parent_of(**pid).is_none_or(|parent| !shims.contains(&parent)))
            .collect();
        assert_eq!(residents.len(), 1, "one resident of {shims:?}");
        kill(&[*residents[0]]);
    }

    /// Kills all that the shim is in the container.
    pub(crate) fn kill_shims(&self) {
        kill(&self.shims());
    }

    /// How often a resident was started.
    pub(crate) fn starts(&self) -> usize {
        fs::read_to_string(self.path("starts")).unwrap_or_default().lines().count()
    }

    /// Ends the container, as far as `docker` tells.
    pub(crate) fn stop(&self) {
        fs::write(self.path("stopped"), "").unwrap();
        self.kill_shims();
    }

    /// A script in the container, of another user.
    pub(crate) fn as_nobody(&self, script: &str) -> String {
        let pid = fs::read_to_string(self.path("pid")).unwrap();
        let output = Command::new("nsenter")
            .args([
                "-t",
                &pid,
                "-m",
                "-p",
                "--",
                "setpriv",
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
            ])
            .args(["sh", "-c", script])
            .output()
            .unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }
}

/// The end of a first process is the end of its namespace.
impl Drop for Container {
    fn drop(&mut self) {
        drop(self.init.kill());
        drop(self.init.wait());
    }
}

fn kill(pids: &[u32]) {
    for pid in pids {
        Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    }
    let is_gone = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    };
    let began = std::time::Instant::now();
    while !pids.iter().all(is_gone) {
        assert!(began.elapsed() < LONG, "still there: {pids:?}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}
