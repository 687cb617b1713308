//! Fixtures, golden files, and what must hold for every format.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use proptest::prelude::*;

use super::*;
use crate::model::{
    Activity, Frame, FrameKind, Labels, Module, Pid, ProfileKind, SourceLine, Stage, Value, Wait,
};

mod wakers;

pub(super) fn about() -> About {
    let from = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    About {
        title: "demo <&> \"everything\"".to_owned(),
        range: TimeRange { from, to: from + Duration::from_secs(10) },
        covered: Duration::from_secs(10),
        command: Some("profiler flamegraph --where 'comm=\"a<b\"' --since 10s".to_owned()),
    }
}

fn frame(name: &str, kind: FrameKind, address: u64) -> Arc<Frame> {
    let module =
        Module { path: "/usr/bin/demo".into(), build_id: Some("00c0ffee".into()), has_symbols: true };
    let in_file = !matches!(kind, FrameKind::Kernel | FrameKind::KernelInlined | FrameKind::Jit);
    Arc::new(Frame {
        name: name.into(),
        kind,
        module: in_file.then(|| Arc::new(module)),
        address,
        source: name.starts_with("demo::").then(|| SourceLine { file: "src/demo.rs".into(), line: 7 }),
        named: !name.starts_with('['),
    })
}

/// Leaf first, as profiles have it.
fn stack(frames: &[(&str, FrameKind)]) -> Vec<Arc<Frame>> {
    let from_root = (1..=frames.len() as u64).rev();
    frames.iter().zip(from_root).map(|(&(name, kind), depth)| frame(name, kind, 0x1000 * depth)).collect()
}

fn labels(comm: &str, pid: u32) -> Arc<Labels> {
    Arc::new(Labels {
        pid: Pid(pid),
        comm: comm.into(),
        exe: "/usr/bin/demo".into(),
        cgroup: "/system.slice/demo.service".into(),
        unit: "demo.service".into(),
        ..Labels::default()
    })
}

const MAIN: (&str, FrameKind) = ("main", FrameKind::User);
const SYSCALL: (&str, FrameKind) = ("do_syscall_64", FrameKind::Kernel);

pub(super) fn on_cpu_profile() -> Profile {
    let mut profile = Profile::new(ProfileKind::OnCpu);
    let mut add = |comm, pid, frames: &[(&str, FrameKind)], count| {
        let value = Value::exact(count, 10_000_000 * count);
        profile.add_row(&labels(comm, pid), Activity::OnCpu, &stack(frames), value);
    };
    add(
        "demo",
        7,
        &[
            ("core::cmp::max", FrameKind::UserInlined),
            ("demo::step", FrameKind::UserInlined),
            ("demo::run", FrameKind::User),
            MAIN,
        ],
        40,
    );
    add("demo", 7, &[("fib", FrameKind::Jit), ("[demo+0x1f]", FrameKind::User), MAIN], 20);
    add("demo", 8, &[SYSCALL, ("read", FrameKind::User), MAIN], 10);
    add("demo", 9, &[SYSCALL, ("read", FrameKind::User), MAIN], 5);
    // As lines these would come in an order that splits `read`.
    add("demo", 7, &[("read", FrameKind::User), MAIN], 3);
    add("demo", 7, &[("read(int)", FrameKind::User), MAIN], 4);
    add("kworker/0:1", 12, &[("inlined", FrameKind::KernelInlined), ("worker", FrameKind::Kernel)], 2);
    add("kworker/0:1", 12, &[], 1);
    profile.quality.records = 85;
    profile.quality.user_stacks = 82;
    profile.quality.complete = 76;
    profile.quality.truncated = 2;
    profile.quality.user_truncated = 1;
    profile.quality.stopped = [3, 0, 0, 1, 0, 0];
    profile.quality.user_missing = 1;
    profile.quality.guessed = 2;
    profile.quality.frames = 300;
    profile.quality.frames_unnamed = 20;
    profile.quality.frames_unnamed_despite_symbols = 3;
    profile.loss.add(Stage::Kernel, "on-CPU ring full", 3);
    profile
}

