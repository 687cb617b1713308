//! Sampled off-CPU time by thread and by wait site against the kernel's own trace, run after run.
//!
//! Twenty runs of 10 s a period, with `PROFILER_TESTS_LONG=1`.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use profiler_tests::daemon::{Daemon, Site};
use profiler_tests::folded::Folded;
use profiler_tests::privilege::{long_or_skip, skip};
use profiler_tests::require_root;
use profiler_tests::sched_trace::{Interval, SchedTrace, holds};
use profiler_tests::workload::Workload;
use serde_json::json;

use crate::off_cpu_clock::settled;

const SECONDS: f64 = 10.0;
/// Furthest from the truth that a thread's sum may be.
const SHARE: f64 = 0.03;
/// Standard errors that a site may be off in nine of ten runs, and in all.
const USUAL: f64 = 2.0;
const EVER: f64 = 5.0;
/// Most of the value that may lack a user stack of its own where one thread waits at two sites.
const WITHOUT_STACK: f64 = 0.1;

const THREADS: [&str; 3] = ["wt-short", "wt-long", "wt-mixed"];
const MIXED: &str = "wt-mixed";

const RUNS: usize = 20;

/// A sum, and how far from it a sampled one is to be expected, microseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Truth {
    us: f64,
    variance: f64,
}

impl Truth {
    /// A clock of this period ticks within an interval a whole number of times, and once more with the
    /// probability of what is left of it.
    fn add(&mut self, interval: &Interval, period_us: f64) {
        let us = interval.in_us - interval.out_us;
        let rest = (us / period_us).fract();
        self.us += us;
        self.variance += rest * (1.0 - rest) * period_us * period_us;
    }

    /// How many standard errors a sum is off.
    fn off(&self, seen_us: f64) -> f64 {
        (seen_us - self.us).abs() / self.variance.sqrt().max(1.0)
    }
}

/// The waits of one site, in the order of time: begin and end, microseconds.
type Waits = Vec<(f64, f64)>;

fn waits(text: &str) -> Result<BTreeMap<String, Waits>> {
    let mut sites: BTreeMap<String, Waits> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let mut next = || words.next().with_context(|| format!("what does this say? {line}"));
        let (site, begin, end) = (next()?.to_owned(), next()?.parse::<f64>()?, next()?.parse::<f64>()?);
        sites.entry(site).or_default().push((begin / 1e3, end / 1e3));
    }
    Ok(sites)
}

/// Sum over the intervals that began within one of the waits.
fn at_site(intervals: &[Interval], waits: &Waits, period_us: f64) -> Truth {
    let mut truth = Truth::default();
    for interval in intervals {
        let after = waits.partition_point(|(begin, _)| *begin <= interval.out_us);
        if after.checked_sub(1).is_some_and(|index| interval.out_us <= waits[index].1) {
            truth.add(interval, period_us);
        }
    }
    truth
}

/// What one run had to say against the truth.
#[derive(Debug, Default)]
struct Verdict {
    wrong: Vec<String>,
    /// Standard errors that each site is off.
    sites: BTreeMap<String, f64>,
}

fn judge(
    folded: &Folded,
    intervals: &BTreeMap<String, Vec<Interval>>,
    sites: &BTreeMap<String, Waits>,
    period_us: f64,
) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    for thread in THREADS {
        let intervals = intervals.get(thread).with_context(|| format!("{thread} is not in the trace"))?;
        let mut truth = Truth::default();
        intervals.iter().for_each(|interval| truth.add(interval, period_us));
        let seen = folded.under(thread).total() as f64;
        println!("{thread}: {seen:.0} us, the kernel {:.0} us", truth.us);
        if (seen - truth.us).abs() > SHARE * truth.us {
            verdict.wrong.push(format!("{thread}: {seen:.0} us for {:.0} us", truth.us));
        }
        let prefix = format!("site_{}", thread.trim_start_matches("wt-"));
        let own: Vec<f64> = sites
            .iter()
            .filter(|(site, _)| site.starts_with(&prefix))
            .flat_map(|(_, waits)| waits.iter().map(|(begin, end)| end - begin))
            .collect();
        ensure!(
            holds(intervals, own.len() as u64, own.iter().sum()),
            "the trace lacks waits of {thread}: {} intervals for {} waits",
            intervals.len(),
            own.len()
        );
        let mut with_stack = 0.0;
        for (site, waits) in sites.iter().filter(|(site, _)| site.starts_with(&prefix)) {
            let truth = at_site(intervals, waits, period_us);
            let seen = folded.under(thread).value_where(|row| row.holds(&[site])) as f64;
            with_stack += seen;
            println!(
                "  {site}: {seen:.0} us, the kernel {:.0} us, standard error {:.0} us",
                truth.us,
                truth.variance.sqrt()
            );
            verdict.sites.insert(site.clone(), truth.off(seen));
        }
        if thread == MIXED && with_stack < (1.0 - WITHOUT_STACK) * seen {
            verdict.wrong.push(format!("{thread}: but {with_stack:.0} of {seen:.0} us have a site"));
        }
    }
    Ok(verdict)
}

