//! USE: utilisation, saturation and errors of a host or a cgroup, each with the stacks behind it.

use std::cmp::Reverse;
use std::time::Duration;

use super::{About, Certainty, WaitTimes, name, short_time};
use crate::model::{Activity, Entry, HostFacts, Loss, Profile, Wait};

/// Frames of a stack that are shown, from the leaf.
const FRAMES: usize = 8;

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    /// How busy.
    Utilization,
    /// How much work waits.
    Saturation,
    /// What went wrong.
    Errors,
}

/// One measure.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportLine {
    /// What it is about.
    pub aspect: Aspect,
    /// `cpu`, `memory`, `io`, `threads` or `profiler`.
    pub resource: &'static str,
    /// Stable name of the measure.
    pub measure: &'static str,
    /// The measure.
    pub value: f64,
    /// `cpus`, `threads`, `percent`, `bytes`, `count` or `seconds`.
    pub unit: &'static str,
    /// For people.
    pub text: String,
    /// The heaviest stacks behind it.
    pub stacks: Vec<HotStack>,
}

/// A stack behind a measure.
#[derive(Clone, Debug, PartialEq)]
pub struct HotStack {
    /// Part of the measure, from 0 to 1.
    pub share: f64,
    /// Name of the process.
    pub comm: String,
    /// Leaf first.
    pub frames: Vec<String>,
}

/// What a report is made from.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// Running, where it was recorded.
    pub on_cpu: Option<(&'a Profile, &'a About)>,
    /// Waiting, where it was recorded.
    pub off_cpu: Option<(&'a Profile, &'a About)>,
    /// What the kernel says of the host or the cgroup, now.
    pub facts: &'a HostFacts,
    /// Whether `facts` are those of a cgroup.
    pub of_cgroup: bool,
}

/// The lines: utilisation, then saturation, then errors. At most `stacks` stacks behind each.
#[must_use]
pub fn report(observed: &Observed<'_>, stacks: usize) -> Vec<ReportLine> {
    let mut lines = Lines { stacks, lines: Vec::new() };
    let on_seconds =
        observed.on_cpu.map(|(profile, about)| lines.running(profile, about, observed.facts.cpus));
    if let Some((profile, about)) = observed.off_cpu {
        lines.waiting(profile, about, on_seconds);
    }
    if let Some((profile, _)) = observed.off_cpu {
        lines.wait_times(profile);
    }
    lines.kernel(observed.facts, observed.of_cgroup);
    for (what, observed) in [("on-CPU", observed.on_cpu), ("off-CPU", observed.off_cpu)] {
        if let Some((profile, _)) = observed {
            lines.certainty(what, profile);
        }
    }
    let mut loss = Loss::default();
    for (profile, _) in [observed.on_cpu, observed.off_cpu].into_iter().flatten() {
        loss.merge(&profile.loss);
    }
    let text = if loss.is_empty() {
        "the profiler lost nothing".to_owned()
    } else {
        format!("the profiler lost {loss}")
    };
    lines.plain(Aspect::Errors, "profiler", "lost", (loss.total() as f64, "count"), text);
    let mut lines = lines.lines;
    lines.sort_by_key(|line| line.aspect);
    lines
}

struct Lines {
    stacks: usize,
    lines: Vec<ReportLine>,
}

