//! What the kernel charges for our maps.

use std::fs;

/// Bytes of all BPF maps this process holds, as `/proc/self/fdinfo` states them (`memlock:`).
pub(super) fn map_bytes() -> u64 {
    let Ok(entries) = fs::read_dir("/proc/self/fdinfo") else { return 0 };
    let mut maps = std::collections::BTreeMap::new();
    for entry in entries.flatten() {
        let Ok(text) = fs::read_to_string(entry.path()) else { continue };
        let field = |name: &str| -> Option<u64> {
            text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        };
        // Several descriptors may hold one map: it is charged once.
        if let (Some(id), Some(bytes)) = (field("map_id:"), field("memlock:")) {
            maps.insert(id, bytes);
        }
    }
    maps.values().sum()
}
