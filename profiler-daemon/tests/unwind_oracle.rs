//! Unwinding tables say what `readelf` and gimli's own evaluation say, at every row of real files.
//!
//! What cannot be expressed is listed at the top of `profiler_daemon::unwind`: every difference
//! must be on that list, and the share of it is printed and bounded.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy does not know as such"
)]

mod oracle;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use oracle::{Tally, check_numbers, readelf_rows};
use profiler_daemon::unwind::{Table, build_from_file};

/// Largest share of rows that may lack a rule because it cannot be expressed.
const LIMIT: f64 = 0.001;

fn table(path: &Path) -> Table {
    build_from_file(&File::open(path).unwrap()).unwrap()
}

/// The first of some libraries that this host has.
fn library(names: &[&str]) -> Option<PathBuf> {
    let directories =
        ["/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu", "/usr/lib64", "/lib64", "/usr/lib"];
    names.iter().find_map(|name| {
        directories.iter().map(|directory| Path::new(directory).join(name)).find(|path| path.exists())
    })
}

fn compare(path: &Path, limit: f64) {
    let table = table(path);
    judge(path, "gimli", &check_numbers(path, &table), limit);
    match readelf_rows(path) {
        Some(rows) => {
            let mut tally = Tally::default();
            for row in &rows {
                tally.check(&table, row);
            }
            // What is recognised by its bytes alone has a rule between functions.
            if table.report.plt_slots + table.report.entry_points + table.report.trampolines == 0 {
                tally.check_gaps(&table, &rows);
            }
            judge(path, "readelf", &tally, limit);
        }
        None => eprintln!("skipped: readelf is not installed"),
    }
}

fn judge(path: &Path, oracle: &str, tally: &Tally, limit: f64) {
    eprintln!("{} against {oracle}: {tally}", path.display());
    assert!(tally.rows > 100, "{oracle} gave {} rows for {}", tally.rows, path.display());
    assert!(tally.wrong.is_empty(), "{}: {:#?}", path.display(), tally.wrong);
    assert!(tally.share() <= limit, "{}: {tally}", path.display());
}

#[test]
fn libc_agrees() {
    compare(&library(&["libc.so.6"]).unwrap(), LIMIT);
}

#[test]
fn hand_written_assembly_agrees() {
    match library(&["libcrypto.so.3", "libcrypto.so.1.1"]) {
        Some(path) => compare(&path, LIMIT),
        None => eprintln!("skipped: no libcrypto on this host"),
    }
}

#[test]
fn python_agrees() {
    let found = library(&["libpython3.13.so.1.0", "libpython3.12.so.1.0", "libpython3.11.so.1.0"])
        .or_else(|| fs::canonicalize("/usr/bin/python3").ok());
    match found {
        Some(path) => compare(&path, LIMIT),
        None => eprintln!("skipped: no python3 on this host"),
    }
}

#[test]
fn cpp_agrees() {
    match library(&["libstdc++.so.6"]) {
        Some(path) => compare(&path, LIMIT),
        None => eprintln!("skipped: no libstdc++ on this host"),
    }
}

#[test]
fn rust_agrees() {
    compare(&std::env::current_exe().unwrap(), LIMIT);
}
