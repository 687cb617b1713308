//! Stacks of hand-written assembly are whole where the interrupted registers say where its frame is,
//! and end where a register has been used for something else meanwhile.
#![cfg(target_arch = "x86_64")]

use anyhow::{Context as _, Result};
use profiler_tests::chain::{Chain, Root};
use profiler_tests::require_root;
use profiler_tests::workload::{Recipe, Workload};
use serde_json::Value;

use crate::native_stacks::C;
use crate::recording::{Recording, checked_walks, ratio};

/// `assembly.c` under a name of its own.
fn assembly(name: &str, leaf: &str) -> Result<Workload> {
    let program = Recipe { name, source: "assembly.c", flags: &C }.build()?;
    Ok(Workload::of(program, 2.0)?.arg(leaf))
}

/// Records of a whole recording of one leaf, and how many of them the profiler calls so.
fn quality(recording: &Recording, what: &str) -> Result<(f64, f64)> {
    let document: Value = serde_json::from_str(&recording.text("a.json")?)?;
    let number =
        |name: &str| document["quality"][name].as_u64().with_context(|| format!("no quality.{name}"));
    Ok((number("records")? as f64, number(what)? as f64))
}

#[test]
fn native_assembly_is_whole_by_the_registers_it_was_interrupted_with() -> Result<()> {
    const HANDLER: [&str; 3] = ["[signal trampoline]", "__restore_rt", "on_signal"];
    let _exclusive = require_root!();
    // Name of the process, leaf, functions on top of the chain, and whether registers are handed down.
    let leaves: [(&str, &str, &[&str], bool); 7] = [
        ("asm-r9", "r9", &["in_r9"], false),
        ("asm-rsi", "rsi", &["in_rsi"], false),
        ("asm-memory", "memory", &["in_memory"], false),
        ("asm-rax", "rax", &["in_rax", "keeps_rax"], true),
        ("asm-sig-r9", "signal", &["in_r9"], false),
        ("asm-sig-memory", "signal-memory", &["in_memory"], false),
        ("asm-sig-rax", "signal-rax", &["in_rax", "keeps_rax"], true),
    ];
    let mut complaints = Vec::new();
    for (name, leaf, on_top, handed_down) in leaves {
        let recording = Recording::new()?;
        let outcome = recording
            .record_workload("-d 230s -F 997 --walks check", &["a.json"], &assembly(name, leaf)?)?
            .expect_code(0)?;
        checked_walks(&outcome)?;
        let chain = Chain::new(["outer_1", "outer_2"].iter().chain(on_top), Root::Start).tops(HANDLER);
        let stacks = recording.stacks("a.json")?;
        complaints.extend(chain.judge(stacks.of(name)).complaint(name, 0.99, 0.9));
        let (records, guessed) = quality(&recording, "guessed")?;
        assert!(records > 1000.0, "only {records} records of {name}");
        let guessed = ratio(guessed, records);
        println!("{name}: {:.1} % guessed", 100.0 * guessed);
        assert!(if handed_down { guessed > 0.9 } else { guessed < 0.02 }, "{name}: {guessed} are guessed");
    }
    assert!(complaints.is_empty(), "{complaints:#?}");
    Ok(())
}

#[test]
fn native_assembly_ends_where_its_register_was_used_for_something_else() -> Result<()> {
    let _exclusive = require_root!();
    let recording = Recording::new()?;
    let workload = assembly("asm-r10", "r10")?;
    let outcome =
        recording.record_workload("-d 230s -F 997 --walks check", &["a.json"], &workload)?.expect_code(0)?;
    checked_walks(&outcome)?;
    let (records, stopped) = quality(&recording, "stopped")?;
    assert!(
        records > 1000.0 && ratio(stopped, records) > 0.9,
        "{stopped} of {records} say that they end early"
    );
    // Nothing is invented beyond the function whose frame is not to be found.
    for stack in recording.stacks("a.json")?.of("asm-r10") {
        let names: Vec<&str> = stack.user().iter().map(|frame| frame.name.as_str()).collect();
        let own = names.iter().position(|name| ["in_r10", "uses_r10"].contains(name));
        // In the callee's first instructions, the register is still the caller's.
        let callers = own.and_then(|own| names.get(..own)).unwrap_or_default();
        assert!(callers.is_empty() || callers.ends_with(&["outer_1", "outer_2"]), "{names:?}");
    }
    Ok(())
}
