//! The oracle that shares no code with us: `readelf --debug-dump=frames-interp` of binutils.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use profiler_common::unwind::Rule;

use super::{Row, Says, plain};

/// How registers are called, by DWARF's numbers.
const NAMES: [&str; 16] = [
    "rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];

/// What a function starts with whose common entry says nothing.
const NOTHING: Says = Says::NotExpressed("nothing said");

/// All rows of a file; `None` where `readelf` is not installed.
pub(crate) fn readelf_rows(path: &Path) -> Option<Vec<Row>> {
    let output =
        Command::new("readelf").args(["--debug-dump=frames-interp", "-W"]).arg(path).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Some(parse(&text))
}

fn parse(text: &str) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    // What functions without rows of their own start with, by offset of the common entry.
    let mut commons: HashMap<u64, Says> = HashMap::new();
    let mut common: Option<u64> = None;
    // Of the function being read: its end, and the index of its first row.
    let mut function: Option<(u64, u64, Says, usize)> = None;
    let mut columns: Vec<&str> = Vec::new();
    for line in text.lines() {
        // A register is printed with its name: `r5 (rdi)`.
        let words: Vec<&str> = line.split_whitespace().filter(|word| !word.starts_with('(')).collect();
        if words.get(3) == Some(&"CIE") || words.get(3) == Some(&"FDE") {
            finish(&mut rows, function.take());
            common = None;
            if words[3] == "CIE" {
                common = Some(hex(words[0]));
            } else {
                let cie = hex(words[4].strip_prefix("cie=").unwrap());
                let (start, end) = words[5].strip_prefix("pc=").unwrap().split_once("..").unwrap();
                function =
                    Some((hex(start), hex(end), commons.get(&cie).copied().unwrap_or(NOTHING), rows.len()));
            }
        } else if words.first() == Some(&"LOC") {
            columns = words;
        } else if words.first().is_some_and(|word| word.len() == 16) && words.len() > 1 {
            assert_eq!(words.len(), columns.len(), "{line}");
            let cell = |name| columns.iter().position(|&column| column == name).map(|at| words[at]);
            let says = says(cell("CFA").unwrap(), cell("rbp"), cell("ra"));
            if let Some(offset) = common {
                commons.insert(offset, says);
            } else if function.is_some() {
                let start = hex(words[0]);
                rows.push(Row { start, end: start, says });
            }
        }
    }
    finish(&mut rows, function);
    // Functions that the linker removed, at address 0, and empty ones.
    rows.retain(|row| row.start != 0 && row.end > row.start);
    rows
}

/// Gives each row its end, and a function without rows that of its common entry.
fn finish(rows: &mut Vec<Row>, function: Option<(u64, u64, Says, usize)>) {
    let Some((start, end, says, first)) = function else { return };
    if rows.len() == first {
        rows.push(Row { start, end, says });
        return;
    }
    assert_eq!(rows[first].start, start);
    for at in first..rows.len() {
        rows[at].end = rows.get(at + 1).map_or(end, |next| next.start);
    }
}

fn says(cfa: &str, bp: Option<&str>, ra: Option<&str>) -> Says {
    match ra {
        Some("u") => return Says::Exactly(Rule::END),
        Some("c-8") => {}
        Some("exp") => return Says::SomeExpression,
        _ => return Says::NotExpressed("return address elsewhere"),
    }
    if cfa == "exp" {
        return Says::SomeExpression;
    }
    let at = cfa.find(['+', '-']).unwrap();
    let register = NAMES.iter().position(|&name| name == &cfa[..at]).map_or(u16::MAX, |at| at as u16);
    let offset = cfa[at..].parse().unwrap();
    // `u` stands for undefined and for not spoken of, which compilers mean here.
    match bp {
        None | Some("u" | "s") => plain(register, offset, None),
        Some("exp") => match plain(register, offset, None) {
            Says::Exactly(rule) => Says::SomeBp(rule),
            other => other,
        },
        Some(bp) if bp.starts_with('c') => plain(register, offset, Some(bp[1..].parse().unwrap())),
        Some(_) => match plain(register, offset, None) {
            Says::Exactly(rule) => Says::BpLost(rule),
            other => other,
        },
    }
}

fn hex(digits: &str) -> u64 {
    u64::from_str_radix(digits, 16).unwrap()
}
