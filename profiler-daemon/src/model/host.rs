//! What the kernel counts about a host or a cgroup: pressure, throttling, memory.

/// What the kernel says of a cgroup, or of the host. `None`: not to be had.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostFacts {
    /// Online CPUs of the host.
    pub cpus: u32,
    /// Pressure of `cpu`, `memory` and `io`, as far as known.
    pub pressure: Vec<Pressure>,
    /// CPU bandwidth control of a cgroup with a quota.
    pub throttling: Option<Throttling>,
    /// Processes killed for want of memory: since boot, or since the cgroup was made.
    pub oom_kills: Option<u64>,
    /// Memory in use, bytes.
    pub memory_used: Option<u64>,
    /// Memory that there is, or the cgroup's limit, bytes.
    pub memory_limit: Option<u64>,
}

/// How much of the time work waited for a resource (Documentation/accounting/psi.rst), in percent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pressure {
    /// `cpu`, `memory` or `io`.
    pub resource: &'static str,
    /// Some task waited: averages over 10, 60 and 300 s.
    pub some: [f64; 3],
    /// All tasks waited.
    pub full: Option<[f64; 3]>,
}

/// How often a cgroup was held back by its CPU quota (`cpu.stat`), since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Periods in which it wanted to run.
    pub periods: u64,
    /// Those in which it was held back.
    pub throttled: u64,
    /// How long, µs.
    pub throttled_us: u64,
}
