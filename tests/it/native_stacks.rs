//! Stacks of native code without frame pointers are whole: C, C++ and Rust, however they are linked,
//! with signals on top, 400 deep, in system calls, and off the CPU.
//!
//! What is judged and how: `profiler_tests::chain`. Every recording also checks each walk against a
//! plain one, see `--walks check`.

use anyhow::{Context as _, Result};
use profiler_tests::chain::{Chain, Root};
use profiler_tests::require_root;
use profiler_tests::stacks::{Stack, Stacks};
use profiler_tests::workload::{Recipe, Workload};

use crate::recording::{Recording, checked_walks, ratio};

/// The share of stacks that must be right.
const RIGHT: f64 = 0.99;
/// The share of all records that must hold the whole chain: no test passes on a few records.
const WHOLE: f64 = 0.9;

/// C without frame pointers and without debug information, as distributions build it.
pub(crate) const C: [&str; 7] = [
    "-std=gnu11",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-O2",
    "-fomit-frame-pointer",
    // Links would become jumps.
    "-fno-optimize-sibling-calls",
];

const LLD: &str = "-fuse-ld=lld";
const BFD: &str = "-fuse-ld=bfd";
/// Code shares its first and last pages with what lies beside it in the file.
const TIGHT: &str = "-Wl,-z,noseparate-code";

/// The chain of `native.c` up to its leaf, and what lies on top of it.
pub(crate) fn deep_chain(leaf: &[&str]) -> Chain {
    let deep = |numbers: std::ops::RangeInclusive<u32>| numbers.map(|number| format!("deep_{number}"));
    let names = deep(1..=20).chain(["*".to_owned(), "compare".to_owned()]).chain(deep(21..=40));
    Chain::new(names.chain(leaf.iter().map(|&name| name.to_owned())), Root::Start)
}

/// `native.c` under a name of its own, so that its processes can be told apart.
pub(crate) fn native(name: &str, flags: &[&str], seconds: f64, leaf: &str) -> Result<Workload> {
    let flags: Vec<&str> = C.iter().chain(flags).copied().collect();
    let program = Recipe { name, source: "native.c", flags: &flags }.build()?;
    Ok(Workload::of(program, seconds)?.arg(leaf))
}

fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "{complaints:#?}");
}

/// Compares with the truth that records are there at all: a profile of next to nothing proves nothing.
fn assert_enough(stacks: &Stacks, comm: &str, least: u64) {
    let count: u64 = stacks.of(comm).iter().map(|stack| stack.count).sum();
    assert!(count >= least, "{count} records of {comm}, expected {least}");
}

#[test]
fn native_a_chain_through_qsort_is_whole_however_it_is_linked() -> Result<()> {
    let _exclusive = require_root!();
    let variants: [(&str, &[&str]); 12] = [
        ("nat-bfd-pie", &[BFD, "-fpie", "-pie"]),
        ("nat-bfd-exec", &[BFD, "-fno-pie", "-no-pie"]),
        ("nat-bfd-pie-t", &[BFD, "-fpie", "-pie", TIGHT]),
        ("nat-bfd-exec-t", &[BFD, "-fno-pie", "-no-pie", TIGHT]),
        ("nat-lld-pie", &[LLD, "-fpie", "-pie"]),
        ("nat-lld-exec", &[LLD, "-fno-pie", "-no-pie"]),
        ("nat-lld-pie-t", &[LLD, "-fpie", "-pie", TIGHT]),
        ("nat-lld-exec-t", &[LLD, "-fno-pie", "-no-pie", TIGHT]),
        ("nat-static", &[BFD, "-static"]),
        ("nat-static-pie", &[BFD, "-fpie", "-static-pie"]),
        ("nat-lld-static", &[LLD, "-static"]),
        ("nat-static-t", &[BFD, "-static", TIGHT]),
    ];
    const SECONDS: f64 = 2.5;
    let workloads: Vec<Workload> =
        variants.iter().map(|(name, flags)| native(name, flags, SECONDS, "spin")).collect::<Result<_>>()?;
    let recording = Recording::new()?;
    let outcome =
        recording.record_in_turn("-d 230s -F 997 --walks check", &["a.json"], &workloads)?.expect_code(0)?;
    let stacks = recording.stacks("a.json")?;
    let chain = deep_chain(&["spin_leaf"]);
    let mut complaints = Vec::new();
    for (name, _) in variants {
        assert_enough(&stacks, name, (0.9 * SECONDS * 997.0) as u64);
        let chain = if name.contains("static") { chain.clone().linked_statically() } else { chain.clone() };
        complaints.extend(chain.judge(stacks.of(name)).complaint(name, RIGHT, WHOLE));
    }
    checked_walks(&outcome)?;
    assert_none(&complaints);
    Ok(())
}

