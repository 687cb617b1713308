//! Stacks of programs as Debian ships them are complete and named: python3, openssl, sqlite3, node.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use profiler_tests::privilege::skip;
use profiler_tests::require_root;
use profiler_tests::stacks::{Frame, Stacks};

use crate::recording::{Recording, checked_walks, ratio};

const PYTHON: &str = "
import json, re, time
def fib(n): return 1 if n < 2 else fib(n - 1) + fib(n - 2)
text = json.dumps([{'key%d' % i: list(range(i % 20))} for i in range(300)])
while time.process_time() < 4:
    fib(17)
    sorted(range(3000), key=lambda i: i * 7919 % 3001)
    json.loads(text)
    len(re.findall(r'key(\\d+)', text))
";

const SQL: &str = "
with recursive numbers(n) as (select 1 union all select n + 1 from numbers where n < 3000000)
select sum(n * n % 7), count(distinct n % 1000), max(printf('%d-%s', n, hex(n))) from numbers;
with recursive numbers(n) as (select 1 union all select n + 1 from numbers where n < 400000)
select count(*) from (select n, n * 7919 % 10007 as k from numbers order by k, n);
";

const SCRIPT: &str = "
function fib(n) { return n < 2 ? 1 : fib(n - 1) + fib(n - 2); }
class Node { constructor(n) { this.n = n; } value() { return [this.n, this.n + 1].map(x => x * 2).sort((a, b) => a - b)[0]; } }
const cpu = () => { const { user, system } = process.cpuUsage(); return (user + system) / 1e6; };
let sum = 0;
while (cpu() < 7) {
  sum += fib(20);
  for (let i = 0; i < 2000; i++) sum += new Node(i).value();
  sum += JSON.stringify(JSON.parse('{\"a\":[1,2,3],\"b\":{\"c\":\"text\"}}')).length;
  sum += 'a-b-c-d'.replace(/-(.)/g, (_, c) => c.toUpperCase()).length;
}
if (sum < 0) console.log(sum);
";

/// Records a program to its end, and asserts that its stacks are complete and named.
fn assert_complete_and_named(name: &str, program: &str, arguments: &[&str]) -> Result<()> {
    let Some(program) = find(program) else {
        skip(&format!("no {program} on this machine"));
        return Ok(());
    };
    let recording = Recording::new()?;
    let line: Vec<OsString> =
        std::iter::once(program.into()).chain(arguments.iter().map(OsString::from)).collect();
    let outcome =
        recording.record_command("-d 230s -F 997 --walks check", &["a.json"], &line)?.expect_code(0)?;
    let stacks = recording.stacks("a.json")?;
    remove_perf_maps(&stacks);
    let quality = stacks.quality;
    assert!(quality.records > 300, "only {quality:?}");
    let incomplete = quality.stopped + quality.truncated + quality.user_missing;
    let complete = 1.0 - ratio(incomplete as f64, quality.records as f64);
    let unnamed = Unnamed::among(&stacks)?;
    println!(
        "{name}: {:.2} % complete ({quality:?}), {:.2} % of the user frames without a name ({})",
        100.0 * complete,
        100.0 * unnamed.share(),
        unnamed.summary()
    );
    for (count, stack) in unrooted(&stacks).iter().take(8) {
        println!("    not rooted, {count}: {stack}");
    }
    assert!(complete >= 0.99, "{name}: {complete} of the stacks are complete: {quality:?}");
    assert!(unnamed.share() <= 0.01, "{name}: {} of the user frames: {}", unnamed.share(), unnamed.summary());
    checked_walks(&outcome)?;
    Ok(())
}

/// First file of this name in the directories of `PATH`; an absolute path if it is there.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // For an absolute path `join` gives that path.
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// Stacks that begin at no entry, heaviest first: to read, when a test fails.
fn unrooted(stacks: &Stacks) -> Vec<(u64, String)> {
    const ENTRIES: [&str; 4] = ["_start", "clone3", "__clone3", "__GI___clone3"];
    let rooted = |frame: &Frame| ENTRIES.contains(&frame.name.as_str()) || frame.is_library();
    let wrong = stacks.stacks.iter().filter(|stack| stack.user().first().is_some_and(|frame| !rooted(frame)));
    wrong.map(|stack| (stack.count, stack.short())).collect()
}

