//! Gathers the profiles of a bundle, one at a time: before, during, the capture itself, and a day
//! earlier.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::capture::Capture;
use crate::model::{Profile, ProfileKind, Selector, Target, TimeRange};
use crate::render::About;
use crate::store::Store;

const DAY: Duration = Duration::from_secs(86_400);
/// Executables that stand for a target a day earlier, at most.
const MAX_EXES: usize = 32;

/// One profile of a bundle.
#[derive(Debug)]
pub(super) struct Part {
    /// What its files are called, before the extension.
    pub(super) name: String,
    /// What it shows.
    pub(super) about: About,
    pub(super) profile: Arc<Profile>,
}

/// What was found for a part of the bundle.
#[derive(Debug)]
pub(super) enum Found {
    There(Part),
    /// Why there is nothing.
    Absent(String),
}

impl Found {
    pub(super) fn part(&self) -> Option<&Part> {
        match self {
            Self::There(part) => Some(part),
            Self::Absent(_) => None,
        }
    }
}

/// Reads what a bundle is made of from the store. Each profile is handed out to be dropped before
/// the next: several take more memory than a daemon has.
#[derive(Debug)]
pub(super) struct Gather<'a> {
    capture: &'a Capture,
    store: &'a Store,
    /// The time of the capture.
    pub(super) range: TimeRange,
    before: TimeRange,
    now: Selector,
}

impl<'a> Gather<'a> {
    pub(super) fn new(capture: &'a Capture, store: &'a Store, before: Duration) -> Self {
        let to = capture.ended.unwrap_or(capture.started).max(capture.started);
        let range = TimeRange { from: capture.started, to };
        let before = TimeRange::ending(range.from, before);
        Self { capture, store, range, before, now: selector(&now_terms(&capture.resolved)) }
    }

    /// The capture's own profile.
    pub(super) fn captured(&self) -> Found {
        let capture = self.capture;
        match self.store.capture(&capture.id) {
            Some(result) if result.profile.total_shown() > 0 => Found::There(Part {
                name: format!("capture-{}", capture.kind),
                about: About {
                    title: format!("{}, capture {}", capture.kind, capture.id),
                    range: result.range,
                    covered: result.summary.covered,
                    command: None,
                },
                profile: Arc::clone(&result.profile),
            }),
            Some(result) => Found::Absent(format!("it saw nothing; lost: {}", result.summary.loss)),
            None if capture.reason.is_empty() => {
                Found::Absent("its result was removed to make room".to_owned())
            }
            None => Found::Absent(capture.reason.clone()),
        }
    }

    /// The continuous profile of the capture's time.
    pub(super) fn during(&self, kind: ProfileKind) -> Found {
        self.query("during", kind, &self.now, self.range)
    }

    /// That of the time before it.
    pub(super) fn before(&self, kind: ProfileKind) -> Found {
        self.query("before", kind, &self.now, self.before)
    }

    /// From before to the end, for the comparison.
    pub(super) fn lately(&self, kind: ProfileKind) -> Found {
        self.query("lately", kind, &self.now, self.lately_range())
    }

    /// That of the same time a day earlier, of what ran the same executables.
    pub(super) fn day_earlier(&self, kind: ProfileKind, exes: &BTreeSet<Arc<str>>) -> Found {
        let lately = self.lately_range();
        let earlier = TimeRange {
            from: lately.from.checked_sub(DAY).unwrap_or(lately.from),
            to: lately.to.checked_sub(DAY).unwrap_or(lately.to),
        };
        match earlier_terms(&self.capture.resolved, exes) {
            Ok(terms) => self.query("day-earlier", kind, &selector(&terms), earlier),
            Err(problem) => Found::Absent(problem),
        }
    }

    fn lately_range(&self) -> TimeRange {
        TimeRange { from: self.before.from, to: self.range.to }
    }

