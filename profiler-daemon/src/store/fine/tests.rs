//! Tests of questions about parts of windows, of heat maps, and of windows that are not stored yet.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::*;
use crate::model::{
    CgroupId, Clock, Extent, Frame, FrameKind, Fresh, Labels, Measure, MonoNs, Pid, ProcessId, Sample,
    Sampled, StackFlags, TaskState, Tid, Wait, Window,
};
use crate::store::{Store, StoreOptions};

const MS: u64 = 1_000_000;

/// Milliseconds after the beginning of an hour.
fn at(ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(3600 * 480_000) + Duration::from_millis(ms)
}

fn range(from: u64, to: u64) -> TimeRange {
    TimeRange { from: at(from), to: at(to) }
}

fn add(profile: &mut Profile, function: &str, measure: Measure, end_ms: u64) {
    let frame = Frame {
        name: function.into(),
        kind: FrameKind::User,
        module: None,
        address: 0,
        source: None,
        named: true,
    };
    let sample = Sample {
        time: MonoNs(0),
        process: ProcessId { pid: Pid(1), start_ticks: 1 },
        tid: Tid(1),
        cgroup: CgroupId(1),
        labels: Arc::new(Labels { pid: Pid(1), comm: function.into(), ..Labels::default() }),
        stack: Arc::new([Arc::new(frame)]),
        flags: StackFlags::default(),
        measure,
        waker: None,
    };
    let rows = profile.add_when(&sample, Some(&Extent::of(measure, at(end_ms))), usize::MAX);
    assert!(rows.is_some());
}

fn hit() -> Measure {
    Measure::OnCpu { period_ns: 10 * MS }
}

fn wait(blocked_ms: u64, run_queue_ms: u64) -> Measure {
    Measure::OffCpu {
        blocked_ns: blocked_ms * MS,
        run_queue_ns: run_queue_ms * MS,
        preempted_ns: 0,
        state: TaskState::Interruptible,
        wait: Wait::Other,
        sequence: 1,
        open: false,
        sampled: Sampled { by_session: false, by_clock: Some(Clock::default()) },
    }
}

/// Ten seconds: a burst of `a` at 1.0 s, some of `b` at 5 s, and a wait from 2.0 to 4.1 s.
fn window(start: u64) -> Window {
    let mut on_cpu = Profile::with_times(ProfileKind::OnCpu, at(start));
    for hits in 0..10 {
        add(&mut on_cpu, "a", hit(), start + 1000 + 10 * hits);
    }
    for hits in 0..4 {
        add(&mut on_cpu, "b", hit(), start + 5000 + hits);
    }
    let mut off_cpu = Profile::with_times(ProfileKind::OffCpu, at(start));
    add(&mut off_cpu, "w", wait(2000, 100), start + 4100);
    Window { range: range(start, start + 10_000), profiles: vec![Arc::new(on_cpu), Arc::new(off_cpu)] }
}

fn stores() -> (tempfile::TempDir, [Store; 2]) {
    let directory = tempfile::tempdir().expect("a directory");
    let options = StoreOptions { max_age: Duration::from_secs(86_400), ..StoreOptions::default() };
    let disk = Store::open(directory.path(), options).expect("a store");
    (directory, [disk, Store::new(options)])
}

fn names(profile: &Profile) -> Vec<String> {
    profile.entries().map(|entry| entry.labels.comm.to_string()).collect()
}

