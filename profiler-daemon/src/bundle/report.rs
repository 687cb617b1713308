//! `report.md`: what fired, when, for whom, who did it, and what is missing; the culprit first.

use std::fmt::Write as _;
use std::sync::Arc;

use super::build::{state, time};
use super::compare::{grown, load};
use super::evidence::{Found, Part};
use crate::capture::{Capture, Cause};
use crate::model::{Activity, Pid, Profile, ProfileKind, Target, TimeRange, Wait};
use crate::render;
use crate::store::processes;

const PROCESSES: usize = 10;
const FRAMES: usize = 15;
const STACKS: usize = 5;
/// Frames of a stack that are shown, innermost first.
const DEPTH: usize = 12;
const GROWN: usize = 15;

/// The report, section by section as profiles come: each is looked at once and then let go. Writing
/// into a `String` cannot fail, so results of `write!` are not looked at.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// What the capture says about the cause.
    cause: String,
    on_cpu: String,
    /// What else the capture says.
    waiting: String,
    before: String,
    compared: String,
    /// What there is no profile of,
    absent: String,
    /// and what those that are there lack.
    lost: String,
}

impl Report {
    /// The capture's own profile. What fits the cause comes first, or, if that is pressure on CPUs,
    /// after who used them.
    pub(super) fn captured(&mut self, capture: &Capture, found: &Found) {
        self.note("the capture", found);
        match &capture.cause {
            Cause::Pressure { resource: "cpu", .. } => {
                section(&mut self.waiting, "Waiting for a CPU", found, "waited for a CPU", |activity| {
                    matches!(activity, Activity::RunQueue | Activity::Preempted)
                });
                section(&mut self.waiting, "All waiting", found, "waited", |_| true);
            }
            Cause::Pressure { .. } => {
                let heading = "Waiting for I/O or memory";
                section(&mut self.cause, heading, found, "waited in the kernel", |activity| {
                    // What no rule knows, but signals do not end, is mostly for a disk or for memory.
                    matches!(activity, Activity::Blocked(Wait::Io | Wait::PageFault | Wait::Uninterruptible))
                });
                section(&mut self.waiting, "All waiting", found, "waited", |_| true);
            }
            Cause::Request | Cause::Alert { .. } | Cause::Stored { .. } => {
                section(&mut self.cause, "Off the CPU: the capture", found, "waited", |_| true);
            }
        }
    }

    /// The continuous profile of the capture's time.
    pub(super) fn during(&mut self, kind: ProfileKind, found: &Found) {
        self.note(&format!("during, {kind}"), found);
        if kind == ProfileKind::OnCpu {
            let heading = "On the CPU during the capture";
            section(&mut self.on_cpu, heading, found, "used the CPU", |_| true);
        }
    }

    /// That of the time before it.
    pub(super) fn before(&mut self, kind: ProfileKind, found: &Found) {
        self.note(&format!("before, {kind}"), found);
        section(&mut self.before, &format!("Before the capture: {kind}"), found, "were seen", |_| true);
    }

    /// That of the same time a day earlier.
    pub(super) fn day_earlier(&mut self, kind: ProfileKind, found: &Found) {
        self.note(&format!("day earlier, {kind}"), found);
    }

    /// What changed in a day; `lately` is only asked for where there is something to compare with.
    pub(super) fn compared(&mut self, kind: ProfileKind, then: &Found, lately: impl FnOnce() -> Found) {
        let text = &mut self.compared;
        let _ = writeln!(text, "## Compared with a day earlier: {kind}\n");
        let then = match then {
            Found::There(then) => then,
            Found::Absent(why) => {
                let _ = writeln!(text, "No comparison: {}.\n", cell(why));
                return;
            }
        };
        match lately() {
            Found::There(now) => comparison(text, kind, &now, then),
            Found::Absent(why) => {
                let _ = writeln!(text, "No comparison: now, {}.\n", cell(&why));
            }
        }
    }

    /// What is not in the bundle, and what its profiles lost.
    fn note(&mut self, what: &str, found: &Found) {
        let part = match found {
            Found::There(part) => part,
            Found::Absent(why) => {
                let _ = writeln!(self.absent, "- {what}: {}", cell(why));
                return;
            }
        };
        let asked = part.about.range.length();
        let (covered, asked) = (part.about.covered.as_secs_f64(), asked.as_secs_f64());
        let _ = writeln!(
            self.lost,
            "- `{}`: lost {}; {covered:.0} s of {asked:.0} s are covered",
            part.name,
            cell(&part.profile.loss.to_string())
        );
    }

    /// The whole text.
    pub(super) fn finish(self, capture: &Capture, range: TimeRange, left_out: &[String]) -> String {
        let mut text = String::new();
        head(&mut text, capture, range);
        let Self { cause, on_cpu, waiting, before, compared, absent, lost } = self;
        text.extend([&*cause, &*on_cpu, &*waiting, &*before, &*compared]);
        text.extend(["## What is missing\n\n", &*absent, &*lost]);
        for line in left_out {
            let _ = writeln!(text, "- left out: {}", cell(line));
        }
        text
    }
}

/// Whose time, for people.
pub(super) fn target(capture: &Capture) -> String {
    match &capture.resolved {
        Target::Host => "the host".to_owned(),
        Target::Processes(ids) => {
            let pids: Vec<String> = ids.iter().map(|id| id.pid.to_string()).collect();
            format!("pid {}", pids.join(", "))
        }
        Target::Command(id) => format!("command with pid {}", id.pid),
        Target::Cgroup { path, .. } => format!("cgroup {path}"),
    }
}