#[test]
fn native_leaves_of_all_kinds_stand_on_the_whole_chain() -> Result<()> {
    const HANDLERS: [&str; 4] = ["on_signal", "handler_1", "handler_2", "handler_3"];
    let _exclusive = require_root!();
    let recursion: Vec<&str> = std::iter::once("recursion_leaf").chain(["recurse"; 400]).collect();
    let leaves = [
        ("nat-signal", "signal", deep_chain(&["spin_leaf"]).tops(HANDLERS)),
        ("nat-altstack", "altstack", deep_chain(&["spin_leaf"]).tops(HANDLERS)),
        // Calls into the C library go through stubs.
        ("nat-syscall", "syscall", deep_chain(&["syscall_leaf"]).tops(["[plt]"])),
        ("nat-recursion", "recursion", deep_chain(&recursion)),
        (
            "nat-alternate",
            "alternate",
            deep_chain(&["alternate_leaf"])
                .tops(["leaf_a", "leaf_b", "leaf_c", "leaf_d", "leaf_e", "leaf_f", "leaf_g", "leaf_h"]),
        ),
        ("nat-random", "random", deep_chain(&["random_leaf"]).tops(["random_a", "random_b", "random_c"])),
    ];
    let workloads: Vec<Workload> =
        leaves.iter().map(|(name, leaf, _)| native(name, &[], 3.0, leaf)).collect::<Result<_>>()?;
    let recording = Recording::new()?;
    let outcome =
        recording.record_in_turn("-d 230s -F 997 --walks check", &["a.json"], &workloads)?.expect_code(0)?;
    let stacks = recording.stacks("a.json")?;
    let mut complaints = Vec::new();
    for (name, _, chain) in &leaves {
        assert_enough(&stacks, name, (0.9 * 3.0 * 997.0) as u64);
        complaints.extend(chain.judge(stacks.of(name)).complaint(name, RIGHT, WHOLE));
    }
    for name in ["nat-signal", "nat-altstack"] {
        let of = |handler: bool| -> u64 {
            let wanted = |frames: &[&profiler_tests::stacks::Frame]| {
                !handler || frames.last().is_some_and(|frame| frame.name == "handler_3")
            };
            stacks.of(name).iter().filter(|stack| wanted(&stack.user())).map(|stack| stack.count).sum()
        };
        let in_handler = ratio(of(true) as f64, of(false) as f64);
        println!("{name}: {:.1} % in the handler", 100.0 * in_handler);
        assert!(in_handler > 0.2, "{name}: only {in_handler} of the records are in the handler");
        let unnamed =
            stacks.of(name).into_iter().find(|stack| stack.user().iter().any(|frame| frame.is_unnamed()));
        assert!(unnamed.is_none(), "{name}: a frame has no name: {:?}", unnamed.map(Stack::short));
    }
    checked_walks(&outcome)?;
    assert_none(&complaints);
    Ok(())
}

#[test]
fn native_a_stack_deeper_than_the_limit_is_said_to_be_cut() -> Result<()> {
    let _exclusive = require_root!();
    let recording = Recording::new()?;
    let workload = native("nat-too-deep", &[], 2.0, "too-deep")?;
    let outcome =
        recording.record_workload("-d 230s -F 997 --walks check", &["a.json"], &workload)?.expect_code(0)?;
    let stacks = recording.stacks("a.json")?;
    assert_enough(&stacks, "nat-too-deep", 1000);
    let cut = ratio(stacks.quality.truncated as f64, stacks.quality.records as f64);
    println!("{:.2} % truncated", 100.0 * cut);
    assert!(cut >= 0.99, "{cut} of the stacks say that they are cut");
    let longest = stacks.of("nat-too-deep").iter().map(|stack| stack.user().len()).max();
    assert_eq!(longest, Some(512), "frames of a stack that is cut");
    checked_walks(&outcome)?;
    Ok(())
}