pub(super) fn off_cpu_profile() -> Profile {
    let mut profile = Profile::new(ProfileKind::OffCpu);
    let wait = stack(&[("schedule", FrameKind::Kernel), SYSCALL, ("poll", FrameKind::User), MAIN]);
    let mut add = |activity, us: u64| {
        profile.add_row(&labels("demo", 7), activity, &wait, Value::exact(2, 1000 * us));
    };
    add(Activity::Blocked(Wait::Other), 9_000_000);
    add(Activity::Blocked(Wait::Uninterruptible), 400_000);
    add(Activity::RunQueue, 30_000);
    add(Activity::Preempted, 1_000);
    profile
}

pub(super) fn hostile_profile() -> Profile {
    let mut profile = Profile::new(ProfileKind::OnCpu);
    let comms = ["a;b\nx&\"", "# no", " pad ", "n 1 2", "", "\u{202e}]]>", "<script>", "--", "x_[k]"];
    for (comm, pid) in comms.into_iter().zip(1..) {
        let names = [(comm, FrameKind::User), ("f;g\n</title>", FrameKind::User), MAIN];
        profile.add_row(&labels(comm, pid), Activity::OnCpu, &stack(&names), Value::exact(1, 1));
        profile.add_row(&labels(comm, pid), Activity::OnCpu, &[], Value::exact(1, 1));
    }
    profile
}

