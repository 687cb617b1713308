//! The programs' counters: what they saw and what they lost.

use aya::Ebpf;
use aya::maps::PerCpuArray;
use profiler_common::counters::Counter;

use super::KernelError;
use crate::model::{KindLoss, Stage};

const NAME: &str = "COUNTERS";

/// A reading of the programs' counters, summed over CPUs, since the object was loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// On-CPU hits written to the ring.
    pub on_cpu_samples: u64,
    /// Off-CPU intervals written to the ring.
    pub off_cpu_intervals: u64,
    /// Off-CPU intervals in which a thread's clock ticked, lost ones included.
    pub off_cpu_ticked: u64,
    /// User stacks of off-CPU intervals.
    pub user_stacks: UserStacks,
    /// What did not make it.
    pub loss: KindLoss,
    /// Walks of user stacks in checking and measuring runs.
    pub walks: Walks,
}

/// User stacks that were read for the off-CPU clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserStacks {
    /// Times a thread was to be caught on its way back to user mode.
    pub expected: u64,
    /// Times it was.
    pub served: u64,
    /// Stacks that were read at switch-out.
    pub at_switch_out: u64,
}

/// Walks of user stacks in checking and measuring runs; zero in others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walks {
    /// Walks that were done twice, and how many of them differed.
    pub checked: (u64, u64),
    /// What walks of threads on the CPU cost.
    pub on_cpu: WalkCosts,
    /// What walks of threads that leave the CPU, or come back, cost.
    pub off_cpu: WalkCosts,
}

/// What walks of a kind cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalkCosts {
    /// Time of walks by tables, ns, and frames they found.
    pub by_table: (u64, u64),
    /// Time of the kernel's walks along frame pointers, ns, and frames they found.
    pub by_pointer: (u64, u64),
}

/// Reads all counters.
pub(super) fn read(ebpf: &Ebpf) -> Result<Counters, KernelError> {
    let map = ebpf.map(NAME).ok_or(KernelError::Missing(NAME))?;
    let slots: PerCpuArray<_, u64> =
        map.try_into().map_err(|source| KernelError::Map { name: NAME, source })?;
    let value = |counter: Counter| -> Result<u64, KernelError> {
        let values =
            slots.get(&(counter as u32), 0).map_err(|source| KernelError::Map { name: NAME, source })?;
        Ok(values.iter().sum())
    };
    let mut loss = KindLoss::default();
    for (counter, reason) in [
        (Counter::OnCpuRingFull, "on-CPU ring full"),
        (Counter::FilterFull, "process filter full"),
        (Counter::ControlRingFull, "process events lost, found in /proc later"),
        (Counter::ProcessesFull, "no room for a process's mappings"),
    ] {
        loss.on_cpu.add(Stage::Kernel, reason, value(counter)?);
    }
    for (counter, reason) in [
        (Counter::OffCpuRingFull, "off-CPU ring full"),
        (Counter::UserStackRingFull, "off-CPU ring full: user stack"),
        (Counter::SweptRingFull, "off-CPU ring full: still blocked"),
        (Counter::WakerRingFull, "off-CPU ring full: waker"),
        (Counter::TaskStateFailed, "no memory for a thread's state"),
        (Counter::FilterFull, "process filter full"),
    ] {
        loss.off_cpu.add(Stage::Kernel, reason, value(counter)?);
    }
    Ok(Counters {
        on_cpu_samples: value(Counter::OnCpuSamples)?,
        off_cpu_intervals: value(Counter::OffCpuIntervals)?,
        off_cpu_ticked: value(Counter::OffCpuTicked)?,
        user_stacks: UserStacks {
            expected: value(Counter::RseqExpected)?,
            served: value(Counter::RseqServed)?,
            at_switch_out: value(Counter::StacksAtSwitchOut)?,
        },
        loss,
        walks: Walks {
            checked: (value(Counter::WalksChecked)?, value(Counter::WalksDiffered)?),
            on_cpu: WalkCosts {
                by_table: (value(Counter::TableWalkNs)?, value(Counter::TableWalkFrames)?),
                by_pointer: (value(Counter::PointerWalkNs)?, value(Counter::PointerWalkFrames)?),
            },
            off_cpu: WalkCosts {
                by_table: (value(Counter::OffCpuTableWalkNs)?, value(Counter::OffCpuTableWalkFrames)?),
                by_pointer: (value(Counter::OffCpuPointerWalkNs)?, value(Counter::OffCpuPointerWalkFrames)?),
            },
        },
    })
}
