//! Ring-buffer bytes through the whole user-space pipeline, without root: decode, symbolize,
//! aggregate, render.
#![expect(clippy::expect_used, reason = "helpers of tests, which clippy does not know as such")]

use std::time::{Duration, SystemTime};

use profiler_common::record::{
    Header, KIND_OFF_CPU, KIND_ON_CPU, KIND_STILL_OFF_CPU, SAMPLED_BY_SESSION, VERSION,
};
use profiler_common::settings::CLOCK_TICK_NS;
use profiler_daemon::model::{
    ClockAnchor, Detail, MonoNs, Pid, Profile, ProfileKind, RawBatch, Stage, Target, TimeRange,
};
use profiler_daemon::render::{About, Format};
use profiler_daemon::{aggregate, decode, procs, render, symbolize};
use tokio::sync::mpsc;
use zerocopy::IntoBytes;

const MS: u64 = 1_000_000;
const SESSION: u64 = 7;

#[inline(never)]
fn leaf() -> usize {
    std::hint::black_box(1)
}

#[inline(never)]
fn caller() -> usize {
    std::hint::black_box(2)
}

/// A stack of this process: the entry of `leaf`, and a return address inside `caller`.
fn stack() -> [u64; 2] {
    [leaf as *const () as u64, caller as *const () as u64 + 2]
}

fn record(kind: u8, frames: &[u64], fill: impl FnOnce(&mut Header)) -> Vec<u8> {
    let own = procs::identify(Pid(std::process::id())).expect("this process exists");
    let mut header = Header {
        kind,
        version: VERSION,
        user_frames: frames.len() as u16,
        time_ns: 1000 * MS,
        pid: own.pid.0,
        tid: own.pid.0,
        process_start_ns: own.start_ticks * CLOCK_TICK_NS,
        sampled: SAMPLED_BY_SESSION,
        comm: *b"replay;\n\0\0\0\0\0\0\0\0",
        ..Header::default()
    };
    fill(&mut header);
    let mut bytes = header.as_bytes().to_vec();
    frames.iter().for_each(|frame| bytes.extend(frame.to_ne_bytes()));
    bytes
}

/// What the kernel task does with the bytes of one drain.
fn batch(records: &[Vec<u8>], ended: Vec<u64>) -> RawBatch {
    let mut batch = RawBatch { ended, ..RawBatch::default() };
    for bytes in records {
        match decode::record(bytes) {
            Ok(decode::Record::Sample(sample)) => batch.samples.push(*sample),
            Ok(_) => batch.loss.on_cpu.add(Stage::Decode, "no sample", 1),
            Err(refused) => batch.loss.on_cpu.add(Stage::Decode, refused.reason(), 1),
        }
    }
    batch
}

async fn replay(kind: ProfileKind, batches: Vec<RawBatch>) -> Profile {
    let (raw, raw_in) = mpsc::channel(4);
    let (named, named_in) = mpsc::channel(4);
    let (windows, _unread) = mpsc::channel(4);
    // What the compiler inlines into the functions above is its own affair.
    let reader = symbolize::ReaderProgram::new(env!("CARGO_BIN_EXE_profiler").into());
    let names = symbolize::Options { inlined: false, reader, ..symbolize::Options::default() };
    let symbolizer =
        symbolize::Symbolizer::spawn(names, procs::SharedTable::default(), raw_in, named).expect("a thread");
    let anchor = ClockAnchor { mono: MonoNs(0), wall: SystemTime::UNIX_EPOCH };
    let options = aggregate::Options { window: None, ..aggregate::Options::default() };
    let (sessions, run) = aggregate::start(options, anchor, named_in, windows);
    let running = tokio::spawn(run);
    let profile =
        sessions.open(SESSION, kind, Target::Host, MonoNs(0), Detail::default()).await.expect("running");
    for batch in batches {
        raw.send(batch).await.expect("running");
    }
    drop(raw);
    let profile = profile.profile.await.expect("a profile");
    running.await.expect("no panic");
    tokio::task::spawn_blocking(|| symbolizer.join()).await.expect("no panic").expect("no panic");
    profile
}

fn folded(profile: &Profile) -> Vec<String> {
    let range =
        TimeRange { from: SystemTime::UNIX_EPOCH, to: SystemTime::UNIX_EPOCH + Duration::from_secs(1) };
    let about = About { title: "replay".to_owned(), range, covered: range.length(), command: None };
    let mut text = Vec::new();
    render::render(profile, &about, Format::Folded, &mut text).expect("rendered");
    String::from_utf8(text).expect("text").lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn on_cpu_bytes_become_named_stacks() {
    let hit = || record(KIND_ON_CPU, &stack(), |header| header.period_ns = 10 * MS);
    let rubbish = vec![0xff; 40];
    let profile =
        replay(ProfileKind::OnCpu, vec![batch(&[hit(), rubbish], vec![]), batch(&[hit()], vec![SESSION])])
            .await;
    assert_eq!(folded(&profile), ["replay:\u{fffd};replay::caller;replay::leaf 2"]);
    assert_eq!(profile.loss.total(), 1, "{}", profile.loss);
    assert_eq!(profile.total().ns, 20 * MS);
}

#[tokio::test(flavor = "multi_thread")]
async fn off_cpu_bytes_keep_their_parts_apart_and_open_intervals_count_at_the_end() {
    let waited = record(KIND_OFF_CPU, &stack(), |header| {
        header.blocked_ns = 30 * MS;
        header.run_queue_ns = 2 * MS;
        header.task_state = 1;
        header.sequence = 1;
    });
    let preempted = record(KIND_OFF_CPU, &stack(), |header| {
        header.preempted_ns = 5 * MS;
        header.sequence = 2;
    });
    let stuck = record(KIND_STILL_OFF_CPU, &stack()[..1], |header| {
        header.blocked_ns = 400 * MS;
        header.task_state = 2;
        header.sequence = 3;
    });
    let early = batch(&[waited, stuck.clone()], vec![]);
    let profile = replay(ProfileKind::OffCpu, vec![early, batch(&[preempted, stuck], vec![SESSION])]).await;
    assert_eq!(
        folded(&profile),
        [
            "replay:\u{fffd};replay::caller;replay::leaf;[blocked] 30000",
            "replay:\u{fffd};replay::caller;replay::leaf;[preempted] 5000",
            "replay:\u{fffd};replay::caller;replay::leaf;[run-queue] 2000",
            "replay:\u{fffd};replay::leaf;[blocked: uninterruptible] 400000",
        ]
    );
}
