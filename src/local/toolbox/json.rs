//! JSON as Go's standard library writes it: `<`, `>`, `&` and two line separators are escaped.

use std::io;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::Failure;

/// A JSON answer.
pub(super) fn response(status: StatusCode, value: &impl Serialize) -> Response {
    let mut answer = Response::new(Body::from(to_vec(value)));
    *answer.status_mut() = status;
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, json);
    answer
}

/// Writes a value. Our own types have string keys and no failing parts, so it cannot fail.
pub(super) fn to_vec(value: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::new();
    let written = value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, GoFormatter));
    debug_assert!(written.is_ok(), "a wire type does not serialize");
    out
}

/// Reads a request body. As in Go, the content type does not matter, and neither does what follows the first value.
pub(super) fn from_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    T::deserialize(&mut serde_json::Deserializer::from_slice(body)).map_err(Failure::invalid_body)
}

/// Text of bytes: every invalid byte becomes U+FFFD, one each.
pub(super) fn text(bytes: Vec<u8>) -> String {
    match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let bytes = error.into_bytes();
            let mut text = String::with_capacity(bytes.len());
            for chunk in bytes.utf8_chunks() {
                text.push_str(chunk.valid());
                text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
            }
            text
        }
    }
}

struct GoFormatter;

impl serde_json::ser::Formatter for GoFormatter {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (plain, special) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let mut characters = special.chars();
            if let Some(character) = characters.next() {
                write!(writer, "\\u{:04x}", u32::from(character))?;
            }
            rest = characters.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_escaped_as_go_does() {
        assert_eq!(to_vec(&"a<b>&\u{2028}c\0\"é"), br#""a\u003cb\u003e\u0026\u2028c\u0000\""#.to_vec().into_iter().chain("é\"".bytes()).collect::<Vec<_>>());
    }

    #[test]
    fn each_invalid_byte_is_replaced_by_itself() {
        // the first two bytes of a three-byte sequence are two invalid bytes
        assert_eq!(text(b"a\xe2\x82b\xff".to_vec()), "a\u{fffd}\u{fffd}b\u{fffd}");
    }
}
