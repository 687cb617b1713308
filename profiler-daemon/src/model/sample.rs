//! One record from the kernel, before ([`RawSample`]) and after ([`Sample`]) symbolization.

use std::sync::Arc;

use super::{CgroupId, Comm, Frame, Labels, MonoNs, ProcessId, RawWaker, Tid, Wait, Waker};

/// A decoded record: addresses, not names.
#[derive(Clone, Debug)]
pub struct RawSample {
    /// When the record was written: for an interval, when it ended.
    pub time: MonoNs,
    /// The process.
    pub process: ProcessId,
    /// The thread.
    pub tid: Tid,
    /// The thread's name.
    pub comm: Comm,
    /// The CPU that wrote the record.
    pub cpu: u16,
    /// The thread's cgroup in the v2 hierarchy.
    pub cgroup: CgroupId,
    /// Kernel addresses, leaf first.
    pub kernel: Box<[u64]>,
    /// User addresses, leaf first.
    pub user: Box<[u64]>,
    /// What is known of the stack.
    pub flags: StackFlags,
    /// What was measured.
    pub measure: Measure,
    /// Who ended the blocked part of an interval, where that was recorded.
    pub waker: Option<Box<RawWaker>>,
}

/// A symbolized record.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When the record was written: for an interval, when it ended.
    pub time: MonoNs,
    /// The process.
    pub process: ProcessId,
    /// The thread.
    pub tid: Tid,
    /// The thread's cgroup in the v2 hierarchy.
    pub cgroup: CgroupId,
    /// Who it was.
    pub labels: Arc<Labels>,
    /// Frames, leaf first: kernel frames, then user frames.
    pub stack: Arc<[Arc<Frame>]>,
    /// What is known of the stack.
    pub flags: StackFlags,
    /// What was measured.
    pub measure: Measure,
    /// Who ended the blocked part of an interval, where that was recorded.
    pub waker: Option<Arc<Waker>>,
}

/// What is known of a record's stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StackFlags {
    /// How the walk of the user stack ended.
    pub walk: WalkEnd,
    /// At least one user frame was found by following the frame pointer, for want of unwinding
    /// tables: likely, but not certain.
    pub guessed: bool,
    /// The kernel stack was cut at its depth limit.
    pub kernel_truncated: bool,
    /// No user stack although the thread has one.
    pub user_missing: bool,
    /// The kernel stack could not be read.
    pub kernel_missing: bool,
    /// The thread is a kernel thread.
    pub kernel_thread: bool,
    /// The user stack is not this interval's own but the last one that was seen when the thread
    /// waited at the same place: equal instruction and stack pointer.
    pub borrowed: bool,
}

/// How the walk of a user stack ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WalkEnd {
    /// There was nothing to walk.
    #[default]
    None,
    /// At the outermost frame: the stack is complete.
    Complete,
    /// At the depth limit.
    Truncated,
    /// Early, for this reason.
    Stopped(StopReason),
}

/// Why the walk of a user stack ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StopReason {
    /// The process, or the code, was so new that its unwinding tables were not there yet.
    NoTable,
    /// Code without usable unwinding information, and a frame pointer that led nowhere.
    NoRule,
    /// Stack memory that could not be read.
    ReadFault,
    /// An address where no code is mapped.
    NoCode,
    /// A frame that would have lain below its callee.
    Backwards,
    /// The thread's registers were not to be had.
    NoRegisters,
}

impl StopReason {
    /// All reasons, in the order in which [`super::StackQuality::stopped`] counts them.
    pub const ALL: [Self; 6] =
        [Self::NoTable, Self::NoRule, Self::ReadFault, Self::NoCode, Self::Backwards, Self::NoRegisters];

    /// For people.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::NoTable => "no unwinding table yet",
            Self::NoRule => "no unwinding information",
            Self::ReadFault => "stack memory not readable",
            Self::NoCode => "no code at the return address",
            Self::Backwards => "frames out of order",
            Self::NoRegisters => "no registers",
        }
    }
}

/// What a record measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// One hit of the sampler.
    OnCpu {
        /// Nominal sampling period, ns.
        period_ns: u64,
    },
    /// One interval off the CPU, in up to three parts.
    OffCpu {
        /// Switch-out to wake-up, ns.
        blocked_ns: u64,
        /// Wake-up to running, ns.
        run_queue_ns: u64,
        /// Runnable at switch-out, until running again, ns.
        preempted_ns: u64,
        /// The thread's state at switch-out.
        state: TaskState,
        /// What the blocked part was a wait for.
        wait: Wait,
        /// Number of the interval within its thread.
        sequence: u32,
        /// The interval had not ended: a sweep saw it open.
        open: bool,
        /// Who wants it.
        sampled: Sampled,
    },
}

/// Who wants an off-CPU interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sampled {
    /// Sessions: it is of one of their targets, and long enough for one of them.
    pub by_session: bool,
    /// The continuous profile: what the thread's clock says.
    pub by_clock: Option<Clock>,
}

/// What a thread's off-CPU clock says of an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// Its period, ns; 0 takes every interval for what it is.
    pub period_ns: u64,
    /// Ticks in the blocked, run-queue and preempted part.
    pub ticks: [u32; 3],
    /// One thread in `1 << thread_share` was looked at: each stands for so many.
    pub thread_share: u8,
}

