//! QUERY: which kind of profile, of when, of whom.

use std::time::{Duration, SystemTime};

use crate::model::ProfileKind;

use super::range::{Range, When};
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
    #[arg(long, value_name = "DURATION", value_parser = values::since, conflicts_with_all = ["from", "until"])]
    pub since: Option<Duration>,
    /// Start, in local time: 14:05, 'yesterday 23:50', '2026-01-31 14:05', RFC 3339, or relative such as -1h
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub from: Option<When>,
    /// End, written like --from [default: now]
    #[arg(long, value_name = "TIME", alias = "to", allow_hyphen_values = true, requires = "from")]
    pub until: Option<When>,
    /// Both in one: 15m, -1h..-30m, 'today 14:05..14:10', 'yesterday 23:50..today 00:10'; 14:02 is that minute
    #[arg(
        long,
        value_name = "RANGE",
        allow_hyphen_values = true,
        conflicts_with_all = ["since", "from", "until"]
    )]
    pub range: Option<Range>,
    /// Whose: label="value", !=, =~"regex", !~, joined by commas; labels: comm (the process's name), thread,
    /// pid, exe, container, pod, namespace, unit, cgroup
    #[arg(long = "where", value_name = "SELECTOR", value_parser = values::selector)]
    pub selector: Option<String>,
}

impl QueryArgs {
    /// Start and end of the range.
    #[must_use]
    pub fn bounds(&self, now: SystemTime) -> (SystemTime, SystemTime) {
        match (self.range, self.from) {
            (Some(Range(range)), _) => (range.from, range.to),
            (None, Some(When(from))) => (from, self.until.map_or(now, |When(to)| to)),
            (None, None) => {
                let length = self.since.unwrap_or(DEFAULT_SINCE);
                (now.checked_sub(length).unwrap_or(SystemTime::UNIX_EPOCH), now)
            }
        }
    }

    /// A range that cannot hold anything.
    pub(super) fn inconsistency(&self) -> Option<String> {
        let (from, to) = self.bounds(SystemTime::now());
        (from >= to).then(|| match self.until {
            Some(end) => format!("--from {} is not before --until {end}", When(from)),
            None => format!("--from {} is not in the past; write the date with it", When(from)),
        })
    }
}
