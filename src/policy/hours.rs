//! When a rule holds: hours of days of the week, by a clock somewhere.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

/// How days are written, from Monday on.
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// Minutes of a day.
const DAY: u16 = 24 * 60;

/// Spans of time in a week.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hours {
    spans: Vec<Span>,
    zone: TimeZone,
}

/// From a time of day to another, which is the next day's if it isn't later, on some days of the week.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// On which days it begins, from Monday on.
    days: [bool; 7],
    /// Minutes from the beginning of the day.
    from: u16,
    to: u16,
}

/// A text that is no [`Span`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} are no hours; expected such as \"Mon-Fri 07:00-19:00\", \"Sat,Sun 22:00-06:00\" or \"07:00-24:00\""
)]
pub struct BadSpan(String);

impl Hours {
    /// These, by the clock of this zone.
    pub fn new(spans: Vec<Span>, zone: TimeZone) -> Self {
        Self { spans, zone }
    }

    /// Whether it holds at that time: whether the clock shows a time then that is within a span. What the clock leaves out when it is
    /// set never comes, and what it shows twice is within both times.
    pub fn hold(&self, at: SystemTime) -> bool {
        Timestamp::try_from(at).is_ok_and(|at| self.hold_at(at))
    }

    /// Until when it holds on end, if it does at that time; a year at most.
    pub fn until(&self, at: SystemTime) -> Option<SystemTime> {
        let begin = Timestamp::try_from(at).ok()?;
        if !self.hold_at(begin) {
            return None;
        }
        // Who holds for more than a week always does.
        let always = begin.checked_add((8 * 24).hours()).ok()?;
        let mut end = begin;
        while end < always {
            end = self.next_change(end)?;
            if !self.hold_at(end) {
                return end.try_into().ok();
            }
        }
        begin.checked_add((365 * 24).hours()).ok()?.try_into().ok()
    }

    fn hold_at(&self, at: Timestamp) -> bool {
        let clock = self.zone.to_datetime(at);
        let minute = u16::from(clock.hour().unsigned_abs()) * 60 + u16::from(clock.minute().unsigned_abs());
        let today = usize::from(clock.weekday().to_monday_zero_offset().unsigned_abs());
        let begins = |span: &Span, day: usize| span.days.get(day % 7).copied().unwrap_or_default();
        self.spans.iter().any(|span| {
            let is_overnight = span.to <= span.from;
            let is_within = if is_overnight {
                minute >= span.from
            } else {
                (span.from..span.to).contains(&minute)
            };
            begins(span, today) && is_within || is_overnight && begins(span, today + 6) && minute < span.to
        })
    }

    /// The first time after `at` at which it may begin or end to hold: when the clock shows the limit of a span or a new day, or is set.
    fn next_change(&self, at: Timestamp) -> Option<Timestamp> {
        let clock = self.zone.to_datetime(at).time();
        let midnight = Time::midnight();
        let second = clock.duration_since(midnight).as_secs();
        let limits = self.spans.iter().flat_map(|span| [span.from, span.to]);
        let limits = limits.chain([DAY]).map(|minutes| i64::from(minutes) * 60);
        let next = limits.filter(|limit| *limit > second).min()?;
        let at_limit = Timestamp::from_second(at.as_second() + next - second).ok()?;
        let set = self.zone.following(at).next().map(|set| set.timestamp());
        Some(set.map_or(at_limit, |set| set.min(at_limit)))
    }
}

impl FromStr for Span {
    type Err = BadSpan;

    fn from_str(text: &str) -> Result<Self, BadSpan> {
        let bad = || BadSpan(text.to_owned());
        let (days, times) = match text.split_once(' ') {
            Some((days, times)) => (read_days(days).ok_or_else(bad)?, times),
            None => ([true; 7], text),
        };
        let (from, to) = times.split_once('-').ok_or_else(bad)?;
        let (from, to) = (minutes(from).ok_or_else(bad)?, minutes(to).ok_or_else(bad)?);
        if from == to || from == DAY {
            return Err(bad());
        }
        Ok(Self { days, from, to })
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, span) in self.spans.iter().enumerate() {
            let days = DAYS.iter().zip(span.days).filter(|(_, is_one)| *is_one);
            let days: Vec<_> = days.map(|(day, _)| *day).collect();
            let time = |minutes: u16| format!("{:02}:{:02}", minutes / 60, minutes % 60);
            let separator = if number > 0 { "; " } else { "" };
            write!(
                f,
                "{separator}{} {}-{}",
                days.join(","),
                time(span.from),
                time(span.to)
            )?;
        }
        write!(f, " {}", self.zone.iana_name().unwrap_or("UTC"))
    }
}

/// `Mon-Fri`, `Sat,Sun`.
fn read_days(text: &str) -> Option<[bool; 7]> {
    let mut days = [false; 7];
    let number = |name: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(name));
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        let mut day = first;
        loop {
            *days.get_mut(day)? = true;
            if day == last {
                break;
            }
            day = (day + 1) % 7;
        }
    }
    Some(days)
}