/// Share of a thread's off-CPU time whose user stack is borrowed or missing, as the answer states it.
fn without_stack(daemon: &Daemon<'_>, pid: u32, thread: &str) -> Result<f64> {
    let selection = json!({
        "kind": "PROFILE_KIND_OFF_CPU",
        "where": format!("pid=\"{pid}\",thread=\"{thread}\""),
        "range": {"since": {"seconds": 300}},
    });
    let request = json!({"selection": selection, "format": "FORMAT_FOLDED"});
    let parts = daemon.client()?.call("profiler.v1.ProfileService/Query", request)?;
    let stacks = parts.iter().find_map(|part| part["summary"]["stacks"].as_object()).context("no summary")?;
    let number = |name: &str| stacks.get(name).and_then(serde_json::Value::as_f64).unwrap_or(0.0);
    ensure!(number("off_cpu_ns") > 0.0, "no off-CPU time is stated: {stacks:?}");
    Ok((number("borrowed_ns") + number("missing_ns")) / number("off_cpu_ns"))
}

fn is_sampled_truly(period: &str, period_us: f64) -> Result<()> {
    if !long_or_skip() {
        return Ok(());
    }
    let _exclusive = require_root!();
    let site = Site::new()?;
    // Within its budget this debug build would sample less and less.
    let budget =
        ["--budget-off-cpu-samples", "1000000", "--budget-millicpus", "1000", "--budget-store-bytes", "1GiB"];
    let flags = [["--off-cpu-period", period, "--window", "1s"].as_slice(), &budget].concat();
    let daemon = site.start_with(&flags)?;
    let mut wrong = Vec::new();
    let mut off: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for run in 0..RUNS {
        let Some(trace) = SchedTrace::start("wt-*")? else {
            skip("needs the kernel's tracing file system");
            return Ok(());
        };
        let workload = Workload::new("waits", SECONDS)?;
        let running = workload.start()?;
        let pid = running.pid();
        running.wait()?.expect_code(0)?;
        let intervals = trace.finish()?;
        let folded = settled(&daemon, pid)?;
        let own = waits(&workload.beside("waits")?)?;
        let verdict = judge(&folded, &intervals, &own, period_us)?;
        wrong.extend(verdict.wrong.into_iter().map(|line| format!("run {run}: {line}")));
        let without = without_stack(&daemon, pid, MIXED)?;
        println!("run {run}, {period}: {without:.3} of the time of {MIXED} without a stack of their own");
        if without >= WITHOUT_STACK {
            wrong.push(format!("run {run}: {without:.3} of {MIXED} have a borrowed or no user stack"));
        }
        for (site, errors) in verdict.sites {
            off.entry(site).or_default().push(errors);
        }
    }
    for (site, errors) in &off {
        let (far, all) = (errors.iter().filter(|error| **error > USUAL).count(), errors.len());
        println!("{site}: {far} of {all} runs further off than {USUAL} standard errors: {errors:.1?}");
        if far > all.div_ceil(10) || errors.iter().any(|error| *error > EVER) {
            wrong.push(format!("{site}: {far} of {all} runs are further off than stated: {errors:.1?}"));
        }
    }
    assert_eq!(off.len(), 4, "{off:?}");
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

#[test]
fn the_default_period_is_true_by_thread_and_by_site() -> Result<()> {
    is_sampled_truly("10ms", 1e4)
}

#[test]
fn ten_times_the_default_period_is_true_by_thread_and_by_site() -> Result<()> {
    is_sampled_truly("100ms", 1e5)
}

#[test]
fn the_standard_error_is_that_of_a_clock() {
    let interval = |us: f64| Interval { out_us: 0.0, woken_us: None, in_us: us, preempted: false };
    let mut truth = Truth::default();
    // A tenth of a period a thousand times: as many draws with p = 0.1.
    (0..1000).for_each(|_| truth.add(&interval(1e3), 1e4));
    assert!((truth.us - 1e6).abs() < 1.0);
    assert!((truth.variance.sqrt() - (1000.0_f64 * 0.09).sqrt() * 1e4).abs() < 10.0);
    let mut whole = Truth::default();
    whole.add(&interval(3e4), 1e4);
    assert!(whole.variance < 1.0, "a whole number of periods is no matter of chance: {whole:?}");
}
