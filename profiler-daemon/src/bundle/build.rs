//! From the evidence to the files of a bundle: a report for people, facts for programs, and each
//! profile as a picture, folded stacks and JSON.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::evidence::{Evidence, Found, Part, gather};
use super::{BundleFile, report};
use crate::capture::{Capture, CaptureState};
use crate::render::{self, Format, View};
use crate::store::{Store, Summary};

/// Largest rendering of one profile, bytes; a larger one is left out, which the report says.
const MAX_RENDERED: usize = 32 << 20;
const FORMATS: [(Format, &str); 3] =
    [(Format::Svg, "svg"), (Format::Folded, "folded"), (Format::Json, "json")];

/// All files, the report first. Reads and renders several profiles: takes up to seconds.
pub(super) fn build(capture: &Capture, store: &Store, before: Duration) -> Vec<BundleFile> {
    let evidence = gather(capture, store, before);
    let mut files = Vec::new();
    let mut left_out = Vec::new();
    for part in parts(&evidence) {
        for (format, extension) in FORMATS {
            let mut render = |name: String, view| match rendered(part, format, view) {
                Ok(bytes) => files.push(BundleFile { name, bytes }),
                Err(problem) => left_out.push(format!("{name}: {problem}")),
            };
            render(format!("{}.{extension}", part.name), View::Waits);
            // JSON has the wakers anyway.
            if part.profile.has_wakers() && format != Format::Json {
                render(format!("{}-wakers.{extension}", part.name), View::Wakers);
            }
        }
    }
    let facts = facts(capture, &evidence, &left_out);
    let mut text = format!("{facts:#}").into_bytes();
    text.push(b'\n');
    files.insert(0, BundleFile { name: "bundle.json".to_owned(), bytes: text });
    let report = report::write(capture, &evidence, &left_out);
    files.insert(0, BundleFile { name: "report.md".to_owned(), bytes: report.into_bytes() });
    files
}

/// The profiles that become files. `lately` is but `before` and `during` together.
fn parts(evidence: &Evidence) -> impl Iterator<Item = &Part> {
    let of_kind = [&evidence.on_cpu, &evidence.off_cpu];
    let found = of_kind.into_iter().flat_map(|of| [&of.during, &of.before, &of.day_earlier]);
    std::iter::once(&evidence.capture).chain(found).filter_map(Found::part)
}

fn rendered(part: &Part, format: Format, view: View) -> Result<Vec<u8>, String> {
    let mut out = Bounded { bytes: Vec::new(), full: false };
    match render::render_view(&part.profile, &part.about, format, view, &mut out) {
        Ok(()) => Ok(out.bytes),
        Err(_) if out.full => Err(format!("larger than {} MiB", MAX_RENDERED >> 20)),
        Err(error) => Err(error.to_string()),
    }
}

fn facts(capture: &Capture, evidence: &Evidence, left_out: &[String]) -> Value {
    let labels: serde_json::Map<String, Value> =
        capture.cause.labels().iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let profiles: Vec<Value> = parts(evidence).map(profile).collect();
    json!({
        "id": capture.id,
        "cause": capture.cause.to_string(),
        "labels": labels,
        "target": report::target(capture),
        "state": state(capture.state),
        "reason": capture.reason,
        "from": time(evidence.range.from),
        "to": time(evidence.range.to),
        "profiles": profiles,
        "left_out": left_out,
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

/// Memory that takes a bounded number of bytes.
struct Bounded {
    bytes: Vec<u8>,
    full: bool,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > MAX_RENDERED - self.bytes.len() {
            self.full = true;
            return Err(io::Error::other("too large"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
