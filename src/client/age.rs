//! How long ago a time of the control plane was.

use std::time::{Duration, SystemTime};

/// How long ago `text`, such as `2026-06-23T13:33:38.000Z`, was; none if it cannot be read or lies in the future.
pub(super) fn age(text: &str) -> Option<Duration> {
    let then = humantime::parse_rfc3339_weak(text).ok()?;
    SystemTime::now().duration_since(then).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_told_of_what_is_past_and_can_be_read() {
        let since_1970 = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        assert_eq!(age("2000-02-29T00:00:00.000Z").unwrap().as_secs(), since_1970 - 951_782_400);
        for text in ["", "2026-06-23", "0001-01-01T00:00:00Z", "9999-01-01T00:00:00Z"] {
            assert_eq!(age(text), None, "{text}");
        }
    }
}
