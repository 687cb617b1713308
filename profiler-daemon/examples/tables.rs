//! Temporary: builds tables and prints what they cost.
use std::fs::File;
use std::time::Instant;
fn main() {
    for path in std::env::args().skip(1) {
        for _ in 0..2 {
            let t = Instant::now();
            let r = profiler_daemon::unwind::build_from_file(&File::open(&path).unwrap());
            let ms = t.elapsed().as_secs_f64() * 1e3;
            match r {
                Ok(t) => println!(
                    "{path}: {ms:.1} ms, raw {} rows {} rules {} pages {} maxrows {} mem {} KiB {:?}",
                    t.report.raw_rows(),
                    t.rows.len(),
                    t.rules.len(),
                    t.pages.len(),
                    t.pages.iter().map(|p| p.rows).max().unwrap(),
                    t.memory_bytes() >> 10,
                    t.report
                ),
                Err(e) => println!("{path}: {ms:.1} ms {e}"),
            }
        }
    }
    println!(
        "{}",
        std::fs::read_to_string("/proc/self/status")
            .unwrap()
            .lines()
            .find(|l| l.starts_with("VmHWM"))
            .unwrap()
    );
}
