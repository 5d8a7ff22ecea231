//! Commands as other users, and files that only root may read.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use inspect_daytona::shim::protocol::{Action, Call, Kept, RefusalKind, Reply, Start, find_reply, script};

use crate::sandbox::{
    LONG, Sandbox, bytes, call, command, eventually, finished, has_root, marked, refusal, sh, start_call,
    stdout,
};

fn as_user(user: &str, call: Call) -> Call {
    Call { user: Some(user.into()), ..call }
}

fn run_as(sandbox: &Sandbox, user: &str, start: Start) -> Reply {
    sandbox.deliver(&as_user(user, start_call(sandbox.id(), start)))
}

#[test]
fn root_becomes_a_user_by_name_or_number() {
    if !has_root("becoming another user") {
        return;
    }
    let sandbox = Sandbox::new();
    let probe = r#"echo "$(id -u) $(id -g) $HOME $USER $LOGNAME""#;
    let expected = "65534 65534 /nonexistent nobody nobody\n";
    assert_eq!(stdout(run_as(&sandbox, "nobody", sh(probe))), expected);
    assert_eq!(stdout(run_as(&sandbox, "65534", sh(probe))), expected);
    let mut own = sh("echo $HOME");
    own.env.push((b"HOME".to_vec(), b"/given".to_vec()));
    assert_eq!(stdout(run_as(&sandbox, "nobody", own)), "/given\n");
    assert_eq!(
        stdout(run_as(&sandbox, "4711", sh("id -u; id -g; id -G; echo $HOME$USER"))),
        "4711\n0\n0\n/\n"
    );
    assert_eq!(stdout(run_as(&sandbox, "nobody:daemon", sh("id -gn; id -Gn"))), "daemon\ndaemon\n");
    assert_eq!(stdout(run_as(&sandbox, "root", sh("id -u; echo $HOME"))), "0\n/root\n");
}

#[test]
fn an_unknown_user_is_named() {
    if !has_root("becoming another user") {
        return;
    }
    let sandbox = Sandbox::new();
    let refusal = refusal(run_as(&sandbox, "nonexistent", command(["true"])));
    assert_eq!(refusal.kind, RefusalKind::UnknownUser);
    assert!(refusal.message.contains("nonexistent"), "{}", refusal.message);
}

#[test]
fn a_user_keeps_its_streams_its_limits_and_its_timeout() {
    if !has_root("becoming another user") {
        return;
    }
    let sandbox = Sandbox::new();
    let id = sandbox.id();
    let start = Start {
        timeout: Some(Duration::from_millis(500)),
        ..sh("echo out; echo err >/dev/stderr; setsid sleep 600")
    };
    let ended = finished(sandbox.deliver(&as_user("nobody", start_call(id, start))));
    assert!(ended.timed_out);
    assert_eq!((bytes(&ended.stdout), bytes(&ended.stderr)), (b"out\n".as_slice(), b"err\n".as_slice()));
    assert_eq!(marked(id), [0; 0]);
    let closed = Start { cwd: Some(b"/root".to_vec()), ..command(["true"]) };
    if fs::metadata("/root").unwrap().permissions().mode() & 0o001 == 0 {
        assert_eq!(refusal(run_as(&sandbox, "nobody", closed)).kind, RefusalKind::WorkingDirectory);
    }
    let kept = run_as(&sandbox, "nobody", sh(&format!("ls {}/0", sandbox.path().display())));
    assert_ne!(finished(kept).end.code(), 0, "the state of root is closed to others");
}

#[test]
fn a_shim_in_a_directory_of_others_keeps_its_state_where_nobody_else_could_have_put_it() {
    if !has_root("becoming another user") {
        return;
    }
    let sandbox = Sandbox::new();
    let user = "54322";
    let [forged, chosen] = ["/tmp", "/var/tmp"].map(|place| format!("{place}/.inspect-daytona-{user}"));
    fs::create_dir(&forged).unwrap();
    let start = start_call(sandbox.id(), sh("echo $$"));
    let deliver = || {
        let mut shell = Command::new("setpriv");
        shell.args(["--reuid", user, "--regid", user, "--clear-groups", "sh"]);
        let text = sandbox.execute_as(&mut shell, &script(sandbox.shim().to_str().unwrap(), &start));
        find_reply(&text, start.id)
    };
    let (first, second) = (deliver(), deliver());
    let state = fs::metadata(&chosen);
    fs::remove_dir_all(&chosen).unwrap();
    fs::remove_dir(&forged).unwrap();
    assert_eq!(first, second);
    assert!(!stdout(first.unwrap()).is_empty());
    assert_eq!(state.unwrap().permissions().mode() & 0o777, 0o700);
}

/// Users and a sudo rule for the tests of a toolbox that is not root; removed again in the end.
struct Accounts {
    name: String,
}

