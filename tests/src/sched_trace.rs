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

/// Wake-ups: where somebody begins one, and where the thread is put on its queue.
const WAKE_UPS: [&str; 2] = ["sched_waking", "sched_wakeup"];

/// What a thread does as soon as it is back on a CPU. Kernels were seen that record nothing of what one CPU's
/// idle task does (programs attached to the switch are called, its event is not written), so that each
/// switch from that task to a thread is missing: these tell the thread's return.
const RETURNS: [&str; 3] = ["raw_syscalls/sys_exit", "rseq/rseq_update", "block"];

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

/// Whether a thread's intervals hold all that it has counted itself: `waits`, which all leave the CPU, and what
/// it waited at least. Its own clock is read on both sides of a wait, and takes the ways there with it.
#[must_use]
pub fn holds(intervals: &[Interval], waits: u64, least_us: f64) -> bool {
    const WHOLE: f64 = 0.97;
    const WAY_US: f64 = 20.0;
    let traced: f64 = intervals.iter().map(|interval| interval.in_us - interval.out_us + WAY_US).sum();
    intervals.len() as f64 >= WHOLE * waits as f64 && traced >= WHOLE * least_us
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
        trace.set("events/sched/sched_switch/enable", "1")?;
        let by_name = |event: &str| {
            trace.set(&format!("events/{event}/filter"), &format!("comm ~ \"{names}\""))?;
            trace.set(&format!("events/{event}/enable"), "1")
        };
        WAKE_UPS.iter().try_for_each(|event| by_name(&format!("sched/{event}")))?;
        // Not every kernel has all of these.
        let known = |event: &&&str| trace.instance.join("events").join(event).exists();
        RETURNS.iter().filter(known).try_for_each(|event| by_name(event))?;
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
struct Off<'a> {
    comm: &'a str,
    out_us: f64,
    waking_us: Option<f64>,
    woken_us: Option<f64>,
    preempted: bool,
}

impl Off<'_> {
    fn until(&self, in_us: f64) -> Interval {
        // The idle task puts threads on its queue, too, unseen like its switches.
        let woken_us = self.woken_us.or(self.waking_us);
        let in_us = in_us.max(woken_us.unwrap_or(self.out_us));
        Interval { out_us: self.out_us, woken_us, in_us, preempted: self.preempted }
    }
}

/// How long after its return a thread does something, by what that is: learned where the switch was seen.
#[derive(Default)]
struct Lags<'a>(BTreeMap<(&'a str, &'a str), (f64, f64)>);

impl<'a> Lags<'a> {
    fn learn(&mut self, comm: &'a str, name: &'a str, lag_us: f64) {
        let (sum, count) = self.0.entry((comm, name)).or_default();
        *sum += lag_us;
        *count += 1.0;
    }

    fn mean_us(&self, comm: &str, name: &str) -> f64 {
        self.0.get(&(comm, name)).map_or(0.0, |(sum, count)| sum / count)
    }
}

fn parse(text: &str) -> Result<BTreeMap<String, Vec<Interval>>> {
    let mut off: BTreeMap<u32, Off<'_>> = BTreeMap::new();
    let mut back: BTreeMap<u32, (&str, f64)> = BTreeMap::new();
    let mut lags = Lags::default();
    let mut unseen = Vec::new();
    let mut all: BTreeMap<String, Vec<Interval>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let event = event(line).with_context(|| format!("what does this say? {line}"))?;
        // Who does something is on a CPU, whether its switch was seen or not.
        if let Some((comm, since_us)) = back.remove(&event.by) {
            lags.learn(comm, event.name, event.at_us - since_us);
        } else if let Some(off) = off.remove(&event.by) {
            unseen.push((off, event.name, event.at_us));
        }
        match event.what {
            What::Waking(pid) => {
                if let Some(off) = off.get_mut(&pid).filter(|off| !off.preempted) {
                    off.waking_us.get_or_insert(event.at_us);
                }
            }
            What::Wakeup(pid) => {
                if let Some(off) = off.get_mut(&pid).filter(|off| !off.preempted) {
                    off.woken_us.get_or_insert(event.at_us);
                }
            }
            What::Switch { comm, next, runnable } => {
                let (out_us, preempted) = (event.at_us, runnable);
                off.insert(event.by, Off { comm, out_us, waking_us: None, woken_us: None, preempted });
                back.insert(next.0, (next.1, event.at_us));
                if let Some(off) = off.remove(&next.0) {
                    all.entry(next.1.to_owned()).or_default().push(off.until(event.at_us));
                }
            }
            What::Other => {}
        }
    }
    for (off, name, at_us) in unseen {
        let interval = off.until(at_us - lags.mean_us(off.comm, name));
        all.entry(off.comm.to_owned()).or_default().push(interval);
    }
    all.values_mut().for_each(|list| list.sort_by(|a, b| a.out_us.total_cmp(&b.out_us)));
    Ok(all)
}