fn rendered(profile: &Profile, format: Format) -> String {
    let mut out = Vec::new();
    render(profile, &about(), format, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// The lines of folded text: stack and value.
fn folded(profile: &Profile) -> Vec<(String, u64)> {
    let line = |line: &str| {
        let (stack, value) = line.rsplit_once(' ').unwrap();
        (stack.to_owned(), value.parse().unwrap())
    };
    rendered(profile, Format::Folded).lines().map(line).collect()
}

/// The frames of a flame graph as (level from the bottom, text, value): the titles of its boxes.
fn boxes(svg: &str) -> Vec<(String, String, u64)> {
    let (_, frames) = svg.split_once("id=\"frames\"").unwrap();
    let titles = frames.split("<title>").skip(1).map(|rest| {
        let (title, rest) = rest.split_once("</title>").unwrap();
        let (name, value) = title.rsplit_once(" (").unwrap();
        let value = value.split_once(' ').unwrap().0.replace(',', "").parse().unwrap();
        let y = rest.split_once(" y=\"").unwrap().1.split_once('"').unwrap().0;
        (y.to_owned(), name.to_owned(), value)
    });
    titles.collect()
}

/// The value of the box at the bottom, which holds all others.
fn all(boxes: &[(String, String, u64)]) -> u64 {
    boxes.iter().map(|row| row.2).max().unwrap()
}

/// Compares with a file in `golden/`; with `BLESS=1` in the environment writes it instead.
pub(super) fn check(file: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/render/golden").join(file);
    if std::env::var_os("BLESS").is_some() {
        return std::fs::write(path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert!(expected == actual, "{file} differs; BLESS=1 writes it anew. Now it is:\n{actual}");
}

#[test]
fn text_formats_are_as_in_the_golden_files() {
    for (name, profile) in [("on-cpu", on_cpu_profile()), ("off-cpu", off_cpu_profile())] {
        check(&format!("{name}.folded"), &rendered(&profile, Format::Folded));
        check(&format!("{name}.json"), &rendered(&profile, Format::Json));
        // The exporter's version is not the format's business.
        let speedscope = rendered(&profile, Format::Speedscope);
        check(&format!("{name}.speedscope.json"), &speedscope.replace(env!("CARGO_PKG_VERSION"), "VERSION"));
        check(&format!("{name}.firefox.json"), &rendered(&profile, Format::Firefox));
        check(&format!("{name}.svg"), &without_script(&rendered(&profile, Format::Svg)));
    }
}

/// inferno's style sheet and script are not our business, as long as they are there.
pub(super) fn without_script(svg: &str) -> String {
    let (head, rest) = svg.split_once("<style").unwrap();
    let (script, body) = rest.split_once("</script>").unwrap();
    assert!(script.contains("function search(") && script.contains("function zoom("));
    format!("{head}{body}").replace("<g>", "\n<g>")
}

#[test]
fn an_empty_profile_is_an_error_and_writes_nothing() {
    let mut short = Profile::new(ProfileKind::OffCpu);
    short.add_row(&labels("demo", 7), Activity::RunQueue, &[], Value::exact(1, 999));
    for profile in [Profile::new(ProfileKind::OnCpu), short] {
        for (format, ..) in Format::TABLE {
            let mut out = Vec::new();
            let result = render(&profile, &about(), format, &mut out);
            assert!(matches!(result, Err(RenderError::Empty)), "{format}: {result:?}");
            assert!(out.is_empty());
        }
    }
}

#[test]
fn all_formats_agree_in_their_total() {
    for profile in [on_cpu_profile(), off_cpu_profile(), hostile_profile()] {
        let total = profile.total_shown();
        assert_eq!(folded(&profile).iter().map(|(_, value)| value).sum::<u64>(), total);
        assert_eq!(all(&boxes(&rendered(&profile, Format::Svg))), total);
        let json: serde_json::Value = serde_json::from_str(&rendered(&profile, Format::Json)).unwrap();
        let values = json["stacks"].as_array().unwrap().iter().map(|stack| stack["value"].as_u64().unwrap());
        assert_eq!(values.sum::<u64>(), total);
        let scope: serde_json::Value = serde_json::from_str(&rendered(&profile, Format::Speedscope)).unwrap();
        let weights = scope["profiles"][0]["weights"].as_array().unwrap();
        assert_eq!(weights.iter().map(|weight| weight.as_u64().unwrap()).sum::<u64>(), total);
        assert_eq!(firefox::tests::total(&profile), total);
        let own: u64 = top(&profile, usize::MAX).iter().map(|row| row.self_value).sum();
        assert_eq!(own, total);
    }
}

#[test]
fn a_hostile_comm_is_one_root_in_each_format() {
    let profile = hostile_profile();
    let lines = folded(&profile);
    let roots: BTreeSet<&str> = lines.iter().map(|(stack, _)| stack.split(';').next().unwrap()).collect();
    assert_eq!(roots.len(), 9, "{roots:?}");
    assert!(lines.iter().all(|(stack, _)| matches!(stack.split(';').count(), 1 | 4)), "{lines:?}");

    let svg = rendered(&profile, Format::Svg);
    let mut levels: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    let boxes = boxes(&svg);
    for (y, _, value) in &boxes {
        levels.entry(y).or_default().push(*value);
    }
    let counts: BTreeSet<usize> = levels.values().map(Vec::len).collect();
    assert_eq!((levels.len(), counts), (5, BTreeSet::from([1, 9])), "{boxes:?}");
    assert!(!svg.contains("<script>") && svg.contains("&lt;script&gt;"));
    assert!(svg.contains(r#"<desc>18 samples"#) && svg.contains("comm=\"a&lt;b\"' --since 10s</desc>"));

    let json: serde_json::Value = serde_json::from_str(&rendered(&profile, Format::Json)).unwrap();
    let comms = json["stacks"].as_array().unwrap().iter().map(|stack| stack["comm"].as_str().unwrap());
    assert_eq!(comms.collect::<HashSet<_>>().len(), 9);
}

#[test]
fn equal_profiles_make_equal_pictures() {
    let profile = on_cpu_profile();
    assert!(rendered(&profile, Format::Svg) == rendered(&profile, Format::Svg));
}

#[test]
fn a_flame_graph_draws_siblings_once() {
    // `read`, `read(int)` and `read;do_syscall_64` under one parent, see `Stacks`.
    let boxes = boxes(&rendered(&on_cpu_profile(), Format::Svg));
    let values = |name| boxes.iter().filter(|row| row.1 == name).map(|row| row.2).collect::<Vec<_>>();
    assert_eq!(values("read"), [18]);
    assert_eq!(values("read(int)"), [4]);
    assert_eq!(values("demo"), [82]);
}

#[test]
fn top_groups_and_filters() {
    let regex = |text: &str| Some(regex::Regex::new(text).unwrap());
    let table = |profile: &Profile, by, focus, ignore, cumulative| {
        let top = top_by(profile, &TopOptions { by, focus, ignore, cumulative, limit: 3 });
        let rows =
            top.rows.into_iter().map(|row| format!("{} {} {}", row.frame, row.self_value, row.total_value));
        (rows.collect::<Vec<_>>(), top.shown)
    };
    let on = on_cpu_profile();
    let (rows, shown) = table(&on, GroupBy::Process, None, None, false);
    assert_eq!(
        (rows, shown),
        (vec!["demo[7] 67 67".into(), "demo[8] 10 10".into(), "demo[9] 5 5".into()], 85)
    );
    let (rows, shown) = table(&on, GroupBy::Frame, regex("^read$"), regex("syscall"), true);
    assert_eq!((rows, shown), (vec!["read 3 3".into(), "main 0 3".into()], 3));
    let (rows, _) = table(&on, GroupBy::Frame, None, None, true);
    assert_eq!(rows[0], "main 0 82");
    let (rows, _) = table(&off_cpu_profile(), GroupBy::Reason, None, None, false);
    assert_eq!(rows[..2], ["blocked 9000000 9000000", "blocked: uninterruptible 400000 400000"]);
    let (rows, _) = table(&on, GroupBy::Container, None, None, false);
    assert_eq!(rows, ["[no container] 85 85"]);
    let (rows, _) = table(&on, GroupBy::Unit, None, None, false);
    assert_eq!(rows, ["demo.service 85 85"]);
    let (rows, _) = table(&on, GroupBy::Thread, regex("fib"), None, false);
    assert_eq!(rows, ["demo in demo[7] 20 20"]);
}

#[test]
fn top_counts_a_recursive_frame_once_a_stack() {
    let rounded = |error: f64| (error * 1e6).round() / 1e6;
    let mut profile = Profile::new(ProfileKind::OnCpu);
    let fib = ("fib", FrameKind::User);
    let mut add = |frames: &[_], count| {
        profile.add_row(&labels("demo", 7), Activity::OnCpu, &stack(frames), Value::exact(count, 1));
    };
    add(&[fib, fib, MAIN], 5);
    add(&[MAIN], 1);
    add(&[], 2);
    let row = |frame: &str, self_value: u64, total_value: u64| TopRow {
        frame: frame.into(),
        self_value,
        total_value,
        self_error: rounded((self_value as f64).sqrt()),
        total_error: rounded((total_value as f64).sqrt()),
        waits: Vec::new(),
    };
    let top = |limit| -> Vec<TopRow> {
        let each = |row: TopRow| TopRow {
            self_error: rounded(row.self_error),
            total_error: rounded(row.total_error),
            ..row
        };
        top(&profile, limit).into_iter().map(each).collect()
    };
    assert_eq!(top(9), [row("fib", 5, 5), row("[no stack]", 2, 2), row("main", 1, 6)]);
    assert_eq!(top(1), [row("fib", 5, 5)]);
}

#[test]
fn the_summary_says_what_is_missing() {
    assert_eq!(
        summary_line(&on_cpu_profile(), &about()),
        "85 samples ±11 % at 100.0 Hz, 10.0 s; lost: 3 (kernel: on-CPU ring full); \
         stacks: 92.7 % complete, 1.2 % truncated, 4.9 % stopped early (no unwinding table yet 3.7 %, \
         no code at the return address 1.2 %), 1.2 % not readable; 2.4 % hold a guessed frame; \
         kernel stack truncated: 1.2 %; frames without a name: 6.7 % (1.0 % although their file has symbols)"
    );
    // What the picture has no room for.
    assert_eq!(
        summary::short_line(&on_cpu_profile(), &about()),
        "85 samples ±11 % at 100.0 Hz, 10.0 s; lost: 3; stacks: 92.7 % complete, 1.2 % truncated, \
         4.9 % stopped, 1.2 % unreadable; 2.4 % guessed; unnamed frames: 6.7 %"
    );
    let part = About { covered: Duration::from_secs(4), ..about() };
    assert_eq!(
        summary_line(&off_cpu_profile(), &part),
        "9.431 s off CPU in 8 records, 4.0 s covered of 10.0 s; lost: nothing; \
         stacks: none of user code; frames without a name: 0.0 %"
    );
}

#[test]
fn formats_go_by_name_and_extension() {
    for (format, name, extension) in Format::TABLE {
        assert_eq!(name.parse::<Format>().unwrap(), format);
        assert_eq!(format.to_string(), name);
        assert_eq!(Format::from_path(Path::new(&format!("dir.svg/out{extension}"))).unwrap(), format);
    }
    assert!("SVG".parse::<Format>().is_err());
    for path in ["out.txt", "out", "out.gz", "out.pb", "out.svg/", "out.svg.bak", ""] {
        let known = Format::from_path(Path::new(path)).is_ok();
        assert_eq!(known, path == "out.svg/", "{path}");
    }
    let error = Format::from_path(Path::new("out.txt")).unwrap_err().to_string();
    assert!(error.starts_with("\"out.txt\": unknown extension"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the names are: each line is a stack of its row's depth, texts keep rows apart or
    /// join them but never multiply them, sums stay, and inferno reads the same out of the lines.
    #[test]
    fn no_name_forges_a_stack(rows in prop::collection::vec(
        (name_text(), prop::collection::vec(name_text(), 0..4), 1_u64..1000), 1..8,
    )) {
        let mut profile = Profile::new(ProfileKind::OnCpu);
        for (comm, names, count) in &rows {
            let names: Vec<_> = names.iter().map(|name| (name.as_str(), FrameKind::User)).collect();
            let value = Value::exact(*count, 1);
            profile.add_row(&labels(comm, 1), Activity::OnCpu, &stack(&names), value);
        }
        let lines = folded(&profile);
        prop_assert_eq!(lines.iter().map(|line| line.1).sum::<u64>(), profile.total_shown());
        let depths = |depths: &mut dyn Iterator<Item = usize>| depths.collect::<BTreeSet<_>>();
        prop_assert_eq!(
            depths(&mut lines.iter().map(|line| line.0.split(';').count())),
            depths(&mut rows.iter().map(|row| 1 + row.1.len()))
        );
        let distinct: HashSet<_> = rows.iter().map(|row| (&row.0, &row.1)).collect();
        prop_assert!(lines.len() <= distinct.len());
        let stacks: HashSet<_> = lines.iter().map(|line| &line.0).collect();
        prop_assert_eq!(stacks.len(), lines.len());

        // Every distinct prefix of the lines is one box, and `all`; none is narrow enough to go.
        let prefixes: HashSet<Vec<&str>> = lines.iter().flat_map(|line| {
            let frames: Vec<&str> = line.0.split(';').collect();
            (1..=frames.len()).map(move |end| frames[..end].to_vec())
        }).collect();
        let boxes = boxes(&rendered(&profile, Format::Svg));
        prop_assert_eq!(boxes.len(), 1 + prefixes.len());
        prop_assert_eq!(all(&boxes), profile.total_shown());
    }
}

/// Names of the characters that matter to readers of folded lines, and any others.
pub(super) fn name_text() -> impl Strategy<Value = String> {
    prop_oneof!["[;# 0-9.a_\\[k\\]\n\r\t\u{a0}\u{2028}&<\"(]{0,6}", "[ab]", any::<String>()]
}
