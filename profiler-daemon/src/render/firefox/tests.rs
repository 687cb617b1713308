//! What a reader of the format finds in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;
use crate::model::{Activity, Frame, FrameKind, Module, SourceLine, Value, Wait, Waker};
use crate::render::tests::{about, hostile_profile, name_text, off_cpu_profile, on_cpu_profile};

/// A sample as (thread, frames root first as `category/subcategory name`, weight in the kind's unit).
type Read = (String, Vec<String>, u64);

fn document(profile: &Profile, view: View) -> Json {
    let mut out = Vec::new();
    write(profile, &about(), view, &mut out).expect("written");
    serde_json::from_slice(&out).expect("JSON")
}

/// The rows of a table, each column of the length that it says.
fn column<'a>(table: &'a Json, name: &str) -> &'a [Json] {
    let column = table[name].as_array().expect(name);
    assert_eq!(column.len() as u64, table["length"].as_u64().expect("a length"), "{name}");
    column
}

fn index(value: &Json) -> usize {
    value.as_u64().expect("an index") as usize
}

/// The samples of all threads, read as the format says. Panics where it says otherwise.
fn read(document: &Json) -> Vec<Read> {
    let shared = &document["shared"];
    let strings = shared["stringArray"].as_array().expect("strings");
    let (frames, functions, stacks) = (&shared["frameTable"], &shared["funcTable"], &shared["stackTable"]);
    let mut samples = Vec::new();
    for thread in document["threads"].as_array().expect("threads") {
        let table = &thread["samples"];
        let mut last = 0.0;
        for ((stack, weight), time) in
            column(table, "stack").iter().zip(column(table, "weight")).zip(column(table, "time"))
        {
            assert!(time.as_f64().expect("a time") >= last);
            last = time.as_f64().expect("a time");
            let mut path = Vec::new();
            let mut next = stack;
            while !next.is_null() {
                let frame = &column(stacks, "frame")[index(next)];
                let category =
                    &document["meta"]["categories"][index(&column(frames, "category")[index(frame)])];
                let part = &category["subcategories"][index(&column(frames, "subcategory")[index(frame)])];
                let function = index(&column(frames, "func")[index(frame)]);
                let name = strings[index(&column(functions, "name")[function])].as_str().expect("a name");
                let text = |value: &Json| value.as_str().expect("a text").to_owned();
                path.push(format!("{}/{} {name}", text(&category["name"]), text(part)));
                let prefix = &column(stacks, "prefix")[index(next)];
                assert!(prefix.is_null() || index(prefix) < index(next), "parents come first");
                next = prefix;
            }
            path.reverse();
            let weight = match table["weightType"].as_str() {
                Some("samples") => weight.as_u64().expect("whole"),
                Some("tracing-ms") => (weight.as_f64().expect("a weight") * 1000.0).round() as u64,
                other => panic!("{other:?}"),
            };
            if stack.is_null() {
                assert_eq!(weight, 0, "no reader would show it");
                continue;
            }
            samples.push((thread["name"].as_str().expect("a name").to_owned(), path, weight));
        }
    }
    samples
}

/// Sum of all samples, for the test that all formats agree.
pub(in crate::render) fn total(profile: &Profile) -> u64 {
    read(&document(profile, View::Waits)).iter().map(|sample| sample.2).sum()
}

fn stack(names: &[&str]) -> Vec<Arc<Frame>> {
    let frame = |name: &&str| Frame {
        name: (*name).into(),
        kind: FrameKind::User,
        module: None,
        address: 0,
        source: None,
        named: true,
    };
    names.iter().map(|name| Arc::new(frame(name))).collect()
}

fn labels(pid: u32, comm: &str, exe: &str) -> Arc<Labels> {
    Arc::new(Labels { pid: Pid(pid), comm: comm.into(), exe: exe.into(), ..Labels::default() })
}

