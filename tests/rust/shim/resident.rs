//! The shim that is resident in a container, and the relay that must trust nobody in there.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use inspect_daytona::shim::protocol::{
    Action, Call, End, Finished, Kept, Output, Read, RefusalKind, Reply, Stdin, find_reply,
};

use crate::container::{Container, has_namespaces};
use crate::sandbox::{
    bytes, call, command, eventually, finished, marked, outcome, refusal, sh, start_call, stdout,
};

/// Every byte, many times.
fn binary(length: usize) -> Vec<u8> {
    (0..=255).cycle().take(length).collect()
}

fn read(container: &Container, path: &Path, limit: u64) -> Finished {
    let path = path.to_str().unwrap().as_bytes().to_vec();
    let action = Action::Read(Box::new(Read { path, limit, inline_limit: 1 << 20 }));
    finished(container.deliver(&call(container.machine.id(), action)))
}

fn file(output: &Output) -> (&Path, u64) {
    match &output.kept {
        Kept::File { path, len } => (Path::new(std::str::from_utf8(path).unwrap()), *len),
        Kept::Inline(_) => panic!("not a file: {output:?}"),
    }
}

#[test]
fn a_command_runs_in_the_container_and_one_resident_serves_all() {
    if !has_namespaces() {
        return;
    }
    let container = Container::new();
    let inside = fs::read_to_string(container.path("ready")).unwrap();
    assert_eq!(stdout(container.run(command(["readlink", "/proc/self/ns/pid"]))), inside);
    let mut cat = command(["cat"]);
    cat.stdin = Stdin::Inline(binary(60_000));
    assert_eq!(bytes(&finished(container.run(cat)).stdout), binary(60_000));
    let (end, out, err) = outcome(container.run(sh("echo out; echo err >&2; exit 3")));
    assert_eq!((end, out.as_str(), err.as_str()), (End::Exited(3), "out\n", "err\n"));
    assert_eq!(container.starts(), 1);
}

#[test]
fn each_user_has_a_resident_that_is_that_user() {
    if !has_namespaces() {
        return;
    }
    let container = Container::new();
    assert_eq!(stdout(container.run(sh("id -u"))), "0\n");
    let mut to = container.to.clone();
    to.name = crate::sandbox::new_id().to_string();
    let as_nobody = |script| {
        let call = start_call(container.machine.id(), sh(script));
        Call { user: Some("65534".into()), ..call }
    };
    let call = as_nobody("id -u; id -g; grep CapEff /proc/self/status");
    let reply = find_reply(&container.relay_to(&to, &call), call.id).unwrap();
    assert_eq!(stdout(reply), "65534\n65534\nCapEff:\t0000000000000000\n");
    let unknown = Call { user: Some("nosuch".into()), ..as_nobody("true") };
    to.name = crate::sandbox::new_id().to_string();
    let refusal = refusal(find_reply(&container.relay_to(&to, &unknown), unknown.id).unwrap());
    assert_eq!(refusal.kind, RefusalKind::UnknownUser);
    assert!(refusal.message.contains("nosuch"), "{}", refusal.message);
}

#[test]
fn a_command_runs_once_and_its_result_is_found_although_the_resident_died() {
    if !has_namespaces() {
        return;
    }
    let container = Container::new();
    let (trace, go) = (container.path("trace"), container.path("go"));
    let script = format!(
        "echo run >>{0}; while ! [ -e {1} ]; do sleep 0.01; done; echo done",
        trace.display(),
        go.display()
    );
    let start = start_call(container.machine.id(), sh(&script));
    assert_eq!(container.deliver(&Call { wait: Duration::ZERO, ..start.clone() }), Reply::Pending);
    eventually("it runs", || trace.exists());
    container.kill_resident();
    fs::write(go, "").unwrap();
    assert_eq!(stdout(container.deliver(&start)), "done\n", "delivered again");
    container.kill_resident();
    assert_eq!(stdout(container.deliver(&start.attach())), "done\n", "asked about");
    assert_eq!(fs::read_to_string(trace).unwrap(), "run\n");
    assert_eq!(container.starts(), 3);
}

