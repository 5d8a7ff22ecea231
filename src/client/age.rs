//! How long ago a time of the control plane was.

use std::time::{Duration, SystemTime};

/// Seconds since 1970 of `2026-06-23T13:33:38.000Z`, the only form that Daytona writes; none for another.
fn seconds(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(str::parse::<u64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let mut time = time.split('.').next()?.splitn(3, ':').map(str::parse::<u64>);
    let (hour, minute, second) = (time.next()?.ok()?, time.next()?.ok()?, time.next()?.ok()?);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // years begin in March, so that the leap day is the last
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    (days * 86_400 + hour * 3600 + minute * 60 + second).checked_sub(719_468 * 86_400)
}

/// How long ago `text` was; none if it cannot be read or lies in the future.
pub(super) fn age(text: &str) -> Option<Duration> {
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds(text)?);
    SystemTime::now().duration_since(then).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_across_leap_years() {
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds("2000-02-29T00:00:00.000Z"), Some(951_782_400));
        assert_eq!(seconds("2026-06-23T13:33:38.123Z"), Some(1_782_221_618));
        for text in ["", "2026-06-23", "0001-01-01T00:00:00Z", "2026-06-23T13:33:38+02:00"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
