//! A day of a host with 300 processes and 2000 distinct stacks a window in the store: bytes on
//! disk, and latency and peak memory of what an incident asks. Prints a table.
//!
//! `cargo bench -p profiler-daemon --bench store`; `PROFILER_BENCH_HOURS` makes the day shorter.
#![expect(clippy::expect_used, reason = "a bench ends where something does not work")]

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use profiler_daemon::model::{
    Activity, CgroupId, Extent, Frame, FrameKind, Labels, Measure, Module, MonoNs, Pid, ProcessId, Profile,
    ProfileKind, Sample, Selector, StackFlags, StackQuality, Tid, TimeRange, Value, WalkEnd, Window,
};
use profiler_daemon::store::{Store, StoreOptions};

const PROCESSES: u64 = 300;
const CONTAINERS: u64 = 60;
const ROWS: u64 = 2000;
const WINDOW: u64 = 10;
/// Stacks that windows draw from: some much hotter than others, more now and then, and a hundredth that
/// are new.
const HOT: u64 = 8_000;
const RARE: u64 = 40_000;
const PERIOD_NS: u64 = 10_101_010;
/// Windows at the end whose times have not been rolled up yet.
const TIMED: u64 = 3600 / WINDOW + 12;
/// 2026-01-01, so that an hour begins with it.
const START: u64 = 1_767_225_600;

