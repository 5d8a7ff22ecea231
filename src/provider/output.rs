//! From bytes of a stream to the text that Inspect gets, within its limit.

/// Decodes the kept tail of a stream. Invalid UTF-8 becomes U+FFFD; everything else stays as it is.
///
/// `truncated` says that bytes before `tail` are missing; a character cut by that is dropped. The result has at most
/// `limit` bytes of UTF-8: a replacement character is longer than the byte it stands for, so a tail within the limit
/// can decode to a text beyond it, which Inspect's own check would refuse.
pub(super) fn decode_tail(tail: &[u8], truncated: bool, limit: u64) -> String {
    let tail = if truncated { skip_continuation(tail) } else { tail };
    let text = String::from_utf8_lossy(tail);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if text.len() <= limit {
        return text.into_owned();
    }
    let mut start = text.len() - limit;
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].to_owned()
}

/// Without the rest of a character whose beginning is cut off (at most three bytes).
fn skip_continuation(bytes: &[u8]) -> &[u8] {
    let cut = bytes.iter().take(3).take_while(|byte| (**byte & 0b1100_0000) == 0b1000_0000).count();
    &bytes[cut..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn line_ends_nul_and_a_missing_final_newline_stay() {
        assert_eq!(decode_tail(b"a\r\nb\0c", false, 100), "a\r\nb\0c");
    }

    #[test]
    fn invalid_bytes_become_replacement_characters() {
        assert_eq!(decode_tail(b"a\xffb", false, 100), "a\u{fffd}b");
    }

    #[test]
    fn a_character_cut_at_the_front_is_dropped_only_where_something_is_missing() {
        let tail = &"é!".as_bytes()[1..];
        assert_eq!(decode_tail(tail, true, 100), "!");
        assert_eq!(decode_tail(tail, false, 100), "\u{fffd}!");
    }

    #[test]
    fn replacement_does_not_grow_a_text_beyond_the_limit() {
        let text = decode_tail(&[0xff; 10], true, 10);
        assert_eq!(text, "\u{fffd}".repeat(3));
    }

    proptest! {
        #[test]
        fn the_text_never_exceeds_the_limit(bytes in proptest::collection::vec(any::<u8>(), 0..200), limit in 0u64..200) {
            prop_assert!(decode_tail(&bytes, true, limit).len() as u64 <= limit);
        }

        #[test]
        fn valid_text_within_the_limit_is_unchanged(text in ".{0,50}") {
            prop_assert_eq!(decode_tail(text.as_bytes(), false, 1000), text);
        }
    }
}