impl Clock {
    /// For how many threads this one stands.
    #[must_use]
    pub fn stands_for(self) -> u64 {
        1 << self.thread_share.min(31)
    }
}

impl Measure {
    /// The same measure without what lies before `not_before`, for an interval that ends at
    /// `end`. The blocked part comes first in time, the run-queue part last.
    #[must_use]
    pub fn clipped(mut self, end: MonoNs, not_before: MonoNs) -> Self {
        if let Self::OffCpu { blocked_ns, run_queue_ns, preempted_ns, .. } = &mut self {
            let room = end.0.saturating_sub(not_before.0);
            *run_queue_ns = (*run_queue_ns).min(room);
            *preempted_ns = (*preempted_ns).min(room - *run_queue_ns);
            *blocked_ns = (*blocked_ns).min(room - *run_queue_ns - *preempted_ns);
        }
        self
    }

    /// The blocked, run-queue and preempted time that an interval stands for by its thread's
    /// clock, ns, itself and not the threads that its own stands for; `None` where the clock did not tick in it, and for on-CPU hits.
    #[must_use]
    pub fn by_clock(self) -> Option<[u64; 3]> {
        let Self::OffCpu { blocked_ns, run_queue_ns, preempted_ns, sampled, .. } = self else { return None };
        let Clock { period_ns, ticks, .. } = sampled.by_clock?;
        Some(match period_ns {
            0 => [blocked_ns, run_queue_ns, preempted_ns],
            _ => ticks.map(|ticks| u64::from(ticks).saturating_mul(period_ns)),
        })
    }

    /// The same measure with other lengths of the blocked, run-queue and preempted part.
    #[must_use]
    pub fn with_parts(mut self, [blocked, run_queue, preempted]: [u64; 3]) -> Self {
        if let Self::OffCpu { blocked_ns, run_queue_ns, preempted_ns, .. } = &mut self {
            (*blocked_ns, *run_queue_ns, *preempted_ns) = (blocked, run_queue, preempted);
        }
        self
    }
}

/// `task->__state` at switch-out, as far as it tells waits apart (include/linux/sched.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TaskState {
    /// Runnable: preempted or yielded.
    #[default]
    Running,
    /// Sleeping, can be woken by a signal (`S`).
    Interruptible,
    /// Sleeping, mostly on I/O or kernel locks (`D`).
    Uninterruptible,
    /// Stopped by a signal or a tracer (`T`, `t`).
    Stopped,
    /// Something else: parked, idle.
    Other,
}

impl TaskState {
    /// Reads the kernel's bit mask; flag bits such as FREEZABLE (0x2000) are ignored.
    #[must_use]
    pub fn from_bits(bits: u32) -> Self {
        // TASK_INTERRUPTIBLE 1, TASK_UNINTERRUPTIBLE 2, __TASK_STOPPED 4, __TASK_TRACED 8,
        // TASK_NOLOAD 0x400 (idle kernel threads), include/linux/sched.h.
        match bits {
            b if b & 0xc != 0 => Self::Stopped,
            b if b & 0x402 == 0x402 => Self::Other,
            b if b & 2 != 0 => Self::Uninterruptible,
            b if b & 1 != 0 => Self::Interruptible,
            b if b & 0xff == 0 => Self::Running,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clipping_takes_the_earliest_part_first() {
        let whole = Measure::OffCpu {
            blocked_ns: 100,
            run_queue_ns: 20,
            preempted_ns: 0,
            state: TaskState::Interruptible,
            wait: Wait::Other,
            sequence: 1,
            open: false,
            sampled: Sampled::default(),
        };
        // The interval is 1000-120 .. 1000; a capture that began at 970 saw 10 blocked + 20 waiting.
        let Measure::OffCpu { blocked_ns, run_queue_ns, .. } = whole.clipped(MonoNs(1000), MonoNs(970))
        else {
            panic!("kind changed");
        };
        assert_eq!((blocked_ns, run_queue_ns), (10, 20));
        assert_eq!(whole.clipped(MonoNs(1000), MonoNs(0)), whole);
    }

    #[test]
    fn ticks_are_worth_a_period_each() {
        let measure = |by_clock| Measure::OffCpu {
            blocked_ns: 100,
            run_queue_ns: 20,
            preempted_ns: 0,
            state: TaskState::Interruptible,
            wait: Wait::Other,
            sequence: 1,
            open: false,
            sampled: Sampled { by_session: true, by_clock },
        };
        let clock = |period_ns| Some(Clock { period_ns, ticks: [3, 1, 0], thread_share: 0 });
        assert_eq!(measure(clock(40)).by_clock(), Some([120, 40, 0]));
        assert_eq!(measure(clock(0)).by_clock(), Some([100, 20, 0]), "every interval as it is");
        assert_eq!(measure(None).by_clock(), None);
    }

    #[test]
    fn states_ignore_flag_bits() {
        assert_eq!(TaskState::from_bits(0x2001), TaskState::Interruptible);
        assert_eq!(TaskState::from_bits(0x102), TaskState::Uninterruptible);
        assert_eq!(TaskState::from_bits(0x402), TaskState::Other);
        assert_eq!(TaskState::from_bits(0), TaskState::Running);
        assert_eq!(TaskState::from_bits(4), TaskState::Stopped);
    }
}
