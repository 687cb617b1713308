//! From a filled scratch into a ring; what does not fit is counted.

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE};
use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns, generated::bpf_ringbuf_output};
use aya_ebpf::maps::RingBuf;
use profiler_common::counters::Counter;
use profiler_common::limits::{MAX_KERNEL_FRAMES, MAX_USER_FRAMES};
use profiler_common::record::{FLAG_KERNEL_THREAD, Header, VERSION};

use crate::maps::{COUNTERS, Scratch};
use crate::task::{self, Task};

const MAX_FRAME_BYTES: u64 = ((MAX_KERNEL_FRAMES + MAX_USER_FRAMES) * 8) as u64;

/// Fills the part of the header that every record about a thread has.
#[inline(always)]
pub fn describe(header: &mut Header, kind: u8, task: Task) {
    header.kind = kind;
    header.version = VERSION;
    header.flags = if task::is_kernel_thread(task) { FLAG_KERNEL_THREAD } else { 0 };
    header.kernel_frames = 0;
    header.user_frames = 0;
    // SAFETY: helpers without arguments.
    unsafe {
        header.cpu = bpf_get_smp_processor_id() as u16;
        header.time_ns = bpf_ktime_get_ns();
    }
    header.pid = task::tgid(task);
    header.tid = task::tid(task);
    header.process_start_ns = task::process_start(task);
    header.cgroup_id = task::cgroup_id(task::cgroup(task));
    header.blocked_ns = 0;
    header.run_queue_ns = 0;
    header.preempted_ns = 0;
    header.task_state = 0;
    header.sequence = 0;
    header.period_ns = 0;
    header.comm = task::comm(task);
    header.ticks = [0; 3];
    header.site = 0;
    header.verdict = 0;
    header.sampled = 0;
    header.thread_share = 0;
    header.padding = [0; 5];
}

/// Writes the header and `frame_bytes` of frames, and counts whether the ring had room.
#[inline(always)]
pub fn send(ring: &RingBuf, scratch: *mut Scratch, frame_bytes: u64, sent: Counter, lost: Counter) {
    let bytes = size_of::<Header>() as u64 + frame_bytes.min(MAX_FRAME_BYTES);
    // A wake-up for each record would make the profiler measure itself: the reader comes by on a
    // timer and is only woken when the ring is half full.
    let crowded = ring.query(BPF_RB_AVAIL_DATA.into()) * 2 > ring.query(BPF_RB_RING_SIZE.into());
    let flags = u64::from(if crowded { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP });
    // SAFETY: the scratch is a map value of at least `bytes` bytes.
    let result = unsafe { bpf_ringbuf_output((&raw const *ring) as *mut _, scratch.cast(), bytes, flags) };
    count(if result == 0 { sent } else { lost }, 1);
}

/// Adds to a counter of this CPU.
#[inline(always)]
pub fn count(counter: Counter, amount: u64) {
    if let Some(slot) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: a slot of this CPU. An interrupt between load and store can lose an increment
        // of the interrupted program only if it counts the same thing, which no two programs do.
        unsafe { *slot += amount };
    }
}
