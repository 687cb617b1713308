//! The off-CPU clock of a thread: it runs while the thread is off the CPU and ticks once a period.

pub use profiler_common::clock::tick;
use profiler_common::clock::{self, LEVELS};
use profiler_common::settings::Settings;

use crate::arch::Registers;
use crate::maps::{SITES, ThreadState};
use crate::task::{self, Task};

/// How many times the time that is expected at a place must reach for a tick to be foreseen there.
const CAUTION: u64 = 3;
/// Multiplies to a hash in the upper bits (Fibonacci hashing).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Brings a thread's clock to the period in force. What is left until its next tick is scaled, so
/// that the phases of all threads stay evenly spread.
#[inline(always)]
pub fn follow(state: &mut ThreadState, settings: &Settings, task: Task) {
    if state.period_ns != settings.period_ns {
        state.left_ns = left(state, settings, task);
        state.period_ns = settings.period_ns;
    }
}

/// What would be left until the next tick in the period in force.
#[inline(always)]
pub fn left(state: &ThreadState, settings: &Settings, task: Task) -> u64 {
    let (old, new) = (state.period_ns, settings.period_ns);
    if old == new {
        return state.left_ns;
    }
    if old == 0 {
        return phase(settings, task);
    }
    clock::rescale(state.left_ns, old, new)
}

/// Where a thread's clock stands when it is first seen: at random, but the same for all that ask.
#[inline(always)]
pub fn phase(settings: &Settings, task: Task) -> u64 {
    clock::phase(drawn(settings, task), settings.period_ns)
}

#[inline(always)]
fn drawn(settings: &Settings, task: Task) -> u64 {
    clock::draw(task::start_time(task), task::tid(task), settings.opened_ns)
}

/// Whether a thread is looked at.
pub struct Draw {
    /// Since when all its switches have been seen, ns: states of another time are stale.
    pub opened_ns: u64,
    /// Its clock counts: it is among the share of threads that is taken.
    pub clocked: bool,
    /// Its switches are followed. Sessions want all: a thread may be theirs.
    pub tracked: bool,
}

/// Draws a thread. First of all, since it is cheap: most threads may not be wanted.
#[inline(always)]
pub fn draw(settings: &Settings, task: Task) -> Draw {
    let clocks = settings.clock != 0;
    if settings.thinned == 0 {
        return Draw { opened_ns: settings.opened_ns, clocked: clocks, tracked: true };
    }
    let level = clock::level(drawn(settings, task));
    let clocked = clocks && level >= settings.thread_share;
    // SAFETY: masked to the array.
    let opened_ns = unsafe {
        (&raw const settings.opened_by_level).cast::<u64>().add(level as usize & (LEVELS - 1)).read()
    };
    Draw { opened_ns, clocked, tracked: clocked || settings.sessions != 0 }
}

/// Names the place in user space from which a thread went to sleep: a hash of its instruction and
/// stack pointer, which tell call paths of one thread apart. Never 0.
#[inline(always)]
pub fn site(registers: &Registers) -> u32 {
    (((registers.ip ^ registers.sp.rotate_left(32)).wrapping_mul(GOLDEN)) >> 32) as u32 | 1
}

/// Whether the thread was at this place before, as far as is remembered.
#[inline(always)]
pub fn knows(state: &ThreadState, site: u32) -> bool {
    slot(state, site) >> 32 == u64::from(site)
}

/// Whether a tick is likely in an interval that begins at this place.
#[inline(always)]
pub fn foresees(state: &ThreadState, site: u32) -> bool {
    let entry = slot(state, site);
    entry >> 32 != u64::from(site) || (entry & 0xffff_ffff) * 1000 * CAUTION >= state.left_ns
}

/// Remembers how long the thread was off the CPU at a place.
#[inline(always)]
pub fn learn(state: &mut ThreadState, site: u32, ns: u64) {
    let us = ns / 1000;
    let us = if us > 0xffff_ffff { 0xffff_ffff } else { us };
    let entry = slot(state, site);
    let known = entry & 0xffff_ffff;
    let us = if entry >> 32 != u64::from(site) || ns >= state.period_ns {
        us
    } else if us > known {
        known + (us - known) / 4
    } else {
        known - (known - us) / 4
    };
    // SAFETY: masked to the array.
    unsafe { (&raw mut state.sites).cast::<u64>().add(index(site)).write(u64::from(site) << 32 | us) };
}

#[inline(always)]
fn slot(state: &ThreadState, site: u32) -> u64 {
    // SAFETY: masked to the array.
    unsafe { (&raw const state.sites).cast::<u64>().add(index(site)).read() }
}

#[inline(always)]
fn index(site: u32) -> usize {
    // The lowest bit is always set.
    (site >> 1) as usize & (SITES - 1)
}
