//! The SVG opens and searches in a real browser.

use anyhow::{Context as _, Result};
use profiler_tests::privilege::skip;
use profiler_tests::workload::Workload;
use profiler_tests::{browser, require_root};

use crate::recording::{Recording, ratio, within};

#[test]
fn a_search_in_the_flame_graph_finds_the_busy_function() -> Result<()> {
    let _exclusive = require_root!();
    let Some(chromium) = browser::chromium() else {
        skip("needs chromium (Debian: apt-get install chromium)");
        return Ok(());
    };
    let recording = Recording::new()?;
    let workload = Workload::new("spin", 2.0)?;
    recording.record_workload("-d 100s -F 199", &["a.svg"], &workload)?.expect_code(0)?;
    let svg = recording.svg("a.svg")?;
    let share = ratio(svg.value_of("hot_function") as f64, svg.total as f64) * 100.0;

    // inferno's script searches for the value of `s` when the page has loaded.
    let page = browser::open(&chromium, &recording.path("a.svg"), "s=hot_function")?;
    let shown = matched(&page).context("the page shows no `Matched: ...%`")?;
    assert!(within(0.02, shown, share), "the browser shows {shown} %, the file has {share} %");

    let page = browser::open(&chromium, &recording.path("a.svg"), "s=no_such_function_anywhere")?;
    assert_eq!(matched(&page), None, "a search for nothing finds something");
    Ok(())
}

/// The share in `Matched: 79.3%`. The script that writes this is in the page, too.
fn matched(page: &str) -> Option<f64> {
    page.split("Matched: ").skip(1).find_map(|rest| rest.split_once('%')?.0.parse().ok())
}

#[test]
fn the_script_is_not_taken_for_its_result() {
    let script = r#"matchedtxt.firstChild.nodeValue = "Matched: " + pct + "%";"#;
    assert_eq!(matched(script), None);
    assert_eq!(matched(&format!("{script}<text>Matched: 79.3%</text>")), Some(79.3));
}
