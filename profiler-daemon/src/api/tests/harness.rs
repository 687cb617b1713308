//! A served API in a temporary directory, with a recorder that records nothing real.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use crate::api::{Endpoints, Listener, ServeError, Services, bind, serve};
use crate::capture::{BoxFuture, Captures, Limits, Recorder, RecorderError, ResolveError, TargetSpec};
use crate::model::{
    Activity, Finding, Frame, FrameKind, KindLoss, Labels, Pid, Profile, ProfileKind, Severity, Stage,
    Status, Target, TimeRange, Value, Window,
};
use crate::store::{Store, StoreOptions};

/// A served API.
pub(super) struct Server {
    pub(super) store: Arc<Store>,
    pub(super) ready: watch::Sender<bool>,
    pub(super) socket: PathBuf,
    pub(super) http: String,
    pub(super) cancel: CancellationToken,
    pub(super) served: JoinHandle<Result<(), ServeError>>,
    _directory: TempDir,
}

impl Server {
    pub(super) async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("run/profiler.sock");
        let endpoints = Endpoints {
            grpc: vec![Listener::Unix(socket.clone())],
            http: Some(([127, 0, 0, 1], 0).into()),
            allow_remote: false,
        };
        let bound = bind(&endpoints).await.expect("binds");
        let http = format!("{}", bound.http_address().expect("an address"));
        let store = Arc::new(Store::new(StoreOptions::default()));
        let limits = Limits { max_running: 1, ..Limits::default() };
        let recorder = Arc::new(Fake::default());
        let (ready, is_ready) = watch::channel(false);
        let services = Services {
            store: Arc::clone(&store),
            captures: Arc::new(Captures::new(recorder, Arc::clone(&store), limits)),
            status: Arc::new(status),
            findings: Arc::new(vec![Finding {
                check: "btf",
                severity: Severity::Warning,
                message: "no BTF".to_owned(),
                fix: "boot a kernel with BTF".to_owned(),
            }]),
            settings_toml: "a = 1\n".to_owned(),
            metrics: Arc::new(|| "# EOF\n".to_owned()),
            ready: is_ready,
        };
        let cancel = CancellationToken::new();
        let served = tokio::spawn(serve(bound, services, cancel.clone()));
        Self { store, ready, socket, http, cancel, served, _directory: directory }
    }

    pub(super) async fn channel(&self) -> Channel {
        let address = format!("unix://{}", self.socket.display());
        Endpoint::from_shared(address).expect("an address").connect().await.expect("connects")
    }
}

/// A window of ten seconds that ended just now, sampled at 100 Hz.
pub(super) fn window(rows: &[(&str, u64)]) -> Window {
    let mut profile = Profile::new(ProfileKind::OnCpu);
    for (index, &(comm, count)) in rows.iter().enumerate() {
        let labels = Labels { pid: Pid(index as u32 + 1), comm: comm.into(), ..Labels::default() };
        let frame = Frame {
            name: "main".into(),
            kind: FrameKind::User,
            module: None,
            address: 0,
            source: None,
            named: true,
        };
        let value = Value { count, ns: count * 10_000_000 };
        profile.add_row(&Arc::new(labels), Activity::OnCpu, &[Arc::new(frame)], value);
    }
    profile.loss.add(Stage::Kernel, "ring full", 1);
    let range = TimeRange::ending(SystemTime::now(), Duration::from_secs(10));
    Window { range, profiles: vec![Arc::new(profile)] }
}

fn status() -> Status {
    let mut loss = KindLoss::default();
    loss.off_cpu.add(Stage::Pipeline, "channel full", 7);
    Status {
        started: SystemTime::now(),
        cpu_time: Duration::from_secs(1),
        bpf_run_time: None,
        rss_bytes: 4096,
        bpf_map_bytes: 0,
        on_cpu_frequency_hz: 99.0,
        off_cpu_active: false,
        off_cpu_period: None,
        on_cpu_samples: 0,
        off_cpu_intervals: 0,
        loss,
        windows: 0,
        store_bytes: 0,
        oldest: None,
        newest: None,
        captures_running: 0,
    }
}

/// Hands out one row of 5 ms for each session when it is stopped.
#[derive(Default)]
struct Fake {
    open: Mutex<HashMap<u64, oneshot::Sender<Profile>>>,
}

impl Recorder for Fake {
    fn resolve(&self, _kind: ProfileKind, target: &TargetSpec) -> Result<Target, ResolveError> {
        match target.pids.first() {
            Some(&pid) if pid.0 > 1000 => Err(ResolveError::NoProcess { pid }),
            Some(Pid(13)) => Err(ResolveError::Unavailable {
                problem: "the kernel has no BTF".to_owned(),
                fix: "boot a kernel with BTF".to_owned(),
            }),
            _ => Ok(Target::Host),
        }
    }

    fn start(
        &self,
        session: u64,
        _kind: ProfileKind,
        _target: Target,
        _min_block_ns: u64,
    ) -> BoxFuture<'_, Result<oneshot::Receiver<Profile>, RecorderError>> {
        let (sender, receiver) = oneshot::channel();
        self.open.lock().expect("lock").insert(session, sender);
        Box::pin(async move { Ok(receiver) })
    }

    fn stop(&self, session: u64) -> BoxFuture<'_, ()> {
        let sender = self.open.lock().expect("lock").remove(&session);
        Box::pin(async move {
            let mut profile = Profile::new(ProfileKind::OffCpu);
            let value = Value { count: 1, ns: 5_000_000 };
            profile.add_row(&Arc::new(Labels::default()), Activity::RunQueue, &[], value);
            if let Some(sender) = sender {
                let _nobody_waits = sender.send(profile);
            }
        })
    }
}