#[test]
fn kinds_of_code_are_categories_and_files_are_there() {
    let document = document(&on_cpu_profile(), View::Waits);
    let samples = read(&document);
    let inlined = samples.iter().find(|sample| sample.2 == 40).expect("the heaviest");
    assert_eq!(
        inlined.1,
        ["User/Other main", "User/Other demo::run", "User/Inlined demo::step", "User/Inlined core::cmp::max"]
    );
    let leaves: Vec<&str> = samples.iter().filter_map(|sample| sample.1.last()).map(String::as_str).collect();
    for leaf in
        ["JIT/Other fib", "Kernel/Other do_syscall_64", "Kernel/Inlined inlined", "Other/Other [no stack]"]
    {
        assert!(leaves.contains(&leaf), "{leaf}: {leaves:?}");
    }
    let shared = &document["shared"];
    let file = &column(&shared["sources"], "filename")[0];
    assert_eq!(shared["stringArray"][index(file)], "src/demo.rs");
    assert!(column(&shared["funcTable"], "lineNumber").contains(&7.into()));
    let library = &document["libs"][index(&column(&shared["resourceTable"], "lib")[0])];
    assert_eq!((&library["name"], &library["codeId"]), (&"demo".into(), &"00c0ffee".into()));
}

#[test]
fn off_cpu_time_is_milliseconds_of_reasons() {
    let samples = read(&document(&off_cpu_profile(), View::Waits));
    let mut leaves: Vec<(&str, u64)> =
        samples.iter().map(|(_, path, us)| (path.last().expect("a frame").as_str(), *us)).collect();
    leaves.sort_unstable_by_key(|leaf| leaf.1);
    assert_eq!(
        leaves,
        [
            ("Waiting for a CPU/Preempted [preempted]", 1_000),
            ("Waiting for a CPU/Run queue [run-queue]", 30_000),
            ("Blocked/uninterruptible [blocked: uninterruptible]", 400_000),
            ("Blocked/Other [blocked]", 9_000_000),
        ]
    );
}

#[test]
fn threads_are_apart_and_the_heaviest_process_is_first() {
    let mut profile = Profile::new(ProfileKind::OnCpu);
    let mut add = |pid, comm, exe, count| {
        let value = Value::exact(count, 10_000_000 * count);
        profile.add_row(&labels(pid, comm, exe), Activity::OnCpu, &stack(&["f"]), value);
    };
    add(7, "web", "/bin/web", 10);
    add(8, "db", "/bin/db", 20);
    add(7, "worker", "/bin/web", 15);
    // The same pid, used again.
    add(7, "cron", "/bin/cron", 1);
    let document = document(&profile, View::Waits);
    let threads = document["threads"].as_array().expect("threads");
    let read: Vec<_> = threads.iter().map(|thread| (&thread["name"], &thread["pid"])).collect();
    let expected = [("worker", "7"), ("web", "7"), ("db", "8"), ("cron", "7.1")];
    let expected: Vec<(Json, Json)> =
        expected.iter().map(|(name, pid)| ((*name).into(), (*pid).into())).collect();
    assert_eq!(read, expected.iter().map(|(name, pid)| (name, pid)).collect::<Vec<_>>());
    let tids: std::collections::HashSet<_> = threads.iter().map(|thread| thread["tid"].to_string()).collect();
    assert_eq!(tids.len(), 4);
    assert_eq!(threads[0]["samples"]["time"], serde_json::json!([0.0, 150.0]), "as long as it is worth");
    assert_eq!(document["meta"]["interval"], 10.0);
}

#[test]
fn stacks_that_begin_alike_lie_side_by_side() {
    let mut profile = Profile::new(ProfileKind::OnCpu);
    for (names, count) in [(["a", "main"], 1), (["b", "other"], 5), (["c", "main"], 2)] {
        let value = Value::exact(count, count);
        profile.add_row(&labels(7, "t", ""), Activity::OnCpu, &stack(&names), value);
    }
    let samples = read(&document(&profile, View::Waits));
    let roots: Vec<&str> = samples.iter().map(|sample| sample.1[0].as_str()).collect();
    assert_eq!(roots, ["User/Other main", "User/Other main", "User/Other other"]);
}

#[test]
fn a_function_named_like_a_reason_is_another_function() {
    let mut profile = Profile::new(ProfileKind::OffCpu);
    let labels = labels(7, "t", "");
    let mut add = |activity, names: &[&str]| {
        profile.add_row(&labels, activity, &stack(names), Value::exact(1, 1000));
    };
    add(Activity::Blocked(Wait::Io), &["main"]);
    add(Activity::RunQueue, &["[blocked: io]", "main"]);
    let document = document(&profile, View::Waits);
    let named: Vec<&Json> = document["shared"]["stringArray"].as_array().expect("strings").iter().collect();
    let named = named.iter().position(|name| **name == "[blocked: io]").expect("there");
    let functions = column(&document["shared"]["funcTable"], "name");
    assert_eq!(functions.iter().filter(|name| index(name) == named).count(), 2);
}

