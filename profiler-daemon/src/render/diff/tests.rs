//! Differences with known truth: planted growth, equal sides, all formats.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::super::tests::{about, check, off_cpu_profile, on_cpu_profile, without_script};
use super::super::{About, Format, render};
use super::*;
use crate::model::{Activity, BLOCKS, Frame, FrameKind, Labels, Profile, Span, Value};

const GATE: Gate = Gate { fail_over: 0.05, min_share: 0.01 };

fn folded(text: &str) -> Side {
    Side::from_folded("a.folded", text).unwrap()
}

fn diff(base: &str, with: &str, normalize: Normalize) -> Diff {
    Diff::between(folded(base), folded(with), normalize).unwrap()
}

fn change(diff: &Diff, frame: &str) -> Change {
    diff.changes().into_iter().find(|change| change.frame == frame).unwrap()
}

fn text(diff: &Diff, format: DiffFormat) -> String {
    let mut out = Vec::new();
    diff.render(format, &diff.judge(GATE).unwrap(), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_function_that_became_slower_grew_by_that_whatever_its_share() {
    for share in [1_000, 50_000, 90_000] {
        let base = format!("p;main;slow {share}\np;main;other {}\n", 100_000 - share);
        let with = format!("p;main;slow {}\np;main;other {}\n", share * 11 / 10, 100_000 - share);
        for normalize in [Normalize::Total, Normalize::Work] {
            let slow = change(&diff(&base, &with, normalize), "slow");
            assert!((slow.own.growth - 0.1).abs() < 1e-3, "{share} {normalize}: {}", slow.own.growth);
            assert_eq!(slow.own, slow.total);
        }
        // Twice the load is no growth of anything by total, and of everything by work.
        let doubled = format!("p;main;slow {}\np;main;other {}\n", 2 * share, 200_000 - 2 * share);
        let growth = |normalize| change(&diff(&base, &doubled, normalize), "slow").own.growth;
        assert!(growth(Normalize::Total).abs() < 1e-3);
        assert!((growth(Normalize::Work) - 1.0).abs() < 1e-3);
    }
}

#[test]
fn own_and_total_are_told_apart() {
    let diff =
        diff("p;main;f;g 60\np;main;f 20\np;main 20\n", "p;main;f;g 80\np;main;f 20\np 0\n", Normalize::Work);
    let [f, g, main] = ["f", "g", "main"].map(|frame| change(&diff, frame));
    assert_eq!((f.own.base, f.own.with, f.total.base, f.total.with), (20, 20, 80, 100));
    assert_eq!((g.own.base, g.own.with), (60, 80));
    assert_eq!((main.own.base, main.own.with, main.total.with), (20, 0, 100));
    assert_eq!(diff.top_changes(1)[0].frame, "g");
    let order: Vec<String> = diff.top_changes(10).into_iter().map(|change| change.frame).collect();
    assert_eq!(order, ["g", "f", "main"], "growth first, shrinkage last");
}

/// A recording in twelve stretches, as it is read back from its file: so much of `f` in every other
/// one, so much in those between them, and always as much of `rest`.
fn recorded(f: [u64; 2]) -> Side {
    let labels = Arc::new(Labels { comm: "p".into(), ..Labels::default() });
    let mut profile = Profile::with_times(ProfileKind::OnCpu, SystemTime::UNIX_EPOCH);
    for (name, amounts) in [("f", f), ("rest", [750; 2])] {
        let (kind, named) = (FrameKind::User, true);
        let frame = Frame { name: name.into(), kind, module: None, address: 0, source: None, named };
        let stack = [Arc::new(frame)];
        for block in 0..BLOCKS as i32 {
            let amount = amounts[block as usize % 2];
            let value = Value::exact(amount, amount * 10_000_000);
            let row = profile.add_row(&labels, Activity::OnCpu, &stack, value);
            profile.add_span(row, Span { start_ms: block, length_ms: 1, amount });
        }
    }
    let mut json = Vec::new();
    render(&profile, &about(), Format::Json, &mut json).unwrap();
    Side::from_json("a.json", &String::from_utf8(json).unwrap()).unwrap()
}

#[test]
fn a_share_that_sways_within_its_recording_is_less_sure() {
    let judged = |base, with| {
        let diff = Diff::between(recorded(base), recorded(with), Normalize::Total).unwrap();
        let verdict = diff.judge(GATE).unwrap();
        (verdict.failed.len(), verdict.undecided)
    };
    assert_eq!(judged([100, 100], [120, 120]), (1, 0), "steady on both sides");
    assert_eq!(judged([100, 100], [0, 240]), (0, 1), "in every other stretch only");
    assert_eq!(judged([0, 200], [120, 120]), (0, 1));
}

#[test]
fn the_gate_names_what_grew() {
    let diff = diff(
        "p;main;f 20000\np;main;g 20000\np;main;h 2\n",
        "p;main;f 20000\np;main;g 24000\np;main;h 90\n",
        Normalize::Total,
    );
    let verdict = diff.judge(GATE).unwrap();
    let failed: Vec<&str> = verdict.failed.iter().map(|change| change.frame.as_str()).collect();
    assert_eq!(failed, ["g"], "f shrank, h is below the smallest share, main is everything");
    assert!(diff.judge(Gate { fail_over: 0.25, ..GATE }).unwrap().failed.is_empty());
    let tiny = diff.judge(Gate { min_share: 0.0, ..GATE }).unwrap();
    assert!(tiny.failed.iter().any(|change| change.frame == "h"));
}

#[test]
fn too_little_data_is_undecided_and_passes() {
    let diff = diff("p;main;f 20\np;main;g 20\n", "p;main;f 20\np;main;g 24\n", Normalize::Total);
    let verdict = diff.judge(GATE).unwrap();
    assert!(verdict.failed.is_empty());
    assert_eq!(verdict.undecided, 1);
}

/// Draws samples as a sampler would: each falls to a function by its share.
fn drawn(random: &mut impl FnMut() -> f64, weights: &[f64], samples: u32) -> String {
    let whole: f64 = weights.iter().sum();
    let mut counts = vec![0_u32; weights.len()];
    for _ in 0..samples {
        let mut at = random() * whole;
        let hit = weights.iter().position(|weight| {
            at -= weight;
            at < 0.0
        });
        counts[hit.unwrap_or(0)] += 1;
    }
    counts.iter().enumerate().map(|(function, count)| format!("p;main;f{function} {count}\n")).collect()
}

#[test]
fn equal_runs_pass_and_ten_percent_is_caught() {
    // xorshift64*: fixed, so that the test says the same each time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64
    };
    let equal: Vec<f64> = (1..=20).map(f64::from).collect();
    let mut slower = equal.clone();
    slower[19] *= 1.1;
    let (mut false_alarms, mut caught) = (0, 0);
    for _ in 0..50 {
        let base = drawn(&mut random, &equal, 100_000);
        let same = drawn(&mut random, &equal, 100_000);
        let regressed = drawn(&mut random, &slower, 100_000);
        false_alarms +=
            usize::from(!diff(&base, &same, Normalize::Total).judge(GATE).unwrap().failed.is_empty());
        let verdict = diff(&base, &regressed, Normalize::Total).judge(GATE).unwrap();
        caught += usize::from(verdict.failed.iter().any(|change| change.frame == "f19"));
    }
    assert_eq!((false_alarms, caught), (0, 50));
}

#[test]
fn sides_that_do_not_fit_are_refused() {
    let on = || Side::of(&on_cpu_profile(), &about());
    let off = || Side::of(&off_cpu_profile(), &about());
    let between = |base, with, normalize| Diff::between(base, with, normalize).unwrap_err();
    assert!(matches!(between(on(), off(), Normalize::Total), DiffError::Kinds { .. }));
    assert!(matches!(between(folded(""), on(), Normalize::Total), DiffError::Empty { .. }));
    assert!(matches!(between(folded("a 1"), on(), Normalize::Time), DiffError::NoTime { .. }));
    let waits = || folded("p;main;[blocked] 1000000\n");
    let error = Diff::between(waits(), waits(), Normalize::Total).unwrap().judge(GATE).unwrap_err();
    assert!(matches!(error, DiffError::NoCounts { .. }));
    for bad in ["a", "a b", "a;b -1", "a;b 1.5"] {
        let error = Side::from_folded("x", &format!("a 1\n{bad}\n")).unwrap_err();
        assert_eq!(error.to_string(), "line 2: expected `frame;frame VALUE`", "{bad}");
    }
}

#[test]
fn a_profile_and_the_files_it_was_written_to_are_equal() {
    for profile in [on_cpu_profile(), off_cpu_profile()] {
        let written = |format| {
            let mut out = Vec::new();
            render(&profile, &about(), format, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let side = Side::of(&profile, &about());
        let json = Side::from_json("b.json", &written(Format::Json)).unwrap();
        let folded = Side::from_folded("b.folded", &written(Format::Folded)).unwrap();
        for other in [json, folded] {
            let diff = Diff::between(side.clone(), other, Normalize::Total).unwrap();
            for change in diff.changes() {
                assert_eq!((change.own.base, change.total.base), (change.own.with, change.total.with));
            }
        }
    }
    assert!(Side::from_json("x", "{}").is_err());
}

#[test]
fn time_compares_what_was_busy() {
    let side = |seconds| {
        let covered = Duration::from_secs(seconds);
        Side::of(&on_cpu_profile(), &About { covered, ..about() })
    };
    let diff = Diff::between(side(10), side(20), Normalize::Time).unwrap();
    let fib = change(&diff, "fib_[j]");
    // 20 of 85 samples at 100 Hz: 0.2 s of 10 s, then of 20 s.
    assert!((fib.own.base_share - 0.02).abs() < 1e-9 && (fib.own.with_share - 0.01).abs() < 1e-9);
    assert!((fib.own.growth + 0.5).abs() < 1e-9);
}

#[test]
fn off_cpu_noise_follows_the_records_and_not_the_microseconds() {
    let off = Side::of(&off_cpu_profile(), &about());
    let poll = change(&Diff::between(off.clone(), off, Normalize::Work).unwrap(), "schedule_[k]");
    // Two records each of 9 s and of less: two records say little.
    assert!(poll.own.error > 0.5, "{}", poll.own.error);
}

#[test]
fn formats_are_as_in_the_golden_files() {
    let base = Side::of(&on_cpu_profile(), &about());
    let grown = "demo;main;fib_[j] 60\ndemo;main;read 40\ndemo;main;read;do_syscall_64_[k] 15\nnew;start 9\n";
    let diff = Diff::between(base, folded(grown), Normalize::Total).unwrap();
    check("diff.folded", &text(&diff, DiffFormat::Folded));
    check("diff.json", &text(&diff, DiffFormat::Json));
    check("diff.svg", &without_script(&text(&diff, DiffFormat::Svg)));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[a-z;0-9 \\[\\]#\n]{0,80}") {
        let Ok(side) = Side::from_folded("x", &text) else { return Ok(()) };
        if let Ok(diff) = Diff::between(side.clone(), side, Normalize::Total) {
            let verdict = diff.judge(GATE);
            prop_assert!(verdict.is_err() || verdict.is_ok_and(|verdict| verdict.failed.is_empty()));
            for format in [DiffFormat::Svg, DiffFormat::Folded, DiffFormat::Json] {
                let mut out = Vec::new();
                diff.render(format, &Verdict::default(), &mut out).unwrap();
            }
        }
    }
}
