//! A process's name cannot forge a stack in any format.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use profiler_tests::daemon::Site;
use profiler_tests::require_root;
use profiler_tests::run::wait_for;
use profiler_tests::workload::Workload;
use serde_json::Value;

use crate::recording::Recording;

/// Separators of the folded format, markup, a quote: all that fits into 15 bytes.
const HOSTILE: &str = "a;b\n<x>&\"";

/// Names the process has before it takes its own: `record` forks, then the program starts.
const EARLIER: [&str; 2] = ["profiler", "spin"];

/// Whether this is the hostile name, written raw or with its separators replaced.
fn is_hostile(text: &str) -> bool {
    let (mut shown, mut raw) = (text.chars(), HOSTILE.chars());
    loop {
        match (shown.next(), raw.next()) {
            (None, None) => return true,
            (Some(shown), Some(raw)) if shown == raw || raw == ';' || raw.is_control() => {}
            _ => return false,
        }
    }
}

/// Whether this is a part of the hostile name that has come loose.
fn is_forged(text: &str) -> bool {
    ["a", "b", "b\n<x>&\"", "<x>&\"", "a;b", "b<x>&\""].contains(&text)
}

#[test]
fn a_hostile_name_is_one_root_frame_in_every_file() -> Result<()> {
    let _exclusive = require_root!();
    let recording = Recording::new()?;
    let workload = Workload::new("spin", 2.0)?.arg(HOSTILE);
    let files = ["a.folded", "a.svg", "a.pb.gz", "a.speedscope.json"];
    recording.record_workload("-d 100s -F 199", &files, &workload)?.expect_code(0)?;

    // The reader refuses lines that are not `stack value`, so a line break in a name is seen there.
    let folded = recording.folded("a.folded")?;
    let roots = one_hostile(folded.roots())?;
    assert!(!roots.contains(';') && !roots.contains('\n'), "{roots:?}");

    let svg = recording.svg("a.svg")?;
    one_hostile(svg.roots().iter().map(|frame| &*frame.name))?;
    assert!(!svg.frames.iter().any(|frame| is_forged(&frame.name)), "{:?}", svg.frames);

    let pprof = recording.pprof("a.pb.gz")?;
    one_hostile(pprof.label_values("comm")?)?;
    assert!(!pprof.string_table.iter().any(|text| is_forged(text)), "{:?}", pprof.string_table);

    let speedscope: Value = serde_json::from_str(&recording.text("a.speedscope.json")?)?;
    let names = speedscope["shared"]["frames"].as_array().context("no frames")?;
    let names: BTreeSet<&str> = names.iter().filter_map(|frame| frame["name"].as_str()).collect();
    assert_eq!(names.iter().filter(|name| is_hostile(name)).count(), 1, "{names:?}");
    assert!(!names.iter().any(|name| is_forged(name)), "{names:?}");
    Ok(())
}

/// The only root that is not one of the earlier names; it must be the hostile one.
fn one_hostile<'a>(roots: impl IntoIterator<Item = &'a str>) -> Result<&'a str> {
    let all: BTreeSet<&str> = roots.into_iter().collect();
    let later: Vec<&str> = all.iter().copied().filter(|root| !EARLIER.contains(root)).collect();
    ensure!(later.len() == 1 && is_hostile(later[0]), "one hostile root expected: {all:?}");
    Ok(later[0])
}

#[test]
fn a_hostile_name_is_one_text_in_the_daemons_json() -> Result<()> {
    let _exclusive = require_root!();
    let workload = Workload::new("spin", 60.0)?.arg(HOSTILE);
    let running = workload.start()?;
    let site = Site::new()?;
    let _daemon = site.start()?;
    let selector = format!("pid=\"{}\"", running.pid());
    let query = ["flamegraph", "--format", "json", "--since", "1m", "--where", &selector];
    let json = wait_for("a window with the process", Duration::from_secs(60), || {
        let outcome = site.cli(&query)?;
        Ok((outcome.code == Some(0)).then_some(outcome.stdout))
    })?;
    let document: Value = serde_json::from_str(&json)?;
    let mut texts = BTreeSet::new();
    collect_texts(&document, &mut texts);
    assert_eq!(texts.iter().filter(|text| is_hostile(text)).count(), 1, "{texts:?}");
    assert!(!texts.iter().any(|text| is_forged(text)), "{texts:?}");
    Ok(())
}

/// Every text of a document, names of fields included.
fn collect_texts<'a>(value: &'a Value, texts: &mut BTreeSet<&'a str>) {
    match value {
        Value::String(text) => {
            texts.insert(text);
        }
        Value::Array(items) => items.iter().for_each(|item| collect_texts(item, texts)),
        Value::Object(fields) => {
            for (name, value) in fields {
                texts.insert(name);
                collect_texts(value, texts);
            }
        }
        _ => {}
    }
}

#[test]
fn what_counts_as_the_hostile_name() {
    assert!(is_hostile(HOSTILE) && is_hostile("a:b <x>&\"") && is_hostile("a\u{fffd}b\u{fffd}<x>&\""));
    assert!(
        !is_hostile("a") && !is_hostile("a;b") && !is_hostile("x;b\n<x>&\"") && !is_hostile("a;b\n<x>&\" ")
    );
}
