//! Times as Go prints them, in UTC.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Now, as RFC 3339 with nanoseconds.
pub(super) fn now() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp { seconds: now.as_secs().cast_signed(), nanoseconds: now.subsec_nanos() }.rfc3339()
}

/// A moment of the calendar.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timestamp {
    /// Since 1970, without leap seconds.
    pub(super) seconds: i64,
    /// Of the second.
    pub(super) nanoseconds: u32,
}

impl Timestamp {
    /// `2026-11-22T01:34:06.9322928Z`: trailing zeros are cut.
    pub(super) fn rfc3339(self) -> String {
        let date = self.date();
        let Date { year, month, day, hour, minute, second, .. } = date;
        let fraction = Fraction(self.nanoseconds);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
    }

    /// `2026-11-22 01:34:06.9322928 +0000 UTC`, Go's default.
    pub(super) fn go(self) -> String {
        let Date { year, month, day, hour, minute, second, .. } = self.date();
        let fraction = Fraction(self.nanoseconds);
        format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}{fraction} +0000 UTC")
    }

    /// `Sun, 22 Nov 2026 01:34:06 GMT`, as HTTP wants it.
    pub(super) fn http(self) -> String {
        const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let Date { year, month, day, hour, minute, second, weekday } = self.date();
        let weekday = DAYS.get(weekday).copied().unwrap_or_default();
        let month = MONTHS.get(month.saturating_sub(1)).copied().unwrap_or_default();
        format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
    }

    /// The date of the proleptic Gregorian calendar, by counting in eras of 400 years that begin on the first of
    /// March, so that the leap day is the last of its year.
    fn date(self) -> Date {
        let days = self.seconds.div_euclid(86_400);
        let time = self.seconds.rem_euclid(86_400);
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let small = |value: i64| usize::try_from(value).unwrap_or_default();
        Date {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month: small(month),
            day: small(day_of_year - (153 * shifted_month + 2) / 5 + 1),
            hour: small(time / 3_600),
            minute: small(time / 60 % 60),
            second: small(time % 60),
            weekday: small(days.rem_euclid(7)),
        }
    }
}

struct Date {
    year: i64,
    month: usize,
    day: usize,
    hour: usize,
    minute: usize,
    second: usize,
    /// 0 is a Thursday, the day of the epoch.
    weekday: usize,
}

/// `.9322928`, or nothing.
struct Fraction(u32);

impl fmt::Display for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return Ok(());
        }
        f.write_str(format!(".{:09}", self.0).trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::Timestamp;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |seconds| Timestamp { seconds, nanoseconds: 0 };
        assert_eq!(at(0).http(), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(at(951_782_400).rfc3339(), "2000-02-29T00:00:00Z");
        assert_eq!(at(4_107_542_399).rfc3339(), "2100-02-28T23:59:59Z");
        assert_eq!(at(4_107_542_400).rfc3339(), "2100-03-01T00:00:00Z");
        assert_eq!(at(-1).go(), "1969-12-31 23:59:59 +0000 UTC");
    }

    #[test]
    fn trailing_zeros_of_a_fraction_are_cut() {
        let at = Timestamp { seconds: 1_795_311_246, nanoseconds: 932_292_800 };
        assert_eq!(at.rfc3339(), "2026-11-22T01:34:06.9322928Z");
        assert_eq!(at.go(), "2026-11-22 01:34:06.9322928 +0000 UTC");
        assert_eq!(at.http(), "Sun, 22 Nov 2026 01:34:06 GMT");
    }
}