#[test]
fn native_cpp_and_rust_stacks_are_whole() -> Result<()> {
    let _exclusive = require_root!();
    let cpp = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-O2", "-g"];
    let cpp_static: Vec<&str> = cpp.iter().copied().chain(["-static"]).collect();
    let cpp_lld: Vec<&str> = cpp.iter().copied().chain([LLD]).collect();
    let rust = ["--edition=2024", "-Copt-level=3"];
    // rustc links with rust-lld unless told otherwise.
    let rust_bfd = ["--edition=2024", "-Copt-level=3", "-Clink-arg=-fuse-ld=bfd"];
    let recipes: [(&str, &str, &[&str]); 5] = [
        ("cpp", "native.cpp", &cpp),
        ("cpp-static", "native.cpp", &cpp_static),
        ("cpp-lld", "native.cpp", &cpp_lld),
        ("rust", "native.rs", &rust),
        ("rust-bfd", "native.rs", &rust_bfd),
    ];
    let build = |&(name, source, flags): &(&str, &str, &[&str])| {
        Workload::of(Recipe { name, source, flags }.build()?, 4.0)
    };
    let workloads: Vec<Workload> = recipes.iter().map(build).collect::<Result<_>>()?;
    let recording = Recording::new()?;
    let outcome =
        recording.record_in_turn("-d 230s -F 997 --walks check", &["a.json"], &workloads)?.expect_code(0)?;
    let stacks = recording.stacks("a.json")?;

    let stages = (1..=10).map(|number| format!("Stage<{number}>::go(Steps const&, unsigned long)"));
    // Helpers are inlined into the leaf: frames of their own, in the order of the source.
    let leaf = ["leaf(unsigned long)", "inlined_outer", "inlined_inner"].map(str::to_owned);
    let cpp = Chain::new(stages.chain(leaf), Root::Start)
        .tops(["Guard::~Guard()", "inlined_outer", "inlined_inner"])
        .tops_like(&["Thrown::", "std::", "Guard::Guard("]);
    let deep = (1..=10).map(|number| format!("native::deep_{number}"));
    let deep = deep.chain(["native::deep_10::{{closure}}".to_owned()]);
    let deep = deep.chain((11..=20).map(|number| format!("native::deep_{number}")));
    let rust = Chain::new(deep.chain(["native::spin_leaf".to_owned()]), Root::Thread)
        // The thread's start in the standard library.
        .before(16)
        .tops_like(&[
            "std::", "core::", "alloc::", "<std::", "<alloc::", "<core::", "__rust", "rust_", "_Unwind",
        ]);

    let mut complaints = Vec::new();
    for name in ["cpp", "cpp-static", "cpp-lld"] {
        assert_enough(&stacks, name, (0.9 * 4.0 * 997.0) as u64);
        let chain = if name == "cpp-static" { cpp.clone().linked_statically() } else { cpp.clone() };
        let judged = chain.judge(stacks.of(name));
        // A fifth of the time is in the destructor, half-way down.
        complaints.extend(judged.complaint(name, RIGHT, 0.6));
        let thrown: u64 = stacks
            .of(name)
            .iter()
            .filter(|stack| stack.user().iter().any(|frame| frame.name == "Guard::~Guard()"))
            .map(|stack| stack.count)
            .sum();
        println!("{name}: {thrown} records while an exception passes");
        assert!(thrown > 100, "{name}: only {thrown} records while an exception passes");
    }
    let threads: Vec<_> = stacks.stacks.iter().filter(|stack| stack.comm.starts_with("rs-")).collect();
    complaints.extend(rust.judge(threads.iter().copied()).complaint("Rust threads", RIGHT, WHOLE));
    let of_threads: u64 = threads.iter().map(|stack| stack.count).sum();
    assert!(of_threads > 1000, "{of_threads} records of Rust threads");
    checked_walks(&outcome)?;
    assert_none(&complaints);
    Ok(())
}

#[test]
fn native_stacks_of_waits_are_whole() -> Result<()> {
    let _exclusive = require_root!();
    const SECONDS: f64 = 6.0;
    let leaves = [("nat-nanosleep", "nanosleep"), ("nat-futex", "futex"), ("nat-read", "read")];
    let workloads: Vec<Workload> =
        leaves.iter().map(|(name, leaf)| native(name, &[], SECONDS, leaf)).collect::<Result<_>>()?;
    let recording = Recording::new()?;
    let outcome = recording
        .record_in_turn("-d 230s --off-cpu --walks check", &["a.json"], &workloads)?
        .expect_code(0)?;
    let stacks = recording.stacks("a.json")?;
    let mut complaints = Vec::new();
    for ((name, leaf), workload) in leaves.iter().zip(&workloads) {
        let leaf = format!("{leaf}_leaf");
        let chain = deep_chain(&[&leaf]);
        let of_leaf = stacks.of(name);
        complaints.extend(chain.judge(of_leaf.iter().copied()).complaint(name, RIGHT, WHOLE));
        let waited = workload.truth()?.number("off_ns").context("no truth")? / 1e3;
        let whole = of_leaf.iter().filter(|stack| stack.frames.iter().any(|frame| frame.name == leaf));
        let seen: u64 = whole.map(|stack| stack.value).sum();
        println!("{name}: {seen} us, {waited} us by its own clock");
        assert!((0.9..=1.1).contains(&ratio(seen as f64, waited)), "{name}: {seen} us of {waited}");
    }
    checked_walks(&outcome)?;
    assert_none(&complaints);
    Ok(())
}
