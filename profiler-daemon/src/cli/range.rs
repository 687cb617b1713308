//! Points and ranges of time as people write them, in local time.
//!
//! ```text
//! RANGE  15m                        the last 15 minutes
//!        A..B, A..                  from A to B, or to now
//!        14:02, yesterday 14:02     that minute
//! A, B   -1h30m, now                seen from now
//!        2026-01-31T14:05:00Z       RFC 3339
//!        14:05, 14:05:30            today; as B: on A's day
//!        today 14:05, yesterday 23:50, 2026-01-31 14:05
//! ```

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _, Zoned};

use super::values;
use crate::model::TimeRange;

/// A point in time from the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct When(pub SystemTime);

/// A range of time from the command line: `from < to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range(pub TimeRange);

/// What is wrong with a time, and at which byte of its text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct TimeError {
    at: usize,
    problem: String,
}

impl TimeError {
    fn new(at: usize, problem: impl Into<String>) -> Self {
        Self { at, problem: problem.into() }
    }

    /// For people: the character and what is wrong there.
    fn shown(self, text: &str) -> String {
        let column = text.get(..self.at).map_or(self.at, |before| before.chars().count()) + 1;
        format!("character {column}: {}", self.problem)
    }

    fn behind(self, offset: usize) -> Self {
        Self { at: self.at + offset, ..self }
    }
}

impl When {
    /// Reads a time as seen from `now` and in its time zone.
    fn parse(text: &str, now: &Zoned) -> Result<Self, String> {
        let point = point(text, now, None).map_err(|error| error.shown(text))?;
        Ok(Self(point.time))
    }
}

impl Range {
    /// Reads a range as seen from `now` and in its time zone.
    pub(super) fn parse(text: &str, now: &Zoned) -> Result<Self, String> {
        range(text, now).map(Self).map_err(|error| error.shown(text))
    }
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text, &Zoned::now())
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text, &Zoned::now())
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", humantime::format_rfc3339_seconds(self.0))
    }
}

fn range(text: &str, now: &Zoned) -> Result<TimeRange, TimeError> {
    let end = SystemTime::from(now.timestamp());
    let Some((left, right)) = text.split_once("..") else {
        return single(text, now);
    };
    let from = point(left, now, None)?;
    let offset = left.len() + 2;
    let to = if right.trim().is_empty() {
        end
    } else {
        point(right, now, from.day).map_err(|error| error.behind(offset))?.time
    };
    if from.time >= end {
        return Err(TimeError::new(0, "begins in the future"));
    }
    if from.time >= to {
        return Err(TimeError::new(offset, "the end is not after the beginning"));
    }
    Ok(TimeRange { from: from.time, to })
}

/// A range without `..`: a length up to now, or a minute.
fn single(text: &str, now: &Zoned) -> Result<TimeRange, TimeError> {
    let end = SystemTime::from(now.timestamp());
    let begins_with_length = text.trim_start().starts_with(|c: char| c.is_ascii_digit());
    if begins_with_length && !text.contains(':') && !text.contains('-') {
        let length = values::since(text.trim()).map_err(|problem| TimeError::new(0, problem))?;
        return Ok(TimeRange::ending(end, length));
    }
    let point = point(text, now, None)?;
    if point.day.is_none() {
        return Err(TimeError::new(text.len(), "expected `..` and the end of the range"));
    }
    if point.time >= end {
        return Err(TimeError::new(0, "begins in the future"));
    }
    let length = if point.to_the_second { Duration::from_secs(1) } else { Duration::from_secs(60) };
    Ok(TimeRange { from: point.time, to: point.time + length })
}

struct Point {
    time: SystemTime,
    /// The day, where the time was given as a local one.
    day: Option<Date>,
    to_the_second: bool,
}

impl Point {
    fn exact(time: SystemTime) -> Self {
        Self { time, day: None, to_the_second: true }
    }
}

