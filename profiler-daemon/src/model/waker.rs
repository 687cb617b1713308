//! Who ended a wait, before ([`RawWaker`]) and after ([`Waker`]) symbolization.

use std::sync::Arc;

use super::{Comm, Frame, Labels, MonoNs, ProcessId, StackFlags, Tid};

/// The thread that ran where a blocked one was woken: addresses, not names. An interrupt may have hit
/// it, and then it is not to blame.
#[derive(Clone, Debug)]
pub struct RawWaker {
    /// When it woke the other one.
    pub time: MonoNs,
    /// Its process.
    pub process: ProcessId,
    /// The thread.
    pub tid: Tid,
    /// Its name.
    pub comm: Comm,
    /// Kernel addresses, leaf first.
    pub kernel: Box<[u64]>,
    /// User addresses, leaf first.
    pub user: Box<[u64]>,
    /// What is known of the stack.
    pub flags: StackFlags,
}

/// Who ended a wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waker {
    /// Who it was; [`Waker::INTERRUPT`] or [`Waker::UNKNOWN`] with pid 0 where it was no thread.
    pub labels: Arc<Labels>,
    /// Frames, leaf first: kernel frames, then user frames.
    pub stack: Arc<[Arc<Frame>]>,
}

impl Waker {
    /// Name of what is no thread: a timer, or a device that has finished.
    pub const INTERRUPT: &str = "[interrupt]";
    /// Name of a waker that cannot be told from an interrupted thread, for want of kernel symbols.
    pub const UNKNOWN: &str = "[unknown waker]";

    /// Labels of what is no thread.
    #[must_use]
    pub fn pseudo(name: &str) -> Arc<Labels> {
        Arc::new(Labels { comm: name.into(), process: name.into(), ..Labels::default() })
    }
}
