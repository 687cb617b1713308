//! The compressed symbol table that Fedora and its kin leave in stripped files (`.gnu_debugdata`).

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use lzma_rust2::XzReader;
use rustix::fs::{MemfdFlags, memfd_create};

use crate::procs::{ElfInfo, ObjectFile, read_at};

/// Most compressed bytes: glibc's take 120 KiB, the largest programs' a few MiB.
const MAX_COMPRESSED: u64 = 16 << 20;
/// Most bytes once decompressed: less than a second's work.
const MAX_BYTES: u64 = 64 << 20;
/// What the decoder may take, KiB: `xz -9` wants 64 MiB for its window.
const MAX_DECODER_KIB: u32 = 66 << 10;

/// The section as a file of its own, an ELF file again, in anonymous memory; `None` where there is
/// no such section, or one that is broken or too large.
pub(super) fn unpack(file: &ObjectFile, elf: &ElfInfo) -> Option<OwnedFd> {
    let section = elf.section(".gnu_debugdata").filter(|section| section.size <= MAX_COMPRESSED)?;
    let packed = read_at(file, section.offset, section.size)?;
    // The decoder is careful, but the bytes are a stranger's: a panic costs this table only.
    let plain = catch_unwind(AssertUnwindSafe(|| decompress(&packed, MAX_BYTES))).ok()??;
    let mut out = File::from(memfd_create("mini-debug-info", MemfdFlags::CLOEXEC).ok()?);
    out.write_all(&plain).ok()?;
    Some(out.into())
}

fn decompress(packed: &[u8], limit: u64) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let reader = XzReader::new_mem_limit(packed, true, MAX_DECODER_KIB);
    reader.take(limit + 1).read_to_end(&mut plain).ok()?;
    (plain.len() as u64 <= limit).then_some(plain)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;

    fn xz(bytes: &[u8], args: &[&str]) -> Vec<u8> {
        let mut child = Command::new("xz")
            .args(args)
            .arg("-c")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("xz-utils is installed");
        let mut input = child.stdin.take().unwrap();
        let bytes = bytes.to_vec();
        let writer = std::thread::spawn(move || input.write_all(&bytes).unwrap());
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output.stdout
    }

    #[test]
    fn what_xz_packed_is_unpacked_within_the_limit() {
        let plain: Vec<u8> = (0..300_000_u32).flat_map(|number| (number / 7).to_le_bytes()).collect();
        for args in [&["-6"][..], &["-9"], &["-T2", "--block-size=100000"], &["--check=sha256"]] {
            let packed = xz(&plain, args);
            assert!(decompress(&packed, 2_000_000) == Some(plain.clone()), "{args:?}");
            assert_eq!(decompress(&packed, 1_000_000), None, "over the limit");
            assert_eq!(decompress(&packed[..packed.len() / 2], 2_000_000), None, "cut off");
        }
        // A window of a gigabyte is not given, whatever is in it.
        let greedy = xz(b"small", &["--lzma2=dict=1GiB"]);
        assert_eq!(decompress(&greedy, 2_000_000), None);
    }

    proptest! {
        #[test]
        fn broken_streams_end(place in 0.0_f64..1.0, value: u8) {
            let mut packed = xz(&[b'a'; 5000], &["-6"]);
            let at = (place * packed.len() as f64) as usize;
            packed[at] = value;
            let _ = catch_unwind(AssertUnwindSafe(|| decompress(&packed, 1 << 20)));
        }
    }
}
