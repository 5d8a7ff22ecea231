//! The records that provider and shim exchange: noise is refused, what decodes is itself again, and an answer is found
//! among whatever shells print around it.
#![no_main]

use inspect_daytona::shim::protocol::{Call, ExecId, Reply, find_reply};

libfuzzer_sys::fuzz_target!(|input: (&[u8], &str, [u8; 16])| {
    let (bytes, noise, id) = input;
    let id = ExecId::from_bytes(id);
    let _id = Call::id_of(bytes);
    if let Ok(call) = Call::decode(bytes) {
        assert_eq!(Call::decode(&call.encode()).expect("what was encoded"), call);
    }
    let _none = find_reply(noise, id);
    let Ok(reply) = Reply::decode(bytes) else { return };
    assert_eq!(Reply::decode(&reply.encode()).expect("what was encoded"), reply);
    if !noise.contains(&id.to_string()) {
        let text = format!("{noise}\n{}\n{noise}", reply.frame(id));
        assert_eq!(find_reply(&text, id), Some(reply));
    }
});
