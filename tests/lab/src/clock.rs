//! The time the lab goes by, and the two spellings of a time that AWS uses.
//!
//! The lab's clock is the machine's clock plus an offset, so that a test can make tokens old or credentials
//! expired without waiting. Latencies and rate windows don't use it: they are measured by the monotonic clock.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The machine's clock, moved by a number of seconds.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    offset_seconds: AtomicI64,
}

impl Clock {
    pub(crate) fn now(&self) -> SystemTime {
        from_unix(unix(SystemTime::now()) + self.offset_seconds.load(Ordering::Relaxed))
    }

    pub(crate) fn offset(&self) -> i64 {
        self.offset_seconds.load(Ordering::Relaxed)
    }

    pub(crate) fn set_offset(&self, seconds: i64) {
        self.offset_seconds.store(seconds, Ordering::Relaxed);
    }
}

/// Whole seconds since 1970, negative before.
pub(crate) fn unix(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX),
    }
}

/// The time that is so many seconds after 1970.
pub(crate) fn from_unix(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 {
        UNIX_EPOCH - distance
    } else {
        UNIX_EPOCH + distance
    }
}

/// `20240826T215320Z`, as in `X-Amz-Date`.
pub(crate) fn amz_date(time: SystemTime) -> String {
    let [year, month, day, hour, minute, second] = fields(time);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// `2024-08-26T21:53:20Z`, as in JSON and XML answers.
pub(crate) fn iso8601(time: SystemTime) -> String {
    let [year, month, day, hour, minute, second] = fields(time);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// `Mon, 26 Aug 2024 21:53:20 GMT`, as in the header `Date` (RFC 9110, section 5.6.7).
pub(crate) fn http_date(time: SystemTime) -> String {
    let [year, month, day, hour, minute, second] = fields(time);
    // 1970 began on a Thursday.
    let weekday = (unix(time).div_euclid(86_400) + 3).rem_euclid(7);
    let name = |names: &'static str, number: i64| {
        let number = usize::try_from(number).unwrap_or_default();
        names.get(number * 3..number * 3 + 3).unwrap_or_default()
    };
    let weekday = name("MonTueWedThuFriSatSun", weekday);
    let month = name("JanFebMarAprMayJunJulAugSepOctNovDec", month - 1);
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// Reads `20240826T215320Z`. Refuses everything else, impossible dates included.
pub(crate) fn parse_amz_date(text: &str) -> Option<SystemTime> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    if date.len() != 8 || time.len() != 6 || !date.bytes().chain(time.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number = |text: &str, from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (number(date, 0, 4)?, number(date, 4, 6)?, number(date, 6, 8)?);
    let (hour, minute, second) = (number(time, 0, 2)?, number(time, 2, 4)?, number(time, 4, 6)?);
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    let time = from_unix(seconds);
    (amz_date(time) == text).then_some(time)
}

fn fields(time: SystemTime) -> [i64; 6] {
    let seconds = unix(time);
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil_from_days(days);
    [year, month, day, rest / 3_600, rest / 60 % 60, rest % 60]
}

/// Days since 1970 to year, month, day (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// The inverse of [`civil_from_days`], from the same source.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_survive_the_way_there_and_back() {
        for seconds in [0, 1_724_709_600, 951_782_400, 4_102_444_799, 68_169_600] {
            let time = from_unix(seconds);
            assert_eq!(parse_amz_date(&amz_date(time)), Some(time), "{seconds}");
        }
        assert_eq!(amz_date(from_unix(1_724_709_600)), "20240826T220000Z");
        assert_eq!(iso8601(from_unix(951_782_400)), "2000-02-29T00:00:00Z");
        assert_eq!(http_date(from_unix(951_782_400)), "Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(http_date(from_unix(784_111_777)), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn impossible_dates_are_refused() {
        for text in [
            "20240230T000000Z",
            "20240826T246000Z",
            "20240826T220000",
            "2024-08-26T22:00:00Z",
            "",
            "TZ",
        ] {
            assert_eq!(parse_amz_date(text), None, "{text}");
        }
    }
}