struct Event<'a> {
    at_us: f64,
    /// The thread on whose CPU it happened.
    by: u32,
    name: &'a str,
    what: What<'a>,
}

enum What<'a> {
    Switch { comm: &'a str, next: (u32, &'a str), runnable: bool },
    Waking(u32),
    Wakeup(u32),
    Other,
}

/// Reads `task-pid [cpu] flags seconds: event: fields`. Names may hold blanks.
fn event(line: &str) -> Option<Event<'_>> {
    let (task, rest) = line.split_once(" [")?;
    let (head, rest) = rest.split_once(": ")?;
    let (name, fields) = rest.split_once(": ")?;
    let by = number(task.trim_end().rsplit_once('-')?.1)?;
    let what = match name {
        "sched_switch" => {
            let (prev, next) = fields.split_once(" ==> next_comm=")?;
            let state = prev.rsplit_once("prev_state=")?.1;
            let (comm, pid) = next.rsplit_once(" next_pid=")?;
            What::Switch {
                comm: prev.strip_prefix("prev_comm=")?.rsplit_once(" prev_pid=")?.0,
                next: (number(pid)?, comm),
                runnable: state.starts_with('R') || state.ends_with('+'),
            }
        }
        "sched_waking" => What::Waking(number(fields.rsplit_once(" pid=")?.1)?),
        "sched_wakeup" => What::Wakeup(number(fields.rsplit_once(" pid=")?.1)?),
        _ => What::Other,
    };
    Some(Event { at_us: at_us(head)?, by, name, what })
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

    #[test]
    fn a_thread_that_does_something_is_back_without_a_switch() -> Result<()> {
        let exit = "oc a-11 [001] ..... 10.001004: sys_exit: NR 230 = 0";
        let waking = "<idle>-0 [001] d.h3. 10.000900: sched_waking: comm=oc a pid=11 prio=120 target_cpu=001";
        let mend = |line| match line {
            _ if str::contains(line, "prev_pid=0 ") => exit,
            _ if line.contains("sched_wakeup") => waking,
            _ => line,
        };
        // Seen from the second second on, and so known there that the exit comes 4 us late.
        let seen = TEXT
            .replace(" 10.", " 11.")
            .replace(
                "oc a-11 [001] d..2. 11.002000",
                "oc a-11 [001] ..... 11.001004: sys_exit: NR 230 = 0\n$0",
            )
            .replace("$0", "oc a-11 [001] d..2. 11.002000");
        let without: Vec<&str> = TEXT.lines().map(mend).chain(seen.lines()).collect();
        let (mended, whole) = (parse(&without.join("\n"))?, parse(&[TEXT, &seen].concat())?);
        assert_eq!(mended["oc a"].len(), whole["oc a"].len());
        for (mended, whole) in mended["oc a"].iter().zip(&whole["oc a"]) {
            assert!((mended.in_us - whole.in_us).abs() < 0.01, "{mended:?} for {whole:?}");
            assert_eq!((mended.out_us, mended.woken_us), (whole.out_us, whole.woken_us));
        }
        Ok(())
    }
}
