//! How commands end: by themselves, at their timeout, by a kill; and who survives them.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use inspect_daytona::shim::protocol::{Action, End, Start, script};

use crate::sandbox::{
    LONG, Sandbox, bytes, call, command, eventually, finished, is_alive, marked, outcome, sh, start_call,
    stdout,
};

const SECOND: Duration = Duration::from_secs(1);

fn within(timeout: Duration, start: Start) -> Start {
    Start { timeout: Some(timeout), ..start }
}

#[test]
fn a_signal_death_is_told_from_an_exit() {
    let sandbox = Sandbox::new();
    assert_eq!(outcome(sandbox.run(sh("kill -TERM $$"))).0, End::Signaled(15));
    assert_eq!(outcome(sandbox.run(sh("exit 143"))).0, End::Exited(143));
    let quick = finished(sandbox.run(within(LONG, sh("kill -TERM $$"))));
    assert_eq!((quick.timed_out, quick.end.code()), (false, 143));
}

#[test]
fn a_timeout_kills_the_whole_tree_and_keeps_what_was_written() {
    let sandbox = Sandbox::new();
    let id = sandbox.id();
    let script = r#"
        echo partial; echo problem >&2
        setsid sleep 600 &
        (setsid sh -c 'sleep 600 & exec sleep 600' &)
        (trap '' TERM; while :; do sleep 600; done) &
        sh -c 'trap "" TERM HUP INT; kill -STOP $$' &
        env -i setsid sleep 600 &
        trap '' TERM
        while :; do sleep 600; done
    "#;
    let began = Instant::now();
    let ended = finished(sandbox.deliver(&start_call(id, within(SECOND, sh(script)))));
    assert!(ended.timed_out && !ended.killed);
    assert_eq!(ended.end, End::Signaled(9));
    assert_eq!(
        (bytes(&ended.stdout), bytes(&ended.stderr)),
        (b"partial\n".as_slice(), b"problem\n".as_slice())
    );
    assert_eq!(marked(id), [0; 0]);
    assert!(began.elapsed() < LONG);
}

#[test]
fn a_timeout_finds_what_dropped_its_marker() {
    let sandbox = Sandbox::new();
    let file = sandbox.path().join("pid");
    let script = format!("env -i setsid sh -c 'echo $$ >{}; exec sleep 600' & wait", file.display());
    assert!(finished(sandbox.run(within(SECOND, sh(&script)))).timed_out);
    let pid: u32 = fs::read_to_string(file).unwrap().trim().parse().unwrap();
    assert!(!is_alive(pid));
}

#[test]
fn a_command_that_ends_on_request_is_not_killed_hard() {
    let sandbox = Sandbox::new();
    let script = "trap 'echo goodbye; exit 3' TERM; sleep 600 & wait";
    let ended = finished(sandbox.run(within(Duration::from_millis(300), sh(script))));
    assert_eq!((ended.timed_out, ended.end), (true, End::Exited(3)));
    assert_eq!(bytes(&ended.stdout), b"goodbye\n");
}

#[test]
fn a_kill_ends_a_command_for_all_who_wait() {
    let sandbox = Sandbox::new();
    let id = sandbox.spawn(sh("echo before; sleep 600 & wait"));
    eventually("it runs", || marked(id).len() == 2);
    let (waiter, killer) = thread::scope(|scope| {
        let waiter = scope.spawn(|| sandbox.deliver(&call(id, Action::Attach)));
        let killer = sandbox.deliver(&call(id, Action::Kill));
        (waiter.join().unwrap(), killer)
    });
    assert_eq!(waiter, killer);
    let ended = finished(killer);
    assert!(ended.killed && !ended.timed_out);
    assert_eq!(bytes(&ended.stdout), b"before\n");
    assert_eq!(marked(id), [0; 0]);
}

#[test]
fn a_kill_after_the_end_changes_nothing() {
    let sandbox = Sandbox::new();
    let id = sandbox.id();
    let first = sandbox.deliver(&start_call(id, sh("echo done")));
    assert_eq!(sandbox.deliver(&call(id, Action::Kill)), first);
}

#[test]
fn a_background_child_that_holds_the_streams_neither_blocks_nor_dies() {
    let sandbox = Sandbox::new();
    let id = sandbox.id();
    let file = sandbox.path().join("heartbeat");
    let script =
        format!("(while sleep 0.02; do echo beat; echo beat >>{}; done) & echo started", file.display());
    let (end, out, _) = outcome(sandbox.deliver(&start_call(id, sh(&script))));
    assert_eq!(end, End::Exited(0));
    assert!(out.contains("started\n"), "{out}");
    let beats = || fs::read_to_string(&file).unwrap_or_default().lines().count();
    let before = beats();
    eventually("it goes on writing", || beats() > before + 5);
    assert!(!marked(id).is_empty());
}

#[test]
fn a_daemon_survives_and_a_later_timeout_leaves_it_alone() {
    let sandbox = Sandbox::new();
    let id = sandbox.id();
    let start = sh("setsid sleep 600 >/dev/null 2>&1 & nohup sleep 600 >/dev/null 2>&1 & echo up");
    assert_eq!(stdout(sandbox.deliver(&start_call(id, start))), "up\n");
    assert!(finished(sandbox.run(within(Duration::from_millis(100), command(["sleep", "600"])))).timed_out);
    assert_eq!(marked(id).len(), 2);
}

#[test]
fn a_transport_that_is_killed_does_not_take_the_command_along() {
    let sandbox = Sandbox::new();
    let id = sandbox.id();
    let gate = sandbox.path().join("gate");
    let start = sh(&format!("while [ ! -e {} ]; do sleep 0.02; done; echo survived", gate.display()));
    let mut shell = Command::new("sh");
    shell.process_group(0).current_dir(sandbox.path()).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut toolbox = shell.spawn().unwrap();
    let delivery = script(sandbox.shim().to_str().unwrap(), &start_call(id, start));
    toolbox.stdin.take().unwrap().write_all(delivery.as_bytes()).unwrap();
    eventually("the command runs", || !marked(id).is_empty());
    for signal in ["-HUP", "-TERM", "-KILL"] {
        drop(Command::new("kill").args([signal, "--", &format!("-{}", toolbox.id())]).output());
    }
    toolbox.wait().unwrap();
    fs::write(&gate, "").unwrap();
    assert_eq!(stdout(sandbox.deliver(&call(id, Action::Attach))), "survived\n");
}

#[test]
fn no_process_of_the_shim_outlives_its_command() {
    let sandbox = Sandbox::new();
    let shim = sandbox.shim();
    for _ in 0..3 {
        assert_eq!(stdout(sandbox.run(command(["echo", "hello"]))), "hello\n");
    }
    let running = || {
        let mut processes = fs::read_dir("/proc").unwrap().flatten();
        processes
            .any(|process| fs::read_link(process.path().join("exe")).is_ok_and(|program| program == shim))
    };
    eventually("all supervisors are gone", || !running());
}

#[test]
fn output_written_just_before_the_end_is_complete() {
    let sandbox = Sandbox::new();
    for _ in 0..20 {
        let ended = finished(sandbox.run(sh("head -c 200000 /dev/zero; sleep 600 & exit 0")));
        assert_eq!(ended.stdout.total, 200_000);
    }
}
