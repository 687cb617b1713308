//! Every interval comes out once, with its own stack, a borrowed one or none.

use super::*;
use crate::model::{CgroupId, Comm, Measure, Pid, StackFlags};

const OWN: u64 = 100;

fn half(tid: u32, sequence: u32, site: u32, follows: bool) -> Half {
    let sample = RawSample {
        time: MonoNs(u64::from(sequence)),
        process: ProcessId { pid: Pid(1), start_ticks: 1 },
        tid: Tid(tid),
        comm: Comm([0; 16]),
        cpu: 0,
        cgroup: CgroupId(0),
        kernel: Box::new([]),
        user: Box::new([1]),
        flags: StackFlags { user_missing: true, ..StackFlags::default() },
        measure: Measure::OnCpu { period_ns: u64::from(sequence) },
        waker: None,
    };
    Half { sample, site, sequence, follows }
}

fn stack(tid: u32, sequences: RangeInclusive<u32>, site: u32) -> UserStack {
    UserStack {
        process: ProcessId { pid: Pid(1), start_ticks: 1 },
        tid: Tid(tid),
        user: Arc::new([OWN + u64::from(*sequences.end())]),
        sequences,
        site,
        walk: WalkEnd::Complete,
        guessed: false,
    }
}

/// Interval, leaf, missing, borrowed.
type Seen = (u64, u64, bool, bool);

fn seen(sample: &RawSample) -> Seen {
    let Measure::OnCpu { period_ns } = sample.measure else { panic!("not what was put in") };
    (period_ns, sample.user[0], sample.flags.user_missing, sample.flags.borrowed)
}

fn run(run: impl FnOnce(&mut Join, &mut dyn FnMut(RawSample))) -> Vec<Seen> {
    let (mut join, mut all) = (Join::default(), Vec::new());
    run(&mut join, &mut |sample| all.push(seen(&sample)));
    join.release_all(|sample| all.push(seen(&sample)));
    assert!(join.waiting.is_empty() && join.order.is_empty());
    all
}

#[test]
fn a_stack_serves_all_intervals_since_user_mode_and_no_other_thread() {
    let all = run(|join, out| {
        for sequence in 4..=6 {
            join.half(half(1, sequence, 7, true), &mut *out);
        }
        join.half(half(2, 5, 7, true), &mut *out);
        join.user_stack(stack(1, 5..=6, 7), &mut *out);
    });
    // The fourth had its stack overtaken: it borrows. Thread 2 has nobody to borrow from.
    assert_eq!(
        all,
        [(5, 106, false, false), (6, 106, false, false), (4, 106, false, true), (5, 1, true, false)]
    );
}

#[test]
fn a_stack_that_went_ahead_is_the_intervals_own() {
    let all = run(|join, out| {
        join.user_stack(stack(1, 3..=3, 7), &mut *out);
        join.half(half(1, 3, 7, false), &mut *out);
        join.half(half(1, 4, 7, false), &mut *out);
        join.half(half(1, 5, 8, false), &mut *out);
    });
    assert_eq!(all, [(3, 103, false, false), (4, 103, false, true), (5, 1, true, false)]);
}

#[test]
fn nothing_is_borrowed_for_a_preempted_thread() {
    let all = run(|join, out| {
        join.user_stack(stack(1, 3..=3, SITE_PREEMPTED), &mut *out);
        join.half(half(1, 4, SITE_PREEMPTED, false), &mut *out);
    });
    assert_eq!(all, [(4, 1, true, false)]);
}

#[test]
fn patience_and_room_end() {
    let mut join = Join::default();
    let mut count = 0;
    for sequence in 0..MAX_WAITING as u32 + 10 {
        join.half(half(sequence, sequence, 7, true), |_| count += 1);
    }
    assert_eq!(count, 10, "the oldest make room");
    join.release(MonoNs(PATIENCE_NS + 20), |_| count += 1);
    assert_eq!(count, 20, "those of before 20 ns");
}

fn woken(tid: u32, sequence: u32) -> Woken {
    let RawSample { time, process, comm, kernel, user, flags, .. } = half(tid, sequence, 7, true).sample;
    let waker = RawWaker { time, process, tid: Tid(99), comm, kernel, user, flags };
    Woken { process, tid: Tid(tid), sequence, waker }
}

/// An interval of a thread; whether a waker was there for it.
fn has_waker(join: &mut Join, tid: u32, sequence: u32, open: bool) -> bool {
    let measure = Measure::OffCpu {
        blocked_ns: 1,
        run_queue_ns: 0,
        preempted_ns: 0,
        state: crate::model::TaskState::Interruptible,
        wait: crate::model::Wait::Other,
        sequence,
        open,
        sampled: crate::model::Sampled::default(),
    };
    let mut sample = RawSample { measure, ..half(tid, sequence, 7, true).sample };
    join.give_waker(&mut sample);
    sample.waker.is_some_and(|waker| waker.tid == Tid(99))
}

#[test]
fn a_waker_belongs_to_one_interval_of_one_thread() {
    let mut join = Join::default();
    join.woken(woken(1, 5));
    assert!(!has_waker(&mut join, 1, 4, false), "another interval");
    assert!(!has_waker(&mut join, 2, 5, false), "another thread");
    assert!(has_waker(&mut join, 1, 5, true), "woken, but it has not run yet");
    assert!(has_waker(&mut join, 1, 5, false));
    assert!(!has_waker(&mut join, 1, 5, false), "used up");
    assert_eq!(join.take_wakers_lost(), 0);
}

#[test]
fn wakers_without_an_interval_are_bounded_and_counted() {
    let mut join = Join::default();
    for tid in 0..MAX_WAKERS as u32 + 3 {
        join.woken(woken(tid, 5));
    }
    assert_eq!(join.take_wakers_lost(), 3, "no room");
    join.woken(woken(1, 6));
    assert_eq!(join.take_wakers_lost(), 1, "overtaken by the next one");
    join.release(MonoNs(WAKER_PATIENCE_NS + 6), drop);
    assert_eq!((join.take_wakers_lost(), join.wakers.len()), (MAX_WAKERS as u64 - 1, 1));
}
