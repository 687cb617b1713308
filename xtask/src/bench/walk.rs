//! Cost of a frame: the walk by unwinding tables against the kernel's along frame pointers.
//!
//! Both walk the same stack in the same sample, each first in half of them (`record --walks time`),
//! so that a slower machine or a busier one changes both alike.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::run::{cargo, is_root, on_path, run, workspace};

/// Highest ratio that is accepted, and the one that is aimed at.
const ACCEPTED: f64 = 0.75;
const GOAL: f64 = 0.5;

/// Samples a second, and seconds of each run.
const FREQUENCY: &str = "997";
const SECONDS: &str = "8";

/// With frame pointers, so that the kernel's walk finds the same frames.
const FLAGS: [&str; 5] = [
    "-std=gnu11",
    "-O2",
    "-fno-omit-frame-pointer",
    "-mno-omit-leaf-frame-pointer",
    "-fno-optimize-sibling-calls",
];

const PYTHON: &str = "
import time
def fib(n): return 1 if n < 2 else fib(n - 1) + fib(n - 2)
while time.process_time() < 8:
    fib(18); sorted(range(3000), key=lambda i: i * 7919 % 3001)
";

/// One kind of stack.
struct Case {
    name: &'static str,
    command: Vec<String>,
    /// What is recorded, and what the line with the result starts with.
    recorded: Recorded,
    pointers: Pointers,
}

/// What a walk along frame pointers finds.
#[derive(Clone, Copy, PartialEq)]
enum Pointers {
    /// All frames, but for a few of the C library.
    All,
    /// Those of the innermost frames: the kernel's walk ends at `kernel.perf_event_max_stack`.
    Innermost,
    /// Nothing that means anything.
    None,
}

/// Which walks are measured.
#[derive(Clone, Copy)]
enum Recorded {
    /// Those of a sampling interrupt.
    OnCpu,
    /// Those of a switch to another thread.
    OffCpu,
}

impl Recorded {
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::OnCpu => &["-F", FREQUENCY],
            Self::OffCpu => &["--off-cpu", "--min-block", "0ms"],
        }
    }

    fn result(self) -> &'static str {
        match self {
            Self::OnCpu => "profiler: walks: ",
            Self::OffCpu => "profiler: off-CPU walks: ",
        }
    }
}

/// What a run said.
struct Measured {
    table_ns: f64,
    table_frames: u64,
    pointer_ns: f64,
    pointer_frames: u64,
}

/// Measures all kinds of stacks and prints a table.
///
/// # Errors
///
/// Without root or a compiler; when a run fails.
pub(super) fn walk() -> Result<()> {
    ensure!(is_root(), "the bench loads eBPF programs: run it as root");
    let profiler = build_profiler()?;
    let directory = workspace()?.join("target").join("bench");
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let native = build_native(&directory)?;
    let truth = directory.join("truth").display().to_string();

    println!("| stacks | frames | by table, ns a frame | by frame pointer | ratio | |");
    println!("| --- | ---: | ---: | ---: | ---: | --- |");
    for case in cases(&native, &truth) {
        let measured = measure(&profiler, &directory, &case)?;
        println!("{}", row(&case, &measured));
    }
    println!("\nGoal: a ratio of at most {GOAL}; accepted with an account of the rest: {ACCEPTED}.");
    Ok(())
}

fn cases(native: &Path, truth: &str) -> Vec<Case> {
    let leaf = |name, leaf: &str, recorded, pointers| Case {
        name,
        recorded,
        pointers,
        command: [&native.display().to_string(), truth, SECONDS, leaf].map(ToString::to_string).to_vec(),
    };
    let mut cases = vec![
        leaf("spinning leaf", "spin", Recorded::OnCpu, Pointers::All),
        leaf("alternating leaf", "alternate", Recorded::OnCpu, Pointers::All),
        leaf("stacks that never repeat", "random", Recorded::OnCpu, Pointers::All),
        leaf("400 deep", "recursion", Recorded::OnCpu, Pointers::Innermost),
        leaf("system calls", "syscall", Recorded::OnCpu, Pointers::All),
        leaf("off the CPU, 100 us each", "nap", Recorded::OffCpu, Pointers::All),
    ];
    if let Some(python) = on_path("python3") {
        // No distribution builds it with frame pointers: only the side of the tables means anything.
        let command = [&python.display().to_string(), "-c", PYTHON].map(ToString::to_string).to_vec();
        let recorded = Recorded::OnCpu;
        cases.push(Case { name: "CPython", command, recorded, pointers: Pointers::None });
    }
    cases
}

