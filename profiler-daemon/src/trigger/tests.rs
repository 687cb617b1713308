//! Alerts and pressure with a recorder that records nothing real: one capture an episode.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::oneshot;

use super::*;
use crate::bundle;
use crate::capture::{BoxFuture, Limits, Recorder, RecorderError, Recording, ResolveError};
use crate::model::{Allowance, Detail, Profile, Target};
use crate::store::{Store, StoreOptions};

/// Records empty profiles, and counts them.
#[derive(Default)]
struct Fake {
    open: Mutex<HashMap<u64, oneshot::Sender<Profile>>>,
    started: AtomicU32,
}

impl Recorder for Fake {
    fn resolve(&self, _kind: ProfileKind, _target: &TargetSpec) -> Result<Target, ResolveError> {
        Ok(Target::Host)
    }

    fn start(
        &self,
        session: u64,
        _kind: ProfileKind,
        _target: Target,
        _detail: Detail,
    ) -> BoxFuture<'_, Result<Recording, RecorderError>> {
        let (sender, receiver) = oneshot::channel();
        self.open.lock().expect("lock").insert(session, sender);
        self.started.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move { Ok(Recording { profile: receiver, usage: Arc::default() }) })
    }

    fn stop(&self, session: u64) -> BoxFuture<'_, ()> {
        let sender = self.open.lock().expect("lock").remove(&session);
        Box::pin(async move {
            if let Some(sender) = sender {
                let _nobody_waits = sender.send(Profile::new(ProfileKind::OffCpu));
            }
        })
    }

    fn cpu_time(&self) -> Duration {
        Duration::ZERO
    }
}

struct Set {
    fake: Arc<Fake>,
    captures: Arc<Captures>,
    bundles: Arc<Bundles>,
    triggers: Arc<Triggers>,
    _place: tempfile::TempDir,
}

fn set(max_running: usize, host_without_target: bool) -> Set {
    let place = tempfile::tempdir().expect("a directory");
    let (fake, store) = (Arc::new(Fake::default()), Arc::new(Store::new(StoreOptions::default())));
    let limits = Limits { max_running, ..Limits::default() };
    let recorder: Arc<dyn Recorder> = Arc::clone(&fake) as Arc<dyn Recorder>;
    let captures = Arc::new(Captures::new(recorder, Arc::clone(&store), limits));
    let options = bundle::Options {
        directory: place.path().join("bundles"),
        before: Duration::from_secs(60),
        settle: Duration::ZERO,
        max_count: 10,
        max_bytes: 1 << 30,
    };
    let bundles = Arc::new(Bundles::new(options, Arc::clone(&captures), store));
    let options = Options {
        duration: Duration::from_secs(30),
        wakers: true,
        cooldown: Duration::from_secs(900),
        max_per_hour: 12,
        targets: ["pid=pid", "cgroup=cgroup", "container=container", "comm=comm"]
            .map(|text| text.parse().expect("a mapping"))
            .to_vec(),
        host_without_target,
    };
    let triggers = Arc::new(Triggers::new(Arc::clone(&captures), Arc::clone(&bundles), options));
    Set { fake, captures, bundles, triggers, _place: place }
}

/// A payload with one alert of these labels.
fn payload(fingerprint: &str, starts_at: &str, labels: &str) -> Vec<u8> {
    format!(
        r#"{{"version":"4","alerts":[{{"status":"firing","labels":{{"alertname":"Slow"{labels}}},
        "startsAt":"{starts_at}","fingerprint":"{fingerprint}"}}]}}"#
    )
    .into_bytes()
}

const NOON: &str = "2026-11-23T12:00:00Z";