#[test]
fn a_range_within_a_window_holds_what_happened_in_it() {
    let (_directory, stores) = stores();
    for store in stores {
        store.insert(window(0));
        store.insert(window(10_000));
        let all = Selector::default();
        let burst = store.query(ProfileKind::OnCpu, &all, range(950, 1050));
        assert_eq!(names(&burst.profile), ["a"]);
        assert_eq!(burst.profile.total(), Value::exact(5, 50 * MS));
        assert_eq!((burst.range, burst.covered), (Some(range(950, 1050)), Duration::from_millis(100)));
        assert_eq!((burst.resolution, burst.gaps.len()), (Duration::from_millis(1), 0));
        let b = Selector::parse(r#"comm="b""#).expect("valid");
        assert!(store.query(ProfileKind::OnCpu, &b, range(950, 1050)).profile.is_empty());
        let wait = store.query(ProfileKind::OffCpu, &all, range(3900, 4050)).profile;
        let mut parts: Vec<u64> = wait.entries().map(|entry| entry.value.ns / MS).collect();
        parts.sort_unstable();
        assert_eq!(parts, [50, 100]);
        // Slices add up to what the windows hold as a whole.
        for kind in [ProfileKind::OnCpu, ProfileKind::OffCpu] {
            let whole = store.query(kind, &all, range(0, 20_000));
            assert_eq!(whole.resolution, Duration::from_secs(10));
            let mut sum = 0;
            for slice in (0..20_000).step_by(40) {
                sum += store.query(kind, &all, range(slice, slice + 40)).profile.total().ns;
            }
            assert_eq!(sum, whole.profile.total().ns, "{kind}");
        }
    }
}

#[test]
fn an_interval_from_the_window_before_is_found_where_it_was() {
    let (_directory, stores) = stores();
    for store in stores {
        store.insert(window(0));
        let mut off_cpu = Profile::with_times(ProfileKind::OffCpu, at(10_000));
        add(&mut off_cpu, "late", wait(1000, 0), 10_500);
        store.insert(Window { range: range(10_000, 20_000), profiles: vec![Arc::new(off_cpu)] });
        let queried = store.query(ProfileKind::OffCpu, &Selector::default(), range(9_000, 9_800));
        assert_eq!(
            (names(&queried.profile), queried.profile.total().ns),
            (vec!["late".to_owned()], 300 * MS)
        );
    }
}

#[test]
fn times_stay_with_their_rows_whatever_the_order() {
    let (_directory, stores) = stores();
    for store in stores {
        // The dictionary knows `a` before `b`; the second window saw them the other way round.
        store.insert(window(0));
        let mut on_cpu = Profile::with_times(ProfileKind::OnCpu, at(10_000));
        add(&mut on_cpu, "b", hit(), 11_000);
        add(&mut on_cpu, "a", hit(), 12_000);
        store.insert(Window { range: range(10_000, 20_000), profiles: vec![Arc::new(on_cpu)] });
        let seen = |from| {
            names(&store.query(ProfileKind::OnCpu, &Selector::default(), range(from, from + 100)).profile)
        };
        assert_eq!((seen(10_950), seen(11_950)), (vec!["b".to_owned()], vec!["a".to_owned()]));
    }
}

#[test]
fn a_part_of_a_window_is_as_sure_as_its_share_of_the_time() {
    let (_directory, stores) = stores();
    let about = |error: f64, expected: f64| (error / expected - 1.0).abs() < 0.02;
    for store in stores {
        let mut off_cpu = Profile::with_times(ProfileKind::OffCpu, at(0));
        add(&mut off_cpu, "w", wait(2000, 0), 4000);
        off_cpu.add_variance(0, 640_000);
        off_cpu.distributions_mut().add_variance(0, 640_000);
        store.insert(Window { range: range(0, 10_000), profiles: vec![Arc::new(off_cpu)] });
        // A quarter of the wait.
        let part = store.query(ProfileKind::OffCpu, &Selector::default(), range(3000, 3500)).profile;
        let row = part.entries().next().expect("a row").error;
        assert!(about(row, 400.0) && about(part.total_error(), 400.0), "{row} {}", part.total_error());
        let cell = Duration::from_millis(20);
        let heat = store.heat(ProfileKind::OffCpu, &Selector::default(), range(3000, 5000), cell);
        assert!(about(heat.total_error(), 320_000_f64.sqrt()), "{}", heat.total_error());
    }
}

#[test]
fn a_heat_map_has_the_burst_where_it_was() {
    let (_directory, stores) = stores();
    let cell = Duration::from_millis(20);
    for store in stores {
        store.insert(window(0));
        let heat = store.heat(ProfileKind::OnCpu, &Selector::default(), range(0, 12_000), cell);
        let values = heat.values();
        assert_eq!(values.len(), 600);
        assert_eq!(values[50..55], [2, 2, 2, 2, 2]);
        assert_eq!((values[250], values.iter().sum::<u64>()), (4, 14));
        assert_eq!((heat.covered, heat.gaps), (vec![range(0, 10_000)], vec![range(10_000, 12_000)]));
        let a = Selector::parse(r#"comm="a""#).expect("valid");
        let heat = store.heat(ProfileKind::OnCpu, &a, range(0, 10_000), cell);
        assert_eq!(heat.values().iter().sum::<u64>(), 10);
        let heat = store.heat(ProfileKind::OffCpu, &Selector::default(), range(0, 10_000), cell);
        let values = heat.values();
        assert!(values[100..205].iter().all(|&value| value == 20_000), "{values:?}");
        assert_eq!(values.iter().sum::<u64>(), 2_100_000);
    }
}

#[test]
fn what_is_known_of_stacks_is_of_those_who_were_asked_about() {
    let (_directory, stores) = stores();
    let selectors = ["", r#"comm="a""#, r#"comm="b""#, r#"comm="nobody""#].map(|text| {
        if text.is_empty() { Selector::default() } else { Selector::parse(text).expect("valid") }
    });
    for store in stores {
        for start in (0..60_000).step_by(10_000) {
            store.insert(window(start));
        }
        let records = |from, to| {
            let query =
                |selector| store.query(ProfileKind::OnCpu, selector, range(from, to)).profile.quality.records;
            selectors.each_ref().map(query)
        };
        assert_eq!(records(0, 20_000), [28, 20, 8, 0]);
        assert_eq!(records(0, 9_000), [14, 10, 4, 0], "of the whole window");
        let heat = selectors.each_ref().map(|selector| {
            let heat = store.heat(ProfileKind::OnCpu, selector, range(0, 10_000), Duration::from_millis(20));
            heat.quality.records
        });
        assert_eq!(heat, [14, 10, 4, 0]);
        store.insert(window(2 * 3_600_000));
        store.maintain();
        assert_eq!(records(0, 60_000), [84, 60, 24, 0], "rolled up");
        let wait = store.query(ProfileKind::OffCpu, &Selector::default(), range(0, 60_000)).profile;
        assert_eq!(wait.quality.off_cpu_ns, 6 * 2100 * MS);
    }
}

#[test]
fn what_is_rolled_up_is_told_of_as_coarse() {
    let (_directory, [disk, _]) = stores();
    for start in (0..60_000).step_by(10_000) {
        disk.insert(window(start));
    }
    disk.insert(window(2 * 3_600_000));
    disk.maintain();
    assert_eq!(disk.stats().windows, 2, "a minute and the newest");
    let whole = disk.query(ProfileKind::OnCpu, &Selector::default(), range(950, 1050));
    assert_eq!((whole.profile.total().count, whole.resolution), (6 * 14, Duration::from_secs(60)));
    let cell = Duration::from_millis(20);
    let heat = disk.heat(ProfileKind::OnCpu, &Selector::default(), range(0, 60_000), cell);
    assert_eq!((heat.coarse.as_slice(), heat.covered.len()), ([range(0, 60_000)].as_slice(), 0));
    assert_eq!(heat.values().iter().sum::<u64>(), 0);
}

#[test]
fn what_is_not_stored_yet_is_in_the_answer_once() {
    let (_directory, stores) = stores();
    let now = SystemTime::now();
    let since = now.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_millis() as u64;
    let start = since - since % 10_000 - 3600 * 480_000 * 1000;
    for store in stores {
        let fresh = Fresh { sealed: vec![window(start - 10_000)], open: vec![window(start)] };
        let told = fresh.clone();
        store.set_fresh(Arc::new(move || told.clone()));
        let ask =
            || store.query(ProfileKind::OnCpu, &Selector::default(), range(start - 10_000, start + 10_000));
        let queried = ask();
        assert_eq!(queried.profile.total().count, 2 * 14);
        assert_eq!(queried.open_from, Some(at(start)));
        store.insert(fresh.sealed[0].clone());
        assert_eq!(ask().profile.total().count, 2 * 14, "sealed, told of and stored");
        store.insert(fresh.open[0].clone());
        let queried = ask();
        assert_eq!((queried.profile.total().count, queried.open_from), (2 * 14, None));
        // Whoever asks about the past waits for nobody.
        let past = store.query(ProfileKind::OnCpu, &Selector::default(), range(0, 10_000));
        assert!(past.profile.is_empty() && past.open_from.is_none());
    }
}
