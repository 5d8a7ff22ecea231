//! Checks the signatures of requests (AWS Signature Version 4), in headers or in the query.

use std::time::{Duration, SystemTime};

use hmac::{Hmac, Mac};
use http::{HeaderMap, Method, Uri};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use super::super::timestamp;
use super::answer::Refusal;

/// How far a clock may be off.
const SKEW: Duration = Duration::from_secs(15 * 60);
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
/// The region that [`super::Storage`] names.
pub(super) const REGION: &str = "us-east-1";

/// What clients sign with.
#[derive(Debug)]
pub(in crate::local::control) struct Credentials {
    pub(in crate::local::control) access_key: String,
    pub(in crate::local::control) secret: SecretString,
    pub(in crate::local::control) session_token: SecretString,
}

/// What a signature consists of, wherever it stands.
struct Signed {
    credential: String,
    headers: String,
    signature: String,
    date: String,
    token: String,
    payload: String,
    lifetime: Duration,
}

/// Checks a request, and returns the SHA-256 that its body must have, if it was signed.
///
/// # Errors
///
/// What S3 says to a request that is not signed, by another key, or differently.
pub(super) fn verify(
    credentials: &Credentials,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    now: SystemTime,
) -> Result<Option<String>, Refusal> {
    let query = pairs(uri.query().unwrap_or_default());
    let signed = if query.iter().any(|(name, _)| name == "X-Amz-Signature") {
        in_query(&query)
    } else {
        in_headers(headers)
    };
    let signed = signed.ok_or_else(|| Refusal::denied("The request is not signed"))?;
    let scope = signed
        .credential
        .strip_prefix(credentials.access_key.as_str())
        .and_then(|scope| scope.strip_prefix('/'));
    let Some(scope) = scope else {
        return Err(Refusal::forbidden("InvalidAccessKeyId", "The access key does not exist"));
    };
    if !same(&signed.token, credentials.session_token.expose_secret()) {
        return Err(Refusal::forbidden("InvalidToken", "The session token is missing or wrong"));
    }
    let day = signed.date.get(..8).unwrap_or_default();
    if scope != format!("{day}/{REGION}/s3/aws4_request") {
        return Err(Refusal::forbidden(
            "AuthorizationHeaderMalformed",
            "The scope of the credential is wrong",
        ));
    }
    check_date(&signed, now)?;
    let canonical = canonical(method, uri.path(), &query, headers, &signed);
    let text = format!("{ALGORITHM}\n{}\n{scope}\n{}", signed.date, hex(&Sha256::digest(canonical)));
    let first = format!("AWS4{}", credentials.secret.expose_secret());
    let key = [day, REGION, "s3", "aws4_request"]
        .iter()
        .fold(first.into_bytes(), |key, part| keyed(&key, part.as_bytes()));
    if !same(&hex(&keyed(&key, text.as_bytes())), &signed.signature) {
        return Err(Refusal::forbidden("SignatureDoesNotMatch", "The signature does not match the request"));
    }
    match signed.payload.as_str() {
        UNSIGNED => Ok(None),
        digest if digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Ok(Some(digest.to_ascii_lowercase()))
        }
        other => Err(Refusal::not_implemented(&format!("Bodies in the form {other} are not supported"))),
    }
}

fn in_headers(headers: &HeaderMap) -> Option<Signed> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let authorization = text("authorization")?;
    let rest = authorization.strip_prefix(ALGORITHM)?;
    let field = |name: &str| {
        let fields = rest.split(',').map(str::trim);
        fields
            .filter_map(|field| field.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
    };
    Some(Signed {
        credential: field("Credential")?,
        headers: field("SignedHeaders")?,
        signature: field("Signature")?,
        date: text("x-amz-date")?,
        token: text("x-amz-security-token").unwrap_or_default(),
        payload: text("x-amz-content-sha256").unwrap_or_else(|| UNSIGNED.to_owned()),
        lifetime: SKEW,
    })
}

fn in_query(query: &[(String, String)]) -> Option<Signed> {
    let field = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    (field("X-Amz-Algorithm")? == ALGORITHM).then_some(())?;
    Some(Signed {
        credential: field("X-Amz-Credential")?,
        headers: field("X-Amz-SignedHeaders")?,
        signature: field("X-Amz-Signature")?,
        date: field("X-Amz-Date")?,
        token: field("X-Amz-Security-Token").unwrap_or_default(),
        payload: UNSIGNED.to_owned(),
        lifetime: Duration::from_secs(field("X-Amz-Expires")?.parse::<u32>().ok()?.into()),
    })
}

