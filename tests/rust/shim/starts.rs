//! How a command starts, and why not.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use inspect_daytona::shim::protocol::{Call, End, RefusalKind, Start, find_reply, script};

use crate::sandbox::{Sandbox, command, has_root, outcome, refusal, sh, start_call, stdout};

fn program(sandbox: &Sandbox, name: &str, text: &str, mode: u32) -> String {
    let path = sandbox.path().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_working_directory_is_the_toolboxs_unless_given() {
    let sandbox = Sandbox::new();
    let here = fs::canonicalize(sandbox.path()).unwrap();
    let sub = here.join("sub directory");
    fs::create_dir(&sub).unwrap();
    let run = |cwd: Option<&str>| {
        stdout(
            sandbox.run(Start { cwd: cwd.map(|cwd| cwd.as_bytes().to_vec()), ..command(["/bin/pwd", "-P"]) }),
        )
    };
    assert_eq!(run(None), format!("{}\n", here.display()));
    assert_eq!(run(Some("sub directory")), format!("{}\n", sub.display()));
    assert_eq!(run(Some("/usr/bin")), format!("{}\n", fs::canonicalize("/usr/bin").unwrap().display()));
}

#[test]
fn a_missing_working_directory_is_named() {
    let sandbox = Sandbox::new();
    for cwd in ["/no/such", "shim"] {
        let refusal = refusal(sandbox.run(Start { cwd: Some(cwd.into()), ..command(["true"]) }));
        assert_eq!(refusal.kind, RefusalKind::WorkingDirectory);
        assert!(refusal.message.contains(cwd), "{}", refusal.message);
    }
}

#[test]
fn a_missing_program_is_named() {
    let sandbox = Sandbox::new();
    for name in ["no-such-program", "/no/such/program", "./nothing", ""] {
        let refusal = refusal(sandbox.run(command([name])));
        assert_eq!(refusal.kind, RefusalKind::ProgramNotFound);
        assert_eq!(refusal.message, format!("{name}: not found"));
    }
}

#[test]
fn what_is_no_program_is_permission_denied() {
    let sandbox = Sandbox::new();
    let data = program(&sandbox, "data", "hello", 0o644);
    for name in ["/etc/passwd", "/etc", data.as_str()] {
        let refusal = refusal(sandbox.run(command([name])));
        assert_eq!(refusal.kind, RefusalKind::PermissionDenied, "{name}");
        assert_eq!(refusal.message, format!("{name}: Permission denied"));
    }
}

#[test]
fn a_script_without_an_interpreter_line_is_run_by_a_shell() {
    let sandbox = Sandbox::new();
    let script = program(&sandbox, "script", "echo \"$1 from $0\"", 0o755);
    assert_eq!(stdout(sandbox.run(command([&script, "hello"]))), format!("hello from {script}\n"));
}

#[test]
fn a_missing_interpreter_is_told_from_a_missing_program() {
    let sandbox = Sandbox::new();
    let script = program(&sandbox, "script", "#!/no/such/shell\n", 0o755);
    let refusal = refusal(sandbox.run(command([&script])));
    assert_eq!(refusal.kind, RefusalKind::ProgramNotFound);
    assert!(refusal.message.contains("interpreter"), "{}", refusal.message);
}

#[test]
fn programs_are_found_through_the_path_of_the_call() {
    let sandbox = Sandbox::new();
    for (place, mode) in [("first", 0o644), ("second", 0o755), ("third", 0o755)] {
        fs::create_dir(sandbox.path().join(place)).unwrap();
        program(&sandbox, &format!("{place}/tool"), &format!("#!/bin/sh\necho {place}"), mode);
    }
    fs::create_dir_all(sandbox.path().join("zeroth/tool")).unwrap();
    let run = |path: &str, cwd: Option<&str>| {
        let mut start = command(["tool"]);
        start.env.push((b"PATH".to_vec(), path.into()));
        start.cwd = cwd.map(Into::into);
        sandbox.run(start)
    };
    assert_eq!(stdout(run("/no:zeroth:first:second:third:/usr/bin", None)), "second\n");
    assert_eq!(
        stdout(run("/usr/bin:", Some("third"))),
        "third\n",
        "an empty element is the working directory"
    );
    assert_eq!(refusal(run("first:/usr/bin", None)).kind, RefusalKind::PermissionDenied);
    assert_eq!(refusal(run("zeroth:/usr/bin", None)).kind, RefusalKind::ProgramNotFound);
}

#[test]
fn variables_are_added_to_the_toolboxs() {
    let sandbox = Sandbox::new();
    let mut start = command(["/usr/bin/env", "-0"]);
    start.env = [("A", "with spaces\nand lines"), ("not a name", "1"), ("B", "old"), ("B", "new")]
        .map(|(name, value)| (name.into(), value.into()))
        .to_vec();
    let call = start_call(sandbox.id(), start);
    let delivery = script(sandbox.shim().to_str().unwrap(), &call);
    let mut shell = Command::new("bash");
    shell.env_clear().env("PATH", "/usr/bin:/bin").env("OF_TOOLBOX", "yes");
    let text = sandbox.execute_as(&mut shell, &delivery);
    let out = stdout(find_reply(&text, call.id).unwrap());
    let mut found: Vec<_> = out.split_terminator('\0').map(str::to_owned).collect();
    found.sort_unstable();
    let here = fs::canonicalize(sandbox.path()).unwrap();
    let mut expected = vec![
        "A=with spaces\nand lines".to_owned(),
        "B=new".to_owned(),
        format!("INSPECT_DAYTONA_EXEC={}", call.id),
        "OF_TOOLBOX=yes".to_owned(),
        "PATH=/usr/bin:/bin".to_owned(),
        format!("PWD={}", here.display()),
        "not a name=1".to_owned(),
    ];
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn arguments_too_long_are_refused_with_a_reason() {
    let sandbox = Sandbox::new();
    let mut start = command(["true"]);
    start.argv.push(vec![b'x'; 200_000]);
    let call = start_call(sandbox.id(), start);
    let refusal = refusal(sandbox.deliver_file(&call, &sandbox.path().join("call"), true));
    assert_eq!(refusal.kind, RefusalKind::Execution);
    assert!(refusal.message.contains("Argument list too long"), "{}", refusal.message);
}

#[test]
fn a_command_starts_with_a_clean_process() {
    let sandbox = Sandbox::new();
    let probe = "grep -E '^(SigBlk|SigIgn)' /proc/self/status; ls /proc/self/fd | wc -l; umask";
    let mut shell = Command::new("bash");
    let call = start_call(sandbox.id(), command(["/usr/bin/dash", "-c", probe]));
    let toolbox = format!(
        "umask 027; exec 7</dev/null; trap '' HUP INT; {}",
        script(sandbox.shim().to_str().unwrap(), &call)
    );
    let text = sandbox.execute_as(&mut shell, &toolbox);
    let out = stdout(find_reply(&text, call.id).unwrap());
    let lines: Vec<_> = out.lines().collect();
    let zero = "0000000000000000";
    assert!(lines[0..2].iter().all(|line| line.ends_with(zero)), "{out}");
    // The three streams and what ls itself opens.
    assert_eq!((lines[2].trim(), lines[3]), ("4", "0027"), "{out}");
}

#[test]
fn a_broken_pipe_kills_a_command_as_usual() {
    let sandbox = Sandbox::new();
    let (end, out, _) = outcome(sandbox.run(command(["bash", "-c", "yes | head -1; exit ${PIPESTATUS[0]}"])));
    assert_eq!((end, out.as_str()), (End::Exited(141), "y\n"));
}

#[test]
fn state_that_cannot_be_written_is_refused() {
    if !has_root("mounting a read-only directory") {
        return;
    }
    let sandbox = Sandbox::new();
    let call = start_call(sandbox.id(), command(["true"]));
    let delivery = script(sandbox.shim().to_str().unwrap(), &call);
    // A file system with room for nothing: every directory needs an inode.
    let toolbox = format!(
        "mkdir {0}/0 && mount -t tmpfs -o nr_inodes=2 none {0}/0 && chmod 700 {0}/0 && mkdir -m 700 {0}/0/done\n{delivery}",
        sandbox.path().display()
    );
    let text = sandbox.execute(&["unshare", "-m", "sh"], &toolbox);
    let refusal = refusal(find_reply(&text, call.id).expect(&text));
    assert_eq!(refusal.kind, RefusalKind::System);
    assert!(refusal.message.contains("No space left"), "{}", refusal.message);
}

#[test]
fn a_sandbox_without_free_processes_refuses_for_good() {
    if !has_root("becoming another user") {
        return;
    }
    let sandbox = Sandbox::new();
    // A user of its own, since the limit counts all processes of a user.
    let user = "54321";
    assert!(Command::new("chown").arg(user).arg(sandbox.path()).status().unwrap().success());
    let call = start_call(sandbox.id(), command(["true"]));
    let delivery = script(sandbox.shim().to_str().unwrap(), &call);
    let deliver = |limit: &str| {
        let mut shell = Command::new("setpriv");
        shell.args(["--reuid", user, "--clear-groups", "bash"]);
        let text = sandbox.execute_as(&mut shell, &format!("ulimit -Su {limit}; {delivery}"));
        refusal(find_reply(&text, call.id).unwrap_or_else(|| panic!("no reply in {text}")))
    };
    // The shell, its printf and the shim itself.
    let first = deliver("3");
    assert_eq!(first.kind, RefusalKind::Lacking);
    assert!(first.message.contains("temporarily unavailable"), "{}", first.message);
    assert_eq!(deliver("100"), first, "a repeat does not run what was refused");
}

#[test]
fn a_result_that_finds_the_disk_full_is_served_from_memory() {
    if !has_root("mounting a small file system") {
        return;
    }
    let sandbox = Sandbox::new();
    let id = sandbox.id();
    let shim = sandbox.shim();
    let text = |call: &Call| script(shim.to_str().unwrap(), call);
    let state = format!("{}/0", sandbox.path().display());
    let fill = sh(&format!("echo result; cat /dev/zero >{state}/fill 2>/dev/null"));
    let start = start_call(id, fill);
    let next = Call { acks: vec![id], ..start_call(sandbox.id(), command(["true"])) };
    let toolbox = format!(
        "mkdir {state} && mount -t tmpfs -o size=64k none {state} && chmod 700 {state}\n{}{}rm {state}/fill\n{}ls -A {state}\n",
        text(&start),
        text(&start),
        text(&next),
    );
    let printed = sandbox.execute(&["unshare", "-m", "sh"], &toolbox);
    assert_eq!(printed.matches("<inspect-daytona ").count(), 3, "{printed}");
    let replies: Vec<_> = printed.lines().filter_map(|line| find_reply(line, id)).collect();
    assert_eq!((replies.len(), &replies[0]), (2, &replies[1]), "a repeat gets the same result");
    assert_eq!(outcome(replies[0].clone()).1, "result\n");
    let (_, left) = printed.rsplit_once('>').unwrap();
    assert!(!left.contains(&id.to_string()), "collected results are removed: {left}");
}
