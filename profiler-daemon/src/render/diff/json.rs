//! The difference as one JSON document, for scripts and CI.
//!
//! The form is stable: fields may be added, none changes its meaning or goes.
//!
//! ```json
//! {
//!   "kind": "on-cpu",             // null where two folded files do not say
//!   "unit": "samples",            // of `base` and `with`
//!   "normalize": "total",         // or "time", "work"
//!   "base": { "title": "a.json", "total": 1000 },
//!   "with": { "title": "b.json", "total": 1100 },
//!   "gate": {                     // null without --fail-over
//!     "fail_over": 0.05, "min_share": 0.01, "passed": false, "undecided": 0, "tested": 12, "bound": 3.1,
//!     "failed": ["slow"] },
//!   "frames": [                   // all, those that grew most first
//!     { "frame": "slow",
//!       "self": { "base": 100, "with": 200, "base_share": 0.1, "with_share": 0.18,
//!                 "growth": 1.0,          // 1.0: twice as expensive as before
//!                 "error": 0.1,           // standard error of ln(1 + growth)
//!                 "fails": true },        // the gate
//!       "total": { ... } } ]
//! }
//! ```

use std::io::{self, BufWriter, Write};

use serde::Serialize;

use super::gate::Verdict;
use super::{Diff, Share};

#[derive(Serialize)]
struct Document<'a> {
    kind: Option<&'static str>,
    unit: &'static str,
    normalize: String,
    base: Side<'a>,
    with: Side<'a>,
    gate: Option<Gate<'a>>,
    frames: Vec<Frame>,
}

#[derive(Serialize)]
struct Side<'a> {
    title: &'a str,
    total: u64,
}

#[derive(Serialize)]
struct Gate<'a> {
    fail_over: f64,
    min_share: f64,
    passed: bool,
    undecided: u64,
    tested: u64,
    bound: f64,
    failed: Vec<&'a str>,
}

#[derive(Serialize)]
struct Frame {
    frame: String,
    #[serde(rename = "self")]
    own: Value,
    total: Value,
}

#[derive(Serialize)]
struct Value {
    base: u64,
    with: u64,
    base_share: f64,
    with_share: f64,
    growth: f64,
    error: f64,
    fails: bool,
}

/// Writes the document and a final newline.
pub(super) fn write(diff: &Diff, verdict: &Verdict, out: &mut dyn Write) -> io::Result<()> {
    let value = |share: &Share| Value {
        base: share.base,
        with: share.with,
        base_share: share.base_share,
        with_share: share.with_share,
        growth: share.growth,
        error: share.error,
        fails: verdict.fails(share),
    };
    let [base, with] = diff.sides.each_ref().map(|side| Side { title: &side.title, total: side.total.value });
    let frames = diff.changes().into_iter().map(|change| Frame {
        own: value(&change.own),
        total: value(&change.total),
        frame: change.frame,
    });
    let document = Document {
        kind: diff.kind().map(|kind| kind.name()),
        unit: diff.unit(),
        normalize: diff.normalize.to_string(),
        base,
        with,
        gate: verdict.gate.map(|gate| Gate {
            fail_over: gate.fail_over,
            min_share: gate.min_share,
            passed: verdict.failed.is_empty(),
            undecided: verdict.undecided,
            tested: verdict.tested,
            bound: verdict.bound,
            failed: verdict.failed.iter().map(|change| change.frame.as_str()).collect(),
        }),
        frames: frames.collect(),
    };
    let mut out = BufWriter::new(out);
    serde_json::to_writer_pretty(&mut out, &document)?;
    out.write_all(b"\n")?;
    out.flush()
}
