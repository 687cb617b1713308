//! What the daemon itself costs: CPU time and resident memory.

use std::time::Duration;

/// CPU time (user and system) of this process since it started.
pub(super) fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Resident memory of this process, bytes; 0 where `/proc` cannot be read.
pub(super) fn rss_bytes() -> u64 {
    // Second field of statm: resident pages, proc(5).
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok())
        .unwrap_or_default();
    pages * rustix::param::page_size() as u64
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_costs_something() {
        assert!(super::rss_bytes() > 1 << 20, "less than a megabyte resident");
        let before = super::cpu_time();
        let mut sum = 0u64;
        while super::cpu_time() == before {
            sum = std::hint::black_box(sum + 1);
        }
    }
}
