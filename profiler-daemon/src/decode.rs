//! Ring-buffer bytes become samples and events: total, never panics, and what it refuses is counted.

mod join;

use profiler_common::record::{
    FLAG_KERNEL_MISSING, FLAG_KERNEL_THREAD, FLAG_KERNEL_TRUNCATED, FLAG_USER_GUESSED, FLAG_USER_MISSING,
    Header, KIND_EXEC, KIND_EXIT, KIND_FORK, KIND_OFF_CPU, KIND_ON_CPU, KIND_STILL_OFF_CPU, KIND_USER_STACK,
    KIND_WAKER, SAMPLED_BY_CLOCK, SAMPLED_BY_SESSION, STACK_APART, STACK_FOLLOWS, VERSION,
};
use profiler_common::settings::CLOCK_TICK_NS;
use profiler_common::unwind::verdict;
use zerocopy::FromBytes;

pub use join::{Half, Join, UserStack, Woken};

use crate::model::{
    CgroupId, Clock, Comm, Measure, MonoNs, Pid, ProcessChange, ProcessEvent, ProcessId, RawSample, RawWaker,
    Sampled, StackFlags, StopReason, TaskState, Tid, Wait, WalkEnd,
};

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Shorter than its header, or than the frames the header announces.
    Short,
    /// Of a layout that this daemon does not know.
    Version,
    /// Of a kind that this daemon does not know.
    Kind,
}

impl Refused {
    /// The reason under which it is counted.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Short => "record cut short",
            Self::Version => "record of another version",
            Self::Kind => "record of an unknown kind",
        }
    }
}

/// What a record says.
#[derive(Clone, Debug)]
pub enum Record {
    /// A thread was somewhere.
    Sample(Box<RawSample>),
    /// The same, but its user stack is in another record, if anywhere.
    Half(Box<Half>),
    /// Such a user stack.
    UserStack(Box<UserStack>),
    /// Who ended the wait of an interval that is still to come.
    Woken(Box<Woken>),
    /// Something happened to a process.
    Event(ProcessEvent),
}

/// Decodes one record. The ring may pad records at the end; that is ignored.
///
/// # Errors
/// Says why the bytes are not a record.
pub fn record(bytes: &[u8]) -> Result<Record, Refused> {
    let (header, rest) = Header::read_from_prefix(bytes).map_err(|_| Refused::Short)?;
    if header.version != VERSION {
        return Err(Refused::Version);
    }
    let time = MonoNs(header.time_ns);
    let process = ProcessId { pid: Pid(header.pid), start_ticks: header.process_start_ns / CLOCK_TICK_NS };
    let event = |change| Ok(Record::Event(ProcessEvent { time, change }));
    match header.kind {
        // In such records the state is the parent's pid.
        KIND_FORK => event(ProcessChange::Fork { child: process, parent: Pid(header.task_state) }),
        KIND_EXEC => event(ProcessChange::Exec(process)),
        KIND_EXIT => event(ProcessChange::Exit(process)),
        KIND_USER_STACK => user_stack(&header, process, rest).map(|stack| Record::UserStack(Box::new(stack))),
        KIND_WAKER => woken(&header, process, rest).map(|woken| Record::Woken(Box::new(woken))),
        _ => {
            let sample = sample(&header, process, rest)?;
            if header.sampled & STACK_APART == 0 {
                return Ok(Record::Sample(Box::new(sample)));
            }
            let follows = header.sampled & STACK_FOLLOWS != 0;
            Ok(Record::Half(Box::new(Half { sample, site: header.site, sequence: header.sequence, follows })))
        }
    }
}

fn user_stack(header: &Header, process: ProcessId, rest: &[u8]) -> Result<UserStack, Refused> {
    let (user, _) = frames(rest, header.user_frames.into())?;
    Ok(UserStack {
        process,
        tid: Tid(header.tid),
        // In such records the state is the first interval's number.
        sequences: header.task_state..=header.sequence,
        site: header.site,
        user: user.into(),
        walk: walk_end(header.verdict),
        guessed: header.flags & FLAG_USER_GUESSED != 0,
    })
}

fn woken(header: &Header, process: ProcessId, rest: &[u8]) -> Result<Woken, Refused> {
    let (user, rest) = frames(rest, header.user_frames.into())?;
    let (kernel, _) = frames(rest, header.kernel_frames.into())?;
    Ok(Woken {
        // In such records these fields name the thread that was woken.
        process: ProcessId { pid: Pid(header.site), start_ticks: header.preempted_ns / CLOCK_TICK_NS },
        tid: Tid(header.task_state),
        sequence: header.sequence,
        waker: RawWaker {
            time: MonoNs(header.time_ns),
            process,
            tid: Tid(header.tid),
            comm: Comm(header.comm),
            kernel,
            user,
            flags: stack_flags(header),
        },
    })
}

