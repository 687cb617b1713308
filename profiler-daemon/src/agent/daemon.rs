//! `profiler daemon`: samples the host all the time and serves what it saw.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::error::AgentError;
use super::guard::{self, Budget, Guard, Rates};
use super::kernel_task::{Clock, KernelHandle};
use super::pipeline::{Pipeline, refused};
use super::record::StopSignals;
use super::recorder::PipelineRecorder;
use super::triggers::{self, Triggered};
use super::{history, own_cost, service_manager, table_cache};
use crate::aggregate;
use crate::api::{self, Endpoints, Listener, Services};
use crate::capture::{Captures, Limits};
use crate::config::{self, Config, Listen};
use crate::kernel::{self, Kernel, Options, preflight};
use crate::model::{
    Allowance, CaptureCounts, Finding, KindLoss, KindQuality, ProfileKind, RecordingCost, Severity, Status,
    StoreStatus, Target, Unwinding, Window,
};
use crate::procs;
use crate::store::Store;
use crate::symbolize;
use crate::telemetry::metrics;
use crate::trigger::{self, Triggers};

/// Sealed windows that may wait for the store.
const WINDOWS: usize = 8;
/// Windows that a watcher may lag behind; those it misses are counted.
const WATCHED: usize = 4;
/// A pipeline that takes no records for so long does not work any more.
const STALLED: Duration = Duration::from_secs(10);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// Whatever keeps it from starting, and a server that failed.
pub fn daemon(config: &Config) -> Result<(), AgentError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|source| AgentError::System { doing: "start the runtime", source })?;
    runtime.block_on(run(config))
}