#[test]
fn a_command_whose_supervisor_died_is_lost_and_not_run_again() {
    if !has_namespaces() {
        return;
    }
    let container = Container::new();
    let trace = container.path("trace");
    let start = start_call(container.machine.id(), sh(&format!("echo run >>{}; sleep 300", trace.display())));
    assert_eq!(container.deliver(&Call { wait: Duration::ZERO, ..start.clone() }), Reply::Pending);
    eventually("it runs", || trace.exists());
    container.kill_shims();
    assert!(matches!(container.deliver(&start), Reply::Lost(_)));
    assert_eq!(fs::read_to_string(trace).unwrap(), "run\n");
}

#[test]
fn large_inputs_and_outputs_are_passed_as_descriptors_and_removed_when_received() {
    if !has_namespaces() {
        return;
    }
    let container = Container::new();
    let input = container.machine.path().join("in");
    fs::write(&input, binary(5_000_000)).unwrap();
    let mut cat = sh("cat; cat /dev/stdin");
    cat.stdin = Stdin::File(input.to_str().unwrap().into());
    cat.inline_limit = 1000;
    let start = start_call(container.machine.id(), cat);
    let reply = finished(container.deliver(&start));
    let (path, len) = file(&reply.stdout);
    assert_eq!((path.parent(), len), (Some(container.machine.path()), 10_000_000), "a file of the machine");
    assert!(fs::read(path).unwrap() == [binary(5_000_000), binary(5_000_000)].concat(), "exact bytes");
    assert!(!input.exists(), "the input was consumed");
    assert_eq!(finished(container.deliver(&start)), reply, "delivered again");
    let ack = Call { acks: vec![start.id], ..start_call(container.machine.id(), sh("true")) };
    container.deliver(&ack);
    assert!(!path.exists() && !container.state().join(start.id.to_string()).exists(), "both are removed");
}

#[test]
fn what_is_no_file_any_more_is_not_copied() {
    if !has_namespaces() {
        return;
    }
    let container = Container::new();
    let mut zeros = command(["head", "-c", "5000", "/dev/zero"]);
    zeros.inline_limit = 10;
    let start = start_call(container.machine.id(), zeros);
    assert_eq!(file(&finished(container.deliver(&start)).stdout).1, 5000);
    let stored = container.state().join(start.id.to_string()).join("stdout");
    fs::remove_file(&stored).unwrap();
    symlink("/etc", &stored).unwrap();
    let reply = container.deliver(&start);
    assert!(matches!(&reply, Reply::Lost(why) if why.contains("no regular file")), "{reply:?}");
}

#[test]
fn a_command_that_deletes_the_residents_state_is_not_run_again() {
    if !has_namespaces() {
        return;
    }
    let container = Container::new();
    let trace = container.path("trace");
    let script = format!("echo run >>{}; rm -rf {}", trace.display(), container.state().display());
    let start = start_call(container.machine.id(), sh(&script));
    assert_eq!(stdout(container.deliver(&start)), "");
    assert_eq!(stdout(container.deliver(&start)), "", "delivered again, to a new resident");
    assert_eq!(fs::read_to_string(trace).unwrap(), "run\n");
    assert_eq!(container.starts(), 2);
}

#[test]
fn files_are_read_as_the_container_sees_them() {
    if !has_namespaces() {
        return;
    }
    let container = Container::new();
    let (small, large) = (container.path("small"), container.path("large"));
    fs::write(&small, b"a\0\xff").unwrap();
    fs::write(&large, binary(3_000_000)).unwrap();
    assert_eq!(bytes(&read(&container, &small, 10).stdout), b"a\0\xff");
    let reply = read(&container, &large, 10 << 20);
    assert!(fs::read(file(&reply.stdout).0).unwrap() == binary(3_000_000));
    let status = |path: &Path, limit| read(&container, path, limit).end;
    assert_eq!(status(&large, 2_999_999), End::Exited(27), "beyond the limit");
    assert_eq!(status(&small, 2), End::Exited(27), "beyond a small limit");
    assert_eq!(status(&container.path("missing"), 10), End::Exited(2));
    assert_eq!(status(Path::new("/etc"), 10), End::Exited(21));
    let process = read(&container, Path::new("/proc/1/comm"), 100);
    assert_eq!(bytes(&process.stdout), b"sleep\n", "a file without a size, of the container's first process");
}