fn head(text: &mut String, capture: &Capture, range: TimeRange) {
    let _ = writeln!(text, "# Incident {}\n", capture.id);
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(text, "- **{name}**: {}", cell(value));
    };
    row("what fired", &capture.cause.to_string());
    row("when", &format!("{} to {}", time(range.from), time(range.to)));
    row("for whom", &target(capture));
    let mut how = format!("{} capture, {}", capture.kind, state(capture.state));
    if !capture.reason.is_empty() {
        let _ = write!(how, ": {}", capture.reason);
    }
    row("how", &how);
    for (name, value) in capture.cause.labels() {
        row(&format!("label {}", cell(name)), value);
    }
    text.push('\n');
}

/// A profile's tables: processes, frames, stacks.
fn section(text: &mut String, heading: &str, found: &Found, did: &str, wanted: impl Fn(Activity) -> bool) {
    let _ = writeln!(text, "## {heading}\n");
    let part = match found {
        Found::There(part) => part,
        Found::Absent(why) => {
            let _ = writeln!(text, "Nothing: {}.\n", cell(why));
            return;
        }
    };
    let profile = only(&part.profile, wanted);
    let all = part.profile.total_shown();
    let total = profile.total_shown();
    let unit = profile.kind().unit();
    if total == 0 {
        let _ = writeln!(text, "None of the {all} {unit} in `{}.svg` are of this kind.\n", part.name);
        return;
    }
    let _ =
        writeln!(text, "`{}.svg`: {}.\n", part.name, cell(&render::summary_line(&part.profile, &part.about)));
    if total < all {
        let _ = writeln!(text, "Here: {total} of {all} {unit} ({}).\n", percent(total, all));
    }

    let _ = writeln!(
        text,
        "Processes that {did}:\n\n| share | {unit} | process | pid |\n| ---: | ---: | --- | ---: |"
    );
    for row in processes(&profile).iter().take(PROCESSES) {
        let share = percent(row.value, total);
        let _ =
            writeln!(text, "| {share} | {} | {} | {} |", row.value, cell(&row.labels.comm), row.labels.pid);
    }
    let _ = writeln!(
        text,
        "\nFrames, by their own {unit}:\n\n| own | own {unit} | with callees | frame |\n| ---: | ---: | ---: | --- |"
    );
    for row in render::top(&profile, FRAMES) {
        let (own, all) = (percent(row.self_value, total), percent(row.total_value, total));
        let _ = writeln!(text, "| {own} | {} | {all} | {} |", row.self_value, cell(&row.frame));
    }
    let _ = writeln!(text, "\nHeaviest stacks, innermost frame first:\n");
    for stack in render::heaviest(&profile, STACKS) {
        let activity = stack.activity.map(|activity| format!(" {activity}")).unwrap_or_default();
        let _ = write!(
            text,
            "- {} {} (pid {}){activity}: ",
            percent(stack.value, total),
            cell(&stack.comm),
            stack.pid
        );
        let _ = writeln!(text, "{}", frames(&stack.frames));
        for waker in &stack.wakers {
            let who = match waker.pid {
                Pid(0) => cell(&waker.comm),
                pid => format!("{} (pid {pid})", cell(&waker.comm)),
            };
            let share = percent(waker.value, stack.value);
            let _ = writeln!(text, "  - {share} woken by {who}: {}", frames(&waker.frames));
        }
    }
    text.push('\n');
}

/// A stack on one line.
fn frames(frames: &[String]) -> String {
    if frames.is_empty() {
        return "no stack".to_owned();
    }
    let shown: Vec<String> = frames.iter().take(DEPTH).map(|frame| cell(frame)).collect();
    let more = if frames.len() > DEPTH { " ← ..." } else { "" };
    format!("{}{more}", shown.join(" ← "))
}

fn comparison(text: &mut String, kind: ProfileKind, now: &Part, then: &Part) {
    let per_second = match kind {
        ProfileKind::OnCpu => "CPUs",
        ProfileKind::OffCpu | ProfileKind::Wall => "threads waiting",
    };
    let _ = writeln!(
        text,
        "{} to {} now, {} to {} then. On average {:.3} {per_second} now, {:.3} then. What grew most, in {per_second}:\n",
        time(now.about.range.from),
        time(now.about.range.to),
        time(then.about.range.from),
        time(then.about.range.to),
        load(now),
        load(then),
    );
    let _ = writeln!(text, "| growth | now | then | frame |\n| ---: | ---: | ---: | --- |");
    for row in grown(now, then, GROWN) {
        let growth = row.now - row.then;
        let _ = writeln!(text, "| +{growth:.3} | {:.3} | {:.3} | {} |", row.now, row.then, cell(&row.frame));
    }
    text.push('\n');
}

/// The rows of some activities.
fn only(profile: &Arc<Profile>, wanted: impl Fn(Activity) -> bool) -> Arc<Profile> {
    if profile.entries().all(|entry| wanted(entry.activity)) {
        return Arc::clone(profile);
    }
    Arc::new(profile.filtered(wanted))
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1} %", 100.0 * part as f64 / whole as f64) }
}

/// A name inside Markdown: other people choose names, and none may end a cell or become markup.
fn cell(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '|' | '\\' | '`' | '*' | '[' | ']' | '#' => safe.extend(['\\', c]),
            '<' => safe.push_str("&lt;"),
            '&' => safe.push_str("&amp;"),
            c if c.is_control() => safe.push(char::REPLACEMENT_CHARACTER),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_markup() {
        assert_eq!(cell("a|b\n<b>[x](y)`\u{1b}"), "a\\|b\u{fffd}&lt;b>\\[x\\](y)\\`\u{fffd}");
        assert_eq!(cell("Vec<u8>::push_[k]"), "Vec&lt;u8>::push_\\[k\\]");
    }
}
