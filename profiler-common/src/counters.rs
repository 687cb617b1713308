//! Indices of the per-CPU counters: everything the kernel side can lose, and what it saw.

/// One slot of the `COUNTERS` per-CPU array. The discriminant is the array index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// On-CPU hits written to the ring.
    OnCpuSamples = 0,
    /// On-CPU hits lost because their ring was full.
    OnCpuRingFull = 1,
    /// Off-CPU intervals written to the ring.
    OffCpuIntervals = 2,
    /// Off-CPU intervals lost because their ring was full.
    OffCpuRingFull = 3,
    /// Off-CPU intervals shorter than the configured minimum: not lost, left out on request.
    OffCpuBelowMinimum = 4,
    /// Thread states that could not be created or found (task storage refused).
    TaskStateFailed = 5,
    /// Control records lost because their ring was full.
    ControlRingFull = 6,
    /// Followed children that no longer fitted into the process filter.
    FilterFull = 7,
    /// Off-CPU time, in ns, of the intervals counted by [`Counter::OffCpuRingFull`].
    OffCpuRingFullNs = 8,
    /// Off-CPU time, in ns, of the intervals counted by [`Counter::OffCpuBelowMinimum`].
    OffCpuBelowMinimumNs = 9,
}

/// Number of slots in the `COUNTERS` array.
pub const COUNTERS: u32 = 10;
