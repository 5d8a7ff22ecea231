//! Messages of DNS, as far as a gateway has to understand them.

use std::net::Ipv4Addr;

/// Bytes of a message's header.
const HEADER: usize = 12;
/// Compression pointers that are followed, or rather passed over: one ends a name.
const POINTER: u8 = 0xC0;
/// Seconds for which the addresses of the machine's own list of hosts may be kept.
const SECONDS: u32 = 60;

/// An IPv4 address.
pub(super) const A: u16 = 1;
/// An IPv6 address.
pub(super) const AAAA: u16 = 28;
/// How to reach a service, with addresses as hints.
pub(super) const SVCB: u16 = 64;
/// How to reach a web site, with addresses as hints.
pub(super) const HTTPS: u16 = 65;

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// The name, without a final dot.
    pub(super) name: String,
    /// The type of record.
    pub(super) kind: u16,
    /// Bytes of the question, in the message.
    end: usize,
}

/// How an answer of our own ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// There is an answer, though it may be empty.
    Found = 0,
    /// No name server answered.
    Failed = 2,
    /// There is no such name.
    NoSuchName = 3,
}

/// The question of a query; none if it is not a query with one question.
pub(super) fn question(message: &[u8]) -> Option<Question> {
    let header = message.get(..HEADER)?;
    // a query, of the usual kind
    if header[2] & 0xF8 != 0 || header[4..6] != [0, 1] {
        return None;
    }
    let (name, end) = read_name(message, HEADER)?;
    let kind = u16::from_be_bytes(message.get(end..end + 2)?.try_into().ok()?);
    message.get(end + 2..end + 4)?;
    Some(Question { name, kind, end: end + 4 })
}

/// An answer of our own.
pub(super) fn answer(
    query: &[u8],
    question: &Question,
    outcome: Outcome,
    addresses: &[Ipv4Addr],
) -> Option<Vec<u8>> {
    let mut message = query.get(..question.end)?.to_owned();
    // a response; recursion was available
    message[2] |= 0x80;
    message[3] = 0x80 | outcome as u8;
    let count = u16::try_from(addresses.len()).ok()?;
    message[6..8].copy_from_slice(&count.to_be_bytes());
    message[8..12].fill(0);
    for address in addresses {
        // the name of the question
        message.extend([POINTER, 12]);
        message.extend(A.to_be_bytes());
        message.extend([0, 1]);
        message.extend(SECONDS.to_be_bytes());
        message.extend([0, 4]);
        message.extend(address.octets());
    }
    Some(message)
}

/// Whether `response` answers `query`: same number, same question.
pub(super) fn answers(response: &[u8], query: &[u8], question: &Question) -> bool {
    let same_number = response.get(..2) == query.get(..2);
    let is_response = response.get(2).is_some_and(|flags| flags & 0x80 != 0);
    let asked = || read_name(response, HEADER).map(|(name, _)| name.to_ascii_lowercase());
    // errors may come without the question
    let same_question = response.get(4..6) == Some(&[0, 0])
        || asked().is_some_and(|name| name == question.name.to_ascii_lowercase());
    same_number && is_response && same_question
}

/// The IPv4 addresses of a response.
pub(super) fn addresses(response: &[u8]) -> Vec<Ipv4Addr> {
    read_addresses(response).unwrap_or_default()
}

fn read_addresses(response: &[u8]) -> Option<Vec<Ipv4Addr>> {
    let count = |at: usize| Some(u16::from_be_bytes(response.get(at..at + 2)?.try_into().ok()?));
    let mut at = HEADER;
    for _ in 0..count(4)? {
        at = skip_name(response, at)? + 4;
    }
    let mut addresses = Vec::new();
    for _ in 0..count(6)? {
        at = skip_name(response, at)?;
        let kind = count(at)?;
        let length = usize::from(count(at + 8)?);
        let data = response.get(at + 10..at + 10 + length)?;
        if let (A, &[first, second, third, fourth]) = (kind, data) {
            addresses.push(Ipv4Addr::new(first, second, third, fourth));
        }
        at += 10 + length;
    }
    Some(addresses)
}

/// A name without pointers, and where it ends.
fn read_name(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        let label = message.get(at..at + length).filter(|_| length < 64)?;
        // a dot within a label would make it look like two
        if label.contains(&b'.') || !label.is_ascii() || labels.len() > 127 {
            return None;
        }
        labels.push(String::from_utf8_lossy(label).into_owned());
        at += length;
    }
}

fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let length = *message.get(at)?;
        match length {
            0 => return Some(at + 1),
            pointer if pointer & POINTER == POINTER => return Some(at + 2),
            label if label < 64 => at += 1 + usize::from(label),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut message = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            message.push(u8::try_from(label.len()).unwrap());
            message.extend(label.bytes());
        }
        message.push(0);
        message.extend(kind.to_be_bytes());
        message.extend([0, 1]);
        message
    }

    #[test]
    fn an_answer_of_ours_has_the_addresses() {
        let query = query("A.example.org", A);
        let question = question(&query).unwrap();
        assert_eq!((question.name.as_str(), question.kind), ("A.example.org", A));
        let wanted = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
        let message = answer(&query, &question, Outcome::Found, &wanted).unwrap();
        assert!(answers(&message, &query, &question));
        assert_eq!(addresses(&message), wanted);
        let none = answer(&query, &question, Outcome::NoSuchName, &[]).unwrap();
        assert_eq!((none[3] & 0xF, addresses(&none)), (3, Vec::new()));
    }

    #[test]
    fn the_answer_to_another_question_is_none() {
        let (ours, other) = (query("a.test", A), query("b.test", A));
        let question = question(&ours).unwrap();
        let message = answer(&other, &self::question(&other).unwrap(), Outcome::Found, &[]).unwrap();
        assert!(!answers(&message, &ours, &question));
        assert!(!answers(&ours, &ours, &question), "a query is no answer");
    }

    #[test]
    fn broken_messages_are_survived() {
        let whole = query("a.example.org", A);
        for length in 0..whole.len() {
            assert_eq!(question(&whole[..length]), None);
            let _ = addresses(&whole[..length]);
        }
        for byte in 0..whole.len() {
            let mut broken = whole.clone();
            broken[byte] ^= 0xFF;
            let _ = (question(&broken), addresses(&broken));
        }
        assert_eq!(question(&query("a.b", A)).map(|found| found.name), Some("a.b".into()));
        let mut dotted = query("aXb", A);
        dotted[14] = b'.';
        assert_eq!(question(&dotted), None);
    }
}
