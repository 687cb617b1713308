//! A bundle of a known store: the culprit comes first, what is missing is said.

use std::collections::HashMap;
use std::os::unix::fs::FileExt as _;
use std::sync::Mutex;

use tokio::sync::oneshot;

use super::*;
use crate::capture::{
    BoxFuture, CaptureSpec, CaptureState, Cause, Limits, Recorder, RecorderError, Recording, ResolveError,
    TargetSpec,
};
use crate::model::{
    Activity, Allowance, Detail, Frame, FrameKind, Labels, Pid, ProcessId, Profile, Stage, Target, TimeRange,
    Value, Wait, Window,
};
use crate::store::StoreOptions;

const SECOND: u64 = 1_000_000_000;
const DAY: Duration = Duration::from_secs(86_400);

fn add(profile: &mut Profile, pid: u32, comm: &str, activity: Activity, frames: &[&str], value: Value) {
    let exe: Arc<str> = format!("/usr/bin/{comm}").into();
    let labels = Labels { pid: Pid(pid), comm: comm.into(), exe, ..Labels::default() };
    let frame = |name: &&str| {
        Arc::new(Frame {
            name: (*name).into(),
            kind: FrameKind::User,
            module: None,
            address: 0,
            source: None,
            named: true,
        })
    };
    let stack: Vec<Arc<Frame>> = frames.iter().map(frame).collect();
    profile.add_row(&Arc::new(labels), activity, &stack, value);
}

/// Ten seconds of on-CPU samples at 100 Hz that end at `to`.
fn window(to: SystemTime, rows: &[(u32, &str, &str, u64)]) -> Window {
    let mut profile = Profile::new(ProfileKind::OnCpu);
    for &(pid, comm, leaf, count) in rows {
        let value = Value::exact(count, count * 10_000_000);
        add(&mut profile, pid, comm, Activity::OnCpu, &[leaf, "main"], value);
    }
    profile.loss.add(Stage::Kernel, "ring full", 3);
    Window { range: TimeRange::ending(to, Duration::from_secs(10)), profiles: vec![Arc::new(profile)] }
}

/// Hands out one off-CPU profile.
#[derive(Default)]
struct Fake(Mutex<HashMap<u64, oneshot::Sender<Profile>>>);

impl Recorder for Fake {
    fn resolve(&self, _kind: ProfileKind, target: &TargetSpec) -> Result<Target, ResolveError> {
        let id = |&pid| ProcessId { pid, start_ticks: 1 };
        Ok(if target.is_host() {
            Target::Host
        } else {
            Target::Processes(target.pids.iter().map(id).collect())
        })
    }

    fn start(
        &self,
        session: u64,
        _kind: ProfileKind,
        _target: Target,
        _detail: Detail,
    ) -> BoxFuture<'_, Result<Recording, RecorderError>> {
        let (sender, receiver) = oneshot::channel();
        self.0.lock().expect("lock").insert(session, sender);
        Box::pin(async move { Ok(Recording { profile: receiver, usage: Arc::default() }) })
    }

    fn stop(&self, session: u64) -> BoxFuture<'_, ()> {
        let sender = self.0.lock().expect("lock").remove(&session);
        Box::pin(async move {
            let mut profile = Profile::new(ProfileKind::OffCpu);
            let value = |seconds| Value::exact(1, seconds * SECOND);
            let blocked = |state| Activity::Blocked(state);
            add(&mut profile, 7, "idler", blocked(Wait::Other), &["sleep", "main"], value(500));
            add(&mut profile, 8, "writer", blocked(Wait::Uninterruptible), &["fsync", "main"], value(9));
            add(&mut profile, 9, "victim", Activity::RunQueue, &["work", "main"], value(4));
            if let Some(sender) = sender {
                let _nobody_waits = sender.send(profile);
            }
        })
    }

    fn cpu_time(&self) -> Duration {
        Duration::ZERO
    }
}

struct Set {
    store: Arc<Store>,
    captures: Arc<Captures>,
    bundles: Arc<Bundles>,
    place: tempfile::TempDir,
}

fn set() -> Set {
    let place = tempfile::tempdir().expect("a directory");
    let options = StoreOptions { max_age: 2 * DAY, ..StoreOptions::default() };
    let store = Arc::new(Store::new(options));
    let captures = Arc::new(Captures::new(Arc::new(Fake::default()), Arc::clone(&store), Limits::default()));
    let options = Options {
        directory: place.path().join("bundles"),
        before: Duration::from_secs(60),
        settle: Duration::from_secs(30),
        max_count: 10,
        max_bytes: 1 << 30,
    };
    let bundles = Arc::new(Bundles::new(options, Arc::clone(&captures), Arc::clone(&store)));
    Set { store, captures, bundles, place }
}

