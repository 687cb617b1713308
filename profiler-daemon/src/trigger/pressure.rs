//! Watches pressure stall information: by the kernel's own triggers where those are allowed,
//! otherwise by reading its totals.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::episode::{Episode, Meter, total};
use super::{Outcome, Triggers};
use crate::capture::{Cause, TargetSpec};
use crate::config::{PressureRule, PressureScope};
use crate::model::{Finding, Severity};
use crate::procs;

/// How often totals are read. The kernel brings them up to date every 2 s (`PSI_FREQ`,
/// include/linux/psi_types.h): reading faster would see nothing, then twice as much.
const READ_EVERY: Duration = Duration::from_millis(2100);
/// How long until a cgroup that is not there is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Windows that the kernel allows without CAP_SYS_RESOURCE are multiples of this (Linux 6.4).
const UNPRIVILEGED_STEP: Duration = Duration::from_secs(2);

/// The tasks that watch the rules.
pub struct PressureWatch {
    closing: CancellationToken,
    tasks: TaskTracker,
}

impl PressureWatch {
    /// Watches each rule in a task of its own, until [`PressureWatch::shutdown`]. Must be called
    /// within a tokio runtime.
    #[must_use]
    pub fn start(rules: &[PressureRule], triggers: &Arc<Triggers>) -> Self {
        let (closing, tasks) = (CancellationToken::new(), TaskTracker::new());
        for rule in rules {
            let watch = watch(rule.clone(), Arc::clone(triggers));
            let closing = closing.clone();
            tasks.spawn(async move {
                tokio::select! {
                    () = closing.cancelled() => {}
                    () = watch => {}
                }
            });
        }
        tasks.close();
        Self { closing, tasks }
    }

    /// Watches no longer.
    pub async fn shutdown(self) {
        self.closing.cancel();
        self.tasks.wait().await;
    }
}

/// What to say of rules on a kernel that does not measure pressure; `None` where it does, or where
/// there are no rules.
#[must_use]
pub fn missing_pressure(rules: &[PressureRule]) -> Option<Finding> {
    let there = std::fs::read_to_string("/proc/pressure/cpu").is_ok_and(|text| text.starts_with("some "));
    (!there && !rules.is_empty()).then(|| Finding {
        check: "pressure-rules",
        severity: Severity::Warning,
        message: format!(
            "this kernel gives no pressure stall information: the {} pressure rules start nothing",
            rules.len()
        ),
        fix: "boot with psi=1 on a kernel with CONFIG_PSI=y, or remove pressure.rules".to_owned(),
    })
}

