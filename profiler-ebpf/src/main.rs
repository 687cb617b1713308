//! The programs that run in the kernel: a perf_event sampler that writes one record a hit.
#![no_std]
#![no_main]

use aya_ebpf::{
    helpers::bpf_ktime_get_ns,
    macros::{map, perf_event},
    maps::{PerCpuArray, RingBuf},
    programs::PerfEventContext,
};
use profiler_common::{
    counters::{COUNTERS, Counter},
    record::{Header, KIND_ON_CPU},
};

/// On-CPU records, read by the daemon.
#[map]
static ON_CPU: RingBuf = RingBuf::with_byte_size(1 << 18, 0);

/// One slot per [`Counter`].
#[map(name = "COUNTERS")]
static COUNTER_SLOTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTERS, 0);

/// A hit of the sampling clock on this CPU.
#[perf_event]
pub fn on_cpu(_ctx: PerfEventContext) -> u32 {
    let Some(mut entry) = ON_CPU.reserve::<Header>(0) else {
        count(Counter::OnCpuRingFull);
        return 0;
    };
    let header = Header { kind: KIND_ON_CPU, time_ns: now(), ..Header::default() };
    entry.write(header);
    entry.submit(0);
    count(Counter::OnCpuSamples);
    0
}

fn count(counter: Counter) {
    if let Some(slot) = COUNTER_SLOTS.get_ptr_mut(counter as u32) {
        // SAFETY: the slot belongs to this CPU, and the kernel keeps the map alive while we run.
        unsafe { *slot += 1 }
    }
}

fn now() -> u64 {
    // SAFETY: the helper takes no arguments and cannot fail.
    unsafe { bpf_ktime_get_ns() }
}

/// The licence the kernel reads: GPL-compatible, as the helpers require.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