#[test]
fn a_link_in_place_of_the_socket_leads_nowhere() {
    if !has_namespaces() {
        return;
    }
    let (victim, attacker) = (Container::new(), Container::new());
    stdout(victim.run(sh("true")));
    stdout(attacker.run(sh("true")));
    let trace = victim.path("trace");
    let order = sh(&format!("echo run >>{}", trace.display()));
    let socket = attacker.state().join("socket");
    fs::rename(&socket, attacker.path("own")).unwrap();
    symlink(victim.state().join("socket"), &socket).unwrap();
    let start = start_call(attacker.machine.id(), order.clone());
    let text = attacker.relay(&start);
    assert!(find_reply(&text, start.id).is_none() && text.contains("cannot be reached"), "{text}");
    let directory = attacker.state();
    fs::rename(&directory, attacker.path("moved")).unwrap();
    symlink(victim.state(), &directory).unwrap();
    let start = start_call(attacker.machine.id(), order);
    assert!(find_reply(&attacker.relay(&start), start.id).is_none());
    assert!(!trace.exists(), "nothing ran in the other container");
}

#[test]
fn a_path_in_a_forged_reply_is_not_followed() {
    if !has_namespaces() {
        return;
    }
    let mut container = Container::new();
    container.limit = 1000;
    fs::create_dir(container.state()).unwrap();
    let listener = UnixListener::bind(container.state().join("socket")).unwrap();
    let kept = Kept::File { path: b"/etc/passwd".to_vec(), len: 10 };
    let nothing = Output { total: 0, kept: Kept::Inline(Vec::new()) };
    let forged = Reply::Finished(Finished {
        end: End::Exited(0),
        timed_out: false,
        killed: false,
        stdout: Output { total: 10, kept },
        stderr: nothing,
    });
    let record = forged.encode();
    let hostile = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut header = [0; 5];
        stream.read_exact(&mut header).unwrap();
        let length = u32::from_le_bytes(header[1..].try_into().unwrap());
        (&stream).take(length.into()).read_to_end(&mut Vec::new()).unwrap();
        let length = u32::try_from(record.len()).unwrap().to_le_bytes();
        stream.write_all(&[&[0], length.as_slice(), &record].concat()).unwrap();
    });
    let reply = container.run(sh("true"));
    hostile.join().unwrap();
    assert!(matches!(&reply, Reply::Lost(why) if why.contains("missing")), "{reply:?}");
}

#[test]
fn an_output_beyond_the_limit_is_not_copied() {
    if !has_namespaces() {
        return;
    }
    let mut container = Container::new();
    container.limit = 1000;
    let mut zeros = command(["head", "-c", "5000", "/dev/zero"]);
    zeros.inline_limit = 10;
    let reply = container.run(zeros);
    assert!(matches!(&reply, Reply::Lost(why) if why.contains("larger")), "{reply:?}");
}

#[test]
fn another_user_of_the_container_cannot_take_the_residents_place() {
    if !has_namespaces() {
        return;
    }
    let container = Container::new();
    stdout(container.run(sh("true")));
    let (directory, name) = (&container.to.directory, &container.to.name);
    let attempts = [
        format!("ls {directory}"),
        format!("ls {directory}/{name}"),
        format!("mv {directory}/{name} {directory}/taken"),
        format!("rm -f {directory}/{name}/socket"),
    ];
    for attempt in attempts {
        let said = container.as_nobody(&attempt);
        assert!(said.contains("denied") || said.contains("not permitted"), "{attempt}: {said}");
    }
    assert_eq!(stdout(container.run(sh("echo still"))), "still\n");
    assert_eq!(container.starts(), 1);
}

#[test]
fn a_kill_ends_the_whole_tree_in_the_container() {
    if !has_namespaces() {
        return;
    }
    let container = Container::new();
    let start = start_call(container.machine.id(), sh("setsid sleep 300 & sleep 300"));
    assert_eq!(container.deliver(&Call { wait: Duration::ZERO, ..start.clone() }), Reply::Pending);
    eventually("both sleep", || marked(start.id).len() >= 3);
    let killed = finished(container.deliver(&call(start.id, Action::Kill)));
    assert!(killed.killed);
    assert_eq!(marked(start.id), [0_u32; 0]);
}

#[test]
fn a_container_that_does_not_run_says_how_it_ended() {
    if !has_namespaces() {
        return;
    }
    let container = Container::new();
    stdout(container.run(sh("true")));
    container.stop();
    let refusal = refusal(container.run(sh("true")));
    assert_eq!(refusal.kind, RefusalKind::Unavailable);
    for part in ["exited", "137", "OOMKilled", "last words"] {
        assert!(refusal.message.contains(part), "{part}: {}", refusal.message);
    }
}
