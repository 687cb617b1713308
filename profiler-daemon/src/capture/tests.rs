//! Tests of the captures' states with a recorder that records nothing real.

use std::collections::HashMap;

use super::*;
use crate::model::{Activity, Labels, Pid, Value};
use crate::store::StoreOptions;

/// Hands out a small profile for each session when it is stopped.
#[derive(Default)]
struct Fake {
    open: Mutex<HashMap<u64, oneshot::Sender<Profile>>>,
    started: Mutex<Vec<(Target, Detail)>>,
    stopped: AtomicU64,
    refuse: bool,
    /// Keeps the profile for itself.
    silent: bool,
    /// What each recording has taken at once.
    events: u64,
    bytes: u64,
}

impl Recorder for Fake {
    fn resolve(&self, _kind: ProfileKind, target: &TargetSpec) -> Result<Target, ResolveError> {
        match target.pids.iter().find(|pid| pid.0 > 1000) {
            Some(&pid) => Err(ResolveError::NoProcess { pid }),
            None => Ok(Target::Host),
        }
    }

    fn start(
        &self,
        session: u64,
        _kind: ProfileKind,
        target: Target,
        detail: Detail,
    ) -> BoxFuture<'_, Result<Recording, RecorderError>> {
        Box::pin(async move {
            if self.refuse {
                return Err(RecorderError("the hooks did not attach".to_owned()));
            }
            let (sender, receiver) = oneshot::channel();
            self.started.lock().expect("lock").push((target, detail));
            self.open.lock().expect("lock").insert(session, sender);
            let usage: Arc<Usage> = Arc::default();
            usage.add_events(self.events);
            usage.set_bytes(self.bytes);
            Ok(Recording { profile: receiver, usage })
        })
    }

    fn stop(&self, session: u64) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.stopped.fetch_add(1, Ordering::Relaxed);
            if self.silent {
                return;
            }
            let sender = self.open.lock().expect("lock").remove(&session);
            if let Some(sender) = sender {
                let mut profile = Profile::new(ProfileKind::OffCpu);
                let value = Value::exact(1, 5_000_000);
                profile.add_row(&Arc::new(Labels::default()), Activity::RunQueue, &[], value);
                let _nobody_waits = sender.send(profile);
            }
        })
    }

    fn cpu_time(&self) -> Duration {
        Duration::ZERO
    }
}

fn captures(fake: Fake, limits: Limits) -> (Arc<Fake>, Arc<Store>, Captures) {
    let (fake, store) = (Arc::new(fake), Arc::new(Store::new(StoreOptions::default())));
    let recorder: Arc<dyn Recorder> = Arc::clone(&fake) as Arc<dyn Recorder>;
    (fake, Arc::clone(&store), Captures::new(recorder, store, limits))
}

fn spec(seconds: u64) -> CaptureSpec {
    CaptureSpec {
        kind: ProfileKind::OffCpu,
        target: TargetSpec::default(),
        duration: Some(Duration::from_secs(seconds)),
        min_block: None,
        wakers: None,
        allowance: Allowance::default(),
        cause: Cause::Request,
    }
}

async fn ended(captures: &Captures, id: &str) -> Capture {
    let mut now = captures.watch(id).expect("known");
    now.wait_for(|capture| capture.state.is_final()).await.expect("the task goes on").clone()
}

#[tokio::test]
async fn a_capture_runs_its_time_and_leaves_a_result() {
    let (fake, store, captures) = captures(Fake::default(), Limits::default());
    let began = tokio::time::Instant::now();
    let capture = captures.start(spec(1)).expect("start");
    assert_eq!((capture.state, captures.running()), (CaptureState::Pending, 1));
    let mut now = captures.watch(&capture.id).expect("known");
    now.wait_for(|capture| capture.state == CaptureState::Running).await.expect("runs");
    // Whoever watches may leave.
    drop(now);
    let done = ended(&captures, &capture.id).await;
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!((done.state, done.reason.as_str()), (CaptureState::Done, ""));
    assert_eq!(done.summary.map(|summary| summary.total), Some(5000));
    assert!(done.ended.is_some());
    assert!(store.capture(&capture.id).is_some());
    assert_eq!(fake.stopped.load(Ordering::Relaxed), 1);
    assert_eq!(
        *fake.started.lock().expect("lock"),
        [(Target::Host, Detail { min_block_ns: 1_000_000, wakers: false })]
    );
    assert_eq!(captures.running(), 0);
}

#[tokio::test]
async fn stopping_keeps_what_was_seen_and_is_idempotent() {
    let (_, store, captures) = captures(Fake::default(), Limits::default());
    let id = captures.start(spec(30)).expect("start").id;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let stopped = captures.stop(&id).await.expect("known");
    assert_eq!((stopped.state, stopped.reason.as_str()), (CaptureState::Done, "stopped on request"));
    assert!(store.capture(&id).is_some());
    let again = captures.stop(&id).await.expect("known");
    assert_eq!((again.state, again.ended), (stopped.state, stopped.ended));
    assert!(captures.stop("nonsense").await.is_none());
    assert!(captures.get("nonsense").is_none() && captures.watch("nonsense").is_none());
}