/// Reads one point; a clock time without a day is on `day`, else today.
fn point(text: &str, now: &Zoned, day: Option<Date>) -> Result<Point, TimeError> {
    let start = text.len() - text.trim_start().len();
    let word = text.trim();
    if let Some(ago) = word.strip_prefix('-') {
        let ago = values::since(ago).map_err(|problem| TimeError::new(start + 1, problem))?;
        let time = SystemTime::from(now.timestamp()).checked_sub(ago);
        return time.map(Point::exact).ok_or_else(|| TimeError::new(start, "too far back"));
    }
    if word == "now" {
        return Ok(Point::exact(now.timestamp().into()));
    }
    if let Ok(time) = word.parse::<Timestamp>() {
        return Ok(Point::exact(time.into()));
    }
    let (day, clock_at) = match word.split_once([' ', 'T']) {
        Some((name, clock)) => {
            let clock_at = start + word.len() - clock.trim_start().len();
            (day_named(name, now).map_err(|error| error.behind(start))?, clock_at)
        }
        None if word.starts_with(|c: char| c.is_ascii_digit()) && word.contains(':') => {
            (day.unwrap_or_else(|| now.date()), start)
        }
        None => {
            // `today` alone is a word that we know but not a time.
            let at = if day_named(word, now).is_ok() { start + word.len() } else { start };
            return Err(TimeError::new(at, EXPECTED));
        }
    };
    let clock = text.get(clock_at..).unwrap_or_default().trim();
    let to_the_second = clock.matches(':').count() > 1;
    let time = Time::strptime(if to_the_second { "%H:%M:%S" } else { "%H:%M" }, clock).map_err(|_| {
        TimeError::new(clock_at, format!("{clock:?} is no time of day: write 14:05 or 14:05:30"))
    })?;
    let zoned = local(day, time, now.time_zone()).map_err(|problem| TimeError::new(clock_at, problem))?;
    Ok(Point { time: zoned.timestamp().into(), day: Some(day), to_the_second })
}

const EXPECTED: &str = "expected -1h, now, 14:05, today 14:05, yesterday 14:05, 2026-01-31 14:05 \
                        or 2026-01-31T14:05:00Z";

fn day_named(name: &str, now: &Zoned) -> Result<Date, TimeError> {
    match name {
        "today" => Ok(now.date()),
        "yesterday" => now.date().checked_sub(1.day()).map_err(|error| TimeError::new(0, error.to_string())),
        date => Date::strptime("%Y-%m-%d", date).map_err(|_| {
            TimeError::new(0, format!("{date:?} is no day: write today, yesterday or 2026-01-31"))
        }),
    }
}

