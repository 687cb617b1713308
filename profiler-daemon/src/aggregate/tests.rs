//! Tests of windows, sessions and the loop that owns both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::model::{
    CgroupId, Clock, Frame, FrameKind, KindLoss, Labels, Loss, Measure, Pid, ProcessId, Sample, Sampled,
    StackFlags, Stage, TaskState, Tid, TimeRange, Wait,
};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

fn sample(time_ns: u64, pid: u32, function: &str, measure: Measure) -> Sample {
    let frame = Frame {
        name: function.into(),
        kind: FrameKind::User,
        module: None,
        address: 0,
        source: None,
        named: true,
    };
    Sample {
        time: MonoNs(time_ns),
        process: ProcessId { pid: Pid(pid), start_ticks: 1 },
        tid: Tid(pid),
        cgroup: CgroupId(7),
        labels: Arc::new(Labels { pid: Pid(pid), cgroup: "/aa/b".into(), ..Labels::default() }),
        stack: Arc::new([Arc::new(frame)]),
        flags: StackFlags::default(),
        measure,
        waker: None,
    }
}

fn hit(time_ns: u64, pid: u32, function: &str) -> Sample {
    sample(time_ns, pid, function, Measure::OnCpu { period_ns: 10 * MS })
}

/// An interval that was blocked but for its last millisecond.
fn interval(end_ns: u64, pid: u32, length_ns: u64, sequence: u32, open: bool) -> Sample {
    let measure = Measure::OffCpu {
        blocked_ns: length_ns.saturating_sub(MS),
        run_queue_ns: MS.min(length_ns),
        preempted_ns: 0,
        state: TaskState::Interruptible,
        wait: Wait::Other,
        sequence,
        open,
        sampled: Sampled { by_session: true, by_clock: None },
    };
    sample(end_ns, pid, "wait", measure)
}

fn batch(samples: Vec<Sample>) -> Batch {
    Batch { samples, ..Batch::default() }
}

fn on_cpu_loss(count: u64) -> KindLoss {
    let mut on_cpu = Loss::default();
    on_cpu.add(Stage::Kernel, "ring full", count);
    KindLoss { on_cpu, ..KindLoss::default() }
}

/// Kernel time 0 is 3 s into a 10 s slot of the wall clock.
fn anchor() -> ClockAnchor {
    ClockAnchor { mono: MonoNs(0), wall: wall(3) }
}

