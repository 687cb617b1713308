//! `profiler record`: the whole pipeline once, without a daemon.

use std::time::{Duration, SystemTime};

use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep, timeout};

use super::child::StoppedChild;
use super::error::AgentError;
use super::kernel_task::KernelHandle;
use super::outputs::Outputs;
use super::pipeline::{Pipeline, SessionSpec};
use super::progress::Talk;
use super::{table_cache, targets};
use crate::aggregate;
use crate::cli::{RecordArgs, RecordTarget, WalkRun};
use crate::config;
use crate::kernel::{self, Kernel, Options, Runs, Walks, preflight};
use crate::model::{Detail, Pid, Profile, ProfileKind, Target, TimeRange};
use crate::render::{self, About, View};
use crate::symbolize;

const SESSION: u64 = 1;
/// How often progress is shown and the targets are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long a command has to end after it was told to.
const COMMAND_GRACE: Duration = Duration::from_secs(5);

/// Records as told and writes the outputs.
///
/// # Errors
/// Whatever stands in the way; what was seen before an early end is still written.
pub fn record(args: &RecordArgs) -> Result<(), AgentError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|source| AgentError::System { doing: "start the runtime", source })?;
    runtime.block_on(run(args))
}

async fn run(args: &RecordArgs) -> Result<(), AgentError> {
    let mut stop = StopSignals::listen()?;
    let findings = preflight::run();
    if let Some(finding) = preflight::refused(&findings) {
        return Err(AgentError::Refused(finding.clone()));
    }
    let stdout_is_terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
    let outputs = Outputs::claim(args.destinations(stdout_is_terminal))?;
    let kind = args.kind();
    let frequency_hz = (kind != ProfileKind::OffCpu).then_some(args.frequency);
    let (target, child) = target(args)?;

    let cpus = kernel::cpu_count();
    let runs = Runs {
        check_walks: args.walks.contains(&WalkRun::Check),
        time_walks: args.walks.contains(&WalkRun::Time),
    };
    let kernel = Kernel::load(&Options { runs, ..Options::for_rate(cpus, args.frequency) })?;
    // Sessions only: nobody reads windows.
    let waits = config::wait_rules(None)?;
    let windows = aggregate::Options { window: None, waits, ..aggregate::Options::default() };
    let (sink, _unread) = mpsc::channel(1);
    let cache = table_cache::of_record(args.cache_dir.as_deref());
    let pipeline = Pipeline::start(kernel, symbolize::Options::default(), cache, windows, sink)?;
    tokio::select! {
        () = pipeline.unwinding().ready() => {}
        () = stop.received() => return Err(AgentError::NoData("stopped before it began".to_owned())),
    }
    let sessions = pipeline.sessions();
    let detail = Detail { min_block_ns: args.min_block().as_nanos() as u64, wakers: args.wakers };
    let spec = SessionSpec { session: SESSION, kind, target: target.clone(), detail, frequency_hz };
    let profile = sessions.start(spec).await?.profile;

    let started = SystemTime::now();
    let child = child.map(StoppedChild::release).transpose()?;
    let mut talk = Talk::new(args.quiet);
    wait(args, &target, child, &pipeline.kernel(), &mut stop, &mut talk).await;
    sessions.end(SESSION, frequency_hz.is_some()).await?;
    let range = TimeRange { from: started, to: SystemTime::now() };
    let profile = profile.await.map_err(|_| AgentError::PipelineEnded)?;
    report_walks(pipeline.kernel().snapshot().counters.walks, &mut talk);
    drop(sessions);
    pipeline.shut_down().await;
    finish(args, &profile, range, outputs, &mut talk)
}

/// Who is recorded; a command is started, but stopped.
fn target(args: &RecordArgs) -> Result<(Target, Option<StoppedChild>), AgentError> {
    Ok(match args.target() {
        RecordTarget::Host => (Target::Host, None),
        RecordTarget::Pids(pids) => {
            let pids: Vec<Pid> = pids.iter().map(|&pid| Pid(pid)).collect();
            (targets::processes(&pids)?, None)
        }
        RecordTarget::Cgroup(path) => (targets::cgroup(&path.to_string_lossy())?, None),
        RecordTarget::Command(program, arguments) => {
            let child = StoppedChild::start(program, arguments)?;
            (Target::Command(child.process), Some(child))
        }
    })
}

/// Waits for the end: time is up, the command or the processes have ended, or a signal came.
async fn wait(
    args: &RecordArgs,
    target: &Target,
    child: Option<(Child, String)>,
    kernel: &KernelHandle,
    stop: &mut StopSignals,
    talk: &mut Talk,
) {
    let begin = Instant::now();
    let (mut child, command) = child.unzip();
    let mut look = interval(LOOK_EVERY);
    loop {
        tokio::select! {
            _ = look.tick() => {
                let counters = kernel.snapshot().counters;
                talk.progress(begin.elapsed(), args.length(), counters.on_cpu_samples + counters.off_cpu_intervals);
                if !targets::any_alive(target) {
                    talk.say("the recorded processes have ended");
                    return;
                }
            }
            () = time_is_up(begin, args.length()) => break,
            () = stop.received() => {
                talk.say("ending early");
                break;
            }
            status = ended(&mut child) => {
                if let Some(status) = status.filter(|status| !status.success()) {
                    talk.say(&format!("{} ended with {status}", command.as_deref().unwrap_or("the command")));
                }
                return;
            }
        }
    }
    if let Some(child) = &mut child {
        end_command(child, command.as_deref().unwrap_or("the command"), talk).await;
    }
}

