//! Windows of intervals that a simulated clock sampled: lengths of waits, what is open, how sure it is.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::super::windows::Windows;
use crate::model::{
    Activity, Batch, CgroupId, Clock, ClockAnchor, Labels, Measure, MonoNs, Pid, ProcessId, Profile,
    ProfileKind, Sample, Sampled, Selector, StackFlags, TaskState, Tid, Wait,
};

const MS: u64 = 1_000_000;
const T: u64 = 10 * MS;

fn wall(ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000_000 + ms)
}

/// The ticks of a clock in so much time, as the programs count them.
fn tick(left_ns: &mut u64, ns: u64) -> u64 {
    if ns < *left_ns {
        *left_ns -= ns;
        return 0;
    }
    let more = (ns - *left_ns) / T;
    *left_ns = T - (ns - *left_ns - more * T);
    more + 1
}

struct Thread {
    tid: u32,
    left_ns: u64,
    sequence: u32,
    thread_share: u8,
}

impl Thread {
    fn new(tid: u32, thread_share: u8) -> Self {
        Self { tid, left_ns: (u64::from(tid) * 7_919_333) % T + 1, sequence: 0, thread_share }
    }

    /// An interval that ends at `end_ms`; what the kernel would say of it, if anything.
    fn interval(&mut self, end_ms: u64, parts: [u64; 3], open: bool) -> Option<Sample> {
        let mut left_ns = self.left_ns;
        let ticks = parts.map(|ns| tick(&mut left_ns, ns) as u32);
        self.sequence += u32::from(!open);
        let sequence = if open { self.sequence + 1 } else { self.sequence };
        if !open {
            self.left_ns = left_ns;
        }
        let [blocked_ns, run_queue_ns, preempted_ns] = parts;
        let by_clock = Some(Clock { period_ns: T, ticks, thread_share: self.thread_share });
        (ticks != [0; 3]).then(|| Sample {
            time: MonoNs(end_ms * MS),
            process: ProcessId { pid: Pid(self.tid / 100), start_ticks: 1 },
            tid: Tid(self.tid),
            cgroup: CgroupId(1),
            labels: Arc::new(Labels { pid: Pid(self.tid / 100), ..Labels::default() }),
            stack: Arc::new([]),
            flags: StackFlags::default(),
            waker: None,
            measure: Measure::OffCpu {
                blocked_ns,
                run_queue_ns,
                preempted_ns,
                state: TaskState::Interruptible,
                wait: Wait::Lock,
                sequence,
                open,
                sampled: Sampled { by_session: false, by_clock },
            },
        })
    }
}

fn windows() -> Windows {
    let length = Duration::from_secs(1);
    Windows::new(length, Duration::from_millis(100), vec![ProfileKind::OffCpu], 1000)
}

fn insert(windows: &mut Windows, samples: Vec<Sample>) {
    let anchor = ClockAnchor { mono: MonoNs(0), wall: wall(0) };
    windows.insert(&Batch { samples, ..Batch::default() }, &anchor);
}

fn lock(profile: &Profile) -> crate::model::Distribution {
    let waits = profile.waits_by_activity();
    let found = waits.into_iter().find(|(activity, _)| *activity == Activity::Blocked(Wait::Lock));
    found.expect("waits for locks").1
}

#[test]
fn sampled_lengths_stand_for_all_of_them() {
    let mut windows = windows();
    windows.advance(wall(0), wall(0));
    // Nine of ten waits take about 0.2 ms and the tenth 5 ms; each waits 0.05 ms for a CPU after it.
    let (mut samples, mut truth) = (Vec::new(), 0);
    for tid in 100..140 {
        let mut thread = Thread::new(tid, 0);
        for wait in 0..1400_u64 {
            let blocked = if wait % 10 == 9 { 5 * MS } else { 190_000 + wait * 37 % 20_000 };
            samples.extend(thread.interval(500, [blocked, 50_000, 0], false));
            truth += 1;
        }
    }
    let recorded = samples.len();
    assert!(recorded * 5 < truth, "a sample, not all: {recorded} of {truth}");
    insert(&mut windows, samples);
    let sealed = windows.seal_all(wall(900));
    let profile = &sealed[0].profiles[0];
    let waits = lock(profile).ended;
    let ratio = waits.count() / truth as f64;
    assert!((0.9..1.1).contains(&ratio), "{} of {truth}", waits.count());
    assert_eq!((waits.records, waits.max_ns), (recorded as u64, 5 * MS));
    assert!((170_000..240_000).contains(&waits.percentile_ns(0.5)), "{}", waits.percentile_ns(0.5));
    assert!((170_000..240_000).contains(&waits.percentile_ns(0.8)), "{}", waits.percentile_ns(0.8));
    assert!((4 * MS..=5 * MS).contains(&waits.percentile_ns(0.97)), "{}", waits.percentile_ns(0.97));
    let delays = &profile.waits_by_activity()[1];
    assert_eq!(delays.0, Activity::RunQueue);
    assert!((40_000..=50_000).contains(&delays.1.ended.percentile_ns(0.99)));
}

