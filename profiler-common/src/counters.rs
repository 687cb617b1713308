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
    /// Forked children that no longer fitted into the process map: unwound once it has room.
    ProcessesFull = 10,
    /// Checking run: walks that were done twice.
    WalksChecked = 11,
    /// Checking run: walks of which the second differed.
    WalksDiffered = 12,
    /// Measuring run: time of the walks by tables, ns.
    TableWalkNs = 13,
    /// Measuring run: frames they found.
    TableWalkFrames = 14,
    /// Measuring run: time of the kernel's walks along frame pointers, ns.
    PointerWalkNs = 15,
    /// Measuring run: frames they found.
    PointerWalkFrames = 16,
    /// Off-CPU intervals whose user stack was to be read on the way back to user mode.
    RseqExpected = 17,
    /// Times it was read there, for one interval or several.
    RseqServed = 18,
    /// User stacks that were read at switch-out for the off-CPU clock.
    StacksAtSwitchOut = 19,
    /// User stacks apart that were lost because their ring was full.
    UserStackRingFull = 20,
    /// Off-CPU intervals in which the clock ticked, or all of them where it takes every interval.
    OffCpuTicked = 21,
    /// Wakers written to the ring.
    Wakers = 22,
    /// Wakers lost because their ring was full.
    WakerRingFull = 23,
}

/// Number of slots in the `COUNTERS` array.
pub const COUNTERS: u32 = 24;
