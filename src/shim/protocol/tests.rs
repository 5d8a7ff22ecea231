use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn id() -> impl Strategy<Value = ExecId> {
    any::<[u8; 16]>().prop_map(ExecId::from_bytes)
}

fn duration() -> impl Strategy<Value = Duration> {
    (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos))
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..200)
}

fn stdin() -> impl Strategy<Value = Stdin> {
    prop_oneof![Just(Stdin::Null), bytes().prop_map(Stdin::Inline), bytes().prop_map(Stdin::File)]
}

fn start() -> impl Strategy<Value = Start> {
    let limits = (any::<u64>(), any::<u64>());
    let words = (vec(bytes(), 0..5), vec((bytes(), bytes()), 0..5), proptest::option::of(bytes()));
    (words, stdin(), proptest::option::of(duration()), limits).prop_map(
        |((argv, env, cwd), stdin, timeout, (output_limit, inline_limit))| Start {
            argv,
            env,
            cwd,
            stdin,
            timeout,
            output_limit,
            inline_limit,
        },
    )
}

fn call() -> impl Strategy<Value = Call> {
    let action = prop_oneof![
        start().prop_map(|start| Action::Start(Box::new(start))),
        Just(Action::Attach),
        Just(Action::Kill),
        (bytes(), any::<u64>(), any::<u64>()).prop_map(|(path, limit, inline_limit)| Action::Read(Box::new(
            Read { path, limit, inline_limit }
        ))),
    ];
    (id(), duration(), vec(id(), 0..5), proptest::option::of(".*"), action)
        .prop_map(|(id, wait, acks, user, action)| Call { id, wait, acks, user, action })
}

fn output() -> impl Strategy<Value = Output> {
    let kept = prop_oneof![
        bytes().prop_map(Kept::Inline),
        (bytes(), any::<u64>()).prop_map(|(path, len)| Kept::File { path, len }),
    ];
    (any::<u64>(), kept).prop_map(|(total, kept)| Output { total, kept })
}

fn reply() -> impl Strategy<Value = Reply> {
    let end = prop_oneof![any::<u8>().prop_map(End::Exited), any::<u8>().prop_map(End::Signaled)];
    let finished = (end, any::<bool>(), any::<bool>(), output(), output()).prop_map(
        |(end, timed_out, killed, stdout, stderr)| {
            Reply::Finished(Finished { end, timed_out, killed, stdout, stderr })
        },
    );
    let kind = prop_oneof![
        Just(RefusalKind::ProgramNotFound),
        Just(RefusalKind::PermissionDenied),
        Just(RefusalKind::WorkingDirectory),
        Just(RefusalKind::UnknownUser),
        Just(RefusalKind::UserUnsupported),
        Just(RefusalKind::System),
        Just(RefusalKind::Unavailable),
        Just(RefusalKind::Execution),
        Just(RefusalKind::Lacking),
    ];
    prop_oneof![
        finished,
        Just(Reply::Pending),
        ".*".prop_map(Reply::Lost),
        Just(Reply::Collected),
        (kind, ".*").prop_map(|(kind, message)| Reply::Refused(Refusal { kind, message })),
    ]
}

