//! The signal trampoline: code that a signal handler returns to although it never called it.

use std::os::fd::AsFd;

use super::wire::Found;
use crate::procs::read_at;

/// What it is called where its file has no symbol for it.
const NAME: &str = "[signal trampoline]";

/// `mov $15, %rax` as C libraries write it, or `mov $15, %eax` as Go does; `syscall` (`rt_sigreturn`).
/// Debuggers recognise signal frames by the same bytes.
const X86_64: [&[u8]; 2] = [&[0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05], &[0xb8, 15, 0, 0, 0, 0x0f, 0x05]];

/// `mov x8, #139; svc #0`.
const AARCH64: [&[u8]; 1] = [&[0x68, 0x11, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4]];

/// Bytes of the longest form.
const BYTES: u64 = 9;

/// Whether a trampoline starts at this offset of a file. Its address is a return address like any
/// other, but there is no call before it, and what it returns to was interrupted and calls nothing.
pub(super) fn starts_at(file: &impl AsFd, offset: u64) -> bool {
    let known: &[&[u8]] = if cfg!(target_arch = "aarch64") { &AARCH64 } else { &X86_64 };
    // Where the file ends before, so does its code: something always follows it.
    read_at(file, offset, BYTES).is_some_and(|code| known.iter().any(|known| code.starts_with(known)))
}

/// What is found at the address of a trampoline, unless it is about something that lies before it.
pub(super) fn named(found: Option<Found>, address: u64) -> Found {
    found.filter(|found| found.address == address).unwrap_or_else(|| Found {
        name: NAME.to_owned(),
        address,
        source: None,
        inlined: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn trampolines_of_c_libraries_and_go_are_recognised() {
        let starts = |code: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&[code, &[0x90; 16]].concat()).unwrap();
            starts_at(&file, 0)
        };
        if cfg!(target_arch = "x86_64") {
            assert!(starts(&[0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05]));
            assert!(starts(&[0xb8, 15, 0, 0, 0, 0x0f, 0x05]));
            // `exit`, and a number that is not followed by a system call.
            assert!(!starts(&[0xb8, 60, 0, 0, 0, 0x0f, 0x05]));
            assert!(!starts(&[0xb8, 15, 0, 0, 0, 0x0f, 0x0b]));
        }
    }

    #[test]
    fn a_symbol_that_starts_elsewhere_does_not_name_it() {
        let found = |address| {
            Some(Found { name: "__restore_rt".to_owned(), address, source: None, inlined: Vec::new() })
        };
        assert_eq!(named(found(16), 16).name, "__restore_rt");
        assert_eq!(named(found(8), 16).name, NAME);
        assert_eq!((named(None, 16).name.as_str(), named(None, 16).address), (NAME, 16));
    }
}
