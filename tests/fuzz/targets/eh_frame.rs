//! Feeds the table builder any bytes as the `.eh_frame` of a file.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(table) = profiler_fuzz::unwind::build_from_bytes(&profiler_fuzz::file_with(bytes)) {
        profiler_fuzz::check(&table);
    }
});
