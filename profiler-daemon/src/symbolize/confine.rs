//! What the symbol reader gives up before it looks at a file, and the limits it is held to.

use std::io;

use caps::{CapSet, Capability};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, getrlimit, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit,
};

/// Most open files: what is read at a time, a few descriptors each.
const MAX_FILES: u64 = 8192;
/// Largest file that is written: symbol tables unpacked to anonymous memory.
const MAX_WRITTEN: u64 = 64 << 20;
/// Deepest stack, bytes: debug information nests as its author likes.
const MAX_STACK: u64 = 8 << 20;
/// Memory beside what symbols take, bytes: the program itself, and what decoders need.
const OWN_BYTES: u64 = 96 << 20;

/// Gives up all that reading files that are open already can do without. One capability stays, where
/// the process has it: opening those files again through `/proc/self/fd` asks for the same right again.
///
/// # Errors
/// Something could not be given up.
pub(super) fn privileges() -> io::Result<()> {
    // First to go when memory is short. Not allowed everywhere, and not needed.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let held = caps::read(None, CapSet::Permitted).map_err(io::Error::other)?;
    let reading = [Capability::CAP_DAC_READ_SEARCH, Capability::CAP_DAC_OVERRIDE];
    let kept = reading.into_iter().find(|capability| held.contains(capability)).into_iter().collect();
    // Kernels before 4.3 have no ambient set to clear.
    let _ = caps::clear(None, CapSet::Ambient);
    caps::clear(None, CapSet::Inheritable)
        .and_then(|()| caps::set(None, CapSet::Effective, &kept))
        .and_then(|()| caps::set(None, CapSet::Permitted, &kept))
        .map_err(io::Error::other)?;
    rustix::thread::set_no_new_privs(true)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    lower(Resource::Core, 0)?;
    lower(Resource::Nofile, MAX_FILES)?;
    lower(Resource::Fsize, MAX_WRITTEN)?;
    lower(Resource::Stack, MAX_STACK)
}

/// Ends the process where it takes much more memory than it may. Files that are mapped do not count:
/// the kernel takes their pages back when it likes.
///
/// # Errors
/// The kernel refuses the limit.
pub(super) fn memory(bytes: u64) -> io::Result<()> {
    lower(Resource::Data, bytes.saturating_add(bytes / 4).saturating_add(OWN_BYTES))
}

/// Ends the process where it runs for this many seconds from now on.
///
/// # Errors
/// The kernel refuses the limit.
pub(super) fn cpu(seconds: u64) -> io::Result<()> {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime).tv_sec;
    // The second that has begun does not count.
    let until = u64::try_from(used).unwrap_or_default().saturating_add(seconds + 1);
    let maximum = getrlimit(Resource::Cpu).maximum;
    let current = maximum.map_or(until, |maximum| maximum.min(until));
    Ok(setrlimit(Resource::Cpu, Rlimit { current: Some(current), maximum })?)
}

fn lower(resource: Resource, value: u64) -> io::Result<()> {
    let value = getrlimit(resource).maximum.map_or(value, |maximum| maximum.min(value));
    Ok(setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })?)
}