/// A local time; one that a change of clocks skips or repeats is taken as jiff does by default.
fn local(day: Date, time: Time, zone: &TimeZone) -> Result<Zoned, String> {
    day.to_datetime(time).to_zoned(zone.clone()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half past one in the morning, two hours east of Greenwich.
    fn now() -> Zoned {
        "2026-03-10T01:30:00+02:00[+02:00]".parse().expect("a time")
    }

    fn check(text: &str, expected: Result<&str, &str>) {
        match (When::parse(text, &now()), expected) {
            (Ok(when), Ok(expected)) => assert_eq!(when.to_string(), expected, "{text}"),
            (Err(message), Err(part)) => assert!(message.contains(part), "{text}: {message}"),
            (got, _) => panic!("{text}: {got:?}"),
        }
    }

    #[test]
    fn points() {
        check("2026-03-09T10:00:00Z", Ok("2026-03-09T10:00:00Z"));
        check("2026-03-09T10:00:00+01:00", Ok("2026-03-09T09:00:00Z"));
        check("00:15", Ok("2026-03-09T22:15:00Z"));
        check("00:15:30", Ok("2026-03-09T22:15:30Z"));
        check("today 00:15", Ok("2026-03-09T22:15:00Z"));
        check("yesterday 23:50", Ok("2026-03-09T21:50:00Z"));
        check("2026-01-31 14:05", Ok("2026-01-31T12:05:00Z"));
        check("2026-01-31T14:05", Ok("2026-01-31T12:05:00Z"));
        check("-1h", Ok("2026-03-09T22:30:00Z"));
        check("-1h30m", Ok("2026-03-09T22:00:00Z"));
        check("now", Ok("2026-03-09T23:30:00Z"));
        check("25:00", Err("character 1: \"25:00\" is no time of day"));
        check("yesterday", Err("character 10: expected"));
        check("tomorrow 10:00", Err("character 1: \"tomorrow\" is no day"));
        check("today 9", Err("character 7: \"9\" is no time of day"));
        check("-1", Err("character 2: not a duration"));
        check("", Err("character 1: expected"));
    }

    fn ranges(text: &str, expected: Result<(&str, &str), &str>) {
        let shown = Range::parse(text, &now()).map(|range| (When(range.0.from), When(range.0.to)));
        match (shown, expected) {
            (Ok((from, to)), Ok((begin, end))) => {
                assert_eq!((from.to_string(), to.to_string()), (begin.to_owned(), end.to_owned()), "{text}");
            }
            (Err(message), Err(part)) => assert!(message.contains(part), "{text}: {message}"),
            (got, _) => panic!("{text}: {got:?}"),
        }
    }

    #[test]
    fn ranges_of_all_forms() {
        let end = "2026-03-09T23:30:00Z";
        ranges("15m", Ok(("2026-03-09T23:15:00Z", end)));
        ranges("1h30m", Ok(("2026-03-09T22:00:00Z", end)));
        ranges("-1h..-30m", Ok(("2026-03-09T22:30:00Z", "2026-03-09T23:00:00Z")));
        ranges("-1h..", Ok(("2026-03-09T22:30:00Z", end)));
        ranges("-1h..now", Ok(("2026-03-09T22:30:00Z", end)));
        ranges("today 00:05..00:10", Ok(("2026-03-09T22:05:00Z", "2026-03-09T22:10:00Z")));
        ranges("yesterday 14:05..14:10", Ok(("2026-03-09T12:05:00Z", "2026-03-09T12:10:00Z")));
        ranges("yesterday 23:50..today 00:10", Ok(("2026-03-09T21:50:00Z", "2026-03-09T22:10:00Z")));
        ranges("00:02", Ok(("2026-03-09T22:02:00Z", "2026-03-09T22:03:00Z")));
        ranges("yesterday 14:02:30", Ok(("2026-03-09T12:02:30Z", "2026-03-09T12:02:31Z")));
        ranges(
            "2026-03-01T10:00:00Z..2026-03-01T10:05:00Z",
            Ok(("2026-03-01T10:00:00Z", "2026-03-01T10:05:00Z")),
        );
        ranges(" 00:02 .. 00:04 ", Ok(("2026-03-09T22:02:00Z", "2026-03-09T22:04:00Z")));
    }

    #[test]
    fn errors_name_the_character() {
        ranges("-1h..-2h", Err("character 6: the end is not after the beginning"));
        ranges("today 00:05..25:10", Err("character 14: \"25:10\" is no time of day"));
        ranges("today 00:05..later", Err("character 14: expected"));
        ranges("yesterday 23:50..00:10", Err("character 18: the end is not after"));
        ranges("-1h", Err("character 4: expected `..`"));
        ranges("14:00", Err("character 1: begins in the future"));
        ranges("today 14:00..15:00", Err("begins in the future"));
        ranges("15", Err("character 1: not a duration"));
        ranges("15 parsecs", Err("not a duration"));
        ranges("", Err("character 1: expected"));
        ranges("..", Err("character 1: expected"));
        ranges("–1h..", Err("character 1: expected"));
    }

    #[test]
    fn no_text_makes_it_panic() {
        use proptest::prelude::*;
        proptest!(|(text in "[0-9a-z:. T+–-]{0,24}")| {
            let _either = (When::parse(&text, &now()), Range::parse(&text, &now()));
        });
    }
}
