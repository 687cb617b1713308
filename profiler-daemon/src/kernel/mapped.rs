//! BPF arrays that user space writes through memory it shares with the kernel.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::maps::{Map, MapData};
use memmap2::{MmapMut, MmapOptions};

use super::KernelError;

/// Bytes of an array that are mapped at a time, a multiple of all page sizes. What is mapped counts
/// as resident memory of this process, beside what the kernel charges for the array itself.
const WINDOW: usize = 1 << 20;

/// A BPF array with `BPF_F_MMAPABLE`, mapped writable where it was last written.
pub(super) struct MappedArray {
    map: MapData,
    slots: u32,
    bytes: usize,
    window: Window,
}

/// The mapped part.
struct Window {
    /// Where it starts, in bytes: a multiple of [`WINDOW`].
    start: usize,
    memory: MmapMut,
}

impl Window {
    /// Maps the part that holds a byte of an array.
    #[expect(unsafe_code, reason = "memory shared with the kernel: no safe wrapper knows that it is")]
    fn around(map: &MapData, bytes: usize, offset: usize) -> io::Result<Self> {
        let start = offset - offset % WINDOW;
        let mut options = MmapOptions::new();
        options.offset(start as u64).len(bytes.saturating_sub(start).min(WINDOW));
        // SAFETY: the array is ours alone. The kernel only reads it, a word at a time, and copes
        // with any content; nothing truncates it, as one could a file.
        let memory = unsafe { options.map_mut(map.fd().as_fd().as_raw_fd()) }?;
        Ok(Self { start, memory })
    }

    fn holds(&self, offset: usize) -> bool {
        offset.checked_sub(self.start).is_some_and(|inside| inside < self.memory.len())
    }
}

impl MappedArray {
    /// An array whose elements take `slot_bytes` each, a multiple of 8.
    pub(super) fn new(
        name: &'static str,
        map: Map,
        slot_bytes: usize,
        slots: u32,
    ) -> Result<Self, KernelError> {
        let Map::Array(map) = map else { return Err(KernelError::Missing(name)) };
        let bytes = slot_bytes.saturating_mul(slots as usize);
        let window =
            Window::around(&map, bytes, 0).map_err(|source| KernelError::Mapping { name, source })?;
        Ok(Self { map, slots, bytes, window })
    }

    /// Number of elements.
    pub(super) fn slots(&self) -> u32 {
        self.slots
    }

    /// Writes bytes at an offset. `false` where they do not fit: then nothing was written; or where
    /// the kernel has no room to map them: then some may have been.
    #[must_use]
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) -> bool {
        if offset.checked_add(bytes.len()).is_none_or(|end| end > self.bytes) {
            return false;
        }
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            if !self.window.holds(at) {
                match Window::around(&self.map, self.bytes, at) {
                    Ok(window) => self.window = window,
                    Err(_) => return false,
                }
            }
            let room = self.window.memory.get_mut(at - self.window.start..).unwrap_or_default();
            let count = room.len().min(rest.len());
            let (now, later) = rest.split_at(count);
            if let Some(target) = room.get_mut(..count) {
                target.copy_from_slice(now);
            }
            (at, rest) = (at + count, later);
        }
        true
    }

    /// What lies at an offset.
    #[cfg(test)]
    pub(super) fn read(&self, offset: usize, bytes: usize) -> Vec<u8> {
        let mut read = Vec::new();
        while read.len() < bytes {
            let at = offset + read.len();
            let window = Window::around(&self.map, self.bytes, at).unwrap();
            let part = &window.memory[at - window.start..];
            read.extend(&part[..part.len().min(bytes - read.len())]);
        }
        read
    }
}