/// A capture with this cause, stopped at once.
async fn captured(set: &Set, pids: &[u32], cause: Cause) -> String {
    let spec = CaptureSpec {
        kind: ProfileKind::OffCpu,
        target: TargetSpec { pids: pids.iter().copied().map(Pid).collect(), cgroup: None },
        duration: Some(Duration::from_secs(60)),
        min_block: None,
        wakers: None,
        allowance: Allowance::default(),
        cause,
    };
    let id = set.captures.start(spec).expect("starts").id;
    let mut now = set.captures.watch(&id).expect("known");
    now.wait_for(|capture| capture.state == CaptureState::Running).await.expect("runs");
    drop(now);
    set.captures.stop(&id).await.expect("known");
    id
}

fn text(files: &[BundleFile], name: &str) -> String {
    let file = files.iter().find(|file| file.name == name);
    let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    let file = file.unwrap_or_else(|| panic!("{name} is not among {names:?}"));
    let mut bytes = vec![0; file.size as usize];
    file.content.read_exact_at(&mut bytes, 0).expect("readable");
    String::from_utf8(bytes).expect("text")
}

/// Asserts that the texts come in this order.
fn in_order(text: &str, parts: &[&str]) {
    let mut at = 0;
    for part in parts {
        match text[at..].find(part) {
            Some(found) => at += found + part.len(),
            None => panic!("{part:?} does not follow in\n{text}"),
        }
    }
}

fn pressure(resource: &'static str) -> Cause {
    Cause::Pressure { resource, rule: format!("host {resource} some 1s/2s") }
}

#[tokio::test]
async fn cpu_pressure_names_who_used_the_cpu_first_and_what_grew() {
    let set = set();
    let now = SystemTime::now();
    let minute = Duration::from_secs(60);
    set.store.insert(window(now - DAY, &[(1, "steady", "serve", 100), (2, "hog", "burn", 10)]));
    set.store.insert(window(now - minute / 2, &[(1, "steady", "serve", 100)]));
    set.store.insert(window(now + minute, &[(1, "steady", "serve", 1)]));
    set.store.insert(window(
        now + Duration::from_secs(5),
        &[(1, "steady", "serve", 100), (2, "hog", "burn", 900)],
    ));
    let id = captured(&set, &[], pressure("cpu")).await;
    let files = set.bundles.get(&id).await.expect("a bundle");
    let report = &text(&files, "report.md");
    in_order(report, &["# Incident", "pressure: host cpu some 1s/2s", "the host", "off-cpu capture, done"]);
    in_order(
        report,
        &["## On the CPU during", "| 90.0 % | 900 | hog | 2 |", "| 10.0 % | 100 | steady | 1 |"],
    );
    in_order(report, &["Frames, by their own", "| 90.0 % | 900 | 90.0 % | burn |"]);
    in_order(report, &["## Waiting for a CPU", "4000000 of 513000000", "| 100.0 % | 4000000 | victim | 9 |"]);
    in_order(
        report,
        &["## Before the capture: on-cpu", "| steady | 1 |", "Before the capture: off-cpu", "Nothing"],
    );
    // 0.1 of 10 s in `burn` then; 9 of 20 s now.
    in_order(
        report,
        &["Compared with a day earlier: on-cpu", "| growth |", "| +0.440 | 0.450 | 0.010 | burn |"],
    );
    in_order(report, &["No comparison: no off-cpu profile of that time is stored"]);
    in_order(report, &["## What is missing", "`during-on-cpu`: lost 3 (kernel: ring full)"]);
    for name in ["capture-off-cpu", "during-on-cpu", "before-on-cpu", "day-earlier-on-cpu"] {
        assert!(text(&files, &format!("{name}.svg")).contains("<svg"), "{name}");
        assert!(!text(&files, &format!("{name}.folded")).is_empty(), "{name}");
        let json = &text(&files, &format!("{name}.json"));
        assert!(serde_json::from_str::<serde_json::Value>(json).is_ok(), "{name}");
    }
    let facts: serde_json::Value = serde_json::from_str(&text(&files, "bundle.json")).expect("JSON");
    assert_eq!(
        (&facts["id"], &facts["cause"]),
        (&id.as_str().into(), &"pressure: host cpu some 1s/2s".into())
    );
    // On disk it is the same, also for a daemon that has forgotten the capture.
    let directory = set.place.path().join("bundles").join(&id);
    assert_eq!(std::fs::read_to_string(directory.join("report.md")).expect("written"), *report);
    let other = self::set();
    let options = Options { directory: set.place.path().join("bundles"), ..other.bundles.options.clone() };
    let bundles = Arc::new(Bundles::new(options, other.captures, other.store));
    assert_eq!(bundles.get(&id).await.expect("kept").len(), files.len());
}

