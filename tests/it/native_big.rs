//! A program of 150 MB with a million unwinding rows keeps no other waiting, and the daemon within
//! its memory.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use profiler_tests::chain::{Chain, Root};
use profiler_tests::daemon::{Daemon, Site};
use profiler_tests::require_root;
use profiler_tests::run::{Running, wait_for};
use profiler_tests::stacks::Stacks;
use profiler_tests::workload::{Recipe, Workload};
use serde_json::Value;

use crate::native_stacks::{C, deep_chain, native};
use crate::recording::ratio;

const HERTZ: f64 = 997.0;
/// CPU seconds of the large program, and of each small one.
const LARGE_SECONDS: f64 = 6.0;
const SMALL_SECONDS: f64 = 1.5;
/// The small ones; each is another file to the daemon, which no table was made from before.
const SMALL: [&str; 4] = ["nat-small-1", "nat-small-2", "nat-small-3", "nat-small-4"];

/// `native.c` with a build id of its own.
fn small(name: &str, seconds: f64) -> Result<Workload> {
    let digits: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
    native(name, &[&format!("-Wl,--build-id=0x{digits}")], seconds, "spin")
}

fn status(site: &Site) -> Result<Value> {
    let text = site.cli(&["status", "--output", "json"])?.expect_code(0)?.stdout;
    Ok(serde_json::from_str(&text)?)
}

/// The most memory that a daemon ever had, bytes.
fn peak(daemon: &Daemon<'_>) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.running.pid()))?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).context("no VmHWM")?;
    let kibibytes: f64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
    Ok(kibibytes * 1024.0)
}

/// All that was recorded of a program since then.
fn profile(site: &Site, comm: &str, since: Duration) -> Result<Stacks> {
    let (since, filter) = (format!("{}ms", since.as_millis()), format!("comm=\"{comm}\""));
    let query = ["flamegraph", "--format", "json", "--since", &since, "--where", &filter];
    Stacks::parse(&site.cli(&query)?.expect_code(0)?.stdout)
}

#[test]
fn native_a_huge_program_keeps_nobody_waiting_and_the_daemon_within_its_memory() -> Result<()> {
    let _exclusive = require_root!();
    let flags: Vec<&str> = C.iter().copied().chain(["-fno-toplevel-reorder"]).collect();
    let program = Recipe { name: "nat-big", source: "big.c", flags: &flags }.build()?;
    let size = std::fs::metadata(&program)?.len() as f64;
    assert!(size >= 150e6, "{size} bytes");
    let large = Workload::of(program, LARGE_SECONDS)?;
    let small: Vec<Workload> = SMALL.iter().map(|name| small(name, SMALL_SECONDS)).collect::<Result<_>>()?;
    let before = native("nat-before", &[], 600.0, "spin")?;
    let _before = before.start()?;

    let site = Site::new()?;
    let hertz = HERTZ.to_string();
    // A budget that a daemon built for debugging does not come near.
    let flags = ["--on-cpu-frequency", &hertz, "--window", "1s", "--budget-millicpus", "2000"];
    let daemon = site.start_with(&flags)?;
    wait_for("all processes to be covered", Duration::from_secs(60), || {
        Ok(status(&site)?["unwinding"]["covered_after_seconds"].as_f64())
    })?;
    // What the daemon has read for those that ran before is none of the large one's business.
    std::thread::sleep(Duration::from_secs(5));
    let (rows, memory) = (status(&site)?["unwinding"]["rows"].as_u64().context("no rows")?, peak(&daemon)?);

    let begin = Instant::now();
    let started = std::iter::once(&large).chain(&small).map(Workload::start);
    let started: Vec<Running> = started.collect::<Result<_>>()?;
    for running in started {
        running.wait()?.expect_code(0)?;
    }
    // Until the last window is sealed.
    std::thread::sleep(Duration::from_secs(3));
    let ago = begin.elapsed();
    let now = status(&site)?;
    let of = |comm: &str| profile(&site, comm, ago + Duration::from_secs(1));

    let links = (1..=40).map(|number| format!("big_{number}"));
    let stacks = of("nat-big")?;
    let judged = Chain::new(links, Root::Start).judge(&stacks.stacks);
    // Until its table is there its stacks stop at once; then they are whole.
    let mut complaints = Vec::from_iter(judged.complaint("nat-big", 0.5, 0.4));
    let waited = judged.broken as f64 / HERTZ;
    println!("nat-big waited {waited:.3} CPU seconds for its table");
    assert!(judged.broken > 10, "a table of a million rows takes longer: {judged:?}");
    let mut parts = Vec::new();
    for comm in SMALL {
        let judged = deep_chain(&["spin_leaf"]).judge(&of(comm)?.stacks);
        complaints.extend(judged.complaint(comm, 0.95, 0.9));
        parts.push(ratio(judged.broken as f64 / HERTZ, waited));
    }
    // Whoever had to wait for the large one's table would have waited about as long.
    let mean = parts.iter().sum::<f64>() / parts.len() as f64;
    println!("the small ones waited {parts:.3?} of that");
    assert!(mean < 0.25 && parts.iter().all(|&part| part < 0.5), "{parts:?}");
    assert!(complaints.is_empty(), "{complaints:#?}");

    let number = |name: &str| now["unwinding"][name].as_u64().with_context(|| format!("no {name}: {now}"));
    let room = number("rows_room")? * 4;
    println!("{} rows before, {} after, room for {room} bytes", rows, number("rows")?);
    assert!(number("rows")? >= rows.max(1_000_000), "{now}");
    assert_eq!((room, number("no_room")?), (32 << 20, 0), "{now}");
    let grown = ratio(peak(&daemon)? - memory, size);
    println!(
        "memory: at most {:.1} MiB before, {grown:.3} of the file's size more after",
        memory / 1048576.0
    );
    assert!(grown < 0.4, "the daemon took {grown} of the file's size");
    Ok(())
}