/// Watches one rule for ever.
async fn watch(rule: PressureRule, triggers: Arc<Triggers>) {
    let mut episode = Episode::new(rule.threshold, rule.window);
    let mut absent = false;
    loop {
        match Source::open(&rule) {
            Ok(source) => {
                absent = false;
                let by = if source.kernel.is_some() { "the kernel's trigger" } else { "reading totals" };
                tracing::info!(%rule, by, "watching pressure");
                let error = follow(&rule, source, &mut episode, &triggers).await;
                tracing::info!(%rule, %error, "pressure is not watched any more");
            }
            // Said once: a cgroup may come and go.
            Err(error) if !absent => {
                tracing::warn!(%rule, %error, "pressure cannot be watched; looking again every 10 s");
                absent = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Follows a source until it fails.
async fn follow(
    rule: &PressureRule,
    mut source: Source,
    episode: &mut Episode,
    triggers: &Arc<Triggers>,
) -> io::Error {
    let mut meter = Meter::new(rule.window);
    let mut tick = tokio::time::interval(READ_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // With the kernel's trigger there is nothing to do while it is calm.
        let reads = source.kernel.is_none() || episode.is_high();
        tokio::select! {
            hit = kernel_event(source.kernel.as_ref()) => match hit {
                Ok(()) => match source.bears_out(rule).await {
                    Ok(true) => episode.hit(Instant::now()),
                    Ok(false) => tracing::debug!(%rule, "the kernel's trigger came without pressure"),
                    Err(error) => return error,
                },
                Err(error) => return error,
            },
            _ = tick.tick(), if reads => match source.total(rule.extent()) {
                Ok(total) => {
                    let now = Instant::now();
                    if let Some(share) = meter.read(total, now) {
                        episode.measured(share, now);
                    }
                    if !episode.is_high() && source.kernel.is_some() {
                        // What is read in the next burst has nothing to do with this one.
                        meter = Meter::new(rule.window);
                    }
                }
                Err(error) => return error,
            },
        }
        if let Some(number) = episode.unhandled() {
            let outcome = fire(rule, number, triggers).await;
            tracing::info!(%rule, ?outcome, "there is pressure");
            // What may be possible in a moment is tried again while the burst lasts.
            if !matches!(outcome, Outcome::Deferred { .. }) {
                episode.handled();
            }
        }
    }
}

async fn fire(rule: &PressureRule, number: u64, triggers: &Arc<Triggers>) -> Outcome {
    let target = match &rule.scope {
        PressureScope::Host => TargetSpec::default(),
        PressureScope::Cgroup(path) => TargetSpec { pids: Vec::new(), cgroup: Some(format!("/{path}")) },
    };
    let cause = Cause::Pressure { resource: rule.resource.name(), rule: rule.to_string() };
    let (source, episode) = (format!("pressure {rule}"), number.to_string());
    let triggers = Arc::clone(triggers);
    // Finding the target reads files.
    let start = tokio::task::spawn_blocking(move || triggers.start(&source, &episode, target, cause));
    start.await.unwrap_or_else(|error| Outcome::Ignored { because: error.to_string() })
}

/// Until the kernel says that the threshold was passed; for ever without its trigger.
async fn kernel_event(trigger: Option<&AsyncFd<File>>) -> io::Result<()> {
    let Some(trigger) = trigger else { return std::future::pending().await };
    let mut ready = trigger.ready(Interest::PRIORITY | Interest::ERROR).await?;
    let gone = ready.ready().is_error();
    ready.clear_ready();
    if gone { Err(io::Error::other("the cgroup is gone")) } else { Ok(()) }
}

/// Where the pressure of a rule is read.
struct Source {
    totals: File,
    /// The kernel watches for us as long as this is open.
    kernel: Option<AsyncFd<File>>,
    /// When it began to, and the total then.
    since: (Instant, Duration),
}

impl Source {
    fn open(rule: &PressureRule) -> io::Result<Self> {
        let totals = file(rule, false)?;
        let kernel = [rule.window, round_up(rule.window)].into_iter().find_map(|window| {
            let armed = arm(rule, window);
            armed.inspect_err(|error| tracing::debug!(%rule, %error, "no kernel trigger")).ok()
        });
        let mut source = Self { totals, kernel, since: (Instant::now(), Duration::ZERO) };
        // A file that cannot be read is found out here and not in the middle of a burst.
        source.since.1 = source.total(rule.extent())?;
        Ok(source)
    }

    /// Whether there was as much pressure as the kernel's trigger says. In its first windows it comes
    /// without any (seen on Linux 6.18), so then the total must have grown; that takes a moment to be
    /// brought up to date.
    async fn bears_out(&mut self, rule: &PressureRule) -> io::Result<bool> {
        let (since, before) = self.since;
        if since.elapsed() > 2 * rule.window + READ_EVERY {
            return Ok(true);
        }
        tokio::time::sleep(READ_EVERY).await;
        Ok(self.total(rule.extent())?.saturating_sub(before) >= rule.threshold)
    }

    fn total(&mut self, extent: &str) -> io::Result<Duration> {
        let mut text = String::new();
        self.totals.rewind()?;
        (&self.totals).take(4096).read_to_string(&mut text)?;
        total(&text, extent).ok_or_else(|| io::Error::other(format!("no line {extent:?} with a total in it")))
    }
}

/// Asks the kernel to watch: <https://docs.kernel.org/accounting/psi.html>.
fn arm(rule: &PressureRule, window: Duration) -> io::Result<AsyncFd<File>> {
    let threshold = rule.threshold.mul_f64(window.as_secs_f64() / rule.window.as_secs_f64());
    let mut trigger = file(rule, true)?;
    // The kernel takes the last byte for the end of the text.
    let text = format!("{} {} {}\0", rule.extent(), threshold.as_micros(), window.as_micros());
    trigger.write_all(text.as_bytes())?;
    register(trigger)
}

#[expect(
    deprecated,
    reason = "its successor is unsafe, for types whose descriptor may change; that of a File does not"
)]
fn register(trigger: File) -> io::Result<AsyncFd<File>> {
    AsyncFd::with_interest(trigger, Interest::PRIORITY | Interest::ERROR)
}

fn round_up(window: Duration) -> Duration {
    let steps = window.as_millis().div_ceil(UNPRIVILEGED_STEP.as_millis());
    UNPRIVILEGED_STEP * u32::try_from(steps).unwrap_or(1)
}

fn file(rule: &PressureRule, write: bool) -> io::Result<File> {
    let resource = rule.resource.name();
    match &rule.scope {
        PressureScope::Host => {
            use std::os::unix::fs::OpenOptionsExt as _;
            let mut options = OpenOptions::new();
            if write {
                options.write(true).custom_flags(libc::O_NONBLOCK);
            }
            options.read(true).open(format!("/proc/pressure/{resource}"))
        }
        PressureScope::Cgroup(path) => procs::open_cgroup_file(path, &format!("{resource}.pressure"), write)
            .map_err(|error| match error {
                procs::ProcsError::Read { path, source } => {
                    io::Error::new(source.kind(), format!("{path}: {source}"))
                }
                other => io::Error::other(other),
            }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_for_the_unprivileged() {
        for (window, expected) in [(500, 2000), (2000, 2000), (2001, 4000), (10_000, 10_000)] {
            assert_eq!(round_up(Duration::from_millis(window)), Duration::from_millis(expected));
        }
    }

    #[test]
    fn rules_without_a_pressure_file_are_a_finding_and_no_error() {
        assert_eq!(missing_pressure(&[]), None);
        let rule: PressureRule = "host cpu some 1s/2s".parse().expect("valid");
        let there = std::path::Path::new("/proc/pressure/cpu").exists();
        assert_eq!(missing_pressure(&[rule]).is_none(), there);
        let rule: PressureRule = "no/such/cgroup cpu some 1s/2s".parse().expect("valid");
        assert!(file(&rule, false).is_err());
    }
}
