//! An idle host: what recording causes by itself.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::programs::{cpu_time, host_switches};
use super::tools::{Running, Tools};

/// A daemon reads what runs already.
const SETTLE: Duration = Duration::from_secs(10);

/// Flags of the daemon, by what is looked at.
const MODES: [(&str, &[&str]); 3] = [
    ("without off-CPU", &["--off-cpu-enabled", "false"]),
    ("as it comes", &[]),
    ("every interval", &["--off-cpu-period", "0s"]),
];

/// Looks at the host without and with a daemon, and prints a table.
pub(super) fn idle(tools: &Tools, length: Duration) -> Result<()> {
    println!("| daemon | switches/s of the host | off-CPU records/s | daemon, % of a CPU |");
    println!("| --- | ---: | ---: | ---: |");
    println!("| none | {:.0} | - | - |", switches(length)?);
    for (name, flags) in MODES {
        let running = tools.daemon(flags)?;
        std::thread::sleep(SETTLE);
        let (records, cpu, since) = (records(tools, &running)?, cpu_time(running.pid()), Instant::now());
        let switches = switches(length)?;
        let seconds = since.elapsed().as_secs_f64();
        let spent = cpu_time(running.pid()).saturating_sub(cpu).as_secs_f64() / seconds;
        let made = (self::records(tools, &running)? - records) / seconds;
        println!("| {name} | {switches:.0} | {made:.1} | {:.2} |", spent * 100.0);
    }
    println!("\nGoal: no more switches with a daemon than without but for its own timers.");
    Ok(())
}

/// Switches a second of the whole host, for so long.
fn switches(length: Duration) -> Result<f64> {
    let (before, since) = (host_switches()?, Instant::now());
    std::thread::sleep(length);
    Ok((host_switches()? - before) as f64 / since.elapsed().as_secs_f64())
}

/// Off-CPU intervals that a daemon has received so far.
fn records(tools: &Tools, running: &Running) -> Result<f64> {
    let status = tools.client(running, &["status", "--output", "json"]).context("no status")?;
    let (_, rest) =
        status.split_once("\"off_cpu_intervals\":").context("no off_cpu_intervals in the status")?;
    let digits: String =
        rest.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    Ok(digits.parse()?)
}