fn main() {
    let hours = std::env::var("PROFILER_BENCH_HOURS").ok().and_then(|hours| hours.parse().ok()).unwrap_or(24);
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let host = Host::new();
    let idle = resident();
    let options = StoreOptions {
        max_age: Duration::from_secs(25 * 3600),
        max_bytes: 1 << 30,
        ..StoreOptions::default()
    };
    let store = Store::open(directory.path(), options).expect("a store");
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let mut inserts = Vec::new();
    let mut upkeep = Duration::ZERO;
    let mut peak = 0;
    let windows = hours * 3600 / WINDOW;
    let mut most = 0;
    for window in 0..windows {
        let window = host.window(window, windows - window <= TIMED, &mut dice);
        forget_peak();
        let began = Instant::now();
        assert!(store.insert(window), "not written");
        inserts.push(began.elapsed());
        if inserts.len() % 30 == 0 {
            let began = Instant::now();
            store.maintain();
            upkeep += began.elapsed();
            most = most.max(store.stats().bytes);
        }
        peak = peak.max(resident_peak());
    }
    let stats = store.stats();
    println!("{hours} h, {windows} windows of {ROWS} rows; stored as {} windows", stats.windows);
    println!("on disk: {:.1} MiB at the end, {:.1} MiB at most", mib(stats.bytes), mib(most));
    println!(
        "a window: {} to insert (median), {} (p99); upkeep {:.2} ms a window",
        millis(quantile(&mut inserts, 0.5)),
        millis(quantile(&mut inserts, 0.99)),
        upkeep.as_secs_f64() * 1e3 / windows as f64
    );
    println!("memory: {:.1} MiB above idle at most while writing", mib(peak.saturating_sub(idle)));

    let end = START + windows * WINDOW;
    let hour = |back: u64| range(end - (back + 1) * 3600, end - back * 3600);
    let all = range(START, end);
    let at = |ms: u64| range(end - 100, end).from + Duration::from_millis(ms);
    let burst = TimeRange { from: at(200), to: at(400) };
    let questions: [(&str, usize, &str, Vec<TimeRange>); 5] = [
        ("last 5 min of one process", 100, r#"pid="1007""#, vec![range(end - 300, end)]),
        ("200 ms of all", 100, "", vec![burst]),
        ("24 h of one container", 10, r#"cgroup="/kubepods/pod7""#, vec![all]),
        ("24 h of all", 10, "", vec![all]),
        ("two hours to compare", 10, "", vec![hour(0), hour(hours.min(12) - 1)]),
    ];
    println!("{:<28} {:>10} {:>10} {:>12} {:>9}", "question", "p50", "p99", "peak memory", "rows");
    for (name, times, selector, ranges) in questions {
        let selector = Selector::parse(selector).expect("valid");
        let before = resident();
        forget_peak();
        let mut rows = 0;
        let mut latencies: Vec<Duration> = (0..times)
            .map(|_| {
                let began = Instant::now();
                let answers: Vec<_> =
                    ranges.iter().map(|range| store.query(ProfileKind::OnCpu, &selector, *range)).collect();
                rows = answers.iter().map(|answer| answer.profile.row_count()).sum();
                began.elapsed()
            })
            .collect();
        let (median, worst) = (quantile(&mut latencies, 0.5), quantile(&mut latencies, 0.99));
        println!(
            "{name:<28} {:>10} {:>10} {:>8.1} MiB {rows:>9}",
            millis(median),
            millis(worst),
            mib(resident_peak().saturating_sub(before)),
        );
    }
    let began = Instant::now();
    let cell = Duration::from_millis(20);
    let heat = store.heat(ProfileKind::OnCpu, &Selector::default(), range(end - 900, end), cell).values();
    println!("heat map of 15 min: {}, {} samples", millis(began.elapsed()), heat.iter().sum::<u64>());
}

/// What runs on the synthetic host.
struct Host {
    labels: Vec<Arc<Labels>>,
    frames: Vec<Arc<Frame>>,
    stacks: Vec<Vec<Arc<Frame>>>,
}

impl Host {
    fn new() -> Self {
        let mut dice = Dice(88_172_645_463_325_252);
        let labels = (0..PROCESSES).map(|process| {
            Arc::new(Labels {
                pid: Pid(1000 + process as u32),
                comm: format!("service-{}", process % 80).into(),
                cgroup: format!("/kubepods/pod{}", process % CONTAINERS).into(),
                ..Labels::default()
            })
        });
        let modules: Vec<Arc<Module>> = (0..60)
            .map(|module| {
                let build_id = Some(format!("{:040x}", module * 7919).into());
                Arc::new(Module {
                    path: format!("/usr/lib/libservice{module}.so").into(),
                    build_id,
                    has_symbols: true,
                })
            })
            .collect();
        let frames: Vec<Arc<Frame>> = (0..12_000_u64)
            .map(|number| {
                let module = &modules[dice.below(60) as usize];
                Arc::new(Frame {
                    name: format!("library{}::module_{}::function_{number}", number % 60, number % 700)
                        .into(),
                    kind: if number % 5 == 0 { FrameKind::Kernel } else { FrameKind::User },
                    module: Some(Arc::clone(module)),
                    address: number * 4096 + dice.below(4000),
                    source: None,
                    named: true,
                })
            })
            .collect();
        let stacks = (0..HOT + RARE).map(|_| stack(&frames, &mut dice)).collect();
        Self { labels: labels.collect(), frames, stacks }
    }

    /// A window; `timed` ones keep when each record came, as all do until they are rolled up.
    fn window(&self, number: u64, timed: bool, dice: &mut Dice) -> Window {
        let from = START + number * WINDOW;
        let range = range(from, from + WINDOW);
        // Records until so many distinct stacks have been seen.
        let mut seen: HashMap<u64, u64> = HashMap::new();
        while seen.len() < (ROWS - ROWS / 100) as usize {
            let stack = if dice.below(10) == 0 { HOT + dice.below(RARE) } else { dice.zipf(HOT) };
            *seen.entry(stack).or_default() += 1;
        }
        let mut profile = match timed {
            true => Profile::with_times(ProfileKind::OnCpu, range.from),
            false => Profile::new(ProfileKind::OnCpu),
        };
        let mut rows: Vec<(u64, u64)> = seen.into_iter().collect();
        rows.sort_unstable();
        for (stack, count) in rows {
            // A stack belongs to one process.
            self.add(&mut profile, &self.stacks[stack as usize], stack % PROCESSES, number, count, dice);
        }
        for _ in 0..ROWS / 100 {
            let stack = stack(&self.frames, dice);
            self.add(&mut profile, &stack, dice.below(PROCESSES), number, 1, dice);
        }
        if !timed {
            let records = profile.total().count;
            profile.quality.merge(&StackQuality { records, complete: records, ..StackQuality::default() });
        }
        Window { range, profiles: vec![Arc::new(profile)] }
    }

    fn add(
        &self,
        profile: &mut Profile,
        stack: &[Arc<Frame>],
        process: u64,
        window: u64,
        count: u64,
        dice: &mut Dice,
    ) {
        let labels = self.labels(process, window);
        let Some(times) = profile.times() else {
            let value = Value::exact(count, count * PERIOD_NS);
            profile.add_row(&labels, Activity::OnCpu, stack, value);
            return;
        };
        let origin = times.origin();
        let measure = Measure::OnCpu { period_ns: PERIOD_NS };
        let sample = Sample {
            time: MonoNs(0),
            process: ProcessId { pid: labels.pid, start_ticks: 1 },
            tid: Tid(labels.pid.0),
            cgroup: CgroupId(1),
            labels,
            stack: stack.into(),
            flags: StackFlags { walk: WalkEnd::Complete, ..StackFlags::default() },
            measure,
            waker: None,
        };
        for _ in 0..count {
            let at = origin + Duration::from_millis(dice.below(WINDOW * 1000));
            let rows = profile.add_when(&sample, Some(&Extent::of(measure, at)), usize::MAX);
            assert!(rows.is_some(), "there is room");
        }
    }

    /// Who a process is now: every fifth is replaced by another one every ten minutes.
    fn labels(&self, process: u64, window: u64) -> Arc<Labels> {
        let labels = &self.labels[process as usize];
        if !process.is_multiple_of(5) {
            return Arc::clone(labels);
        }
        let generation = window / (600 / WINDOW);
        Arc::new(Labels { pid: Pid(labels.pid.0 + (generation * PROCESSES) as u32), ..Labels::clone(labels) })
    }
}

/// 10 to 40 frames; as in life, the outer ones are shared by many stacks.
fn stack(frames: &[Arc<Frame>], dice: &mut Dice) -> Vec<Arc<Frame>> {
    let depth = 10 + dice.below(30);
    let trunk = dice.below(200);
    let frame = |level: u64, dice: &mut Dice| {
        let choice = if level * 2 < depth { trunk * 50 + level } else { dice.below(frames.len() as u64) };
        Arc::clone(&frames[choice as usize % frames.len()])
    };
    let mut stack: Vec<Arc<Frame>> = (0..depth).map(|level| frame(level, dice)).collect();
    stack.reverse();
    stack
}

/// Numbers that look random, the same in every run.
struct Dice(u64);

impl Dice {
    /// Below `limit`, and `n` twice as often as `2 * n`.
    fn zipf(&mut self, limit: u64) -> u64 {
        let throw = self.below(1 << 32) as f64 / (1_u64 << 32) as f64;
        ((limit as f64).powf(throw) as u64).saturating_sub(1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn range(from: u64, to: u64) -> TimeRange {
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    TimeRange { from: at(from), to: at(to) }
}

fn quantile(values: &mut [Duration], q: f64) -> Duration {
    values.sort_unstable();
    values[((values.len() - 1) as f64 * q).round() as usize]
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Resident memory of this process, bytes.
fn resident() -> u64 {
    status("VmRSS:")
}

/// Its peak since [`forget_peak`].
fn resident_peak() -> u64 {
    status("VmHWM:")
}

fn status(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("proc is mounted");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("Linux has it");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

fn forget_peak() {
    // proc(5): 5 resets the peak.
    fs::write("/proc/self/clear_refs", "5").expect("Linux 4.0");
}
