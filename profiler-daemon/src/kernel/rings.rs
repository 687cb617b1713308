//! Reads the ring buffers, a bounded number of records at a time, each ring in its turn.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use aya::Ebpf;
use aya::maps::{MapData, RingBuf};

use super::KernelError;

const NAMES: [&str; 3] = ["CONTROL_RING", "ON_CPU_RING", "OFF_CPU_RING"];

/// Most records taken from one ring at a time.
const TURN: usize = 4096;

/// The reading ends of all rings.
pub(super) struct Rings([RingBuf<MapData>; 3]);

impl Rings {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let mut take = |name: &'static str| -> Result<RingBuf<MapData>, KernelError> {
            let map = ebpf.take_map(name).ok_or(KernelError::Missing(name))?;
            RingBuf::try_from(map).map_err(|source| KernelError::Map { name, source })
        };
        Ok(Self([take(NAMES[0])?, take(NAMES[1])?, take(NAMES[2])?]))
    }

    /// Hands waiting samples to `each`; whether a ring had more than its turn.
    pub(super) fn drain_samples(&mut self, mut each: impl FnMut(&[u8])) -> bool {
        let [_, on_cpu, off_cpu] = &mut self.0;
        let more = drain(on_cpu, &mut each);
        drain(off_cpu, &mut each) || more
    }

    /// Hands waiting events of processes to `each`.
    pub(super) fn drain_control(&mut self, each: impl FnMut(&[u8])) {
        let [control, ..] = &mut self.0;
        drain(control, each);
    }

    pub(super) fn fds(&self) -> io::Result<[OwnedFd; 3]> {
        let [control, on_cpu, off_cpu] = &self.0;
        let own = |ring: &RingBuf<MapData>| ring.as_fd().try_clone_to_owned();
        Ok([own(control)?, own(on_cpu)?, own(off_cpu)?])
    }
}

fn drain(ring: &mut RingBuf<MapData>, mut each: impl FnMut(&[u8])) -> bool {
    let mut taken = 0;
    while taken < TURN {
        let Some(record) = ring.next() else { break };
        each(&record);
        taken += 1;
    }
    taken == TURN
}