/// `07:00`, up to `24:00`.
fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |digits: &str| {
        let is_number = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| digits.parse::<u16>().ok()).flatten()
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let all = hours * 60 + minutes;
    (minutes < 60 && all <= DAY).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(spans: &[&str], zone: &str) -> Hours {
        let spans = spans.iter().map(|span| span.parse().unwrap()).collect();
        Hours::new(spans, TimeZone::get(zone).unwrap())
    }

    fn until(hours: &Hours, at: &str) -> Option<String> {
        let at: Timestamp = at.parse().unwrap();
        let until = hours.until(at.try_into().unwrap())?;
        Some(Timestamp::try_from(until).unwrap().to_string())
    }

    #[test]
    fn they_hold_by_the_clock_there() {
        let office = hours(&["Mon-Fri 07:00-19:00"], "Europe/Berlin");
        let rows = [
            // Thursday, in winter: an hour behind.
            ("2026-11-26T05:59:59Z", None),
            ("2026-11-26T06:00:00Z", Some("2026-11-26T18:00:00Z")),
            ("2026-11-26T17:59:59Z", Some("2026-11-26T18:00:00Z")),
            ("2026-11-26T18:00:00Z", None),
            // In summer, two.
            ("2026-07-02T05:00:00Z", Some("2026-07-02T17:00:00Z")),
            // Saturday.
            ("2026-11-28T10:00:00Z", None),
        ];
        for (at, expected) in rows {
            assert_eq!(until(&office, at).as_deref(), expected, "{at}");
        }
    }

    #[test]
    fn spans_that_meet_are_one() {
        let nights = hours(&["Fri 22:00-06:00", "Sat,Sun 06:00-24:00"], "UTC");
        assert_eq!(until(&nights, "2026-11-27T21:59:00Z"), None);
        let end = Some("2026-11-29T00:00:00Z".to_owned());
        for at in [
            "2026-11-27T22:00:00Z",
            "2026-11-28T01:00:00Z",
            "2026-11-28T12:00:00Z",
        ] {
            assert_eq!(until(&nights, at), end, "{at}");
        }
        assert_eq!(until(&nights, "2026-11-29T03:00:00Z"), None);
        assert_eq!(
            until(&nights, "2026-11-29T06:00:00Z").as_deref(),
            Some("2026-11-30T00:00:00Z")
        );
        let always = hours(&["00:00-24:00"], "UTC");
        assert!(until(&always, "2026-11-26T12:00:00Z").unwrap().as_str() > "2027-11-01");
    }

    #[test]
    fn an_hour_that_is_not_there_and_one_that_comes_twice() {
        let night = hours(&["01:30-03:30"], "Europe/Berlin");
        assert_eq!(
            until(&night, "2026-03-29T00:45:00Z").as_deref(),
            Some("2026-03-29T01:30:00Z")
        );
        assert_eq!(
            until(&night, "2026-10-25T00:00:00Z").as_deref(),
            Some("2026-10-25T02:30:00Z")
        );
        for (span, at, expected) in [
            // From 02:00 to 03:00 there is nothing.
            ("02:15-02:45", "2026-03-29T01:20:00Z", None),
            (
                "01:00-02:30",
                "2026-03-29T00:59:59Z",
                Some("2026-03-29T01:00:00Z"),
            ),
            ("01:00-02:30", "2026-03-29T01:00:00Z", None),
            (
                "02:30-03:15",
                "2026-03-29T01:05:00Z",
                Some("2026-03-29T01:15:00Z"),
            ),
            // And then twice.
            (
                "02:15-02:45",
                "2026-10-25T00:20:00Z",
                Some("2026-10-25T00:45:00Z"),
            ),
            ("02:15-02:45", "2026-10-25T00:50:00Z", None),
            (
                "02:15-02:45",
                "2026-10-25T01:20:00Z",
                Some("2026-10-25T01:45:00Z"),
            ),
            (
                "02:30-04:00",
                "2026-10-25T00:35:00Z",
                Some("2026-10-25T01:00:00Z"),
            ),
            ("02:30-04:00", "2026-10-25T01:15:00Z", None),
        ] {
            let told = until(&hours(&[span], "Europe/Berlin"), at);
            assert_eq!(told.as_deref(), expected, "{span} {at}");
        }
    }

    #[test]
    fn what_is_no_hours() {
        for text in [
            "",
            "Mon",
            "Mon 7:00-19:00",
            "Mon 07:00",
            "Mon 07:00-07:00",
            "Mon 24:00-07:00",
            "Mon 07:00-24:01",
            "Mon 07:60-08:00",
            "Mo 07:00-19:00",
            "Mon- 07:00-19:00",
            "07:00 - 19:00",
            "Mon-Fri  07:00-19:00",
        ] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        let shown = hours(&["fri-mon 22:00-06:00", "12:00-13:00"], "Asia/Tokyo").to_string();
        assert_eq!(
            shown,
            "Mon,Fri,Sat,Sun 22:00-06:00; Mon,Tue,Wed,Thu,Fri,Sat,Sun 12:00-13:00 Asia/Tokyo"
        );
    }
}