/// Seconds after a multiple of 10 s.
fn wall(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

fn functions(window: &Window, kind: ProfileKind) -> Vec<String> {
    let profiles = window.profiles.iter().filter(|profile| profile.kind() == kind);
    let names = profiles.flat_map(|profile| {
        profile.entries().map(|entry| profile.frame(entry.stack[0]).name.to_string()).collect::<Vec<_>>()
    });
    names.collect()
}

fn windows() -> Windows {
    Windows::new(Duration::from_secs(10), GRACE, vec![ProfileKind::OnCpu], 1000)
}

#[test]
fn windows_end_at_multiples_of_their_length_and_wait_for_late_samples() {
    let mut windows = windows();
    assert!(windows.advance(wall(3), wall(3)).is_empty());
    // Wall clock 10.5: the first window has ended, its grace has not.
    assert!(windows.advance(wall(10), wall(10)).is_empty());
    let samples = vec![hit(6 * SECOND, 1, "late"), hit(7 * SECOND, 1, "new"), hit(60 * SECOND, 1, "future")];
    windows.insert(&batch(samples), &anchor());
    let sealed = windows.advance(wall(11), wall(11));
    assert_eq!(sealed.len(), 1);
    assert_eq!(sealed[0].range, TimeRange { from: wall(3), to: wall(10) });
    assert_eq!(functions(&sealed[0], ProfileKind::OnCpu), ["late"]);
    // Too late for its own window: the oldest that is open takes it.
    windows.insert(&batch(vec![hit(SECOND, 1, "too late")]), &anchor());
    let rest = windows.seal_all(wall(12));
    assert_eq!(rest.len(), 1);
    assert_eq!(rest[0].range, TimeRange { from: wall(10), to: wall(12) });
    assert_eq!(functions(&rest[0], ProfileKind::OnCpu), ["new", "future", "too late"]);
}

#[test]
fn a_window_waits_for_the_stages_before_but_not_for_ever() {
    let mut windows = windows();
    assert!(windows.advance(wall(3), wall(3)).is_empty());
    assert!(windows.advance(wall(25), wall(10)).is_empty(), "its grace was not over when that was read");
    windows.insert(&batch(vec![hit(6 * SECOND, 1, "late")]), &anchor());
    let sealed = windows.advance(wall(26), wall(11));
    assert_eq!(sealed.len(), 1);
    assert_eq!(functions(&sealed[0], ProfileKind::OnCpu), ["late"]);
    assert!(windows.advance(wall(59), wall(11)).is_empty());
    assert_eq!(windows.advance(wall(60), wall(11)).len(), 1, "30 s after its end");
}

#[test]
fn a_sweep_that_comes_late_is_for_the_window_before() {
    let clocked = |end_ns, length_ns, open| {
        let mut sample = interval(end_ns, 1, length_ns, 1, open);
        if let Measure::OffCpu { sampled, .. } = &mut sample.measure {
            sampled.by_clock = Some(Clock::default());
        }
        sample
    };
    let mut windows = windows();
    windows.advance(wall(3), wall(3));
    // 5 s until 0.2 s after the end of the window; then 10 s until its last moment.
    windows.advance(wall(10), wall(10));
    windows.insert(&batch(vec![clocked(7200 * MS, 5 * SECOND, true)]), &anchor());
    let mut sealed = windows.advance(wall(11), wall(11));
    windows.insert(&batch(vec![clocked(16_900 * MS, 14_700 * MS, true)]), &anchor());
    // It ends: that is of the window in which it does.
    assert!(windows.advance(wall(20), wall(20)).is_empty());
    windows.insert(&batch(vec![clocked(17_100 * MS, 14_900 * MS, false)]), &anchor());
    sealed.extend(windows.advance(wall(21), wall(21)));
    sealed.extend(windows.seal_all(wall(22)));
    let off_ms = |window: &Window| {
        let profiles = window.profiles.iter().filter(|profile| profile.kind() == ProfileKind::OffCpu);
        profiles.map(|profile| profile.total().ns / MS).sum::<u64>()
    };
    assert_eq!(sealed.iter().map(off_ms).collect::<Vec<_>>(), [5000, 9700, 200]);
}

#[test]
fn a_stall_makes_one_longer_window_and_no_gap() {
    let mut windows = windows();
    windows.advance(wall(3), wall(3));
    let sealed = windows.advance(wall(47), wall(47));
    assert_eq!(sealed.len(), 1);
    assert_eq!(windows.seal_all(wall(50))[0].range, TimeRange { from: wall(10), to: wall(50) });
}

#[test]
fn windows_hold_their_kinds_losses_and_no_open_interval() {
    let mut windows = windows();
    windows.advance(wall(3), wall(3));
    let mut batch = batch(vec![interval(SECOND, 1, 50 * MS, 1, true)]);
    batch.loss = on_cpu_loss(5);
    windows.insert(&batch, &anchor());
    let sealed = windows.seal_all(wall(4));
    assert_eq!(sealed[0].profiles.len(), 1, "no off-CPU profile for an open interval");
    assert_eq!(sealed[0].profiles[0].kind(), ProfileKind::OnCpu);
    assert_eq!(sealed[0].profiles[0].loss, on_cpu_loss(5).on_cpu);
}

#[test]
fn a_full_window_counts_what_it_refuses() {
    let mut windows = Windows::new(Duration::from_secs(10), GRACE, vec![], 4);
    windows.advance(wall(3), wall(3));
    let samples = ["a", "b", "c", "d", "a"].map(|function| hit(SECOND, 1, function));
    windows.insert(&batch(samples.to_vec()), &anchor());
    let sealed = windows.seal_all(wall(4));
    let profile = &sealed[0].profiles[0];
    // Rows a and b fit (one record could make three rows); known rows go on growing.
    assert_eq!(profile.total().count, 3);
    assert_eq!(profile.loss.to_string(), "2 (pipeline: window full)");
}

fn finish(
    kind: ProfileKind,
    target: Target,
    not_before: u64,
    min_block_ns: u64,
    batches: &[Batch],
) -> Profile {
    let mut sessions = Sessions::new(1000);
    let (reply, mut profile) = oneshot::channel();
    let not_before = MonoNs(not_before);
    let detail = Detail { min_block_ns, wakers: false };
    let usage = Arc::default();
    sessions.open(OpenSession { session: 1, kind, target, not_before, detail, reply, usage });
    for batch in batches {
        sessions.insert(batch);
    }
    profile.try_recv().expect("the session has ended")
}

fn ending(samples: Vec<Sample>) -> Batch {
    Batch { samples, ended: vec![1], ..Batch::default() }
}

#[test]
fn intervals_are_clipped_and_short_ones_left_out() {
    let samples = vec![
        interval(SECOND - MS, 1, 100 * MS, 1, false), // over before the session began
        interval(SECOND + 2 * MS, 1, 500 * MS, 2, false), // 2 of 500 ms inside
        interval(2 * SECOND, 1, 4 * MS, 3, false),    // too short
        interval(3 * SECOND, 1, 20 * MS, 4, false),
        hit(3 * SECOND, 1, "not off-CPU"),
    ];
    let profile = finish(ProfileKind::OffCpu, Target::Host, SECOND, 5 * MS, &[ending(samples)]);
    assert_eq!(profile.total().ns, 22 * MS);
    assert_eq!(profile.quality.records, 2);
}

#[test]
fn open_intervals_count_once_and_only_in_the_batch_that_ends_the_session() {
    let earlier = batch(vec![interval(SECOND, 1, 100 * MS, 1, true)]);
    let last = ending(vec![
        interval(2 * SECOND, 1, 300 * MS, 2, true),
        interval(2 * SECOND + MS, 1, 301 * MS, 2, true), // swept twice
        interval(2 * SECOND, 2, 50 * MS, 9, true),
        interval(2 * SECOND + MS, 2, 51 * MS, 9, false), // ended after the sweep
    ]);
    let profile = finish(ProfileKind::OffCpu, Target::Host, 0, 0, &[earlier, last]);
    assert_eq!(profile.total().ns, (301 + 51) * MS);
}

#[test]
fn another_sessions_sweep_is_not_counted() {
    let mut sessions = Sessions::new(1000);
    let (reply, mut profile) = oneshot::channel();
    let (kind, not_before) = (ProfileKind::OffCpu, MonoNs(0));
    let (detail, usage) = (Detail::default(), Arc::default());
    sessions.open(OpenSession { session: 2, kind, target: Target::Host, not_before, detail, reply, usage });
    sessions.insert(&ending(vec![interval(SECOND, 1, 100 * MS, 1, true)]));
    assert!(profile.try_recv().is_err(), "it was session 1 that ended");
    sessions.finish_all();
    assert!(profile.try_recv().expect("a profile").is_empty());
}

#[test]
fn targets_choose_samples() {
    let count = |target: Target| {
        let samples = vec![hit(SECOND, 1, "f"), hit(SECOND, 2, "g")];
        finish(ProfileKind::OnCpu, target, 0, 0, &[ending(samples)]).total().count
    };
    let process = |start_ticks| ProcessId { pid: Pid(2), start_ticks };
    let cgroup = |id, path: &str| Target::Cgroup { id: CgroupId(id), path: path.to_owned() };
    assert_eq!(count(Target::Host), 2);
    assert_eq!(count(Target::Processes(vec![process(1)])), 1);
    assert_eq!(count(Target::Processes(vec![process(2)])), 0, "another life of the pid");
    assert_eq!(count(Target::Command(process(1))), 2);
    assert_eq!(count(cgroup(7, "/elsewhere")), 2);
    for (path, expected) in [("/aa", 2), ("/aa/b/", 2), ("/", 2), ("/a", 0), ("/aa/bc", 0), ("/aa/b/c", 0)] {
        assert_eq!(count(cgroup(8, path)), expected, "{path}");
    }
}

#[test]
fn a_wall_session_takes_both_kinds_and_all_losses() {
    let mut batch = ending(vec![hit(SECOND, 1, "f"), interval(2 * SECOND, 1, 20 * MS, 1, false)]);
    batch.loss = on_cpu_loss(1);
    batch.loss.off_cpu.add(Stage::Kernel, "map full", 2);
    let profile = finish(ProfileKind::Wall, Target::Host, 0, 0, &[batch]);
    assert_eq!((profile.kind(), profile.total().ns), (ProfileKind::Wall, 30 * MS));
    assert_eq!(profile.loss.total(), 3);
}

/// Clocks that a test moves by hand: seconds of both, and what the wall clock was set forward by.
#[derive(Clone, Default)]
struct Clocks {
    seconds: Arc<AtomicU64>,
    step: Arc<AtomicU64>,
}

impl Clocks {
    fn read(&self) -> ClockAnchor {
        let seconds = self.seconds.load(Ordering::Relaxed);
        let step = self.step.load(Ordering::Relaxed);
        let wall = anchor().wall + Duration::from_secs(seconds + step);
        ClockAnchor { mono: MonoNs(seconds * SECOND), wall }
    }
}

type Running = (mpsc::Sender<Batch>, mpsc::Receiver<Window>, Handle, tokio::task::JoinHandle<()>);

fn run(clocks: &Clocks) -> Running {
    let (samples, receiver) = mpsc::channel(4);
    let (sender, sealed) = mpsc::channel(4);
    let clocks = clocks.clone();
    let (handle, run) = with_clock(Options::default(), anchor(), receiver, sender, move || clocks.read());
    (samples, sealed, handle, tokio::spawn(run))
}

/// Waits until the loop has taken all that was sent. It takes a batch in one go, and these tests
/// have one thread.
async fn taken(samples: &mpsc::Sender<Batch>) {
    while samples.capacity() < samples.max_capacity() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The next sealed window, if there is one soon.
async fn next(sealed: &mut mpsc::Receiver<Window>) -> Option<Window> {
    tokio::time::timeout(Duration::from_secs(20), sealed.recv()).await.ok().flatten()
}

#[tokio::test]
async fn the_loop_seals_by_time_and_finishes_everything_at_the_end() {
    let clocks = Clocks::default();
    let (samples, mut sealed, handle, running) = run(&clocks);
    let profile = handle
        .open(1, ProfileKind::OnCpu, Target::Host, MonoNs(0), Detail::default())
        .await
        .expect("open")
        .profile;
    let abandoned = handle
        .open(2, ProfileKind::OnCpu, Target::Host, MonoNs(0), Detail::default())
        .await
        .expect("open")
        .profile;
    handle.abandon(2).await;
    samples.send(batch(vec![hit(SECOND, 1, "f")])).await.expect("running");
    taken(&samples).await;
    // Until all of it has come: 7 s to the end of the slot, 1 s of grace.
    clocks.seconds.store(8, Ordering::Relaxed);
    samples.send(Batch { complete_to: MonoNs(8 * SECOND), ..Batch::default() }).await.expect("running");
    let window = next(&mut sealed).await.expect("a window");
    assert_eq!(window.range, TimeRange { from: wall(3), to: wall(10) });
    assert_eq!(functions(&window, ProfileKind::OnCpu), ["f"]);

    samples.send(batch(vec![hit(9 * SECOND, 1, "g")])).await.expect("running");
    drop(samples);
    running.await.expect("no panic");
    assert_eq!(functions(&next(&mut sealed).await.expect("the open window"), ProfileKind::OnCpu), ["g"]);
    assert_eq!(profile.await.expect("a profile").total().count, 2);
    assert!(abandoned.await.is_err());
    let late = handle.open(3, ProfileKind::OnCpu, Target::Host, MonoNs(0), Detail::default()).await;
    assert_eq!(late.err(), Some(Closed));
}

#[tokio::test]
async fn windows_follow_the_wall_clock_when_it_is_set() {
    let clocks = Clocks::default();
    let (samples, mut sealed, _handle, running) = run(&clocks);
    samples.send(batch(vec![hit(SECOND / 2, 1, "before")])).await.expect("running");
    taken(&samples).await;
    clocks.seconds.store(1, Ordering::Relaxed);
    clocks.step.store(3600, Ordering::Relaxed);
    let window = next(&mut sealed).await.expect("sealed at the step");
    assert_eq!(functions(&window, ProfileKind::OnCpu), ["before"]);
    assert_eq!(window.range, TimeRange { from: wall(3), to: wall(4) });
    clocks.seconds.store(2, Ordering::Relaxed);
    samples.send(batch(vec![hit(2 * SECOND, 1, "after")])).await.expect("running");
    drop(samples);
    running.await.expect("no panic");
    let window = next(&mut sealed).await.expect("the open window");
    assert_eq!(window.range, TimeRange { from: wall(3604), to: wall(3605) });
    assert_eq!(functions(&window, ProfileKind::OnCpu), ["after"]);
}

#[tokio::test]
async fn a_session_nobody_waits_for_is_forgotten() {
    let mut sessions = Sessions::new(1000);
    let (reply, profile) = oneshot::channel();
    let (kind, not_before) = (ProfileKind::OnCpu, MonoNs(0));
    let (detail, usage) = (Detail::default(), Arc::default());
    sessions.open(OpenSession { session: 1, kind, target: Target::Host, not_before, detail, reply, usage });
    sessions.forget_unwanted();
    assert_eq!(sessions.count(), 1);
    drop(profile);
    sessions.forget_unwanted();
    assert_eq!(sessions.count(), 0);
}

#[test]
fn open_windows_tell_what_they_hold_so_far_and_when_it_was() {
    let mut windows = Windows::new(Duration::from_secs(10), GRACE, vec![ProfileKind::OnCpu], 1000);
    assert!(windows.advance(wall(3), wall(3)).is_empty());
    windows.insert(&batch(vec![hit(SECOND, 1, "a"), hit(2 * SECOND, 1, "b")]), &anchor());
    let so_far: Vec<Window> = windows.so_far(wall(6)).collect();
    let [window] = so_far.as_slice() else { panic!("{so_far:?}") };
    assert_eq!(window.range, TimeRange { from: wall(3), to: wall(6) });
    assert_eq!(functions(window, ProfileKind::OnCpu), ["a", "b"]);
    let times = window.profiles[0].times().expect("windows keep them");
    assert_eq!([0, 1].map(|row| times.of_row(row)[0].start_ms), [1000, 2000]);
    // It goes on as if nobody had looked.
    windows.insert(&batch(vec![hit(3 * SECOND, 1, "c")]), &anchor());
    let sealed = windows.advance(wall(11), wall(11));
    assert_eq!(functions(&sealed[0], ProfileKind::OnCpu), ["a", "b", "c"]);
}

/// The interval as windows take it.
fn by_clock(mut sample: Sample, clock: Clock) -> Sample {
    if let Measure::OffCpu { sampled, .. } = &mut sample.measure {
        sampled.by_clock = Some(clock);
    }
    sample
}

#[test]
fn an_open_window_says_how_sure_it_is_and_what_has_not_ended() {
    let mut windows = Windows::new(Duration::from_secs(10), GRACE, vec![ProfileKind::OffCpu], 1000);
    windows.advance(wall(3), wall(3));
    let clock = Clock { period_ns: 10 * MS, ticks: [2, 0, 0], thread_share: 0 };
    let samples = [false, true].map(|open| interval(3 * SECOND, 1, 15 * MS, u32::from(open), open));
    windows.insert(&batch(samples.map(|sample| by_clock(sample, clock)).to_vec()), &anchor());
    let told = |window: &Window| {
        let profile = &window.profiles[0];
        let open: f64 = profile.waits_by_activity().iter().map(|(_, waits)| waits.open.count()).sum();
        (profile.total().ns / MS, open, profile.total_error())
    };
    let first = told(&windows.so_far(wall(9)).next().expect("a window"));
    assert_eq!((first.0, first.1), (40, 1.0));
    assert!(first.2 > 0.0);
    // However often it is looked at.
    assert_eq!(told(&windows.so_far(wall(9)).next().expect("a window")), first);
    assert_eq!(told(&windows.advance(wall(11), wall(11))[0]), first);
}

#[test]
fn a_piece_of_an_open_interval_lies_where_it_is_new() {
    let mut windows = Windows::new(Duration::from_secs(10), GRACE, vec![ProfileKind::OffCpu], 1000);
    windows.advance(wall(3), wall(3));
    let first = by_clock(interval(3 * SECOND, 1, 2 * SECOND, 1, true), Clock::default());
    let second = by_clock(interval(5 * SECOND, 1, 4 * SECOND, 1, true), Clock::default());
    windows.insert(&batch(vec![first]), &anchor());
    windows.insert(&batch(vec![second]), &anchor());
    let window = windows.so_far(wall(9)).next().expect("a window");
    let times = window.profiles[0].times().expect("windows keep them");
    let spans: Vec<_> = times.of_row(0).iter().map(|span| (span.start_ms, span.end_ms())).collect();
    assert_eq!(spans, [(1000, 2999), (3000, 5000)]);
}