impl Lines {
    fn plain(
        &mut self,
        aspect: Aspect,
        resource: &'static str,
        measure: &'static str,
        (value, unit): (f64, &'static str),
        text: String,
    ) {
        self.lines.push(ReportLine { aspect, resource, measure, value, unit, text, stacks: Vec::new() });
    }

    /// Adds the stacks behind the last line.
    fn behind(&mut self, profile: &Profile, wanted: impl Fn(Activity) -> bool) {
        let hottest = hottest(profile, self.stacks, wanted);
        if let Some(line) = self.lines.last_mut() {
            line.stacks = hottest;
        }
    }

    /// On-CPU time; returns seconds on a CPU per second.
    fn running(&mut self, profile: &Profile, about: &About, cpus: u32) -> f64 {
        let busy = per_second(profile.total().ns, about.covered);
        let percent = 100.0 * busy / f64::from(cpus.max(1));
        let text = format!("{} CPUs busy on average, {percent:.1} % of the host's {cpus}", amount(busy));
        self.plain(Aspect::Utilization, "cpu", "on_cpu", (busy, "cpus"), text);
        self.behind(profile, |_| true);
        busy
    }

    fn waiting(&mut self, profile: &Profile, about: &About, on: Option<f64>) {
        let sum = |wanted: fn(Activity) -> bool| {
            let entries = profile.entries().filter(|entry| wanted(entry.activity));
            per_second(entries.map(|entry| entry.value.ns).sum(), about.covered)
        };
        let blocked = |activity| matches!(activity, Activity::Blocked(_));
        let waits = |activity| matches!(activity, Activity::RunQueue | Activity::Preempted);
        let (blocked_threads, waiting_threads) = (sum(blocked), sum(waits));
        let text = format!("{} threads blocked on average", amount(blocked_threads));
        self.plain(Aspect::Utilization, "threads", "blocked", (blocked_threads, "threads"), text);
        self.behind(profile, blocked);
        let mut text = format!("{} threads waited for a CPU on average", amount(waiting_threads));
        if let Some(on) = on.filter(|on| on + waiting_threads > 0.0) {
            let share = 100.0 * waiting_threads / (on + waiting_threads);
            text.push_str(&format!(", {share:.1} % of the time in which they could have run"));
        }
        self.plain(Aspect::Saturation, "cpu", "run_queue", (waiting_threads, "threads"), text);
        self.behind(profile, waits);
    }

    /// How long waits were that better hardware, or less contention, would shorten.
    fn wait_times(&mut self, profile: &Profile) {
        for (activity, waits) in profile.waits_by_activity() {
            let (resource, measure, what) = match activity {
                Activity::RunQueue => ("cpu", "run_queue_delay", "woken threads waited for a CPU"),
                Activity::Preempted => ("cpu", "preempted_delay", "preempted threads waited for a CPU"),
                Activity::Blocked(Wait::Io) => ("io", "wait", "waits for I/O took"),
                Activity::Blocked(Wait::Lock) => ("threads", "lock_wait", "waits for locks took"),
                Activity::Blocked(Wait::PageFault) => {
                    ("memory", "page_fault_wait", "waits in page faults took")
                }
                Activity::Blocked(Wait::Network) => ("threads", "network_wait", "waits for the network took"),
                _ => continue,
            };
            let times = WaitTimes::of(activity, &waits);
            if times.records == 0 && times.still <= 0.0 {
                continue;
            }
            let mut text = format!(
                "{what} {} (p50), {} (p90), {} (p99), at most {}; {:.0} waits, {} of them recorded",
                short_time(times.p50_ns),
                short_time(times.p90_ns),
                short_time(times.p99_ns),
                short_time(times.max_ns),
                times.count,
                times.records
            );
            if times.still > 0.0 {
                let longest = short_time(times.longest_still_ns);
                text.push_str(&format!("; {:.0} still waiting, the longest for {longest}", times.still));
            }
            let seconds = times.p99_ns as f64 / 1e9;
            self.plain(Aspect::Saturation, resource, measure, (seconds, "seconds"), text);
            self.behind(profile, |other| other == activity);
        }
    }

    /// How sure the figures are.
    fn certainty(&mut self, what: &str, profile: &Profile) {
        let certainty = Certainty::from(profile);
        let share = if certainty.total > 0.0 { 100.0 * certainty.total_error / certainty.total } else { 0.0 };
        let error = match certainty.error() {
            error if error.is_empty() => "exact, every interval was taken".to_owned(),
            error => format!("{error} (standard error)"),
        };
        let mut texts = vec![format!("{what} time is {error}")];
        texts.extend(
            [certainty.sampled(), certainty.user_stacks()].into_iter().filter(|text| !text.is_empty()),
        );
        self.plain(Aspect::Errors, "profiler", "standard_error", (share, "percent"), texts.join("; "));
    }

    fn kernel(&mut self, facts: &HostFacts, of_cgroup: bool) {
        for pressure in &facts.pressure {
            let [ten, minute, five] = pressure.some;
            let mut text = format!("some work waited for {} {ten:.1} % of the last 10 s", pressure.resource);
            text.push_str(&format!(" ({minute:.1} % of 1 min, {five:.1} % of 5 min)"));
            if let Some([ten, ..]) = pressure.full.filter(|full| full[0] > 0.0) {
                text.push_str(&format!("; all of it {ten:.1} %"));
            }
            self.plain(Aspect::Saturation, pressure.resource, "pressure", (ten, "percent"), text);
        }
        if let Some(used) = facts.memory_used {
            let text = match facts.memory_limit {
                Some(limit) => {
                    format!("{} of {} in use, {:.1} %", bytes(used), bytes(limit), percent(used, limit))
                }
                None => format!("{} in use, no limit", bytes(used)),
            };
            self.plain(Aspect::Utilization, "memory", "used", (used as f64, "bytes"), text);
        }
        let since = if of_cgroup { "since the cgroup was made" } else { "since boot" };
        if let Some(throttling) = facts.throttling {
            let share = percent(throttling.throttled, throttling.periods);
            let seconds = Duration::from_micros(throttling.throttled_us).as_secs_f64();
            let text =
                format!("held back by the CPU quota in {share:.1} % of its periods, {seconds:.1} s {since}");
            self.plain(Aspect::Errors, "cpu", "throttled", (share, "percent"), text);
        }
        if let Some(kills) = facts.oom_kills {
            let text = format!("{kills} processes killed for want of memory {since}");
            self.plain(Aspect::Errors, "memory", "oom_kills", (kills as f64, "count"), text);
        }
    }
}

/// Two or three digits that say something.
fn amount(amount: f64) -> String {
    match amount {
        a if a >= 100.0 => format!("{a:.0}"),
        a if a >= 0.1 => format!("{a:.2}"),
        a => format!("{a:.3}"),
    }
}

fn per_second(ns: u64, covered: Duration) -> f64 {
    let covered = covered.as_secs_f64();
    if covered > 0.0 { ns as f64 / 1e9 / covered } else { 0.0 }
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

fn bytes(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}

/// The stacks with most time in the activities that are wanted, whoever's they are.
fn hottest(profile: &Profile, limit: usize, wanted: impl Fn(Activity) -> bool) -> Vec<HotStack> {
    let mut entries: Vec<Entry<'_>> = profile.entries().filter(|entry| wanted(entry.activity)).collect();
    let whole: u64 = entries.iter().map(|entry| entry.value.ns).sum();
    entries.sort_by_key(|entry| Reverse(entry.value.ns));
    let stacks = entries.into_iter().take(limit).map(|entry| HotStack {
        share: percent(entry.value.ns, whole) / 100.0,
        comm: name::clean(entry.labels.process_name()).into_owned(),
        frames: entry.stack.iter().take(FRAMES).map(|&frame| name::frame(profile.frame(frame))).collect(),
    });
    stacks.collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{about, off_cpu_profile, on_cpu_profile};
    use super::*;
    use crate::model::{Pressure, Throttling};

    fn texts(observed: &Observed<'_>) -> Vec<String> {
        let lines = report(observed, 2);
        lines
            .into_iter()
            .map(|line| format!("{:?} {} {}: {}", line.aspect, line.resource, line.measure, line.text))
            .collect()
    }

    #[test]
    fn everything_that_is_known_is_a_line() {
        let facts = HostFacts {
            cpus: 4,
            pressure: vec![Pressure { resource: "io", some: [12.0, 6.0, 1.5], full: Some([3.0, 1.0, 0.0]) }],
            throttling: Some(Throttling { periods: 200, throttled: 50, throttled_us: 1_500_000 }),
            oom_kills: Some(2),
            memory_used: Some(3 << 30),
            memory_limit: Some(4 << 30),
        };
        let (on, off, about) = (on_cpu_profile(), off_cpu_profile(), about());
        let observed = Observed {
            on_cpu: Some((&on, &about)),
            off_cpu: Some((&off, &about)),
            facts: &facts,
            of_cgroup: true,
        };
        assert_eq!(
            texts(&observed),
            [
                "Utilization cpu on_cpu: 0.085 CPUs busy on average, 2.1 % of the host's 4",
                "Utilization threads blocked: 0.94 threads blocked on average",
                "Utilization memory used: 3.0 GiB of 4.0 GiB in use, 75.0 %",
                "Saturation cpu run_queue: 0.003 threads waited for a CPU on average, 3.5 % of the time in which they could have run",
                "Saturation io pressure: some work waited for io 12.0 % of the last 10 s (6.0 % of 1 min, 1.5 % of 5 min); all of it 3.0 %",
                "Errors cpu throttled: held back by the CPU quota in 25.0 % of its periods, 1.5 s since the cgroup was made",
                "Errors memory oom_kills: 2 processes killed for want of memory since the cgroup was made",
                "Errors profiler standard_error: on-CPU time is ±11 % (standard error)",
                "Errors profiler standard_error: off-CPU time is exact, every interval was taken",
                "Errors profiler lost: the profiler lost 3 (kernel: on-CPU ring full)",
            ]
        );
        let lines = report(&observed, 2);
        let stacks = &lines[0].stacks;
        assert_eq!(
            (stacks.len(), stacks[0].comm.as_str(), stacks[0].frames[0].as_str()),
            (2, "demo", "core::cmp::max_[i]")
        );
        assert!((stacks[0].share - 40.0 / 85.0).abs() < 1e-9);
        assert!((lines[3].stacks[0].share - 30.0 / 31.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_not_known_is_no_line() {
        let facts = HostFacts::default();
        let observed = Observed { on_cpu: None, off_cpu: None, facts: &facts, of_cgroup: false };
        assert_eq!(texts(&observed), ["Errors profiler lost: the profiler lost nothing"]);
    }
}
