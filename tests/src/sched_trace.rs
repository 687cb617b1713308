//! What the kernel's own trace of the scheduler says of threads: the truth about waits that are too short for a
//! program to time around them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

/// Room for events, KiB a CPU.
const BUFFER_KIB: &str = "65536";

/// One time that a thread was off the CPU, from switch-out to switch-in. Times are those of
/// `CLOCK_MONOTONIC`, microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// When it left the CPU.
    pub out_us: f64,
    /// When it was woken; `None` if it was runnable all the time.
    pub woken_us: Option<f64>,
    /// When it ran again.
    pub in_us: f64,
    /// Whether it could have gone on.
    pub preempted: bool,
}

/// Sums over the intervals of a thread, microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// Until the wake-up.
    pub blocked: f64,
    /// From the wake-up on.
    pub run_queue: f64,
    /// Where it could have gone on.
    pub preempted: f64,
}

impl Sums {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.blocked + self.run_queue + self.preempted
    }

    /// Takes one interval in.
    pub fn add(&mut self, interval: &Interval) {
        let whole = interval.in_us - interval.out_us;
        match interval.woken_us {
            _ if interval.preempted => self.preempted += whole,
            Some(woken) => {
                self.blocked += woken - interval.out_us;
                self.run_queue += interval.in_us - woken;
            }
            // It was woken before it had left.
            None => self.run_queue += whole,
        }
    }
}

/// A trace that runs: an instance of its own in the kernel's tracing file system.
#[derive(Debug)]
pub struct SchedTrace {
    mount: TempDir,
    instance: PathBuf,
}

impl SchedTrace {
    /// Traces all threads whose names match the pattern (`oc-*`). `None` where the kernel has no
    /// tracing file system.
    ///
    /// # Errors
    /// When it is there and does not do what it should.
    pub fn start(names: &str) -> Result<Option<Self>> {
        let mount = TempDir::new()?;
        let mounted = Command::new("mount").args(["-t", "tracefs", "tracefs"]).arg(mount.path()).output()?;
        if !mounted.status.success() {
            return Ok(None);
        }
        let instance = mount.path().join("instances").join(format!("profiler-tests-{}", std::process::id()));
        let trace = Self { mount, instance };
        fs::create_dir(&trace.instance).context("no instance of the trace")?;
        trace.set("trace_clock", "mono")?;
        trace.set("buffer_size_kb", BUFFER_KIB)?;
        trace.set(
            "events/sched/sched_switch/filter",
            &format!("prev_comm ~ \"{names}\" || next_comm ~ \"{names}\""),
        )?;
        trace.set("events/sched/sched_wakeup/filter", &format!("comm ~ \"{names}\""))?;
        trace.set("events/sched/sched_switch/enable", "1")?;
        trace.set("events/sched/sched_wakeup/enable", "1")?;
        trace.set("tracing_on", "1")?;
        Ok(Some(trace))
    }

    fn set(&self, file: &str, value: &str) -> Result<()> {
        fs::write(self.instance.join(file), value).with_context(|| format!("{file} does not take {value}"))
    }

    /// Ends the trace: the intervals of each thread, by its name. Threads of one name are one.
    ///
    /// # Errors
    /// When events were lost or cannot be read.
    pub fn finish(self) -> Result<BTreeMap<String, Vec<Interval>>> {
        self.set("tracing_on", "0")?;
        for entry in fs::read_dir(self.instance.join("per_cpu"))? {
            let stats = fs::read_to_string(entry?.path().join("stats"))?;
            ensure!(
                stats.lines().any(|line| line == "overrun: 0"),
                "events of the trace were lost:\n{stats}"
            );
        }
        parse(&fs::read_to_string(self.instance.join("trace"))?)
    }
}

impl Drop for SchedTrace {
    fn drop(&mut self) {
        // Nothing to do about it if these fail: the mount is only a view, and the instance idle.
        _ = fs::write(self.instance.join("tracing_on"), "0");
        _ = fs::remove_dir(&self.instance);
        _ = unmount(self.mount.path());
    }
}