#[tokio::test]
async fn requests_out_of_range_name_their_field() {
    let (fake, _, captures) = captures(Fake::default(), Limits::default());
    let field = |spec: CaptureSpec| match captures.start(spec) {
        Err(CaptureError::Invalid { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    let target = |pids: &[u32], cgroup: Option<&str>| TargetSpec {
        pids: pids.iter().copied().map(Pid).collect(),
        cgroup: cgroup.map(str::to_owned),
    };
    assert_eq!(field(spec(0)), "duration");
    assert_eq!(field(spec(601)), "duration");
    assert_eq!(field(CaptureSpec { kind: ProfileKind::OnCpu, ..spec(1) }), "kind");
    assert_eq!(field(CaptureSpec { target: target(&[1, 0], None), ..spec(1) }), "target.pids");
    assert_eq!(field(CaptureSpec { target: target(&[1], Some("a")), ..spec(1) }), "target");
    assert_eq!(field(CaptureSpec { target: target(&[], Some("")), ..spec(1) }), "target.cgroup");
    assert_eq!(field(CaptureSpec { min_block: Some(Duration::from_secs(2)), ..spec(1) }), "min_block");
    let asked = Allowance { millicpus: 1001, ..Allowance::default() };
    assert_eq!(field(CaptureSpec { allowance: asked, ..spec(1) }), "limits.millicpus");
    let missing = captures.start(CaptureSpec { target: target(&[5000], None), ..spec(1) });
    assert_eq!(missing.err(), Some(ResolveError::NoProcess { pid: Pid(5000) }.into()));
    // For a narrower target than the host every interval counts.
    let id = captures.start(CaptureSpec { target: target(&[1, 1], None), ..spec(1) }).expect("start").id;
    assert_eq!(ended(&captures, &id).await.target.pids, [Pid(1)]);
    assert_eq!(
        *fake.started.lock().expect("lock"),
        [(Target::Host, Detail { min_block_ns: 0, wakers: true })]
    );
}

#[tokio::test]
async fn no_more_run_at_a_time_than_may() {
    let limits = Limits { max_running: 1, max_known: 2, ..Limits::default() };
    let (_, _, captures) = captures(Fake::default(), limits);
    let first = captures.start(spec(20)).expect("start").id;
    match captures.start(spec(20)) {
        Err(CaptureError::Busy { running: 1, retry_after }) => {
            assert!(retry_after > Duration::from_secs(15) && retry_after < Duration::from_secs(25));
        }
        other => panic!("{other:?}"),
    }
    captures.stop(&first).await.expect("known");
    let second = captures.start(spec(1)).expect("there is room again").id;
    ended(&captures, &second).await;
    let third = captures.start(spec(1)).expect("start").id;
    let listed: Vec<String> = captures.list().into_iter().map(|capture| capture.id).collect();
    assert_eq!(listed, [third, second], "newest first, the oldest forgotten");
}

#[tokio::test]
async fn what_goes_wrong_makes_it_fail() {
    let (_, store, refusing) = captures(Fake { refuse: true, ..Fake::default() }, Limits::default());
    let id = refusing.start(spec(5)).expect("start").id;
    let failed = ended(&refusing, &id).await;
    assert_eq!((failed.state, failed.reason.as_str()), (CaptureState::Failed, "the hooks did not attach"));
    assert!(store.capture(&id).is_none());

    let impatient = Limits { patience: Duration::from_millis(50), ..Limits::default() };
    let (_, _, silent) = captures(Fake { silent: true, ..Fake::default() }, impatient);
    let id = silent.start(spec(1)).expect("start").id;
    let failed = ended(&silent, &id).await;
    assert_eq!(failed.state, CaptureState::Failed);
    assert!(failed.reason.contains("were not through"), "{}", failed.reason);

    let (fake, _, dying) = captures(Fake::default(), Limits::default());
    let id = dying.start(spec(5)).expect("start").id;
    tokio::time::sleep(Duration::from_millis(50)).await;
    fake.open.lock().expect("lock").clear();
    let failed = ended(&dying, &id).await;
    assert_eq!(failed.state, CaptureState::Failed);
    assert_eq!(fake.stopped.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn shutdown_ends_all_and_refuses_new_ones() {
    let (fake, store, captures) = captures(Fake::default(), Limits::default());
    let ids = [captures.start(spec(60)).expect("start").id, captures.start(spec(60)).expect("start").id];
    tokio::time::sleep(Duration::from_millis(50)).await;
    captures.shutdown().await;
    for id in &ids {
        let capture = captures.get(id).expect("known");
        assert_eq!(
            (capture.state, capture.reason.as_str()),
            (CaptureState::Done, "the daemon was shut down")
        );
        assert!(store.capture(id).is_some());
    }
    assert_eq!(fake.stopped.load(Ordering::Relaxed), 2);
    assert_eq!(captures.start(spec(1)).err(), Some(CaptureError::ShuttingDown));
}

#[test]
fn ids_tell_the_time() {
    let id = id::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_472_101));
    let (time, random) = id.rsplit_once('-').expect("a random part");
    assert_eq!(time, "20261123-221501");
    assert!(random.len() == 4 && random.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
}

#[tokio::test]
async fn a_capture_that_takes_too_much_ends_early_and_says_so() {
    let (_, store, captures) = captures(Fake { bytes: 2 << 20, ..Fake::default() }, Limits::default());
    let within = captures.start(spec(1)).expect("start").id;
    assert_eq!(ended(&captures, &within).await.reason, "");
    let allowance = Allowance { bytes: 1 << 20, ..Allowance::default() };
    let beyond = captures.start(CaptureSpec { allowance, ..spec(60) }).expect("start").id;
    let ended = ended(&captures, &beyond).await;
    assert_eq!(ended.state, CaptureState::Done, "what was seen is kept");
    assert!(ended.reason.starts_with("ended early: 2.0 MiB recorded, 1.0 allowed"), "{}", ended.reason);
    assert!(store.capture(&beyond).is_some());
}