/// The profiler as the tests run it; the programs in the kernel are the same however it is built.
fn build_profiler() -> Result<PathBuf> {
    run(cargo().args(["build", "--package", "profiler-daemon", "--bin", "profiler"]))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(workspace()?.join("target"), PathBuf::from);
    Ok(target.join("debug").join("profiler"))
}

fn build_native(directory: &Path) -> Result<PathBuf> {
    let (source, program) = (workspace()?.join("tests/workloads/native.c"), directory.join("native"));
    run(Command::new("gcc").args(FLAGS).arg("-DWITHOUT_QSORT").arg("-o").arg(&program).arg(source))?;
    Ok(program)
}

fn measure(profiler: &Path, directory: &Path, case: &Case) -> Result<Measured> {
    let mut command = Command::new(profiler);
    command.args(["record", "-d", "100s", "--walks", "time"]).args(case.recorded.options()).arg("-o");
    command.arg(directory.join("walk.folded")).arg("--").args(&case.command);
    let ended = command.output().with_context(|| format!("cannot run {}", profiler.display()))?;
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "the recording of {} failed:\n{said}", case.name);
    match said.lines().find_map(|line| parse(line.strip_prefix(case.recorded.result())?)) {
        Some(measured) => Ok(measured),
        None => bail!("no walk of {} was measured:\n{said}", case.name),
    }
}

/// Reads `N ns a frame by table (N frames), N by frame pointer (N frames), ratio N`.
fn parse(result: &str) -> Option<Measured> {
    let (table_ns, rest) = result.split_once(" ns a frame by table (")?;
    let (table_frames, rest) = rest.split_once(" frames), ")?;
    let (pointer_ns, rest) = rest.split_once(" by frame pointer (")?;
    let (pointer_frames, _) = rest.split_once(" frames)")?;
    Some(Measured {
        table_ns: table_ns.parse().ok()?,
        table_frames: table_frames.parse().ok()?,
        pointer_ns: pointer_ns.parse().ok()?,
        pointer_frames: pointer_frames.parse().ok()?,
    })
}

fn row(case: &Case, measured: &Measured) -> String {
    let Measured { table_ns, table_frames, pointer_ns, pointer_frames } = measured;
    if case.pointers == Pointers::None {
        return format!(
            "| {} | {table_frames} | {table_ns:.1} | - | - | built without frame pointers |",
            case.name
        );
    }
    let ratio = table_ns / pointer_ns;
    let verdict = match ratio {
        _ if case.pointers == Pointers::Innermost => "the kernel's walk ends earlier",
        _ if *pointer_frames * 2 < *table_frames => "the frame pointers lead nowhere: no comparison",
        ratio if ratio <= GOAL => "good",
        ratio if ratio <= ACCEPTED => "accepted",
        _ => "too slow",
    };
    format!("| {} | {table_frames} | {table_ns:.1} | {pointer_ns:.1} | {ratio:.3} | {verdict} |", case.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_profiler_says_is_read() {
        let line = "61.5 ns a frame by table (49000 frames), 123.0 by frame pointer (48000 frames), \
                    ratio 0.500";
        let measured = parse(line).expect("it has all parts");
        assert_eq!((measured.table_frames, measured.pointer_frames), (49_000, 48_000));
        let recorded = Recorded::OnCpu;
        let case = Case { name: "a", command: Vec::new(), recorded, pointers: Pointers::All };
        assert!(row(&case, &measured).ends_with("| 0.500 | good |"), "{}", row(&case, &measured));
        assert!(parse("5 checked, 0 differed").is_none());
    }
}
