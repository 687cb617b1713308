//! Feeds any bytes to the store's codec, as a stored value and as the message in one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use profiler_fuzz::store;

fuzz_target!(|bytes: &[u8]| {
    store::check(bytes);
    store::check(&store::wrapped(bytes));
    store::check(&store::sealed(bytes));
});