#[test]
fn what_is_open_is_counted_once_and_apart() {
    let mut windows = windows();
    windows.advance(wall(0), wall(0));
    let mut stuck = Thread::new(100, 0);
    let mut other = Thread::new(200, 0);
    insert(&mut windows, vec![stuck.interval(800, [800 * MS, 0, 0], true).expect("ticks")]);
    let mut sealed = windows.advance(wall(1200), wall(1200));
    let second = [stuck.interval(1800, [1800 * MS, 0, 0], true), other.interval(1800, [90 * MS, 0, 0], true)];
    insert(&mut windows, second.into_iter().flatten().collect());
    sealed.extend(windows.advance(wall(2200), wall(2200)));
    insert(&mut windows, stuck.interval(2500, [2500 * MS, 0, 0], false).into_iter().collect());
    insert(&mut windows, other.interval(2800, [1090 * MS, 0, 0], true).into_iter().collect());
    sealed.extend(windows.advance(wall(3200), wall(3200)));
    let open = |profile: &Profile| (lock(profile).open.count(), lock(profile).open.longest_ns / MS);
    let seen: Vec<_> = sealed.iter().map(|window| open(&window.profiles[0])).collect();
    assert_eq!(seen, [(1.0, 800), (2.0, 1800), (1.0, 1090)]);
    let mut all = Profile::new(ProfileKind::OffCpu);
    // Whatever the order in which windows are merged.
    for window in sealed.iter().rev() {
        all.merge(&window.profiles[0]);
    }
    assert_eq!(open(&all), (1.0, 1090));
    assert_eq!((lock(&all).ended.records, lock(&all).ended.max_ns), (1, 2500 * MS));
    // The selector chooses whose: the thread that is stuck no more has nothing open.
    let mut one = Profile::new(ProfileKind::OffCpu);
    let selector = Selector::parse("pid=\"1\"").expect("a selector");
    sealed.iter().for_each(|window| one.merge_selected(&window.profiles[0], &selector));
    assert_eq!((lock(&one).open.count(), lock(&one).ended.records), (0.0, 1));
    // 1800 of 2500 ms were told before.
    assert!(one.total().ns.abs_diff(2500 * MS) <= T, "{}", one.total().ns);
}

#[test]
fn a_thread_stands_for_those_that_are_not_looked_at() {
    let of = |thread_share| {
        let mut windows = windows();
        windows.advance(wall(0), wall(0));
        let mut thread = Thread::new(100, thread_share);
        let samples: Vec<Sample> =
            (0..50).filter_map(|_| thread.interval(500, [15 * MS, 0, 0], false)).collect();
        insert(&mut windows, samples);
        Arc::clone(&windows.seal_all(wall(900))[0].profiles[0])
    };
    let (all, some) = (of(0), of(2));
    assert_eq!(some.total().ns, 4 * all.total().ns);
    assert_eq!(lock(&some).ended.count(), 4.0 * lock(&all).ended.count());
    assert_eq!((all.quality.thread_share, some.quality.thread_share), (0, 2));
    // One thread's time is known to the period; of which thread it is, nothing is.
    assert!(all.total_error() * 1000.0 < T as f64, "{}", all.total_error());
    let share = some.total_error() * 1000.0 / some.total().ns as f64;
    assert!((0.8..0.95).contains(&share), "y * sqrt(p^-1 (p^-1 - 1)) of 4 y: {share}");
}

#[test]
fn rows_of_one_thread_are_less_sure_than_their_sum() {
    let mut windows = windows();
    windows.advance(wall(0), wall(0));
    let mut samples = Vec::new();
    for tid in 100..110 {
        let mut thread = Thread::new(tid, 0);
        for wait in 0..4000_u64 {
            let kind = if wait * wait % 7 < 3 { Wait::Lock } else { Wait::Pipe };
            let sample = thread.interval(500, [200_000, 0, 0], false);
            samples.extend(sample.map(|mut sample| {
                if let Measure::OffCpu { wait, .. } = &mut sample.measure {
                    *wait = kind;
                }
                sample
            }));
        }
    }
    insert(&mut windows, samples);
    let sealed = windows.seal_all(wall(900));
    let profile = &sealed[0].profiles[0];
    let errors: Vec<f64> = profile.entries().map(|entry| entry.error * 1000.0).collect();
    assert_eq!(errors.len(), 2);
    // 800 ticks, half of them here and half there: about sqrt(800 / 4) of them, and ten ends.
    assert!(errors.iter().all(|error| (10.0..20.0).contains(&(error / T as f64))), "{errors:?}");
    let sum = profile.total_error() * 1000.0 / T as f64;
    assert!((1.0..2.0).contains(&sum), "ten ends of T / sqrt(6) each: {sum}");
}
