//! However often a call is delivered, its command runs at most once.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use inspect_daytona::shim::protocol::{Action, Call, ExecId, RefusalKind, Reply, find_reply, script};

use crate::sandbox::{
    LONG, Sandbox, call, command, eventually, finished, marked, new_id, parent_of, refusal, sh, shells,
    start_call, stdout,
};

/// A command that counts how often it runs.
fn counting(file: &Path) -> inspect_daytona::shim::protocol::Start {
    let mut start = sh(r#"echo ran >>"$0"; sleep 0.2; echo result"#);
    start.argv.push(file.to_str().unwrap().into());
    start
}

fn runs(file: &Path) -> usize {
    fs::read_to_string(file).unwrap_or_default().lines().count()
}

#[test]
fn five_simultaneous_deliveries_run_it_once_and_get_one_answer() {
    let sandbox = Sandbox::new();
    for shell in shells() {
        let id = sandbox.id();
        let counter = sandbox.path().join(id.to_string());
        let start = start_call(id, counting(&counter));
        let replies: Vec<Reply> = thread::scope(|scope| {
            let deliveries: Vec<_> =
                (0..5).map(|_| scope.spawn(|| sandbox.deliver_by(&shell, &start))).collect();
            deliveries.into_iter().map(|delivery| delivery.join().unwrap()).collect()
        });
        assert_eq!(runs(&counter), 1, "{shell:?}");
        assert!(replies.iter().all(|reply| *reply == replies[0]), "{replies:?}");
        assert_eq!(stdout(replies[0].clone()), "result\n");
    }
}

#[test]
fn a_repeat_after_the_end_gets_the_same_result() {
    let sandbox = Sandbox::new();
    let counter = sandbox.path().join("counter");
    let start = start_call(sandbox.id(), counting(&counter));
    let first = sandbox.deliver(&start);
    assert_eq!(sandbox.deliver(&start), first);
    assert_eq!(sandbox.deliver(&call(start.id, Action::Attach)), first);
    assert_eq!(runs(&counter), 1);
}

#[test]
fn a_repeat_after_the_acknowledgement_does_not_run_again() {
    let sandbox = Sandbox::new();
    let counter = sandbox.path().join("counter");
    let start = start_call(sandbox.id(), counting(&counter));
    finished(sandbox.deliver(&start));
    let next = Call { acks: vec![start.id, new_id()], ..start_call(sandbox.id(), command(["true"])) };
    finished(sandbox.deliver(&next));
    for late in [start.clone(), call(start.id, Action::Attach), call(start.id, Action::Kill)] {
        assert_eq!(sandbox.deliver(&late), Reply::Collected);
    }
    assert_eq!(runs(&counter), 1);
}

#[test]
fn a_repeat_of_a_consumed_file_attaches() {
    let sandbox = Sandbox::new();
    let (counter, file) = (sandbox.path().join("counter"), sandbox.path().join("call"));
    let start = start_call(sandbox.id(), counting(&counter));
    let first = sandbox.deliver_file(&start, &file, true);
    assert!(!file.exists());
    assert_eq!(sandbox.deliver_file(&start, &file, false), first);
    assert_eq!(sandbox.deliver_file(&start, &file, true), first, "uploaded again");
    assert!(!file.exists());
    assert_eq!(runs(&counter), 1);
}

#[test]
fn a_call_whose_file_never_arrived_is_refused() {
    let sandbox = Sandbox::new();
    let start = start_call(sandbox.id(), command(["true"]));
    let refusal = refusal(sandbox.deliver_file(&start, &sandbox.path().join("call"), false));
    assert_eq!(refusal.kind, RefusalKind::System);
    assert!(refusal.message.contains("not started"), "{}", refusal.message);
}

#[test]
fn a_long_command_is_pending_until_it_ends() {
    let sandbox = Sandbox::new();
    let gate = sandbox.path().join("gate");
    let id = sandbox.spawn(sh(&format!("while [ ! -e {} ]; do sleep 0.02; done; echo open", gate.display())));
    let attach = call(id, Action::Attach);
    let hurried = Call { wait: Duration::from_millis(50), ..attach.clone() };
    assert_eq!(sandbox.deliver(&hurried), Reply::Pending);
    let last = thread::scope(|scope| {
        let waiter = scope.spawn(|| sandbox.deliver(&attach));
        fs::write(&gate, "").unwrap();
        waiter.join().unwrap()
    });
    assert_eq!(stdout(last), "open\n");
}

#[test]
fn an_unknown_exec_is_lost() {
    let sandbox = Sandbox::new();
    assert!(matches!(sandbox.deliver(&call(new_id(), Action::Attach)), Reply::Lost(_)));
}

#[test]
fn a_command_without_its_supervisor_is_lost_and_never_runs_again() {
    let sandbox = Sandbox::new();
    let counter = sandbox.path().join("counter");
    let mut start = sh(r#"echo ran >>"$0"; exec sleep 600"#);
    start.argv.push(counter.to_str().unwrap().into());
    let again = start_call(sandbox.id(), start);
    assert_eq!(sandbox.deliver(&Call { wait: Duration::ZERO, ..again.clone() }), Reply::Pending);
    eventually("the command runs", || runs(&counter) == 1 && marked(again.id).len() == 1);
    let supervisor = parent_of(marked(again.id)[0]).unwrap();
    let lost = thread::scope(|scope| {
        let waiter = scope.spawn(|| sandbox.deliver(&again));
        let killed = Command::new("kill").args(["-9", &supervisor.to_string()]).status();
        assert!(killed.unwrap().success());
        waiter.join().unwrap()
    });
    assert!(matches!(lost, Reply::Lost(_)), "{lost:?}");
    assert!(matches!(sandbox.deliver(&again), Reply::Lost(_)));
    assert_eq!(runs(&counter), 1);
    assert!(matches!(sandbox.deliver(&call(again.id, Action::Kill)), Reply::Lost(_)));
    assert_eq!(marked(again.id), [0; 0], "a kill finds what the supervisor left");
}

#[test]
fn a_kill_that_overtakes_the_start_prevents_it() {
    let sandbox = Sandbox::new();
    let counter = sandbox.path().join("counter");
    let start = start_call(sandbox.id(), counting(&counter));
    assert_eq!(sandbox.deliver(&call(start.id, Action::Kill)), Reply::Collected);
    assert_eq!(sandbox.deliver(&start), Reply::Collected);
    assert_eq!(runs(&counter), 0);
}

#[test]
fn starts_and_kills_that_cross_never_leave_a_process() {
    let sandbox = Sandbox::new();
    for _ in 0..20 {
        let start = start_call(sandbox.id(), command(["sleep", "600"]));
        let (started, killed) = thread::scope(|scope| {
            let started = scope.spawn(|| sandbox.deliver(&start));
            let killed = scope.spawn(|| sandbox.deliver(&call(start.id, Action::Kill)));
            (started.join().unwrap(), killed.join().unwrap())
        });
        assert_eq!(marked(start.id), [0; 0], "{started:?} {killed:?}");
        match started {
            Reply::Collected => {}
            other => assert!(finished(other).killed),
        }
    }
}

#[test]
fn a_deep_directory_does_not_break_the_socket() {
    let sandbox = Sandbox::at(&"long-directory-name/".repeat(8));
    assert_eq!(stdout(sandbox.run(command(["echo", "deep"]))), "deep\n");
}

#[test]
fn noise_of_the_shell_does_no_harm() {
    let sandbox = Sandbox::new();
    let call = start_call(sandbox.id(), command(["echo", "hello"]));
    let script =
        format!("set -x; printf glued\n{}printf after", script(sandbox.shim().to_str().unwrap(), &call));
    for shell in shells() {
        let text = sandbox.execute(&shell, &script);
        let reply = find_reply(&text, call.id).unwrap_or_else(|| panic!("no reply in {text}"));
        assert_eq!(stdout(reply), "hello\n");
    }
}

#[test]
fn old_tombstones_are_swept_and_young_ones_stay() {
    let sandbox = Sandbox::new();
    let acknowledge = |acks| {
        finished(sandbox.deliver(&Call { acks, ..start_call(sandbox.id(), command(["true"])) }));
    };
    let (old, young) = (new_id(), new_id());
    acknowledge(vec![old, young]);
    let swept = sandbox.find("swept");
    let tombstone = |id: ExecId| swept.with_file_name("done").join(id.to_string());
    let abandoned = swept.with_file_name(".new-abandoned");
    fs::create_dir(&abandoned).unwrap();
    for path in [&swept, &tombstone(old), &abandoned] {
        assert!(Command::new("touch").args(["-d", "2 hours ago"]).arg(path).status().unwrap().success());
    }
    acknowledge(vec![new_id()]);
    assert!(!tombstone(old).exists() && !abandoned.exists());
    assert!(tombstone(young).exists());
}

#[test]
fn an_unreadable_call_is_refused_by_its_id() {
    let sandbox = Sandbox::new();
    let call = Call { wait: LONG, ..start_call(sandbox.id(), command(["true"])) };
    let mut record = call.encode();
    record[0] = 99;
    let file = sandbox.path().join("call");
    fs::write(&file, record).unwrap();
    let refusal = refusal(sandbox.deliver_file(&call, &file, false));
    assert!(refusal.message.contains("version 99"), "{}", refusal.message);
}