impl Accounts {
    fn new(rule: &str) -> Option<Self> {
        if !has_root("adding users") {
            return None;
        }
        if !Path::new("/usr/bin/sudo").exists() {
            println!("skipped: sudo is not installed");
            return None;
        }
        let name = format!("shim-test-{}", &crate::sandbox::new_id().to_string()[..8]);
        let added =
            Command::new("useradd").args(["--create-home", "--groups", "audio", &name]).status().unwrap();
        assert!(added.success());
        let accounts = Self { name };
        if !rule.is_empty() {
            let file = accounts.rule();
            // A terminal of sudo's own is its default in newer versions.
            fs::write(&file, format!("Defaults:{0} use_pty\n{0} {rule}\n", accounts.name)).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(0o440)).unwrap();
        }
        Some(accounts)
    }

    fn rule(&self) -> String {
        format!("/etc/sudoers.d/{}", self.name)
    }

    /// A sandbox that belongs to the user, as one whose toolbox is not root.
    fn sandbox(&self) -> Sandbox {
        let sandbox = Sandbox::new();
        let owned = Command::new("chown").args(["-R", &self.name]).arg(sandbox.path()).status().unwrap();
        assert!(owned.success());
        sandbox
    }

    fn deliver(&self, sandbox: &Sandbox, call: &Call) -> Reply {
        let mut shell = Command::new("setpriv");
        shell.args([
            "--reuid",
            &self.name,
            "--regid",
            &self.name,
            "--init-groups",
            "env",
            "FROM_TOOLBOX=yes",
            "bash",
        ]);
        shell.env("HOME", format!("/home/{}", self.name)).env("USER", &self.name);
        let text = sandbox.execute_as(&mut shell, &script(sandbox.shim().to_str().unwrap(), call));
        find_reply(&text, call.id).unwrap_or_else(|| panic!("no reply in {text:?}"))
    }
}

impl Drop for Accounts {
    fn drop(&mut self) {
        drop(fs::remove_file(self.rule()));
        drop(Command::new("userdel").args(["--remove", &self.name]).output());
    }
}

#[test]
fn root_gives_a_user_its_supplementary_groups() {
    let Some(accounts) = Accounts::new("") else { return };
    let sandbox = Sandbox::new();
    let groups = stdout(run_as(&sandbox, &accounts.name, sh("id -Gn")));
    assert_eq!(groups, format!("{} audio\n", accounts.name));
}

#[test]
fn a_toolbox_without_sudo_rights_says_so() {
    let Some(accounts) = Accounts::new("") else { return };
    let sandbox = accounts.sandbox();
    let start = |user| as_user(user, start_call(sandbox.id(), sh("id -un; echo $HOME")));
    let refusal = refusal(accounts.deliver(&sandbox, &start("root")));
    assert_eq!(refusal.kind, RefusalKind::UserUnsupported);
    assert!(refusal.message.contains("sudo:"), "{}", refusal.message);
    let own = format!("{0}\n/home/{0}\n", accounts.name);
    assert_eq!(stdout(accounts.deliver(&sandbox, &start(&accounts.name))), own, "itself needs no sudo");
}

#[test]
fn a_toolbox_with_sudo_rights_runs_commands_as_anybody() {
    let Some(accounts) = Accounts::new("ALL=(ALL) NOPASSWD: ALL") else { return };
    let sandbox = accounts.sandbox();
    let probe = r#"id -un; echo "$HOME $FROM_TOOLBOX $ADDED ${SUDO_UID-none}"; pwd -P"#;
    let here = fs::canonicalize(sandbox.path()).unwrap();
    for (user, home) in [("root", "/root"), ("nobody", "/nonexistent")] {
        let mut start = sh(probe);
        start.env.push((b"ADDED".to_vec(), b"too".to_vec()));
        let out = stdout(accounts.deliver(&sandbox, &as_user(user, start_call(sandbox.id(), start))));
        assert_eq!(out, format!("{user}\n{home} yes too none\n{}\n", here.display()));
    }
    let unknown = as_user("nonexistent", start_call(sandbox.id(), command(["true"])));
    assert_eq!(refusal(accounts.deliver(&sandbox, &unknown)).kind, RefusalKind::UnknownUser);
}