/// The command belongs to the recording and ends with it.
async fn end_command(child: &mut Child, command: &str, talk: &mut Talk) {
    let pid = child.id().and_then(|id| rustix::process::Pid::from_raw(id as i32));
    let Some(pid) = pid else { return };
    // It may end by itself just now.
    let _gone = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    if timeout(COMMAND_GRACE, child.wait()).await.is_err() {
        talk.say(&format!("{command} (pid {}) does not end and is left running", pid.as_raw_nonzero()));
    }
}

async fn ended(child: &mut Option<Child>) -> Option<std::process::ExitStatus> {
    match child {
        Some(child) => child.wait().await.ok(),
        None => std::future::pending().await,
    }
}

async fn time_is_up(begin: Instant, length: Option<Duration>) {
    match length {
        Some(length) => sleep(length.saturating_sub(begin.elapsed())).await,
        None => std::future::pending().await,
    }
}

/// Says what checking and measuring runs have found.
fn report_walks(walks: Walks, talk: &mut Talk) {
    let (checked, differed) = walks.checked;
    if checked > 0 {
        talk.say(&format!("walks: {checked} checked, {differed} differed"));
    }
    let per_frame = |(ns, frames): (u64, u64)| ns as f64 / frames.max(1) as f64;
    for (what, costs) in [("walks", walks.on_cpu), ("off-CPU walks", walks.off_cpu)] {
        if costs.by_table.0 > 0 {
            talk.say(&format!(
                "{what}: {:.1} ns a frame by table ({} frames), {:.1} by frame pointer ({} frames), ratio {:.3}",
                per_frame(costs.by_table),
                costs.by_table.1,
                per_frame(costs.by_pointer),
                costs.by_pointer.1,
                per_frame(costs.by_table) / per_frame(costs.by_pointer),
            ));
        }
    }
}

/// Writes the outputs and says what they hold.
fn finish(
    args: &RecordArgs,
    profile: &Profile,
    range: TimeRange,
    outputs: Outputs,
    talk: &mut Talk,
) -> Result<(), AgentError> {
    if profile.total_shown() == 0 {
        return Err(AgentError::NoData(why_empty(args, profile, range)));
    }
    let about = About { title: title(args), range, covered: range.length(), command: Some(command_line()) };
    let view = if args.wakers { View::Wakers } else { View::Waits };
    let files = outputs.write(profile, &about, view)?;
    talk.say(&render::summary_line(profile, &about));
    if !files.is_empty() {
        talk.say(&format!("wrote {}", files.join(", ")));
    }
    Ok(())
}

fn why_empty(args: &RecordArgs, profile: &Profile, range: TimeRange) -> String {
    let seconds = range.length().as_secs_f64();
    let who = match args.target() {
        RecordTarget::Host => "no thread of this host",
        RecordTarget::Pids(_) => "no thread of these processes",
        RecordTarget::Cgroup(_) => "no thread of this cgroup",
        RecordTarget::Command(..) => "no thread of the command",
    };
    let what = match args.kind() {
        ProfileKind::OnCpu => format!(
            "{who} was running when the sampler looked, {} times a second for {seconds:.1} s; \
             where does it wait? try --off-cpu",
            args.frequency
        ),
        ProfileKind::OffCpu => format!("{who} left the CPU for long enough within {seconds:.1} s"),
        ProfileKind::Wall => format!("{who} was seen on or off the CPU within {seconds:.1} s"),
    };
    if profile.loss.is_empty() { what } else { format!("{what}; lost: {}", profile.loss) }
}

fn title(args: &RecordArgs) -> String {
    let who = match args.target() {
        RecordTarget::Host => "host".to_owned(),
        RecordTarget::Pids(pids) => {
            format!("pid {}", pids.iter().map(u32::to_string).collect::<Vec<_>>().join(", "))
        }
        RecordTarget::Cgroup(path) => format!("cgroup {}", path.display()),
        RecordTarget::Command(program, _) => program.display().to_string(),
    };
    format!("{} of {who}", args.kind())
}

/// The command line as given, for the picture's notes.
fn command_line() -> String {
    std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// SIGINT and SIGTERM: end early and write what was seen.
pub(super) struct StopSignals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl StopSignals {
    pub(super) fn listen() -> Result<Self, AgentError> {
        let listen =
            |kind| signal(kind).map_err(|source| AgentError::System { doing: "listen for signals", source });
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    pub(super) async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
