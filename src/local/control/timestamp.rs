//! RFC 3339 timestamps in UTC with milliseconds, as the control plane writes them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SECONDS_PER_DAY: u64 = 86_400;

/// Milliseconds since 1970.
pub(super) fn milliseconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

/// For example `2026-06-23T13:33:38.000Z`.
pub(super) fn format(at: SystemTime) -> String {
    let total = milliseconds(at);
    let (seconds, fraction) = (total / 1000, total % 1000);
    let (days, second) = (seconds / SECONDS_PER_DAY, seconds % SECONDS_PER_DAY);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:03}Z")
}

/// Reads a date, or a date and time with optional fraction and zone, as JavaScript's `Date` does.
pub(super) fn parse(text: &str) -> Option<SystemTime> {
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00:00Z"));
    let mut date = date.splitn(3, '-');
    let (year, month, day) = (number(date.next()?)?, number(date.next()?)?, number(date.next()?)?);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let (time, offset_seconds) = zone(time)?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut clock = time.splitn(3, ':');
    let (hour, minute) = (number(clock.next()?)?, number(clock.next()?)?);
    let second = clock.next().map_or(Some(0), number)?;
    if hour > 23 || minute > 59 || second > 60 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: u64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    let seconds = days_since_epoch(year, month, day) * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second;
    let seconds = u64::try_from(i64::try_from(seconds).ok()? - offset_seconds).ok()?;
    Some(UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds))
}

/// Cuts the zone off a time, as seconds east of UTC.
fn zone(time: &str) -> Option<(&str, i64)> {
    if let Some(time) = time.strip_suffix(['Z', 'z']) {
        return Some((time, 0));
    }
    let Some(position) = time.rfind(['+', '-']) else { return Some((time, 0)) };
    let (time, zone) = time.split_at(position);
    let offset = zone.get(1..)?;
    // `+0100` is what the official SDK writes
    let compact = || offset.split_at_checked(2).filter(|_| offset.len() == 4);
    let (hours, minutes) = offset.split_once(':').or_else(compact).unwrap_or((offset, "0"));
    if hours.len() > 2 || minutes.len() > 2 {
        return None;
    }
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let seconds = i64::try_from(hours * 3600 + minutes * 60).ok()?;
    Some((time, if zone.starts_with('-') { -seconds } else { seconds }))
}

fn number(digits: &str) -> Option<u64> {
    (!digits.is_empty() && digits.len() <= 4 && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| digits.parse().ok())?
}

/// Days since 1970-01-01 in the Gregorian calendar, counted in 400-year eras that begin on 1 March.
fn days_since_epoch(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days_since_epoch`].
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_has_milliseconds_and_z() {
        assert_eq!(format(UNIX_EPOCH + Duration::from_millis(1_782_221_618_007)), "2026-06-23T13:33:38.007Z");
        assert_eq!(format(UNIX_EPOCH + Duration::from_secs(951_782_400)), "2000-02-29T00:00:00.000Z");
        assert_eq!(format(UNIX_EPOCH), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn what_is_written_is_read_back_on_every_day() {
        for day in 0..60_000 {
            let at = UNIX_EPOCH
                + Duration::from_secs(day * SECONDS_PER_DAY + 12_345)
                + Duration::from_millis(day % 1000);
            assert_eq!(parse(&format(at)), Some(at));
        }
    }

    #[test]
    fn zones_and_plain_dates_are_understood_and_nonsense_is_not() {
        let noon = parse("2026-06-23T12:00:00Z");
        assert_eq!(parse("2026-06-23T14:00:00+02:00"), noon);
        assert_eq!(parse("2026-06-23T09:30:00.0-02:30"), noon);
        assert_eq!(parse("2026-06-23T13:00:00.000000+0100"), noon);
        assert_eq!(parse("2026-06-23T07:00:00-0500"), noon);
        assert_eq!(parse("2026-06-23T14:00:00+02"), noon);
        assert_eq!(parse("2026-06-23").map(format), Some("2026-06-23T00:00:00.000Z".to_owned()));
        for zone in ["+24:00", "+01:60", "+2400", "+0160", "+010", "+01000", "+é12"] {
            assert_eq!(parse(&format!("2026-06-23T12:00:00{zone}")), None, "{zone}");
        }
        for text in
            ["", "yesterday", "2026-13-01", "2026-06-23T25:00:00Z", "2026-06-23T12:00:00.xZ", "-1-1-1"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