#[test]
fn execs_under_sudo_are_repeated_killed_and_collected_like_others() {
    let Some(accounts) = Accounts::new("ALL=(ALL) NOPASSWD: ALL") else { return };
    let sandbox = accounts.sandbox();
    let large = Start { inline_limit: 10, ..sh("echo $$; head -c 1000 /dev/zero") };
    let start = as_user("root", start_call(sandbox.id(), large));
    let first = accounts.deliver(&sandbox, &start);
    assert_eq!(accounts.deliver(&sandbox, &start), first);
    let Kept::File { path, .. } = &finished(first).stdout.kept else { panic!("inline") };
    let path = String::from_utf8(path.clone()).unwrap();
    let read = Command::new("setpriv")
        .args(["--reuid", &accounts.name, "--clear-groups", "wc", "-c", &path])
        .output();
    assert!(read.unwrap().status.success(), "the toolbox's user can read the outputs");

    let long = as_user("root", start_call(sandbox.id(), command(["sleep", "600"])));
    assert_eq!(accounts.deliver(&sandbox, &Call { wait: Duration::ZERO, ..long.clone() }), Reply::Pending);
    eventually("it runs", || !marked(long.id).is_empty());
    assert!(finished(accounts.deliver(&sandbox, &as_user("root", call(long.id, Action::Kill)))).killed);
    assert_eq!(marked(long.id), [0; 0]);

    // Acknowledged by a call of the toolbox's own user, removed by the next one of root.
    let own = Call { acks: vec![start.id], ..start_call(sandbox.id(), command(["true"])) };
    accounts.deliver(&sandbox, &own);
    accounts.deliver(&sandbox, &as_user("root", start_call(sandbox.id(), command(["true"]))));
    assert!(!fs::exists(&path).unwrap());
    assert_eq!(accounts.deliver(&sandbox, &start), Reply::Collected);
}

#[test]
fn a_command_outlives_the_sudo_that_waits_for_it() {
    let Some(accounts) = Accounts::new("ALL=(ALL) NOPASSWD: ALL") else { return };
    let sandbox = accounts.sandbox();
    let [started, go] = ["started", "go"].map(|name| sandbox.path().join(name));
    let line = format!(
        "echo ran >>{}; while ! [ -e {} ]; do sleep 0.02; done; echo done",
        started.display(),
        go.display()
    );
    let start = as_user("root", start_call(sandbox.id(), sh(&line)));
    let reply = std::thread::scope(|threads| {
        let waiting = threads.spawn(|| accounts.deliver(&sandbox, &start));
        eventually("it runs", || started.exists());
        // sudo hands the signal on to the shim that waits; the command and its supervisor are on their own
        let shim = sandbox.shim();
        let pattern = format!("^/usr/bin/sudo -n -- {} run --sudo", shim.display());
        let ended = Command::new("pkill").args(["-TERM", "-f", &pattern]).status().unwrap();
        assert!(ended.success(), "there was a sudo to end");
        fs::write(&go, "").unwrap();
        waiting.join().unwrap()
    });
    assert_eq!(stdout(reply), "done\n");
    assert_eq!(fs::read_to_string(&started).unwrap(), "ran\n");
}

#[test]
fn a_timeout_reaches_what_a_command_started_through_sudo() {
    let Some(accounts) = Accounts::new("ALL=(ALL) NOPASSWD: ALL") else { return };
    let sandbox = accounts.sandbox();
    let file = sandbox.path().join("pid");
    let inner = format!("trap \"\" TERM; echo $$ >{}; while :; do sleep 600; done", file.display());
    let start = Start { timeout: Some(Duration::from_secs(2)), ..sh(&format!("sudo -n sh -c '{inner}'")) };
    let ended = finished(accounts.deliver(&sandbox, &Call { wait: LONG, ..start_call(sandbox.id(), start) }));
    assert!(ended.timed_out);
    let pid = fs::read_to_string(file).unwrap();
    assert!(!crate::sandbox::is_alive(pid.trim().parse().unwrap()));
}

#[test]
fn reading_as_root_honours_the_owners_wish() {
    let sandbox = Sandbox::new();
    let file = sandbox.path().join("file");
    fs::write(&file, b"a\0\xff").unwrap();
    let read = |path: &Path| {
        let output = Command::new(sandbox.shim()).arg("read").arg(path).output().unwrap();
        (output.status.code().unwrap(), output.stdout, String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(read(&file), (0, b"a\0\xff".to_vec(), String::new()));
    fs::set_permissions(&file, Permissions::from_mode(0o244)).unwrap();
    let (code, out, err) = read(&file);
    assert_eq!((code, out.len(), err.lines().count()), (13, 0, 1), "{err}");
    assert!(err.contains("Permission denied"));
    assert_eq!(read(sandbox.path()).0, 21);
    assert_eq!(read(&sandbox.path().join("none")).0, 2);
    let fifo = sandbox.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    assert_eq!(read(&fifo).0, 13);
}

#[test]
fn the_program_knows_its_version() {
    let sandbox = Sandbox::new();
    let output = Command::new(sandbox.shim()).arg("version").output().unwrap();
    assert_eq!(output.stdout, concat!(env!("CARGO_PKG_VERSION"), "\n").as_bytes());
    assert_eq!(Command::new(sandbox.shim()).arg("nonsense").output().unwrap().status.code(), Some(64));
}
