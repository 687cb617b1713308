//! What the daemon itself costs: CPU time and resident memory; and how old it is.

use std::time::Duration;

use crate::model::Pid;

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

/// The most resident memory that this process ever had, bytes; 0 where `/proc` cannot be read.
pub(super) fn rss_peak_bytes() -> u64 {
    // `VmHWM: 1234 kB`, proc(5).
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default() << 10
}

/// Time since this process started, to a hundredth of a second; `None` where `/proc` cannot be read.
pub(super) fn age() -> Option<Duration> {
    let start = crate::procs::identify(Pid(std::process::id())).ok()?.start_ticks;
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let now = Duration::new(now.tv_sec as u64, now.tv_nsec as u32);
    let start = Duration::from_secs_f64(start as f64 / rustix::param::clock_ticks_per_second() as f64);
    Some(now.saturating_sub(start))
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_costs_something() {
        assert!(super::rss_bytes() > 1 << 20, "less than a megabyte resident");
        assert!(super::rss_peak_bytes() > 1 << 20, "less than a megabyte at the peak");
        let age = super::age().unwrap();
        assert!(age < std::time::Duration::from_secs(3600), "{age:?}");
        let before = super::cpu_time();
        let mut sum = 0u64;
        while super::cpu_time() == before {
            sum = std::hint::black_box(sum + 1);
        }
    }
}
