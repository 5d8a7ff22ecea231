//! Sizes, durations and port ranges in Compose's own notations.

use std::time::Duration;

use super::node::Node;
use super::problem::Read;

const GIB: u64 = 1 << 30;
/// Docker counts cores in these parts.
const PARTS_OF_A_CORE: u64 = 1_000_000_000;
/// No unit is a fraction of a byte, and nothing larger fits a machine.
const LARGEST_SIZE: f64 = 9e15;

/// Bytes, as Compose reads them: a bare number is bytes, units are powers of 1024 whether written `k`, `kb` or `kib`, in
/// any case, after at most one space.
pub(crate) fn bytes(node: &Node, key: &str) -> Read<u64> {
    let text = node.text(key)?;
    let number = node.plain_integer().map(|number| number.to_string());
    parse_bytes(number.as_deref().unwrap_or(text)).ok_or_else(|| {
        let message = format!("`{key}` must be a size such as 512m or 2g, not `{text}`");
        node.problem(message)
    })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to be within 0..=9e15, and Compose truncates as well"
)]
fn parse_bytes(text: &str) -> Option<u64> {
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.')? + 1;
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let power = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return None,
    };
    if !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    let size = number.parse::<f64>().ok()? * 1024_f64.powi(power);
    (size.is_finite() && size <= LARGEST_SIZE).then_some(size as u64)
}

/// Bytes of memory; nothing for 0, which Compose reads as no limit.
pub(crate) fn memory(node: &Node, key: &str) -> Read<Option<u64>> {
    Ok(Some(bytes(node, key)?).filter(|bytes| *bytes > 0))
}

/// Whole GiB, rounded up.
pub(crate) fn whole_gib(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(GIB)).unwrap_or(u32::MAX)
}

/// Billionths of a core; nothing for 0, which Compose reads as no limit.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "checked to be within 0..=100 000, whose billionths a double tells apart"
)]
pub(crate) fn cores(node: &Node, key: &str) -> Read<Option<u64>> {
    let cores = node.number(key)?;
    if cores > 100_000.0 {
        return Err(node.problem(format!("`{key}` is more than any machine has")));
    }
    // less than the smallest part is still not nothing
    Ok((cores > 0.0).then(|| ((cores * PARTS_OF_A_CORE as f64).round() as u64).max(1)))
}

/// Whole cores of their billionths, rounded up.
pub(crate) fn whole_cores(parts: u64) -> u32 {
    u32::try_from(parts.div_ceil(PARTS_OF_A_CORE)).unwrap_or(u32::MAX)
}

/// A duration in Go's notation, with the days and weeks that Compose adds: `1m30s`, `500ms`, `1.5h`.
pub(crate) fn duration(node: &Node, key: &str) -> Read<Duration> {
    let text = node.text(key)?;
    parse_duration(text).ok_or_else(|| {
        node.problem(format!("`{key}` must be a duration such as 30s, 1m30s or 500ms, not `{text}`"))
    })
}

fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, left) = tail.split_at(end);
        let unit = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            "w" => 604_800.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit).ok()?;
        total = total.checked_add(part)?;
        rest = left;
    }
    // A century: what is longer is a mistake, and would overflow a deadline.
    (total.as_secs() < 3_200_000_000).then_some(total)
}

/// A port or a range of ports, `8000` or `8000-8010`.
pub(crate) fn port_range(text: &str) -> Option<std::ops::RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
    (first > 0 && first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::node::Value;
    use crate::config::problem::Place;

    fn node(text: &str) -> Node {
        Node { place: Place::Text { line: 1, column: 1 }, value: Value::Scalar(text.to_owned()), plain: true }
    }

    #[test]
    fn sizes_read_as_compose_reads_them() {
        for (text, expected) in [
            ("0", 0),
            ("1024", 1024),
            ("1b", 1),
            ("64k", 65_536),
            ("64KB", 65_536),
            ("64KiB", 65_536),
            ("1.5gb", 1_610_612_736),
            ("2 g", 2 << 30),
            ("1t", 1 << 40),
        ] {
            assert_eq!(parse_bytes(text), Some(expected), "{text}");
        }
        for text in
            ["", "g", "-1", "1gg", "1gibb", "1bb", "1,5g", "1  g", "1e3", "0x10", "inf", "1.2.3", "9999p"]
        {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }

    #[test]
    fn memory_is_rounded_up_to_gib_and_cores_to_whole_ones() {
        let gib = |text: &str| memory(&node(text), "m").unwrap().map(whole_gib);
        assert_eq!(gib("512m"), Some(1));
        assert_eq!(gib("1073741824"), Some(1));
        assert_eq!(gib("1073741825"), Some(2));
        assert_eq!(gib("0"), None);
        let whole = |text: &str| cores(&node(text), "c").unwrap().map(whole_cores);
        assert_eq!(whole("0.5"), Some(1));
        assert_eq!(whole("2.0"), Some(2));
        assert_eq!(whole("2.000000001"), Some(3));
        assert_eq!(whole("1e-12"), Some(1));
        assert_eq!(whole("100000"), Some(100_000));
        assert_eq!(whole("0"), None);
        assert!(cores(&node("-1"), "c").is_err());
        assert!(cores(&node("nan"), "c").is_err());
        assert!(cores(&node("100000.1"), "c").is_err());
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(parse_duration("1.5h"), Some(Duration::from_secs(5400)));
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("1d"), Some(Duration::from_secs(86_400)));
        assert_eq!(parse_duration("0"), Some(Duration::ZERO));
        for text in ["", "30", "-1s", "s", "1x", "1 s", "1..2s", "99999999999h", "+"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