fn stack_flags(header: &Header) -> StackFlags {
    let flag = |bits: u8| header.flags & bits != 0;
    StackFlags {
        walk: walk_end(header.verdict),
        guessed: flag(FLAG_USER_GUESSED),
        kernel_truncated: flag(FLAG_KERNEL_TRUNCATED),
        user_missing: flag(FLAG_USER_MISSING),
        kernel_missing: flag(FLAG_KERNEL_MISSING),
        kernel_thread: flag(FLAG_KERNEL_THREAD),
        borrowed: false,
    }
}

fn sample(header: &Header, process: ProcessId, rest: &[u8]) -> Result<RawSample, Refused> {
    let measure = measure(header)?;
    let (user, rest) = frames(rest, header.user_frames.into())?;
    let (kernel, _) = frames(rest, header.kernel_frames.into())?;
    Ok(RawSample {
        time: MonoNs(header.time_ns),
        process,
        tid: Tid(header.tid),
        comm: Comm(header.comm),
        cpu: header.cpu,
        cgroup: CgroupId(header.cgroup_id),
        kernel,
        user,
        flags: stack_flags(header),
        measure,
        waker: None,
    })
}

fn walk_end(bits: u8) -> WalkEnd {
    match bits {
        verdict::COMPLETE => WalkEnd::Complete,
        verdict::TRUNCATED => WalkEnd::Truncated,
        verdict::NO_TABLE => WalkEnd::Stopped(StopReason::NoTable),
        verdict::NO_RULE => WalkEnd::Stopped(StopReason::NoRule),
        verdict::READ_FAULT => WalkEnd::Stopped(StopReason::ReadFault),
        verdict::NO_CODE => WalkEnd::Stopped(StopReason::NoCode),
        verdict::BACKWARDS => WalkEnd::Stopped(StopReason::Backwards),
        verdict::NO_REGISTERS => WalkEnd::Stopped(StopReason::NoRegisters),
        _ => WalkEnd::None,
    }
}

fn measure(header: &Header) -> Result<Measure, Refused> {
    match header.kind {
        KIND_ON_CPU => Ok(Measure::OnCpu { period_ns: header.period_ns }),
        KIND_OFF_CPU | KIND_STILL_OFF_CPU => {
            let state = TaskState::from_bits(header.task_state);
            let clock =
                Clock { period_ns: header.period_ns, ticks: header.ticks, thread_share: header.thread_share };
            Ok(Measure::OffCpu {
                blocked_ns: header.blocked_ns,
                run_queue_ns: header.run_queue_ns,
                preempted_ns: header.preempted_ns,
                state,
                // What the stack tells beyond that is found out where it has names.
                wait: Wait::of_state(state),
                sequence: header.sequence,
                open: header.kind == KIND_STILL_OFF_CPU,
                sampled: Sampled {
                    by_session: header.sampled & SAMPLED_BY_SESSION != 0,
                    by_clock: (header.sampled & SAMPLED_BY_CLOCK != 0).then_some(clock),
                },
            })
        }
        _ => Err(Refused::Kind),
    }
}

