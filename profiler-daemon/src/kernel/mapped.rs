//! BPF arrays that user space writes through memory it shares with the kernel.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::maps::{Map, MapData};
use memmap2::{MmapMut, MmapOptions};

use super::KernelError;

/// A BPF array with `BPF_F_MMAPABLE`, mapped writable.
pub(super) struct MappedArray {
    memory: MmapMut,
    /// Keeps the map: closing its last descriptor would not free it while it is mapped, but the
    /// programs hold it anyway.
    _map: MapData,
    slots: u32,
}

impl MappedArray {
    /// Maps an array whose elements take `slot_bytes` each, a multiple of 8.
    #[expect(unsafe_code, reason = "memory shared with the kernel: no safe wrapper knows that it is")]
    pub(super) fn new(
        name: &'static str,
        map: Map,
        slot_bytes: usize,
        slots: u32,
    ) -> Result<Self, KernelError> {
        let Map::Array(map) = map else { return Err(KernelError::Missing(name)) };
        let bytes = slot_bytes.saturating_mul(slots as usize);
        let failed = |source: io::Error| KernelError::Mapping { name, source };
        let fd = map.fd().as_fd().as_raw_fd();
        // SAFETY: the array is ours alone. The kernel only reads it, a word at a time, and copes
        // with any content; nothing truncates it, as one could a file.
        let memory = unsafe { MmapOptions::new().len(bytes).map_mut(fd) }.map_err(failed)?;
        Ok(Self { memory, _map: map, slots })
    }

    /// Number of elements.
    pub(super) fn slots(&self) -> u32 {
        self.slots
    }

    /// Writes bytes at an offset. `false`, and nothing written, where they do not fit.
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) -> bool {
        let target = offset.checked_add(bytes.len()).and_then(|end| self.memory.get_mut(offset..end));
        let Some(target) = target else { return false };
        target.copy_from_slice(bytes);
        true
    }

    /// What lies at an offset.
    #[cfg(test)]
    pub(super) fn read(&self, offset: usize, bytes: usize) -> &[u8] {
        &self.memory[offset..offset + bytes]
    }
}