/// A date is `20260131T235959Z`.
fn check_date(signed: &Signed, now: SystemTime) -> Result<(), Refusal> {
    let date = &signed.date;
    let part = |range| date.get(range).unwrap_or_default();
    let readable = format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0..4),
        part(4..6),
        part(6..8),
        part(9..11),
        part(11..13),
        part(13..15)
    );
    let at = timestamp::parse(&readable).filter(|_| date.is_ascii() && date.len() == 16);
    let at = at.ok_or_else(|| Refusal::denied("The date of the request cannot be read"))?;
    let (early, late) = (at.checked_sub(SKEW), at.checked_add(signed.lifetime));
    if early.is_none_or(|early| now < early) || late.is_none_or(|late| now > late) {
        return Err(Refusal::forbidden(
            "RequestTimeTooSkewed",
            "The request has expired, or was signed with a clock that differs too much",
        ));
    }
    Ok(())
}

fn canonical(
    method: &Method,
    path: &str,
    query: &[(String, String)],
    headers: &HeaderMap,
    signed: &Signed,
) -> String {
    let mut pairs: Vec<String> = query
        .iter()
        .filter(|(name, _)| name != "X-Amz-Signature")
        .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
        .collect();
    pairs.sort();
    let mut lines = String::new();
    for name in signed.headers.split(';') {
        let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        let values: Vec<String> =
            values.map(|value| value.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        lines.extend([name, ":", &values.join(","), "\n"]);
    }
    // paths hold nothing that is encoded in different ways: other keys are refused
    format!("{method}\n{path}\n{}\n{lines}\n{}\n{}", pairs.join("&"), signed.headers, signed.payload)
}

/// The pairs of a query, decoded.
pub(super) fn pairs(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

fn decode(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let mut rest = bytes.clone();
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        match (byte, digit(rest.next()), digit(rest.next())) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(u8::try_from(high * 16 + low).unwrap_or(byte));
                bytes = rest;
            }
            _ => decoded.push(byte),
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.extend(["%".to_owned(), hex(&[byte]).to_ascii_uppercase()]);
        }
    }
    encoded
}

fn keyed(key: &[u8], text: &[u8]) -> Vec<u8> {
    // keys of every length are valid
    Hmac::<Sha256>::new_from_slice(key)
        .map_or_else(|_| Vec::new(), |mac| mac.chain_update(text).finalize().into_bytes().to_vec())
}

/// Lowercase hexadecimal.
pub(in crate::local::control) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // writing to a string cannot fail
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn same(given: &str, right: &str) -> bool {
    super::super::auth::same(given.as_bytes(), right.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example `GET Object` of Amazon's documentation of presigned URLs, with a session token.
    fn credentials() -> Credentials {
        Credentials {
            access_key: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            session_token: "".into(),
        }
    }

    fn at(text: &str) -> SystemTime {
        timestamp::parse(text).unwrap()
    }

    #[test]
    fn amazons_own_example_of_a_signed_header_is_accepted() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "examplebucket.s3.amazonaws.com"),
            ("range", "bytes=0-9"),
            ("x-amz-content-sha256", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            ("x-amz-date", "20130524T000000Z"),
            (
                "authorization",
                "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
                 SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,\
                 Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
            ),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        let uri = Uri::from_static("/test.txt");
        let now = at("2013-05-24T00:05:00Z");
        let digest = verify(&credentials(), &Method::GET, &uri, &headers, now).unwrap();
        assert!(digest.unwrap().starts_with("e3b0c442"));
        for (method, uri, now) in [
            (Method::PUT, "/test.txt", now),
            (Method::GET, "/other.txt", now),
            (Method::GET, "/test.txt?acl", now),
            (Method::GET, "/test.txt", at("2013-05-24T00:16:00Z")),
        ] {
            assert!(
                verify(&credentials(), &method, &Uri::from_static(uri), &headers, now).is_err(),
                "{method} {uri}"
            );
        }
    }

    #[test]
    fn amazons_own_example_of_a_presigned_url_is_accepted_until_it_expires() {
        let uri = Uri::from_static(
            "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1\
             %2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
             &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404",
        );
        let mut headers = HeaderMap::new();
        headers.insert("host", "examplebucket.s3.amazonaws.com".parse().unwrap());
        let verify = |now| verify(&credentials(), &Method::GET, &uri, &headers, at(now));
        assert_eq!(verify("2013-05-24T23:00:00Z").unwrap(), None);
        assert_eq!(verify("2013-05-25T00:00:01Z").unwrap_err().code, "RequestTimeTooSkewed");
    }
}