proptest! {
    #[test]
    fn a_call_survives_encoding(call in call()) {
        let encoded = call.encode();
        prop_assert_eq!(Call::id_of(&encoded), Some(call.id));
        prop_assert_eq!(Call::decode(&encoded), Ok(call));
    }

    #[test]
    fn a_reply_survives_encoding(reply in reply()) {
        prop_assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
    }

    #[test]
    fn a_cut_record_is_refused(call in call(), reply in reply(), cut in 0.0..1.0_f64) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss,
                 reason = "a position within a short record")]
        let shorten = |record: Vec<u8>| record[..(record.len() as f64 * cut) as usize].to_vec();
        prop_assert!(Call::decode(&shorten(call.encode())).is_err());
        prop_assert!(Reply::decode(&shorten(reply.encode())).is_err());
    }

    #[test]
    fn hostile_bytes_decode_without_a_panic_to_something_that_encodes_again(
        mut noise in vec(any::<u8>(), 0..400), versioned in any::<bool>()
    ) {
        if versioned && let Some(first) = noise.first_mut() {
            *first = 2;
        }
        if let Ok(call) = Call::decode(&noise) {
            prop_assert_eq!(Call::decode(&call.encode()), Ok(call));
        }
        if let Ok(reply) = Reply::decode(&noise) {
            prop_assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
        }
    }

    #[test]
    fn a_damaged_record_never_panics(call in call(), at in any::<prop::sample::Index>(), with in any::<u8>()) {
        let mut encoded = call.encode();
        let at = at.index(encoded.len());
        encoded[at] = with;
        let _ = Call::decode(&encoded);
    }

    #[test]
    fn a_frame_is_found_amid_noise_glued_to_it(id in id(), reply in reply(), before in ".*", after in ".*") {
        let text = format!("{before}{}{after}", reply.frame(id));
        prop_assert_eq!(find_reply(&text, id), Some(reply));
    }

    #[test]
    fn a_frame_of_another_exec_is_not_taken(one in id(), other in id(), reply in reply()) {
        prop_assume!(one != other);
        prop_assert_eq!(find_reply(&reply.frame(other), one), None);
    }

    #[test]
    fn noise_is_no_reply(id in id(), noise in ".*") {
        prop_assert_eq!(find_reply(&noise, id), None);
    }

    #[test]
    fn a_cut_frame_is_no_reply(id in id(), reply in reply(), cut in any::<prop::sample::Index>()) {
        let frame = reply.frame(id);
        let whole = frame.trim_end().len();
        prop_assert_eq!(find_reply(&frame[..cut.index(whole)], id), None);
    }

    #[test]
    fn an_id_is_read_back_from_its_name(id in id()) {
        prop_assert_eq!(id.to_string().parse(), Ok(id));
    }
}

const ID: ExecId = ExecId::from_bytes([7; 16]);

#[test]
fn names_that_are_no_ids_are_refused() {
    for name in ["", "07", "+7070707070707070707070707070707", "../../../../../../../../etc/passwd"] {
        assert_eq!(name.parse::<ExecId>(), Err(DecodeError::Invalid("exec id")), "{name}");
    }
    assert!(ID.to_string().to_uppercase().parse::<ExecId>().is_ok(), "digits alone have no case");
    assert!("0A".repeat(16).parse::<ExecId>().is_err());
}

#[test]
fn a_huge_count_allocates_nothing() {
    let mut record =
        Call { id: ID, wait: Duration::ZERO, acks: vec![], user: None, action: Action::Kill }.encode();
    // The number of acknowledgements follows the version, the id and the two parts of the duration.
    record.splice(19..20, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
    assert_eq!(Call::decode(&record), Err(DecodeError::Truncated));
}

#[test]
fn another_version_is_named() {
    assert_eq!(Reply::decode(&[9, 1]), Err(DecodeError::Version(9)));
    assert_eq!(Reply::decode(&[2, 1, 0]), Err(DecodeError::Trailing));
}

#[test]
fn the_last_intact_frame_counts() {
    let broken = Reply::Collected.frame(ID).replace('>', "");
    let text = format!("{}{}{broken}", Reply::Collected.frame(ID), Reply::Pending.frame(ID));
    assert_eq!(find_reply(&text, ID), Some(Reply::Pending));
}

#[test]
fn a_flipped_character_is_noticed() {
    let frame = Reply::Lost("A".repeat(30)).frame(ID);
    assert_eq!(find_reply(&frame.replacen("QUFB", "QUFC", 1), ID), None);
}

#[test]
fn debug_output_shows_no_secret() {
    let start = Start {
        argv: vec![b"curl".to_vec(), b"hunter2".to_vec()],
        env: vec![(b"KEY".to_vec(), b"hunter2".to_vec())],
        cwd: None,
        stdin: Stdin::Inline(b"hunter2".to_vec()),
        timeout: None,
        output_limit: 0,
        inline_limit: 0,
    };
    let shown = format!("{start:?}");
    assert!(!shown.contains("hunter2") && shown.contains("curl"), "{shown}");
}

#[test]
fn the_script_quotes_paths() {
    let call = Call { id: ID, wait: Duration::ZERO, acks: vec![], user: None, action: Action::Attach };
    assert!(script("/tmp/it's/shim", &call).ends_with(
        r" | '/tmp/it'\''s/shim' run
"
    ));
    assert!(script_for_file("/s", "/a b", &call).ends_with(" | '/s' run --call '/a b'\n"));
}
