//! A snapshot of the agent: what it does, what it costs, what it lost.

use std::time::{Duration, SystemTime};

use super::{CaptureCounts, KindLoss, KindQuality};

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
    /// The most that ever was resident, bytes.
    pub rss_peak_bytes: u64,
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
    /// How the stacks of all records since start ended.
    pub stacks: KindQuality,
    /// Sealed windows in the store.
    pub windows: u64,
    /// Disk space of the store, or its memory (an upper bound), bytes.
    pub store_bytes: u64,
    /// Where the store is and how it fares.
    pub store: StoreStatus,
    /// Start of the oldest window.
    pub oldest: Option<SystemTime>,
    /// End of the newest window.
    pub newest: Option<SystemTime>,
    /// Captures that run now.
    pub captures_running: u32,
    /// What came of requests for captures since start.
    pub captures: CaptureCounts,
    /// The unwinding tables.
    pub unwinding: Unwinding,
    /// What recording costs, and what it may.
    pub cost: RecordingCost,
    /// The off-CPU clocks look at one thread in `1 << thread_share`.
    pub thread_share: u32,
}

/// What recording costs, and what it may.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RecordingCost {
    /// CPUs that the daemon kept busy of late.
    pub daemon_cpus: f64,
    /// CPUs that its eBPF programs kept busy; `None` where that is not known.
    pub programs_cpus: Option<f64>,
    /// Off-CPU samples a second.
    pub samples_per_second: f64,
    /// Bytes a second that went into the store.
    pub store_bytes_per_second: f64,
    /// What all of it may be: CPUs, samples and bytes.
    pub budget: [f64; 3],
}

/// The unwinding tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unwinding {
    /// Files with a table in the kernel.
    pub tables: u64,
    /// Rows of all tables.
    pub rows: u64,
    /// Rows that there is room for.
    pub rows_room: u64,
    /// Processes whose mappings the programs know.
    pub processes: u64,
    /// Files whose table is being built.
    pub building: u64,
    /// Files without usable unwinding information: their stacks follow the frame pointer.
    pub without: u64,
    /// Times that a table or a process found no room.
    pub no_room: u64,
    /// From the daemon's start until the tables of every process that ran then were there; `None`
    /// before that.
    pub covered_after: Option<Duration>,
}

/// Where the store is and how it fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStatus {
    /// Path of its file; empty while it is in memory.
    pub path: String,
    /// Windows that wait in memory because the disk does not take them now.
    pub pending: u64,
    /// Why nothing is written to disk now; empty if all is well.
    pub problem: String,
}