/// Node leaves its map of generated code behind.
fn remove_perf_maps(stacks: &Stacks) {
    let pids: std::collections::HashSet<u64> = stacks.stacks.iter().map(|stack| stack.pid).collect();
    for pid in pids {
        // Most have none.
        _ = std::fs::remove_file(format!("/tmp/perf-{pid}.map"));
    }
}

/// User frames without a name where there is one to be had.
#[derive(Default)]
struct Unnamed {
    frames: u64,
    /// Frames by name.
    unnamed: HashMap<String, u64>,
}

impl Unnamed {
    fn among(stacks: &Stacks) -> Result<Self> {
        let mut found = Self::default();
        let mut files: HashMap<String, Vec<(u64, u64)>> = HashMap::new();
        for stack in &stacks.stacks {
            for frame in stack.user() {
                found.frames += stack.count;
                if frame.is_unnamed() && Self::has_name(frame, &mut files)? {
                    *found.unnamed.entry(frame.name.clone()).or_default() += stack.count;
                }
            }
        }
        Ok(found)
    }

    /// Whether the frame's file has a symbol for its address. Generated code has no file: there the
    /// run-time compiler's map is what names it.
    fn has_name(frame: &Frame, files: &mut HashMap<String, Vec<(u64, u64)>>) -> Result<bool> {
        let Some(module) = frame.module.as_deref() else { return Ok(true) };
        if !Path::new(module).is_file() {
            return Ok(true);
        }
        let address = frame.name.trim_end_matches(']').rsplit("+0x").next().unwrap_or_default();
        let address = u64::from_str_radix(address, 16).context("not an address")?;
        if !files.contains_key(module) {
            files.insert(module.to_owned(), symbols(module)?);
        }
        Ok(files[module].iter().any(|&(start, size)| start <= address && address - start < size))
    }

    fn share(&self) -> f64 {
        ratio(self.unnamed.values().sum::<u64>() as f64, self.frames as f64)
    }

    fn summary(&self) -> String {
        let mut all: Vec<_> = self.unnamed.iter().collect();
        all.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        format!("{:?} of {}", all.iter().take(5).collect::<Vec<_>>(), self.frames)
    }
}

/// Address and size of every function that a file has a symbol for.
fn symbols(module: &str) -> Result<Vec<(u64, u64)>> {
    let output = Command::new("readelf").args(["--wide", "--syms", module]).output().context("no readelf")?;
    let text = String::from_utf8_lossy(&output.stdout);
    // `  Num:    Value          Size Type    Bind   Vis      Ndx Name`; large sizes are in hex.
    let function = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_function = matches!(fields.get(3), Some(&("FUNC" | "IFUNC"))) && fields.get(6) != Some(&"UND");
        let size = fields.get(2)?;
        let size = match size.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok()?,
            None => size.parse().ok()?,
        };
        is_function.then_some((u64::from_str_radix(fields.get(1)?, 16).ok()?, size))
    };
    Ok(text.lines().filter_map(function).collect())
}

#[test]
fn native_stacks_of_python_are_complete_and_named() -> Result<()> {
    let _exclusive = require_root!();
    assert_complete_and_named("python3", "/usr/bin/python3", &["-c", PYTHON])
}

#[test]
fn native_stacks_of_openssl_are_complete_and_named() -> Result<()> {
    let _exclusive = require_root!();
    // The last two keep their frame's address in rax and r9, and in the first of them call on.
    for algorithm in ["sha256", "aes-128-cbc", "aes-256-gcm", "chacha20-poly1305"] {
        let arguments = ["speed", "-seconds", "4", "-bytes", "4096", "-evp", algorithm];
        assert_complete_and_named(&format!("openssl {algorithm}"), "openssl", &arguments)?;
    }
    for algorithm in ["ecdsap256", "rsa2048"] {
        let arguments = ["speed", "-seconds", "4", algorithm];
        assert_complete_and_named(&format!("openssl {algorithm}"), "openssl", &arguments)?;
    }
    Ok(())
}

#[test]
fn native_stacks_of_sqlite_are_complete_and_named() -> Result<()> {
    let _exclusive = require_root!();
    assert_complete_and_named("sqlite3", "sqlite3", &[":memory:", SQL])
}

#[test]
fn native_stacks_of_node_are_complete_and_named() -> Result<()> {
    let _exclusive = require_root!();
    assert_complete_and_named("node", "node", &["--perf-basic-prof", "-e", SCRIPT])
}
