//! Off-CPU intervals and their user stacks arrive apart: here they come together.
//!
//! The stack of an interval that has ended is read when the thread is back in user mode, a few
//! microseconds later. That of a thread that cannot be seen there is read before, where a tick of
//! its clock was foreseen. Where neither came, the last stack from the same place serves, marked as
//! borrowed.

use std::collections::{HashMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;

use profiler_common::record::SITE_PREEMPTED;
use quick_cache::Weighter;
use quick_cache::unsync::Cache;

use crate::model::{Measure, MonoNs, ProcessId, RawSample, RawWaker, Tid, WalkEnd};

/// Longest time an interval waits for its stack, ns. A thread that is still in the kernel then will
/// not come back soon.
const PATIENCE_NS: u64 = 500_000_000;
/// Most intervals that wait at a time; the oldest go on without.
const MAX_WAITING: usize = 16_384;
/// Longest time a waker waits for its interval, ns: a woken thread that has not run by then starves.
const WAKER_PATIENCE_NS: u64 = 10_000_000_000;
/// Most wakers that wait at a time: no more threads are woken and have not run yet. At most 20 MiB.
const MAX_WAKERS: usize = 4096;
/// Most frames of all stacks that are remembered by their place: 8 MiB.
const MAX_FRAMES: u64 = 1 << 20;

/// An interval whose user stack is in another record, if anywhere.
#[derive(Clone, Debug)]
pub struct Half {
    /// The interval; of its user stack it has the leaf at most.
    pub sample: RawSample,
    /// Where the thread left user mode; 0: not known.
    pub site: u32,
    /// Number of the interval within its thread.
    pub sequence: u32,
    /// The stack comes after it; else it came before, if at all.
    pub follows: bool,
}

/// A user stack, apart from the intervals it belongs to.
#[derive(Clone, Debug)]
pub struct UserStack {
    /// The process.
    pub process: ProcessId,
    /// The thread.
    pub tid: Tid,
    /// The intervals: between them the thread did not come back to user mode.
    pub sequences: RangeInclusive<u32>,
    /// Where the thread left user mode.
    pub site: u32,
    /// Addresses, leaf first.
    pub user: Arc<[u64]>,
    /// How the walk ended.
    pub walk: WalkEnd,
    /// At least one frame was found by following the frame pointer.
    pub guessed: bool,
}

/// Who ended the wait of an interval; comes before the interval.
#[derive(Clone, Debug)]
pub struct Woken {
    /// The process of the thread that was woken.
    pub process: ProcessId,
    /// That thread.
    pub tid: Tid,
    /// Number of its interval.
    pub sequence: u32,
    /// Who woke it.
    pub waker: RawWaker,
}

type Thread = (ProcessId, Tid);

/// Intervals that wait for their stacks, and stacks that may serve again.
pub struct Join {
    waiting: HashMap<Thread, Vec<Half>>,
    /// All that ever waited and may wait still, oldest first.
    order: VecDeque<(MonoNs, Thread, u32)>,
    places: Cache<(Thread, u32), UserStack, Frames>,
    /// Wakers of intervals that have not ended, with the interval's number.
    wakers: HashMap<Thread, (u32, RawWaker)>,
    wakers_lost: u64,
}

#[derive(Clone)]
struct Frames;

impl Weighter<(Thread, u32), UserStack> for Frames {
    fn weight(&self, _: &(Thread, u32), stack: &UserStack) -> u64 {
        // What the entry takes beside its frames counts as well.
        stack.user.len() as u64 + 16
    }
}

impl Default for Join {
    fn default() -> Self {
        let places = Cache::with_weighter((MAX_FRAMES / 32) as usize, MAX_FRAMES, Frames);
        Self {
            waiting: HashMap::new(),
            order: VecDeque::new(),
            places,
            wakers: HashMap::new(),
            wakers_lost: 0,
        }
    }
}

impl Join {
    /// Takes a waker, for the interval that is to come.
    pub fn woken(&mut self, woken: Woken) {
        let thread = (woken.process, woken.tid);
        if self.wakers.len() >= MAX_WAKERS && !self.wakers.contains_key(&thread) {
            self.wakers_lost += 1;
            return;
        }
        if self.wakers.insert(thread, (woken.sequence, woken.waker)).is_some() {
            // The interval before was lost on its way, and its waker with it.
            self.wakers_lost += 1;
        }
    }

    /// Gives an interval its waker, if one came. One that is still open leaves it for its end.
    pub fn give_waker(&mut self, sample: &mut RawSample) {
        let Measure::OffCpu { sequence, open, .. } = sample.measure else { return };
        let thread = (sample.process, sample.tid);
        match self.wakers.get(&thread) {
            Some((of, waker)) if *of == sequence && open => sample.waker = Some(Box::new(waker.clone())),
            Some((of, _)) if *of == sequence => {
                sample.waker = self.wakers.remove(&thread).map(|(_, waker)| Box::new(waker));
            }
            _ => {}
        }
    }

    /// Wakers that found no interval since the last call.
    pub fn take_wakers_lost(&mut self) -> u64 {
        std::mem::take(&mut self.wakers_lost)
    }

    /// Takes an interval; hands on what is as whole as it will get.
    pub fn half(&mut self, mut half: Half, mut whole: impl FnMut(RawSample)) {
        self.give_waker(&mut half.sample);
        if !half.follows || self.has_own(&half) {
            whole(self.best(half));
            return;
        }
        while self.order.len() >= MAX_WAITING {
            self.release_oldest(&mut whole);
        }
        let thread = (half.sample.process, half.sample.tid);
        self.order.push_back((half.sample.time, thread, half.sequence));
        self.waiting.entry(thread).or_default().push(half);
    }

    /// Takes a stack; hands on the intervals that waited for it.
    pub fn user_stack(&mut self, stack: UserStack, mut whole: impl FnMut(RawSample)) {
        let thread = (stack.process, stack.tid);
        if let Some(waiting) = self.waiting.get_mut(&thread) {
            for half in waiting.extract_if(.., |half| stack.sequences.contains(&half.sequence)) {
                whole(with(half.sample, &stack, false));
            }
            if waiting.is_empty() {
                self.waiting.remove(&thread);
            }
        }
        self.places.insert((thread, stack.site), stack);
    }

    /// Hands on the intervals that have waited too long.
    pub fn release(&mut self, now: MonoNs, mut whole: impl FnMut(RawSample)) {
        while self.order.front().is_some_and(|(time, ..)| time.0.saturating_add(PATIENCE_NS) < now.0) {
            self.release_oldest(&mut whole);
        }
        let kept = self.wakers.len();
        self.wakers.retain(|_, (_, waker)| waker.time.0.saturating_add(WAKER_PATIENCE_NS) >= now.0);
        self.wakers_lost += (kept - self.wakers.len()) as u64;
    }

    /// Hands on all that waits.
    pub fn release_all(&mut self, mut whole: impl FnMut(RawSample)) {
        while !self.order.is_empty() {
            self.release_oldest(&mut whole);
        }
    }

    fn release_oldest(&mut self, whole: &mut impl FnMut(RawSample)) {
        let Some((_, thread, sequence)) = self.order.pop_front() else { return };
        let Some(waiting) = self.waiting.get_mut(&thread) else { return };
        let late = waiting.iter().position(|half| half.sequence == sequence).map(|at| waiting.remove(at));
        if waiting.is_empty() {
            self.waiting.remove(&thread);
        }
        if let Some(half) = late {
            whole(self.best(half));
        }
    }

    fn has_own(&self, half: &Half) -> bool {
        let known = self.places.peek(&((half.sample.process, half.sample.tid), half.site));
        known.is_some_and(|known| known.sequences.contains(&half.sequence))
    }

    /// The interval with the best stack there is by now.
    fn best(&mut self, half: Half) -> RawSample {
        let at = ((half.sample.process, half.sample.tid), half.site);
        match self.places.get(&at) {
            Some(known) if known.sequences.contains(&half.sequence) => with(half.sample, known, false),
            Some(known) if half.site > SITE_PREEMPTED => with(half.sample, known, true),
            _ => half.sample,
        }
    }
}

fn with(mut sample: RawSample, stack: &UserStack, borrowed: bool) -> RawSample {
    sample.user = Box::from(&*stack.user);
    sample.flags.walk = stack.walk;
    sample.flags.guessed = stack.guessed;
    sample.flags.user_missing = false;
    sample.flags.borrowed = borrowed;
    sample
}

#[cfg(test)]
mod tests;
