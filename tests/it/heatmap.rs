//! Time within seconds: bursts at a known phase are where they were, and can be looked at alone.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use profiler_tests::daemon::Site;
use profiler_tests::folded::Folded;
use profiler_tests::require_root;
use profiler_tests::run::wait_for;
use profiler_tests::workload::Workload;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

/// All seconds between the first and the last that hold something: of these two, only parts were seen.
fn inner(json: &Value) -> Result<&[Value]> {
    let columns = json["columns"].as_array().context("no columns")?;
    let holds = |column: &Value| {
        column.as_array().is_some_and(|cells| cells.iter().any(|cell| cell.as_u64() > Some(0)))
    };
    let first = columns.iter().position(holds).context("all are empty")?;
    let last = columns.iter().rposition(holds).context("all are empty")?;
    columns.get(first + 1..last).filter(|inner| inner.len() > 2).context("too few seconds")
}

/// Sums of each fraction of a second over these.
fn by_fraction(json: &Value) -> Result<Vec<f64>> {
    let mut sums = vec![0.0; json["rows"].as_u64().context("no rows")? as usize];
    for column in inner(json)? {
        for (sum, value) in sums.iter_mut().zip(column.as_array().context("no column")?) {
            *sum += value.as_f64().context("not a number")?;
        }
    }
    Ok(sums)
}

fn heat(site: &Site, kind: &str, selector: &str, since: &str) -> Result<Value> {
    let query = ["heatmap", "--kind", kind, "--since", since, "--where", selector, "--format", "json"];
    let outcome = site.cli(&query)?.expect_code(0)?;
    Ok(serde_json::from_str(&outcome.stdout)?)
}

#[test]
fn bursts_are_in_their_cells_and_a_cell_range_holds_one_of_them_only() -> Result<()> {
    let _exclusive = require_root!();
    let site = Site::new()?;
    let daemon = site.start_with(&["--on-cpu-frequency", "997", "--budget-millicpus", "1000"])?;
    let workload = Workload::new("burst", 100.0)?;
    let running = workload.start()?;
    let selector = format!("pid=\"{}\"", running.pid());

    // Nothing is sealed in the first seconds of most runs: what is still open is asked.
    let json = wait_for("some seconds of bursts", LIMIT, || {
        let json = heat(&site, "on-cpu", &selector, "15s")?;
        Ok((json["total"].as_u64() > Some(1200)).then_some(json))
    })?;
    let cells = by_fraction(&json)?;
    ensure!(cells.len() == 50, "{cells:?}");
    let all: f64 = cells.iter().sum();
    let bursts: f64 = cells[15..20].iter().chain(&cells[30..35]).sum();
    ensure!(bursts > 0.9 * all, "{bursts} of {all} in the bursts' cells: {cells:?}");
    for (burst, name) in [(15..20, "burst"), (30..35, "other")] {
        let share = cells[burst].iter().sum::<f64>() / all;
        ensure!((0.3..0.7).contains(&share), "{share} of the time in {name}: {cells:?}");
    }

    // The same seconds off the CPU: between the bursts it sleeps all the time, but for a column or two
    // that the daemon did not see whole.
    let json = heat(&site, "off-cpu", &selector, "15s")?;
    let cells = by_fraction(&json)?;
    let seen = inner(&json)?.iter().filter(|column| column[5].as_u64() > Some(0)).count() as f64;
    let rest = cells[2..13].iter().sum::<f64>() / 11.0 / 20_000.0;
    ensure!((0.75..1.1).contains(&(rest / seen)), "asleep for {rest} of {seen} cells: {cells:?}");

    // A burst alone, of a second that is over.
    let second = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs() - 3;
    let time = |ms: u64| {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(second * 1000 + ms);
        humantime::format_rfc3339_millis(at).to_string()
    };
    for (from, to, own, others) in [(300, 400, "burst", "other"), (600, 700, "other", "burst")] {
        let (from, to) = (time(from), time(to));
        let query = ["flamegraph", "--from", &from, "--until", &to, "--where", &selector];
        let outcome = site.cli(&query)?.expect_code(0)?;
        let folded = Folded::parse(&outcome.stdout)?;
        // By the leaf: the program itself is called `burst`, too.
        let count = |name: &str| folded.value_where(|row| row.leaf() == name);
        // A thread that was preempted in a burst may end it late.
        ensure!(count(others) * 20 <= folded.total(), "{others} is in the burst of {own}: {folded:#?}");
        let share = count(own) as f64 / folded.total() as f64;
        ensure!(share > 0.8, "{share} of the burst in {own}: {folded:#?}");
    }
    let svg =
        site.cli(&["heatmap", "--since", "15s", "--where", &selector, "--format", "svg"])?.expect_code(0)?;
    ensure!(svg.stdout.contains(" samples</title>"), "no cells: {svg}");
    drop(daemon);
    Ok(())
}
