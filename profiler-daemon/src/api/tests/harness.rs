//! A served API in a temporary directory, with a recorder that records nothing real.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use tokio::sync::{broadcast, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use crate::api::{Endpoints, Listener, ServeError, Services, Webhook, bind, serve};
use crate::bundle::{self, Bundles};
use crate::capture::{
    BoxFuture, Captures, Limits, Recorder, RecorderError, Recording, ResolveError, TargetSpec,
};
use crate::model::{
    Activity, Detail, Finding, Frame, FrameKind, HostFacts, KindLoss, KindQuality, Labels, Pid, Pressure,
    Profile, ProfileKind, Severity, StackQuality, Stage, Status, Target, TimeRange, Value, Window,
};
use crate::store::{Store, StoreOptions};
use crate::trigger::{self, Triggers};

/// What the webhook and `/flamegraph` want to be shown.
pub(super) const TOKEN: &str = "0123456789abcdef";

/// A served API.
pub(super) struct Server {
    pub(super) store: Arc<Store>,
    pub(super) windows: broadcast::Sender<Window>,
    pub(super) ready: watch::Sender<bool>,
    pub(super) socket: PathBuf,
    pub(super) http: String,
    pub(super) cancel: CancellationToken,
    pub(super) served: JoinHandle<Result<(), ServeError>>,
    /// Where bundles go.
    pub(super) bundles: PathBuf,
    _directory: TempDir,
}

impl Server {
    pub(super) async fn start() -> Self {
        Self::with_webhook(true).await
    }

    /// With or without a token for the webhook and for flame graphs.
    pub(super) async fn with_webhook(webhook: bool) -> Self {
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
        let windows = broadcast::Sender::new(4);
        let captures = Arc::new(Captures::new(recorder, Arc::clone(&store), limits));
        let kept = directory.path().join("bundles");
        let bundles = bundle::Options {
            directory: kept.clone(),
            before: Duration::from_secs(300),
            settle: Duration::ZERO,
            max_count: 3,
            max_bytes: 1 << 30,
        };
        let bundles = Arc::new(Bundles::new(bundles, Arc::clone(&captures), Arc::clone(&store)));
        let options = trigger::Options {
            duration: Duration::from_secs(1),
            wakers: true,
            cooldown: Duration::from_secs(900),
            max_per_hour: 3,
            targets: ["pid=pid", "comm=comm", "container=container"]
                .map(|text| text.parse().expect("a mapping"))
                .to_vec(),
            host_without_target: false,
        };
        let triggers = Arc::new(Triggers::new(Arc::clone(&captures), Arc::clone(&bundles), options));
        let token: crate::config::Secret = TOKEN.parse().expect("a token");
        let services = Services {
            store: Arc::clone(&store),
            captures,
            windows: windows.clone(),
            host: Arc::new(host),
            bundles,
            http_token: webhook.then(|| token.clone()),
            webhook: webhook.then_some(Webhook { token, triggers }),
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
        Self { store, windows, ready, socket, http, cancel, served, bundles: kept, _directory: directory }
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
        let labels = Labels {
            pid: Pid(index as u32 + 1),
            comm: comm.into(),
            cgroup: format!("/system.slice/{comm}.service").into(),
            ..Labels::default()
        };
        let frame = Frame {
            name: "main".into(),
            kind: FrameKind::User,
            module: None,
            address: 0,
            source: None,
            named: true,
        };
        let value = Value::exact(count, count * 10_000_000);
        profile.add_row(&Arc::new(labels), Activity::OnCpu, &[Arc::new(frame)], value);
    }
    profile.quality = StackQuality {
        records: 5,
        user_stacks: 5,
        complete: 3,
        stopped: [2, 0, 0, 0, 0, 0],
        guessed: 1,
        frames: 20,
        frames_unnamed: 4,
        ..StackQuality::default()
    };
    profile.loss.add(Stage::Kernel, "ring full", 1);
    let range = TimeRange::ending(SystemTime::now(), Duration::from_secs(10));
    Window { range, profiles: vec![Arc::new(profile)] }
}

/// Pressure of I/O, of whatever is asked for; OOM kills in one cgroup only.
fn host(cgroup: Option<&str>) -> HostFacts {
    HostFacts {
        cpus: 2,
        pressure: vec![Pressure { resource: "io", some: [12.5, 0.0, 0.0], full: None }],
        oom_kills: (cgroup == Some("/system.slice/nginx.service")).then_some(1),
        ..HostFacts::default()
    }
}

fn status() -> Status {
    let mut loss = KindLoss::default();
    loss.off_cpu.add(Stage::Pipeline, "channel full", 7);
    Status {
        started: SystemTime::now(),
        cpu_time: Duration::from_secs(1),
        bpf_run_time: None,
        rss_bytes: 4096,
        rss_peak_bytes: 8192,
        bpf_map_bytes: 0,
        on_cpu_frequency_hz: 99.0,
        off_cpu_active: false,
        off_cpu_period: None,
        cost: crate::model::RecordingCost::default(),
        thread_share: 0,
        on_cpu_samples: 0,
        off_cpu_intervals: 0,
        loss,
        stacks: KindQuality::default(),
        windows: 0,
        store_bytes: 0,
        store: crate::model::StoreStatus::default(),
        oldest: None,
        newest: None,
        captures_running: 0,
        captures: crate::model::CaptureCounts::default(),
        unwinding: crate::model::Unwinding::default(),
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
            // The test's own process is one that exists.
            Some(&pid) if pid.0 > 1000 && pid.0 != std::process::id() => Err(ResolveError::NoProcess { pid }),
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
        _detail: Detail,
    ) -> BoxFuture<'_, Result<Recording, RecorderError>> {
        let (sender, receiver) = oneshot::channel();
        self.open.lock().expect("lock").insert(session, sender);
        Box::pin(async move { Ok(Recording { profile: receiver, usage: Arc::default() }) })
    }

    fn stop(&self, session: u64) -> BoxFuture<'_, ()> {
        let sender = self.open.lock().expect("lock").remove(&session);
        Box::pin(async move {
            let mut profile = Profile::new(ProfileKind::OffCpu);
            let value = Value::exact(1, 5_000_000);
            profile.add_row(&Arc::new(Labels::default()), Activity::RunQueue, &[], value);
            if let Some(sender) = sender {
                let _nobody_waits = sender.send(profile);
            }
        })
    }

    fn cpu_time(&self) -> Duration {
        Duration::ZERO
    }
}