#[tokio::test]
async fn io_pressure_names_who_waits_in_the_kernel_first() {
    let set = set();
    set.store.insert(window(SystemTime::now() + Duration::from_secs(5), &[(1, "steady", "serve", 100)]));
    let id = captured(&set, &[], pressure("io")).await;
    let files = set.bundles.get(&id).await.expect("a bundle");
    let report = &text(&files, "report.md");
    in_order(
        report,
        &["## Waiting for I/O", "| 100.0 % | 9000000 | writer | 8 |", "fsync ← main", "## On the CPU"],
    );
    in_order(report, &["## All waiting", "| idler |"]);
}

#[tokio::test]
async fn a_process_is_found_a_day_earlier_by_its_executable() {
    let set = set();
    let now = SystemTime::now();
    set.store.insert(window(now - DAY, &[(70, "idler", "poll", 5), (2, "hog", "burn", 10)]));
    set.store
        .insert(window(now + Duration::from_secs(5), &[(7, "idler", "poll", 50), (2, "hog", "burn", 900)]));
    let labels = [("pid".to_owned(), "7".to_owned()), ("alertname".to_owned(), "Slow|`x`".to_owned())];
    let id = captured(&set, &[7], Cause::alert("f", labels)).await;
    let files = set.bundles.get(&id).await.expect("a bundle");
    let report = &text(&files, "report.md");
    in_order(
        report,
        &["alert Slow\\|\\`x\\` (f)", "pid 7", "**label pid**: 7", "## Off the CPU: the capture"],
    );
    in_order(report, &["## On the CPU during", "| 100.0 % | 50 | idler | 7 |"]);
    assert!(!report.contains("hog"), "{report}");
    let earlier = text(&files, "day-earlier-on-cpu.folded");
    assert_eq!(earlier, "idler;main;poll 5\n");
}

#[tokio::test]
async fn there_is_no_bundle_of_nothing_nor_of_what_runs() {
    let set = set();
    assert!(matches!(set.bundles.get("nonsense").await, Err(BundleError::Unknown { .. })));
    assert!(matches!(set.bundles.get("../x").await, Err(BundleError::Unknown { .. })));
    let spec = CaptureSpec {
        kind: ProfileKind::OffCpu,
        target: TargetSpec::default(),
        duration: Some(Duration::from_secs(60)),
        min_block: None,
        wakers: None,
        allowance: Allowance::default(),
        cause: Cause::Request,
    };
    let id = set.captures.start(spec).expect("starts").id;
    let error = set.bundles.get(&id).await.expect_err("still runs");
    assert!(
        matches!(error, BundleError::NotEnded { retry_after, .. } if retry_after > Duration::from_secs(50))
    );
    // At shutdown what was promised is made of what there is, without waiting for windows.
    set.bundles.follow(&id);
    set.captures.shutdown().await;
    set.bundles.closing.cancel();
    set.bundles.shutdown().await;
    assert!(set.place.path().join("bundles").join(&id).join("report.md").exists());
}

/// After a restart a capture is known by what the store kept of it.
#[tokio::test]
async fn a_bundle_made_after_a_restart_is_about_the_same_target() {
    for (pids, whom, row) in
        [(&[][..], "the host", "| 900 | hog | 2 |"), (&[7][..], "pid 7", "| 50 | idler | 7 |")]
    {
        let place = tempfile::tempdir().expect("a directory");
        let open = || {
            let store = Arc::new(Store::open(place.path(), StoreOptions::default()).expect("usable"));
            let recorder = Arc::new(Fake::default());
            let captures = Arc::new(Captures::new(recorder, Arc::clone(&store), Limits::default()));
            let options = Options {
                directory: place.path().join("bundles"),
                before: Duration::from_secs(60),
                settle: Duration::ZERO,
                max_count: 10,
                max_bytes: 1 << 30,
            };
            let bundles = Arc::new(Bundles::new(options, Arc::clone(&captures), Arc::clone(&store)));
            Set { store, captures, bundles, place: tempfile::tempdir().expect("a directory") }
        };
        let set = open();
        let now = SystemTime::now() + Duration::from_secs(5);
        set.store.insert(window(now, &[(7, "idler", "poll", 50), (2, "hog", "burn", 900)]));
        let id = captured(&set, pids, Cause::Request).await;
        drop(set);
        let set = open();
        let report = text(&set.bundles.get(&id).await.expect("a bundle"), "report.md");
        in_order(&report, &[&format!("**for whom**: {whom}\n"), "## On the CPU during", row]);
        assert!(!report.contains("nothing of the target was seen on-cpu"), "{report}");
    }
}