#[test]
fn the_waker_stands_on_the_wait() {
    let mut profile = Profile::new(ProfileKind::OffCpu);
    let waker = Waker { labels: labels(9, "holder", ""), stack: stack(&["unlock", "run"]).into() };
    profile.add_woken(
        &labels(7, "t", ""),
        Activity::Blocked(Wait::Lock),
        &stack(&["take"]),
        Some(&waker),
        Value::exact(1, 2_000_000),
    );
    let wait = ["User/Other take", "Blocked/lock [blocked: lock]"];
    assert_eq!(read(&document(&profile, View::Waits))[0].1, wait);
    let by =
        ["Waker/Other [woken by]", "Waker/Other unlock_[w]", "Waker/Other run_[w]", "Waker/Other holder_[w]"];
    assert_eq!(read(&document(&profile, View::Wakers))[0].1, [&wait[..], &by[..]].concat());
}

#[test]
fn a_hostile_comm_is_one_thread() {
    let document = document(&hostile_profile(), View::Waits);
    assert_eq!(document["threads"].as_array().map(Vec::len), Some(9));
    assert!(read(&document).iter().all(|sample| matches!(sample.1.len(), 1 | 3)));
    assert!(!document.to_string().contains('\u{202e}'));
    assert_eq!(document["threads"][4]["name"], "[pid 5]", "no name");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the names are: the reader finds the rows that went in, thread by thread.
    #[test]
    fn no_name_forges_a_stack(rows in prop::collection::vec(
        (name_text(), prop::collection::vec(name_text(), 0..4), 1_u64..1000), 1..8,
    )) {
        let mut profile = Profile::new(ProfileKind::OnCpu);
        let mut expected: BTreeMap<(String, Vec<String>), u64> = BTreeMap::new();
        for (comm, names, count) in &rows {
            let leaf_first: Vec<&str> = names.iter().map(String::as_str).collect();
            let value = Value::exact(*count, 1);
            profile.add_row(&labels(1, comm, ""), Activity::OnCpu, &stack(&leaf_first), value);
            let or = |text: &str, empty: &str| match name::clean(text) {
                name if name.is_empty() => empty.to_owned(),
                name => name.into_owned(),
            };
            let mut path: Vec<String> =
                leaf_first.iter().rev().map(|name| format!("User/Other {}", or(name, "[unnamed]"))).collect();
            if path.is_empty() {
                path.push("Other/Other [no stack]".to_owned());
            }
            *expected.entry((or(comm, "[pid 1]"), path)).or_default() += count;
        }
        let mut found: BTreeMap<(String, Vec<String>), u64> = BTreeMap::new();
        for (thread, path, weight) in read(&document(&profile, View::Waits)) {
            *found.entry((thread, path)).or_default() += weight;
        }
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn equal_functions_of_two_files_stay_apart() {
    let frame = |path: &str| {
        let module = Module { path: path.into(), build_id: None, has_symbols: true };
        let source = Some(SourceLine { file: "a.c".into(), line: 0 });
        let module = Some(Arc::new(module));
        Arc::new(Frame { name: "f".into(), kind: FrameKind::User, module, address: 1, source, named: true })
    };
    let mut profile = Profile::new(ProfileKind::OnCpu);
    for path in ["/a/lib.so", "/b/lib.so"] {
        profile.add_row(&labels(7, "t", ""), Activity::OnCpu, &[frame(path)], Value::exact(1, 1));
    }
    let document = document(&profile, View::Waits);
    assert_eq!(column(&document["shared"]["funcTable"], "resource"), [0, 1]);
    assert_eq!(column(&document["shared"]["funcTable"], "lineNumber"), [Json::Null, Json::Null]);
    let paths: Vec<&Json> =
        document["libs"].as_array().expect("libs").iter().map(|lib| &lib["path"]).collect();
    assert_eq!(paths, ["/a/lib.so", "/b/lib.so"]);
}