fn one(set: &Set, payload: &[u8]) -> Outcome {
    let handled = set.triggers.alertmanager(payload).expect("a payload");
    handled.into_iter().next().expect("an alert").outcome
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_posted_ten_times_at_once_starts_one() {
    let set = set(4, true);
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let triggers = Arc::clone(&set.triggers);
            tokio::task::spawn_blocking(move || triggers.alertmanager(&payload("f", NOON, "")))
        })
        .collect();
    let mut started = 0;
    for call in calls {
        match &call.await.expect("no panic").expect("a payload")[0].outcome {
            Outcome::Started { .. } => started += 1,
            Outcome::Duplicate { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((started, set.captures.list().len()), (1, 1));
    let capture = set.captures.list().remove(0);
    assert_eq!(capture.cause.to_string(), "alert Slow (f)");
    assert_eq!(capture.cause.labels(), [("alertname".to_owned(), "Slow".to_owned())]);
    // The same alert, firing anew, and another one for the same target.
    let later = "2026-11-23T12:05:00Z";
    for next in [payload("f", later, ""), payload("g", NOON, "")] {
        assert!(matches!(one(&set, &next), Outcome::CoolingDown { of, .. } if of == capture.id));
    }
    assert_eq!(set.captures.list().len(), 1);
    // One that is shut down before it began records nothing.
    while set.fake.started.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    set.captures.shutdown().await;
    set.bundles.shutdown().await;
    assert_eq!(set.fake.started.load(Ordering::Relaxed), 1);
    assert_eq!(set.bundles.failed(), 0);
    let files = set.bundles.get(&capture.id).await.expect("a bundle");
    assert_eq!(files[0].name, "report.md");
}

#[tokio::test]
async fn labels_name_the_target() {
    let set = set(64, false);
    let pid = std::process::id();
    let me = std::fs::read_to_string("/proc/self/comm").expect("own name");
    let me = me.trim_end();
    let spec = |outcome: Outcome| match outcome {
        Outcome::Started { id } => set.captures.get(&id).expect("known").target,
        other => panic!("{other:?}"),
    };
    let found = spec(one(&set, &payload("1", NOON, &format!(r#","pid":"{pid}""#))));
    assert_eq!(found.pids.iter().map(|pid| pid.0).collect::<Vec<_>>(), [pid]);
    // The first label leads nowhere: the next one is tried.
    let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("starts");
    // It has our name until it execs.
    let name = format!("/proc/{}/comm", child.id());
    while std::fs::read_to_string(&name).expect("its name") != "sleep\n" {
        std::thread::sleep(Duration::from_millis(1));
    }
    let labels = r#","pid":"4000000000","comm":"sleep""#;
    let found = spec(one(&set, &payload("2", NOON, labels)));
    child.kill().expect("killed");
    child.wait().expect("waited for");
    assert!(found.pids.iter().any(|pid| pid.0 == child.id()), "{found:?}");
    assert_ne!(me, "sleep");

    for (labels, parts) in [
        ("", ["no label names a target", "pid=pid"]),
        (r#","pid":"x""#, ["label pid=\"x\"", "is not a pid"]),
        (r#","pid":"4000000000""#, ["label pid=\"4000000000\"", "no process"]),
        (r#","comm":"no-such-name""#, ["label comm=\"no-such-name\"", "no process has this name"]),
        (r#","cgroup":"/no/such""#, ["label cgroup=\"/no/such\"", "no cgroup"]),
        (r#","container":"app""#, ["label container=\"app\"", "nor the id of a container"]),
        (r#","container":"docker://feedfeedfeed0123""#, ["label container=", "no cgroup"]),
    ] {
        let outcome = one(&set, &payload("3", NOON, labels));
        let Outcome::NoTarget { problem } = outcome else { panic!("{labels}: {outcome:?}") };
        assert!(parts.iter().all(|part| problem.contains(part)), "{labels}: {problem}");
    }
    set.captures.shutdown().await;
    set.bundles.shutdown().await;
}

#[tokio::test]
async fn resolved_alerts_and_too_many_of_them_start_nothing() {
    let set = set(4, true);
    let alert = |number| {
        format!(
            r#"{{"status":"{}","labels":{{}},"startsAt":"{NOON}","fingerprint":"{number}"}}"#,
            if number < 64 { "resolved" } else { "firing" }
        )
    };
    let alerts: Vec<String> = (0..70).map(alert).collect();
    let payload = format!(r#"{{"version":"4","alerts":[{}]}}"#, alerts.join(","));
    let handled = set.triggers.alertmanager(payload.as_bytes()).expect("a payload");
    assert_eq!(handled.len(), 70);
    for (number, handled) in handled.iter().enumerate() {
        let Outcome::Ignored { because } = &handled.outcome else { panic!("{handled:?}") };
        assert_eq!(because == "it is resolved", number < 64, "{because}");
    }
    assert!(set.captures.list().is_empty());
}

#[tokio::test]
async fn what_cannot_start_now_may_later() {
    let set = set(1, true);
    let asked = CaptureSpec {
        kind: ProfileKind::OffCpu,
        target: TargetSpec::default(),
        duration: Some(Duration::from_secs(60)),
        min_block: None,
        wakers: None,
        allowance: Allowance::default(),
        cause: Cause::Request,
    };
    let id = set.captures.start(asked).expect("starts").id;
    let alert = payload("f", NOON, "");
    assert!(matches!(one(&set, &alert), Outcome::Deferred { .. }));
    set.captures.stop(&id).await.expect("known");
    assert!(matches!(one(&set, &alert), Outcome::Started { .. }), "it was not remembered as started");
    set.captures.shutdown().await;
    set.bundles.shutdown().await;
}