    fn query(&self, name: &str, kind: ProfileKind, selector: &Selector, range: TimeRange) -> Found {
        let queried = self.store.query(kind, selector, range);
        if queried.range.is_none() {
            return Found::Absent(format!("no {kind} profile of that time is stored"));
        }
        if queried.profile.total_shown() == 0 {
            return Found::Absent(format!("nothing of the target was seen {kind}"));
        }
        // Windows count whole, so they can reach beyond what was asked for.
        let range = queried.range.map_or(range, |found| TimeRange {
            from: found.from.min(range.from),
            to: found.to.max(range.to),
        });
        let name = format!("{name}-{kind}");
        let title = format!("{kind}, {}", name.replace('-', " "));
        let about = About { title, range, covered: queried.covered, command: None };
        Found::There(Part { name, about, profile: Arc::new(queried.profile) })
    }
}

/// A selector of our own making; one that does not parse would be our mistake, and selects nothing
/// rather than everybody.
fn selector(terms: &str) -> Selector {
    Selector::parse(terms).or_else(|_| Selector::parse("pid=\"\"")).unwrap_or_default()
}

/// Selects what was captured.
fn now_terms(target: &Target) -> String {
    let any_of = |pids: Vec<String>| format!("pid=~\"{}\"", pids.join("|"));
    match target {
        Target::Host => String::new(),
        Target::Processes(ids) => any_of(ids.iter().map(|id| id.pid.to_string()).collect()),
        Target::Command(id) => any_of(vec![id.pid.to_string()]),
        Target::Cgroup { path, .. } => {
            format!("cgroup=~\"{}(/.*)?\"", quoted(&regex::escape(path.trim_end_matches('/'))))
        }
    }
}

/// Selects what does the same work on another day: pids change, executables and cgroups stay.
fn earlier_terms(target: &Target, exes: &BTreeSet<Arc<str>>) -> Result<String, String> {
    match target {
        Target::Host | Target::Cgroup { .. } => Ok(now_terms(target)),
        Target::Processes(_) | Target::Command(_) if exes.is_empty() => {
            Err("the target's executable is not known, so it cannot be found a day earlier".to_owned())
        }
        Target::Processes(_) | Target::Command(_) => {
            let exes: Vec<String> =
                exes.iter().take(MAX_EXES).map(|exe| quoted(&regex::escape(exe))).collect();
            Ok(format!("exe=~\"{}\"", exes.join("|")))
        }
    }
}

/// A text within the quotes of a selector's value.
fn quoted(text: &str) -> String {
    text.replace('"', "\\\"")
}

/// The executables of the processes that were found.
pub(super) fn executables(found: &Found) -> BTreeSet<Arc<str>> {
    let entries = found.part().into_iter().flat_map(|part| part.profile.entries());
    let exes = entries.map(|entry| &entry.labels.exe).filter(|exe| !exe.is_empty());
    exes.map(Arc::clone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CgroupId, Labels, Pid, ProcessId};

    #[test]
    fn targets_become_selectors() {
        let process = |pid| ProcessId { pid: Pid(pid), start_ticks: 1 };
        let pids = Target::Processes(vec![process(7), process(9)]);
        let cgroup = Target::Cgroup { id: CgroupId(1), path: "/a.slice/b\"c\\x2d.service".to_owned() };
        let select = |terms: &str, pid: u32, cgroup: &str, exe: &str| {
            let labels =
                Labels { pid: Pid(pid), cgroup: cgroup.into(), exe: exe.into(), ..Labels::default() };
            Selector::parse(terms).expect(terms).matches(&labels)
        };
        let terms = now_terms(&pids);
        assert_eq!([7, 9, 79].map(|pid| select(&terms, pid, "", "")), [true, true, false]);
        let terms = now_terms(&cgroup);
        for (path, expected) in [
            ("/a.slice/b\"c\\x2d.service", true),
            ("/a.slice/b\"c\\x2d.service/inner", true),
            ("/a.slice/b\"c\\x2d.service2", false),
            ("/aXslice/b\"c\\x2d.service", false),
        ] {
            assert_eq!(select(&terms, 1, path, ""), expected, "{terms} on {path}");
        }
        assert!(select(&now_terms(&Target::Host), 1, "/", ""));
        let exes = BTreeSet::from(["/usr/bin/a+b".into()]);
        let terms = earlier_terms(&pids, &exes).expect("known");
        assert!(select(&terms, 1, "", "/usr/bin/a+b") && !select(&terms, 7, "", "/usr/bin/aab"));
        assert!(earlier_terms(&pids, &BTreeSet::new()).is_err());
    }
}
