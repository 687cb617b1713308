//! Which threads a sampler records.

use profiler_common::limits::MAX_CGROUP_DEPTH;
use profiler_common::settings::{CLOCK_TICK_NS, FILTER_HOST, Settings};

use crate::maps::{FILTER_CGROUPS, FILTER_PIDS, SETTINGS};
use crate::task::{self, Task};

/// The sampler's settings, if it is open.
#[inline(always)]
pub fn open(sampler: u32) -> Option<&'static Settings> {
    SETTINGS.get(sampler).filter(|settings| settings.open != 0)
}

/// Whether a sampler records this thread. The idle tasks never pass.
#[inline(always)]
pub fn passes(settings: &Settings, sampler: u32, task: Task) -> bool {
    considered(settings, task) && (settings.filter == FILTER_HOST || listed(settings, sampler, task))
}

/// Whether the thread is of a kind that is recorded at all.
#[inline(always)]
pub fn considered(settings: &Settings, task: Task) -> bool {
    task::tid(task) != 0 && (settings.skip_kernel_threads == 0 || !task::is_kernel_thread(task))
}

/// Whether the thread's process, or its cgroup or one above it, is listed.
#[inline(always)]
pub fn listed(settings: &Settings, sampler: u32, task: Task) -> bool {
    process_passes(sampler, task) || (settings.cgroups != 0 && cgroup_passes(sampler, task))
}

#[inline(always)]
fn process_passes(sampler: u32, task: Task) -> bool {
    // SAFETY: the entry is only read, and once; a concurrent update gives an old or a new field.
    let Some(entry) = (unsafe { FILTER_PIDS.get(task::tgid(task)) }) else {
        return false;
    };
    entry.samplers & (1 << sampler) != 0 && entry.start_ticks == task::process_start(task) / CLOCK_TICK_NS
}

/// Whether the thread's cgroup, or one above it, is listed.
#[inline(always)]
fn cgroup_passes(sampler: u32, task: Task) -> bool {
    let cgroup = task::cgroup(task);
    let depth = task::cgroup_level(cgroup);
    let mut level = 0;
    while level < MAX_CGROUP_DEPTH {
        if level > depth {
            return false;
        }
        let id = task::cgroup_ancestor_id(cgroup, level);
        // SAFETY: the value is a plain integer that is only read.
        if let Some(samplers) = unsafe { FILTER_CGROUPS.get(id) } {
            if samplers & (1 << sampler) != 0 {
                return true;
            }
        }
        level += 1;
    }
    false
}
