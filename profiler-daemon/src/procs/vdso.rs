//! A copy of the vDSO as a file, so that its functions have names like any other library's.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, memfd_create};

/// Larger than any vDSO: a few pages.
const MAX_BYTES: u64 = 1 << 20;

/// Our own vDSO in an anonymous file, and its size in memory. All processes of one bitness share
/// one vDSO image; a mapping of another size is another image. `None` where there is no vDSO.
pub fn vdso() -> Option<(OwnedFd, u64)> {
    let mut maps = String::new();
    File::open("/proc/self/maps").ok()?.take(16 << 20).read_to_string(&mut maps).ok()?;
    let line = maps.lines().find(|line| line.ends_with("[vdso]"))?;
    let (start, rest) = line.split_once('-')?;
    let start = u64::from_str_radix(start, 16).ok()?;
    let end = u64::from_str_radix(rest.split_once(' ')?.0, 16).ok()?;
    let size = end.checked_sub(start).filter(|&size| size <= MAX_BYTES)?;
    let mut bytes = vec![0; usize::try_from(size).ok()?];
    File::open("/proc/self/mem").ok()?.read_exact_at(&mut bytes, start).ok()?;
    let mut file = File::from(memfd_create("vdso", MemfdFlags::CLOEXEC).ok()?);
    file.write_all(&bytes).ok()?;
    Some((file.into(), size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_is_an_elf_file() {
        let (fd, size) = vdso().unwrap();
        let file = File::from(fd);
        let mut magic = [0; 4];
        file.read_exact_at(&mut magic, 0).unwrap();
        assert_eq!(&magic, b"\x7fELF");
        assert_eq!(file.metadata().unwrap().len(), size);
    }
}
