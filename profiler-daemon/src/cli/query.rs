//! QUERY: which kind of profile, of when, of whom.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use jiff::civil::Time;
use jiff::{Timestamp, Zoned};

use crate::model::ProfileKind;

use super::values;

/// The range where none is given.
const DEFAULT_SINCE: Duration = Duration::from_secs(15 * 60);

/// QUERY: which kind of profile, of when, of whom.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Query")]
pub struct QueryArgs {
    /// What was measured: on-cpu or off-cpu [default: on-cpu]
    #[arg(long, value_name = "KIND")]
    pub kind: Option<ProfileKind>,
    /// The time up to now, such as 90s, 15m or 2h [default: 15m]
    #[arg(long, value_name = "DURATION", value_parser = values::since, conflicts_with_all = ["from", "to"])]
    pub since: Option<Duration>,
    /// Start: RFC 3339, HH:MM or HH:MM:SS today (local time), or relative such as -1h
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub from: Option<When>,
    /// End, written like --from [default: now]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, requires = "from")]
    pub to: Option<When>,
    /// Whose: label="value", !=, =~"regex", !~, joined by commas; labels: comm, pid, exe, cgroup
    #[arg(long = "where", value_name = "SELECTOR", value_parser = values::selector)]
    pub selector: Option<String>,
}

impl QueryArgs {
    /// Start and end of the range.
    #[must_use]
    pub fn range(&self, now: SystemTime) -> (SystemTime, SystemTime) {
        match self.from {
            Some(When(from)) => (from, self.to.map_or(now, |When(to)| to)),
            None => {
                let length = self.since.unwrap_or(DEFAULT_SINCE);
                (now.checked_sub(length).unwrap_or(SystemTime::UNIX_EPOCH), now)
            }
        }
    }

    /// A range that cannot hold anything.
    pub(super) fn inconsistency(&self) -> Option<String> {
        let (from, to) = self.range(SystemTime::now());
        (from >= to).then(|| match self.to {
            Some(end) => format!("--from {} is not before --to {end}", When(from)),
            None => format!("--from {} is not in the past; write the date with it", When(from)),
        })
    }
}

/// A point in time from the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct When(pub SystemTime);

impl When {
    /// Reads a time as seen from `now` and in its time zone.
    fn parse(text: &str, now: &Zoned) -> Result<Self, String> {
        if let Some(ago) = text.strip_prefix('-') {
            let ago = values::since(ago)?;
            let time = SystemTime::from(now.timestamp()).checked_sub(ago);
            return time.map(Self).ok_or_else(|| "too far back".to_owned());
        }
        if text == "now" {
            return Ok(Self(now.timestamp().into()));
        }
        if let Ok(time) = text.parse::<Timestamp>() {
            return Ok(Self(time.into()));
        }
        let formats = ["%H:%M:%S", "%H:%M"];
        let clock = formats.iter().find_map(|format| Time::strptime(format, text).ok());
        let clock = clock.ok_or("expected 2026-01-31T14:05:00Z, 14:05[:30] or -1h")?;
        let zoned = now.date().to_datetime(clock).to_zoned(now.time_zone().clone());
        zoned.map(|zoned| Self(zoned.timestamp().into())).map_err(|error| error.to_string())
    }
}

impl FromStr for When {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, &str>) {
        // Half past one in the morning, two hours east of Greenwich.
        let now: Zoned = "2026-03-10T01:30:00+02:00[+02:00]".parse().expect("a time");
        match (When::parse(text, &now), expected) {
            (Ok(when), Ok(expected)) => assert_eq!(when.to_string(), expected, "{text}"),
            (Err(message), Err(part)) => assert!(message.contains(part), "{text}: {message}"),
            (got, _) => panic!("{text}: {got:?}"),
        }
    }

    #[test]
    fn times() {
        check("2026-03-09T10:00:00Z", Ok("2026-03-09T10:00:00Z"));
        check("2026-03-09T10:00:00+01:00", Ok("2026-03-09T09:00:00Z"));
        check("00:15", Ok("2026-03-09T22:15:00Z"));
        check("00:15:30", Ok("2026-03-09T22:15:30Z"));
        check("-1h", Ok("2026-03-09T22:30:00Z"));
        check("-1h30m", Ok("2026-03-09T22:00:00Z"));
        check("now", Ok("2026-03-09T23:30:00Z"));
        check("25:00", Err("expected"));
        check("yesterday", Err("expected"));
        check("-1", Err("not a duration"));
        check("", Err("expected"));
    }
}
