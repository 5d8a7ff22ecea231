//! What a command reads and writes arrives byte for byte.

use std::fs;

use inspect_daytona::shim::protocol::{End, Kept, Reply, Start, Stdin};

use crate::sandbox::{Sandbox, bytes, command, finished, outcome, sh, shells, start_call, stdout};

#[test]
fn every_shell_carries_separate_exact_streams() {
    let sandbox = Sandbox::new();
    for shell in shells() {
        let start = sh(r"printf 'a\000\377\r\nno end'; printf 'e\r\n\001' >&2; exit 7");
        let ended = finished(sandbox.deliver_by(&shell, &start_call(sandbox.id(), start)));
        assert_eq!(ended.end, End::Exited(7), "{shell:?}");
        assert_eq!(bytes(&ended.stdout), b"a\0\xff\r\nno end", "{shell:?}");
        assert_eq!(bytes(&ended.stderr), b"e\r\n\x01", "{shell:?}");
        assert_eq!((ended.stdout.total, ended.timed_out, ended.killed), (11, false, false));
    }
}

#[test]
fn every_byte_passes_through_stdin_arguments_and_variables() {
    let sandbox = Sandbox::new();
    let all: Vec<u8> = (0..=255).collect();
    for shell in shells() {
        let mut start = sh(r#"cat; printf %s "$1" "$ALL""#);
        start.stdin = Stdin::Inline(all.clone());
        start.argv.extend([b"sh".to_vec(), all[1..].to_vec()]);
        start.env.push((b"ALL".to_vec(), all[1..].to_vec()));
        let ended = finished(sandbox.deliver_by(&shell, &start_call(sandbox.id(), start)));
        assert_eq!(bytes(&ended.stdout), [&all, &all[1..], &all[1..]].concat(), "{shell:?}");
    }
}

#[test]
fn no_stdin_and_empty_stdin_are_at_their_end() {
    let sandbox = Sandbox::new();
    let probe = "wc -c; readlink /proc/self/fd/0";
    let nothing = sandbox.run(sh(probe));
    assert_eq!(stdout(nothing), "0\n/dev/null\n");
    let empty = sandbox.run(Start { stdin: Stdin::Inline(Vec::new()), ..sh(probe) });
    assert!(stdout(empty).starts_with("0\npipe:"));
}

#[test]
fn a_mebibyte_of_inline_stdin_goes_through_a_filter() {
    let sandbox = Sandbox::new();
    let input: Vec<u8> = (0..1_u32 << 18).flat_map(u32::to_le_bytes).collect();
    let start = Start { stdin: Stdin::Inline(input.clone()), ..command(["cat"]) };
    // As a file: bash and zsh read scripts slowly.
    let file = sandbox.path().join("call");
    let ended = finished(sandbox.deliver_file(&start_call(sandbox.id(), start), &file, true));
    assert!(bytes(&ended.stdout) == input, "the bytes differ");
    assert!(!file.exists(), "the uploaded call must be deleted");
}

#[test]
fn a_command_may_close_its_stdin_early() {
    let sandbox = Sandbox::new();
    let start = Start { stdin: Stdin::Inline(vec![b'x'; 1 << 20]), ..sh("exec <&-; echo done") };
    assert_eq!(stdout(sandbox.run(start)), "done\n");
}

#[test]
fn fifty_mebibytes_of_stdin_come_from_a_file_that_is_deleted() {
    let sandbox = Sandbox::new();
    let file = sandbox.path().join("it's input");
    fs::write(&file, vec![7; 50 << 20]).unwrap();
    let stdin = Stdin::File(file.to_str().unwrap().into());
    assert_eq!(stdout(sandbox.run(Start { stdin, ..command(["wc", "-c"]) })), "52428800\n");
    assert!(!file.exists());
}

#[test]
fn a_missing_stdin_file_is_refused() {
    let sandbox = Sandbox::new();
    let reply = sandbox.run(Start { stdin: Stdin::File(b"/nowhere/input".to_vec()), ..command(["cat"]) });
    assert!(
        matches!(&reply, Reply::Refused(refusal) if refusal.message.contains("/nowhere/input")),
        "{reply:?}"
    );
}

#[test]
fn a_mebibyte_of_arguments_arrives_by_file() {
    let sandbox = Sandbox::new();
    let mut start = command(["printf", "%s"]);
    start.argv.extend((0..16).map(|number| vec![b'a' + number; 64 << 10]));
    let expected = start.argv[2..].concat();
    let ended =
        finished(sandbox.deliver_file(&start_call(sandbox.id(), start), &sandbox.path().join("call"), true));
    assert!(bytes(&ended.stdout) == expected, "the arguments differ");
}

#[test]
fn the_last_bytes_of_an_endless_output_are_kept() {
    let sandbox = Sandbox::new();
    let script = "head -c 30000000 /dev/zero; printf 'the end'; printf 123456 >&2";
    let ended = finished(sandbox.run(Start { output_limit: 1000, ..sh(script) }));
    let kept = bytes(&ended.stdout);
    assert_eq!((ended.stdout.total, kept.len()), (30_000_007, 1000));
    assert!(kept.ends_with(b"\0the end"));
    assert_eq!((bytes(&ended.stderr), ended.stderr.total), (b"123456".as_slice(), 6));
    let nothing = finished(sandbox.run(Start { output_limit: 0, ..sh("echo hello") }));
    assert_eq!((bytes(&nothing.stdout), nothing.stdout.total), (b"".as_slice(), 6));
}

#[test]
fn large_outputs_stay_files_until_acknowledged() {
    let sandbox = Sandbox::new();
    let id = sandbox.id();
    let start = Start { inline_limit: 1000, ..sh("head -c 2000000 /dev/zero; echo small >&2") };
    let ended = finished(sandbox.deliver(&start_call(id, start)));
    assert_eq!(bytes(&ended.stderr), b"small\n");
    let Kept::File { path, len } = &ended.stdout.kept else { panic!("inline: {ended:?}") };
    let path = std::str::from_utf8(path).unwrap();
    assert_eq!(*len, 2_000_000);
    assert!(fs::read(path).unwrap() == vec![0; 2_000_000]);
    let mut next = start_call(sandbox.id(), command(["true"]));
    next.acks.push(id);
    sandbox.deliver(&next);
    assert!(!fs::exists(path).unwrap());
}

#[test]
fn streams_can_be_opened_by_name() {
    let sandbox = Sandbox::new();
    let (_, out, err) =
        outcome(sandbox.run(sh("echo a >/dev/stdout; echo b >/dev/stderr; echo c >/dev/stdout")));
    assert_eq!((out.as_str(), err.as_str()), ("a\nc\n", "b\n"));
}
