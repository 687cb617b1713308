//! Reads of a user stack through one wide window: a read costs the same for 8 bytes as for 1024.

use aya_ebpf::helpers::generated::bpf_probe_read_user;

/// Bytes of a window; a power of two.
const BYTES: u64 = 1024;
const SLOTS: usize = (BYTES / 8) as usize;
const PAGE: u64 = 4096;

/// A copy of some user stack.
#[repr(C)]
pub struct Window {
    /// Address of the first byte.
    start: u64,
    /// Slots that begin at less than this distance from `start` are there; 0: nothing is.
    usable: u64,
    slots: [u64; SLOTS],
}

impl Window {
    /// Forgets the copy: another thread's stack comes next.
    #[inline(always)]
    pub fn clear(&mut self) {
        self.usable = 0;
    }

    /// The eight bytes at `address`. Ask for the lower of two slots first: the window opens there.
    #[inline(always)]
    pub fn slot(&mut self, address: u64) -> Option<u64> {
        let mut distance = address.wrapping_sub(self.start);
        if distance >= self.usable {
            if !self.fill(address) {
                return read(address);
            }
            distance = 0;
        }
        if distance & 7 != 0 {
            return read(address);
        }
        // SAFETY: masked to the array.
        Some(unsafe {
            (&raw const self.slots).cast::<u64>().add((distance >> 3) as usize & (SLOTS - 1)).read_volatile()
        })
    }

    #[inline(always)]
    fn fill(&mut self, address: u64) -> bool {
        self.start = address;
        self.usable = BYTES - 7;
        // SAFETY: the array is `BYTES` long.
        if unsafe { bpf_probe_read_user((&raw mut self.slots).cast(), BYTES as u32, address as *const _) }
            == 0
        {
            return true;
        }
        // Near the end of the stack: what is left of this page.
        let rest = PAGE - (address & (PAGE - 1));
        self.usable = 0;
        if rest < 8 || rest >= BYTES {
            return false;
        }
        let rest = rest & (BYTES - 1);
        // SAFETY: `rest` is less than `BYTES`.
        if unsafe { bpf_probe_read_user((&raw mut self.slots).cast(), rest as u32, address as *const _) } != 0
        {
            return false;
        }
        self.usable = rest - 7;
        true
    }
}

/// The eight bytes at a user address.
#[inline(always)]
pub fn read(address: u64) -> Option<u64> {
    let mut value = 0_u64;
    // SAFETY: the helper checks the address; `value` is eight bytes long.
    let result = unsafe { bpf_probe_read_user((&raw mut value).cast(), 8, address as *const _) };
    if result == 0 { Some(value) } else { None }
}
