//! Query parameters as bytes, since a path need not be UTF-8.

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

/// The query of a request.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(Vec<u8>, Vec<u8>)>);

impl Query {
    /// The first non-empty value of a parameter.
    pub(super) fn path(&self, name: &str) -> Option<OsString> {
        self.bytes(name).map(|value| OsString::from_vec(value.to_vec()))
    }

    /// The same as text.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.bytes(name).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    fn bytes(&self, name: &str) -> Option<&[u8]> {
        let first = self.0.iter().find(|(key, _)| key == name.as_bytes());
        first.map(|(_, value)| value.as_slice()).filter(|value| !value.is_empty())
    }
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parse(parts.uri.query().unwrap_or_default()))
    }
}

fn parse(query: &str) -> Query {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    Query(
        pairs
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decode(name), decode(value))
            })
            .collect(),
    )
}

/// Percent decoding; what is no valid escape stays as it is.
fn decode(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                decoded.push(digit(*high) << 4 | digit(*low));
                rest = after;
            }
            (b'+', _) => decoded.push(b' '),
            (byte, _) => decoded.push(*byte),
        }
    }
    decoded
}

fn digit(hex: u8) -> u8 {
    match hex {
        b'0'..=b'9' => hex - b'0',
        b'a'..=b'f' => hex - b'a' + 10,
        _ => hex - b'A' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn values_are_bytes_and_the_first_one_counts() {
        let query = parse("path=%2Fa%20b+c%ff%zz&path=x&empty=");
        assert_eq!(query.bytes("path"), Some(&b"/a b c\xff%zz"[..]));
        assert_eq!(query.text("empty"), None);
    }
}