async fn run(config: &Config) -> Result<(), AgentError> {
    let mut stop = StopSignals::listen()?;
    let token = triggers::token(config)?;
    let http_token = triggers::token_in("http_token_file", config.http_token_file.as_deref())?;
    // Sockets first: a second daemon must find out before it touches anything.
    let bound = api::bind(&endpoints(config)).await?;
    let mut findings = preflight::run();
    findings.extend(trigger::missing_pressure(&config.pressure.rules));
    log_findings(&findings);
    if let Some(finding) = preflight::refused(&findings) {
        return Err(AgentError::Refused(finding.clone()));
    }

    let store = {
        let config = config.clone();
        let opened = tokio::task::spawn_blocking(move || history::open(&config)).await;
        let (store, found) = opened.map_err(|_| AgentError::PipelineEnded)??;
        findings.extend(found);
        Arc::new(store)
    };

    let cpus = kernel::cpu_count();
    let options = Options {
        table_bytes: config.unwind.table_bytes,
        event: config.on_cpu.event,
        ..Options::for_rate(cpus, config.on_cpu.frequency)
    };
    let kernel = Kernel::load(&options)?;
    let mut kinds = vec![ProfileKind::OnCpu];
    kinds.extend(config.off_cpu.enabled.then_some(ProfileKind::OffCpu));
    let windows = aggregate::Options {
        window: Some(config.window),
        kinds,
        waits: config::wait_rules(config.off_cpu.wait_rules.as_deref())?,
        ..aggregate::Options::default()
    };
    let symbols = symbolize::Options {
        debug_dirs: config.symbols.debug_dirs.clone(),
        inlined: config.symbols.inlined,
        own_debug_info: false,
        debuginfod: debuginfod(config),
        ..symbolize::Options::default()
    };
    let (sink, sealed) = mpsc::channel(WINDOWS);
    let pipeline = Pipeline::start(kernel, symbols, table_cache::of_daemon(config), windows, sink)?;
    let kernel = pipeline.kernel();
    kernel.start_on_cpu(config.on_cpu.frequency, Target::Host).await.map_err(refused)?;
    let period = config.off_cpu.enabled.then_some(config.off_cpu.period);
    let clock = period.map(|period| Clock { period, window: config.window, thread_share: 0 });
    kernel.set_clock(clock).await.map_err(refused)?;

    store.set_fresh(pipeline.fresh());
    let watchers = broadcast::Sender::new(WATCHED);
    let keep = tokio::task::spawn_blocking({
        let (store, watchers) = (Arc::clone(&store), watchers.clone());
        move || history::keep(sealed, &store, &watchers)
    });
    let recorder = Arc::new(PipelineRecorder::new(pipeline.sessions()));
    let limits = Limits {
        max_duration: config.capture.max_duration,
        max_running: config.capture.max_running as usize,
        allowance: Allowance {
            events_per_second: config.capture.max_events.into(),
            bytes: config.capture.max_bytes,
            millicpus: config.capture.max_millicpus.into(),
        },
        ..Limits::default()
    };
    let captures = Arc::new(Captures::new(recorder, Arc::clone(&store), limits));
    let triggered = Triggered::start(config, token, &captures, &store);
    let rates = Rates { period, frequency_hz: config.on_cpu.frequency, thread_share: 0 };
    let guard = Guard::new(budget(config, cpus), rates);
    let cost = Arc::new(Mutex::new(guard.cost()));
    let running = Arc::clone(&captures);
    let (told, counted) = (Arc::clone(&cost), Arc::clone(&store));
    let surroundings = guard::Surroundings {
        busy: Box::new(move || running.running() > 0),
        stored_bytes: Box::new(move || counted.taken_bytes()),
        tell: Box::new(move |cost| *told.lock().unwrap_or_else(PoisonError::into_inner) = cost),
    };
    let guard = guard::run(guard, config.window, kernel.clone(), surroundings);
    let guard = tokio::spawn(guard);
    let observer = Observer {
        started: SystemTime::now(),
        kernel: kernel.clone(),
        lost: pipeline.lost(),
        stacks: pipeline.stacks(),
        store: Arc::clone(&store),
        captures: Arc::clone(&captures),
        triggers: Arc::clone(&triggered.triggers),
        unwinding: pipeline.unwinding().snapshot(),
        cost,
    };
    let kept = Arc::clone(&store);
    let (ready, is_ready) = watch::channel(true);
    let services =
        Services { http_token, ..services(config, findings, observer, watchers, &triggered, is_ready) };
    let cancel = CancellationToken::new();
    let servers = tokio::spawn(api::serve(bound, services, cancel.clone()));
    info!(pid = std::process::id(), "serving");
    service_manager::ready(&format!("sampling {cpus} CPUs at {} Hz", config.on_cpu.frequency));

    let mut servers = servers;
    let served = tokio::select! {
        served = &mut servers => Some(served),
        () = stop.received() => None,
        // Not a timer that always ticks: a stalled pipeline must look stalled.
        () = service_manager::feed_watchdog(|| drains(&kernel)) => None,
    };
    info!("stopping");
    service_manager::stopping();
    // The channel may be closed already: then nobody asks whether we are ready.
    let _closed = ready.send(false);
    let bundles = triggered.stop_watching().await;
    captures.shutdown().await;
    bundles.shutdown().await;
    cancel.cancel();
    let served = match served {
        Some(served) => served,
        None => servers.await,
    };
    // Every handle on the pipeline goes before the pipeline.
    guard.abort();
    let _aborted = guard.await;
    drop((captures, bundles, kernel));
    pipeline.shut_down().await;
    let ended = keep.await.is_ok();
    let flushed = tokio::task::spawn_blocking(move || kept.flush()).await.is_ok();
    if !ended || !flushed {
        warn!("the store did not end well");
    }
    match served {
        Ok(result) => result.map_err(AgentError::Serve),
        Err(_) => Err(AgentError::PipelineEnded),
    }
}

/// What recording may cost: by default 1 % of a CPU for every 8 CPUs.
fn budget(config: &Config, cpus: u32) -> Budget {
    let millicpus = config.budget.millicpus.unwrap_or_else(|| 10 * cpus.div_ceil(8));
    Budget {
        samples_per_second: config.budget.off_cpu_samples.into(),
        cpus: f64::from(millicpus) / 1000.0,
        store_bytes_per_second: config.budget.store_bytes as f64,
    }
}

/// Whether records still go from the rings into the pipeline.
fn drains(kernel: &KernelHandle) -> bool {
    kernel.snapshot().drained.is_some_and(|drained| drained.elapsed() < STALLED)
}

