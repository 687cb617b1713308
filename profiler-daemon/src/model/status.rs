//! A snapshot of the agent: what it does, what it costs, what it lost.

use std::time::{Duration, SystemTime};

use super::KindLoss;

/// A snapshot of the agent.
#[derive(Clone, Debug)]
pub struct Status {
    /// When the daemon started.
    pub started: SystemTime,
    /// CPU time of the daemon, user and system.
    pub cpu_time: Duration,
    /// Run time of the eBPF programs where the kernel counts it, else `None`.
    pub bpf_run_time: Option<Duration>,
    /// Resident memory, bytes.
    pub rss_bytes: u64,
    /// Memory the kernel charges for our BPF maps, bytes.
    pub bpf_map_bytes: u64,
    /// On-CPU sampling frequency, Hz; 0 while not sampling.
    pub on_cpu_frequency_hz: f64,
    /// Whether the scheduler hooks are attached.
    pub off_cpu_active: bool,
    /// Period of the off-CPU clocks, zero where they take every interval; `None` without them.
    pub off_cpu_period: Option<Duration>,
    /// On-CPU hits received from the kernel since start.
    pub on_cpu_samples: u64,
    /// Off-CPU intervals received from the kernel since start.
    pub off_cpu_intervals: u64,
    /// All that was lost since start.
    pub loss: KindLoss,
    /// Sealed windows in the store.
    pub windows: u64,
    /// Memory of the store, bytes (an upper bound).
    pub store_bytes: u64,
    /// Start of the oldest window.
    pub oldest: Option<SystemTime>,
    /// End of the newest window.
    pub newest: Option<SystemTime>,
    /// Captures that run now.
    pub captures_running: u32,
}