fn unmount(path: &Path) -> Result<()> {
    let done = Command::new("umount").arg(path).output()?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

/// A thread that is off the CPU.
#[derive(Clone, Copy)]
struct Off {
    out_us: f64,
    woken_us: Option<f64>,
    preempted: bool,
}

fn parse(text: &str) -> Result<BTreeMap<String, Vec<Interval>>> {
    let mut off: BTreeMap<u32, Off> = BTreeMap::new();
    let mut all: BTreeMap<String, Vec<Interval>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let event = event(line).with_context(|| format!("what does this say? {line}"))?;
        match event {
            Event::Wakeup { at_us, pid } => {
                if let Some(off) = off.get_mut(&pid).filter(|off| !off.preempted) {
                    off.woken_us.get_or_insert(at_us);
                }
            }
            Event::Switch { at_us, prev, next, runnable } => {
                off.insert(prev, Off { out_us: at_us, woken_us: None, preempted: runnable });
                if let Some(Off { out_us, woken_us, preempted }) = off.remove(&next.0) {
                    let interval = Interval { out_us, woken_us, in_us: at_us, preempted };
                    all.entry(next.1.to_owned()).or_default().push(interval);
                }
            }
        }
    }
    Ok(all)
}

enum Event<'a> {
    Switch { at_us: f64, prev: u32, next: (u32, &'a str), runnable: bool },
    Wakeup { at_us: f64, pid: u32 },
}

/// Reads `task-pid [cpu] flags seconds: event: fields`. Names may hold blanks.
fn event(line: &str) -> Option<Event<'_>> {
    if let Some((head, fields)) = line.split_once(": sched_switch: ") {
        let (prev, next) = fields.split_once(" ==> next_comm=")?;
        let state = prev.rsplit_once("prev_state=")?.1;
        let (next_comm, next) = next.rsplit_once(" next_pid=")?;
        return Some(Event::Switch {
            at_us: at_us(head)?,
            prev: number(prev.rsplit_once(" prev_pid=")?.1)?,
            next: (number(next)?, next_comm),
            runnable: state.starts_with('R') || state.ends_with('+'),
        });
    }
    let (head, fields) = line.split_once(": sched_wakeup: ")?;
    Some(Event::Wakeup { at_us: at_us(head)?, pid: number(fields.rsplit_once(" pid=")?.1)? })
}

fn at_us(head: &str) -> Option<f64> {
    Some(head.rsplit_once(' ')?.1.parse::<f64>().ok()? * 1e6)
}

fn number(text: &str) -> Option<u32> {
    text.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# tracer: nop\n\
        oc a-11 [000] d..2. 10.000100: sched_switch: prev_comm=oc a prev_pid=11 prev_prio=120 prev_state=S ==> \
        next_comm=swapper/0 next_pid=0 next_prio=120\n\
        <idle>-0 [001] dNh4. 10.000900: sched_wakeup: comm=oc a pid=11 prio=120 target_cpu=001\n\
        <idle>-0 [001] d..2. 10.001000: sched_switch: prev_comm=swapper/1 prev_pid=0 prev_prio=120 prev_state=R ==> \
        next_comm=oc a next_pid=11 next_prio=120\n\
        oc a-11 [001] d..2. 10.002000: sched_switch: prev_comm=oc a prev_pid=11 prev_prio=120 prev_state=R+ ==> \
        next_comm=x next_pid=5 next_prio=120\n\
        x-5 [001] d..2. 10.002500: sched_switch: prev_comm=x prev_pid=5 prev_prio=120 prev_state=S ==> \
        next_comm=oc a next_pid=11 next_prio=120\n";

    #[test]
    fn intervals_have_their_parts() -> Result<()> {
        let all = parse(TEXT)?;
        let mut sums = Sums::default();
        all["oc a"].iter().for_each(|interval| sums.add(interval));
        let near = |seen: f64, truth: f64| (seen - truth).abs() < 0.01;
        assert!(near(sums.blocked, 800.0) && near(sums.run_queue, 100.0), "{sums:?}");
        assert!(near(sums.preempted, 500.0) && near(sums.total(), 1400.0), "{sums:?}");
        assert!(parse("nonsense").is_err());
        Ok(())
    }
}