/// The servers that are asked for debug information, if any are configured.
fn debuginfod(config: &Config) -> Option<symbolize::DebuginfodOptions> {
    let urls = config.symbols.debuginfod_urls.clone();
    (!urls.is_empty()).then(|| symbolize::DebuginfodOptions {
        urls,
        cache_dir: config.state_dir.join("debuginfod"),
        cache_bytes: config.symbols.debuginfod_cache_bytes,
    })
}

fn endpoints(config: &Config) -> Endpoints {
    let listener = |listen: &Listen| match listen {
        Listen::Unix(path) => Listener::Unix(path.clone()),
        Listen::Tcp(address) => Listener::Tcp(*address),
    };
    Endpoints {
        grpc: config.listen.iter().map(listener).collect(),
        http: config.http,
        allow_remote: config.insecure,
    }
}

fn log_findings(findings: &[Finding]) {
    for finding in findings.iter().filter(|finding| finding.severity != Severity::Ok) {
        warn!(check = finding.check, fix = finding.fix, "{}", finding.message);
    }
}

fn services(
    config: &Config,
    findings: Vec<Finding>,
    observer: Observer,
    windows: broadcast::Sender<Window>,
    triggered: &Triggered,
    ready: watch::Receiver<bool>,
) -> Services {
    let observer = Arc::new(observer);
    let for_metrics = Arc::clone(&observer);
    Services {
        store: Arc::clone(&observer.store),
        captures: Arc::clone(&observer.captures),
        windows,
        host: Arc::new(|cgroup| procs::host_facts(cgroup, kernel::cpu_count())),
        bundles: Arc::clone(&triggered.bundles),
        webhook: triggered.webhook.clone(),
        http_token: None,
        status: Arc::new(move || observer.status()),
        findings: Arc::new(findings),
        settings_toml: config.to_toml(),
        metrics: Arc::new(move || metrics::encode(&for_metrics.status(), env!("CARGO_PKG_VERSION"))),
        ready,
    }
}

/// Everything the status is read from.
struct Observer {
    started: SystemTime,
    kernel: KernelHandle,
    lost: Arc<Mutex<KindLoss>>,
    stacks: Arc<Mutex<KindQuality>>,
    store: Arc<Store>,
    captures: Arc<Captures>,
    triggers: Arc<Triggers>,
    unwinding: Arc<Mutex<Unwinding>>,
    cost: Arc<Mutex<RecordingCost>>,
}

impl Observer {
    fn status(&self) -> Status {
        let kernel = self.kernel.snapshot();
        let stored = self.store.stats();
        let mut loss = self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone();
        loss.merge(&stored.loss);
        let [started, refused] = self.captures.counts();
        Status {
            started: self.started,
            cpu_time: own_cost::cpu_time(),
            bpf_run_time: kernel.programs.map(|programs| programs.run_time),
            rss_bytes: own_cost::rss_bytes(),
            rss_peak_bytes: own_cost::rss_peak_bytes(),
            bpf_map_bytes: kernel.map_bytes,
            on_cpu_frequency_hz: f64::from(kernel.frequency_hz),
            off_cpu_active: kernel.off_cpu_active,
            off_cpu_period: kernel.clock.map(|clock| clock.period),
            on_cpu_samples: kernel.counters.on_cpu_samples,
            off_cpu_intervals: kernel.counters.off_cpu_intervals,
            loss,
            stacks: *self.stacks.lock().unwrap_or_else(PoisonError::into_inner),
            windows: stored.windows,
            store_bytes: stored.bytes,
            store: StoreStatus {
                path: stored.path.map(|path| path.display().to_string()).unwrap_or_default(),
                pending: stored.pending,
                problem: stored.problem.unwrap_or_default(),
            },
            oldest: stored.oldest,
            newest: stored.newest,
            captures_running: self.captures.running() as u32,
            captures: CaptureCounts { started, refused, alerts: self.triggers.alert_counts() },
            unwinding: *self.unwinding.lock().unwrap_or_else(PoisonError::into_inner),
            cost: *self.cost.lock().unwrap_or_else(PoisonError::into_inner),
            thread_share: kernel.clock.map_or(0, |clock| clock.thread_share),
        }
    }
}
