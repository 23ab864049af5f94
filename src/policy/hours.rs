//! When a rule holds: hours of days of the week, by a clock somewhere.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use jiff::civil::{Date, Time};
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

    /// Until when it holds on end, if it does at that time; a year at most.
    pub fn until(&self, at: SystemTime) -> Option<SystemTime> {
        let mut end = Timestamp::try_from(at).ok()?;
        let limit = end.checked_add((365 * 24).hours()).ok()?;
        let mut is_within = false;
        while let Some(later) = self.span_until(end).filter(|later| *later > end) {
            (end, is_within) = (later, true);
            if end > limit {
                break;
            }
        }
        is_within.then(|| end.try_into().ok()).flatten()
    }

    /// The latest end of a span that has this time in it.
    fn span_until(&self, at: Timestamp) -> Option<Timestamp> {
        let today = at.to_zoned_datetime(self.zone.clone()).date();
        let days = [today.yesterday().ok(), Some(today)];
        let spans = days.into_iter().flatten();
        let spans = spans.flat_map(|day| self.spans.iter().filter_map(move |span| self.on(span, day)));
        spans
            .filter(|(from, to)| *from <= at && at < *to)
            .map(|(_, to)| to)
            .max()
    }

    /// When the span of that day begins and ends, if there is one.
    fn on(&self, span: &Span, day: Date) -> Option<(Timestamp, Timestamp)> {
        let number = usize::try_from(day.weekday().to_monday_zero_offset()).ok()?;
        if !*span.days.get(number)? {
            return None;
        }
        let last = if span.to > span.from {
            day
        } else {
            day.tomorrow().ok()?
        };
        Some((self.at(day, span.from)?, self.at(last, span.to)?))
    }

    fn at(&self, day: Date, minutes: u16) -> Option<Timestamp> {
        let (day, minutes) = if minutes == DAY {
            (day.tomorrow().ok()?, 0)
        } else {
            (day, minutes)
        };
        let time = Time::new(
            i8::try_from(minutes / 60).ok()?,
            i8::try_from(minutes % 60).ok()?,
            0,
            0,
        )
        .ok()?;
        Some(
            day.to_datetime(time)
                .to_zoned_datetime(self.zone.clone())
                .ok()?
                .timestamp(),
        )
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