fn frames(bytes: &[u8], count: usize) -> Result<(Box<[u64]>, &[u8]), Refused> {
    let (taken, rest) = bytes.split_at_checked(count * 8).ok_or(Refused::Short)?;
    let frames = taken.chunks_exact(8).map(|chunk| u64::from_ne_bytes(chunk.try_into().unwrap_or_default()));
    Ok((frames.collect(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    fn bytes(header: Header, frames: &[u64]) -> Vec<u8> {
        let mut bytes = header.as_bytes().to_vec();
        frames.iter().for_each(|frame| bytes.extend(frame.to_ne_bytes()));
        bytes
    }

    fn sample_of(bytes: &[u8]) -> RawSample {
        match record(bytes) {
            Ok(Record::Sample(sample)) => *sample,
            other => panic!("not a sample: {other:?}"),
        }
    }

    #[test]
    fn user_frames_come_before_kernel_frames() {
        let header = Header {
            kind: KIND_ON_CPU,
            version: VERSION,
            kernel_frames: 1,
            user_frames: 2,
            period_ns: 10,
            process_start_ns: 55_999_999,
            flags: FLAG_USER_GUESSED,
            verdict: verdict::TRUNCATED,
            ..Header::default()
        };
        let sample = sample_of(&bytes(header, &[8, 9, 7, 0]));
        assert_eq!((&*sample.kernel, &*sample.user), (&[7][..], &[8, 9][..]));
        assert_eq!(sample.measure, Measure::OnCpu { period_ns: 10 });
        assert_eq!(sample.process.start_ticks, 5);
        assert!(
            sample.flags.walk == WalkEnd::Truncated && sample.flags.guessed && !sample.flags.user_missing
        );
    }

    #[test]
    fn halves_of_an_interval_are_told_apart() {
        let interval = Header {
            kind: KIND_OFF_CPU,
            version: VERSION,
            sequence: 9,
            ticks: [2, 0, 1],
            period_ns: 40,
            thread_share: 2,
            sampled: SAMPLED_BY_CLOCK | STACK_APART | STACK_FOLLOWS,
            site: 77,
            ..Header::default()
        };
        let Ok(Record::Half(half)) = record(&bytes(interval, &[])) else { panic!("not a half") };
        assert!(half.follows && half.site == 77 && half.sequence == 9);
        let Measure::OffCpu { sampled, .. } = half.sample.measure else { panic!("not off-CPU") };
        let by_clock = Some(Clock { period_ns: 40, ticks: [2, 0, 1], thread_share: 2 });
        assert_eq!(sampled, Sampled { by_session: false, by_clock });
        let stack = Header {
            kind: KIND_USER_STACK,
            version: VERSION,
            sequence: 9,
            task_state: 7,
            user_frames: 1,
            verdict: verdict::COMPLETE,
            ..Header::default()
        };
        let Ok(Record::UserStack(stack)) = record(&bytes(stack, &[5])) else { panic!("not a stack") };
        assert_eq!((&*stack.user, stack.sequences, stack.walk), (&[5][..], 7..=9, WalkEnd::Complete));
    }

    #[test]
    fn a_waker_names_both_threads() {
        let header = Header {
            kind: KIND_WAKER,
            version: VERSION,
            pid: 5,
            tid: 6,
            process_start_ns: 7 * CLOCK_TICK_NS,
            site: 8,
            task_state: 9,
            preempted_ns: 10 * CLOCK_TICK_NS,
            sequence: 11,
            user_frames: 1,
            kernel_frames: 2,
            ..Header::default()
        };
        let Ok(Record::Woken(woken)) = record(&bytes(header, &[1, 2, 3])) else { panic!("nobody woken") };
        let process = |pid, start_ticks| ProcessId { pid: Pid(pid), start_ticks };
        assert_eq!((woken.process, woken.tid, woken.sequence), (process(8, 10), Tid(9), 11));
        let waker = woken.waker;
        assert_eq!((waker.process, waker.tid), (process(5, 7), Tid(6)));
        assert_eq!((&*waker.user, &*waker.kernel), (&[1][..], &[2, 3][..]));
    }

    #[test]
    fn control_records_are_events() {
        let header = Header {
            kind: KIND_FORK,
            version: VERSION,
            time_ns: 7,
            pid: 42,
            process_start_ns: 3 * CLOCK_TICK_NS,
            task_state: 41,
            ..Header::default()
        };
        let child = ProcessId { pid: Pid(42), start_ticks: 3 };
        let Ok(Record::Event(event)) = record(&bytes(header, &[])) else { panic!("no event") };
        assert_eq!(event.time, MonoNs(7));
        assert_eq!(event.change, ProcessChange::Fork { child, parent: Pid(41) });
        let exit = record(&bytes(Header { kind: KIND_EXIT, ..header }, &[]));
        assert!(matches!(exit, Ok(Record::Event(event)) if event.change == ProcessChange::Exit(child)));
    }

    #[test]
    fn refuses_with_a_reason() {
        let good = Header { kind: KIND_OFF_CPU, version: VERSION, user_frames: 2, ..Header::default() };
        assert_eq!(record(&bytes(good, &[1])).err(), Some(Refused::Short));
        assert_eq!(record(&[0; 10]).err(), Some(Refused::Short));
        assert_eq!(record(&bytes(Header { version: 9, ..good }, &[1, 2])).err(), Some(Refused::Version));
        assert_eq!(record(&bytes(Header { kind: 77, ..good }, &[1, 2])).err(), Some(Refused::Kind));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(noise in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = record(&noise);
        }

        #[test]
        fn any_frame_counts_are_survived(kernel in any::<u8>(), user in any::<u16>(), length in 0..300usize) {
            let header = Header {
                kind: KIND_ON_CPU, version: VERSION, kernel_frames: kernel, user_frames: user, ..Header::default()
            };
            let result = record(&bytes(header, &vec![1; length]));
            prop_assert_eq!(result.is_ok(), usize::from(kernel) + usize::from(user) <= length);
        }
    }
}
