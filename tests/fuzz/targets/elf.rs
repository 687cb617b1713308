//! Feeds any bytes as an ELF file to the table builder and to the reader of headers.
#![no_main]

use std::fs::File;
use std::io::Write;

use libfuzzer_sys::fuzz_target;
use rustix::fs::{MemfdFlags, memfd_create};

fuzz_target!(|bytes: &[u8]| {
    let in_memory = profiler_fuzz::unwind::build_from_bytes(bytes);
    if let Ok(table) = &in_memory {
        profiler_fuzz::check(table);
    }
    let mut file = File::from(memfd_create("fuzz", MemfdFlags::CLOEXEC).unwrap());
    file.write_all(bytes).unwrap();
    // Both ways to read a file must come to the same.
    let from_file = profiler_fuzz::unwind::build_from_file(&file);
    match (in_memory, from_file) {
        (Ok(in_memory), Ok(from_file)) => assert_eq!(in_memory, from_file),
        (Err(_), Err(_)) => {}
        (in_memory, from_file) => panic!("{in_memory:?}, but {from_file:?}"),
    }
    if let Some(info) = profiler_fuzz::procs::ElfInfo::read(&file) {
        let _ = info.address_of(0x1000);
    }
});
