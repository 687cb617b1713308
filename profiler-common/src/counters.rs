//! Indices of the per-CPU counters: everything the kernel side can lose, and what it saw.

/// One slot of the `COUNTERS` per-CPU array. The discriminant is the array index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// On-CPU hits written to the ring.
    OnCpuSamples = 0,
    /// On-CPU hits lost because their ring was full.
    OnCpuRingFull = 1,
    /// Off-CPU intervals that ended, written to the ring.
    OffCpuIntervals = 2,
    /// Off-CPU intervals lost because their ring was full.
    OffCpuRingFull = 3,
    /// Open intervals that the sweep lost because the ring was full.
    SweptRingFull = 4,
    /// Thread states that could not be created or found (task storage refused).
    TaskStateFailed = 5,
    /// Control records lost because their ring was full.
    ControlRingFull = 6,
    /// Followed children that no longer fitted into the process filter.
    FilterFull = 7,
    /// Open intervals that the sweep wrote to the ring.
    SweptIntervals = 8,
    /// User stacks written to the ring on the way back to user mode.
    StacksOnReturn = 9,
    /// Forked children that no longer fitted into the process map: unwound once it has room.
    ProcessesFull = 10,
    /// Checking run: walks that were done twice.
    WalksChecked = 11,
    /// Checking run: walks of which the second differed.
    WalksDiffered = 12,
    /// Measuring run: time of on-CPU walks by tables, ns.
    TableWalkNs = 13,
    /// Measuring run: frames they found.
    TableWalkFrames = 14,
    /// Measuring run: time of the kernel's walks along frame pointers beside them, ns.
    PointerWalkNs = 15,
    /// Measuring run: frames they found.
    PointerWalkFrames = 16,
    /// Off-CPU intervals whose user stack was to be read on the way back to user mode.
    RseqExpected = 17,
    /// Times the thread was caught there, for one interval or several.
    RseqServed = 18,
    /// User stacks that were read at switch-out for the off-CPU clock.
    StacksAtSwitchOut = 19,
    /// User stacks apart that were lost because their ring was full.
    UserStackRingFull = 20,
    /// Off-CPU intervals that ended and in which the clock ticked, or all of them where it takes
    /// every interval.
    OffCpuTicked = 21,
    /// Measuring run: time of off-CPU walks by tables, ns.
    OffCpuTableWalkNs = 22,
    /// Measuring run: frames they found.
    OffCpuTableWalkFrames = 23,
    /// Measuring run: time of the kernel's walks along frame pointers beside them, ns.
    OffCpuPointerWalkNs = 24,
    /// Measuring run: frames they found.
    OffCpuPointerWalkFrames = 25,
    /// Wakers written to the ring.
    Wakers = 26,
    /// Wakers lost because their ring was full.
    WakerRingFull = 27,
}

/// Number of slots in the `COUNTERS` array.
pub const COUNTERS: u32 = 28;
