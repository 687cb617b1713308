//! From the evidence to the files of a bundle: a report for people, facts for programs, and each
//! profile as a picture, folded stacks and JSON.

use std::io::{self, BufWriter, Write};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::disk::Draft;
use super::evidence::{Found, Gather, Part, executables};
use super::report::{self, Report};
use crate::capture::{Capture, CaptureState};
use crate::model::{ProfileKind, TimeRange};
use crate::render::{self, Format, View};
use crate::store::{Store, Summary};

/// Largest rendering of one profile, bytes; a larger one is left out, which the report says.
const MAX_RENDERED: u64 = 32 << 20;
const FORMATS: [(Format, &str); 3] =
    [(Format::Svg, "svg"), (Format::Folded, "folded"), (Format::Json, "json")];

/// Writes all files. Reads and renders several profiles, one after the other and at most two at a
/// time: takes up to seconds.
pub(super) fn build(capture: &Capture, store: &Store, before: Duration, draft: &Draft) -> io::Result<()> {
    let gather = Gather::new(capture, store, before);
    let mut files = Files { draft, profiles: Vec::new(), left_out: Vec::new() };
    let mut report = Report::default();
    let captured = {
        let found = gather.captured();
        report.captured(capture, &found);
        files.add(&found)?;
        executables(&found)
    };
    for kind in [ProfileKind::OnCpu, ProfileKind::OffCpu] {
        let mut exes = captured.clone();
        {
            let found = gather.during(kind);
            report.during(kind, &found);
            files.add(&found)?;
            exes.extend(executables(&found));
        }
        {
            let found = gather.before(kind);
            report.before(kind, &found);
            files.add(&found)?;
        }
        let then = gather.day_earlier(kind, &exes);
        report.day_earlier(kind, &then);
        files.add(&then)?;
        report.compared(kind, &then, || gather.lately(kind));
    }
    let facts = facts(capture, gather.range, &files);
    draft.create("bundle.json")?.write_all(format!("{facts:#}\n").as_bytes())?;
    let report = report.finish(capture, gather.range, &files.left_out);
    draft.create("report.md")?.write_all(report.as_bytes())
}

/// The files of profiles, and what is known of them.
struct Files<'a> {
    draft: &'a Draft,
    profiles: Vec<Value>,
    left_out: Vec<String>,
}

impl Files<'_> {
    fn add(&mut self, found: &Found) -> io::Result<()> {
        let Some(part) = found.part() else { return Ok(()) };
        for (format, extension) in FORMATS {
            self.render(part, format, View::Waits, format!("{}.{extension}", part.name))?;
            // JSON has the wakers anyway.
            if part.profile.has_wakers() && format != Format::Json {
                self.render(part, format, View::Wakers, format!("{}-wakers.{extension}", part.name))?;
            }
        }
        self.profiles.push(profile(part));
        Ok(())
    }

    fn render(&mut self, part: &Part, format: Format, view: View, name: String) -> io::Result<()> {
        let file = BufWriter::new(self.draft.create(&name)?);
        if let Err(problem) = rendered(part, format, view, file) {
            self.draft.remove(&name)?;
            self.left_out.push(format!("{name}: {problem}"));
        }
        Ok(())
    }
}

fn rendered(part: &Part, format: Format, view: View, file: impl Write) -> Result<(), String> {
    let mut out = Bounded { file, left: MAX_RENDERED, full: false };
    match render::render_view(&part.profile, &part.about, format, view, &mut out) {
        Ok(()) => out.flush().map_err(|error| error.to_string()),
        Err(_) if out.full => Err(format!("larger than {} MiB", MAX_RENDERED >> 20)),
        Err(error) => Err(error.to_string()),
    }
}

fn facts(capture: &Capture, range: TimeRange, files: &Files<'_>) -> Value {
    let labels: serde_json::Map<String, Value> =
        capture.cause.labels().iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    json!({
        "id": capture.id,
        "cause": capture.cause.to_string(),
        "labels": labels,
        "target": report::target(capture),
        "state": state(capture.state),
        "reason": capture.reason,
        "from": time(range.from),
        "to": time(range.to),
        "profiles": files.profiles,
        "left_out": files.left_out,
    })
}

fn profile(part: &Part) -> Value {
    let summary = Summary::of(&part.profile, part.about.range, part.about.covered);
    let losses = summary
        .loss
        .iter()
        .map(|line| json!({"stage": line.stage.name(), "reason": line.reason, "count": line.count}));
    let top = render::top(&part.profile, 20).into_iter();
    let top = top.map(|row| json!({"frame": row.frame, "self": row.self_value, "total": row.total_value, "self_error": row.self_error}));
    json!({
        "name": part.name,
        "kind": summary.kind.name(),
        "unit": summary.kind.unit(),
        "total": summary.total,
        "total_error": summary.total_error,
        "records": summary.records,
        "from": time(summary.range.from),
        "to": time(summary.range.to),
        "covered_seconds": summary.covered.as_secs_f64(),
        "losses": losses.collect::<Vec<_>>(),
        "top": top.collect::<Vec<_>>(),
    })
}

pub(super) fn state(state: CaptureState) -> &'static str {
    match state {
        CaptureState::Pending => "pending",
        CaptureState::Running => "running",
        CaptureState::Done => "done",
        CaptureState::Failed => "failed",
    }
}

/// UTC, to the second.
pub(super) fn time(at: SystemTime) -> String {
    match jiff::Timestamp::try_from(at) {
        Ok(at) => at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        Err(_) => "a time that no calendar has".to_owned(),
    }
}

/// A file that takes a bounded number of bytes.
struct Bounded<W> {
    file: W,
    left: u64,
    full: bool,
}

impl<W: Write> Write for Bounded<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            self.full = true;
            return Err(io::Error::other("too large"));
        }
        let written = self.file.write(bytes)?;
        self.left -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
