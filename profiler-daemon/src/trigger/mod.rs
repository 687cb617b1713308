//! What starts captures by itself: alerts and pressure, each at most once an episode.

mod alert;
mod episode;
mod gate;
mod pressure;
mod target;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

pub use self::alert::PayloadError;
use self::alert::{Alert, AlertStatus};
use self::gate::{Gate, Verdict};
pub use self::pressure::{PressureWatch, missing_pressure};
use crate::bundle::Bundles;
use crate::capture::{CaptureError, CaptureSpec, Captures, Cause, TargetSpec};
use crate::config::LabelTarget;
use crate::model::{Allowance, Counts, ProfileKind};

/// Most alerts of one payload that are looked at.
const MAX_ALERTS: usize = 64;

/// What triggers may do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Length of the captures they start.
    pub duration: Duration,
    /// Whether those of processes and cgroups record who ended the waits.
    pub wakers: bool,
    /// For how long after a start the same source or target starts nothing.
    pub cooldown: Duration,
    /// Most captures they start within any hour.
    pub max_per_hour: usize,
    /// Which labels of an alert name a target, tried in this order.
    pub targets: Vec<LabelTarget>,
    /// Whether an alert without any of them means the whole host.
    pub host_without_target: bool,
}

/// What became of an alert, or of a burst of pressure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It started a capture.
    Started {
        /// The capture's id.
        id: String,
    },
    /// It is the one that started a capture already.
    Duplicate {
        /// That capture's id.
        of: String,
    },
    /// The same source or target started a capture a short while ago.
    CoolingDown {
        /// That capture's id.
        of: String,
        /// From when on it may start another one.
        until: SystemTime,
    },
    /// Triggers started as many captures within an hour as they may.
    TooMany {
        /// From when on there may be another one.
        until: SystemTime,
    },
    /// Nothing to be done about it.
    Ignored {
        /// Why.
        because: String,
    },
    /// Nobody knows whose time to capture.
    NoTarget {
        /// Which label, and what is wrong with it.
        problem: String,
    },
    /// It could not be started now; later it might.
    Deferred {
        /// Why.
        because: String,
        /// When it is worth trying again.
        retry_after: Duration,
    },
}

impl Outcome {
    const NAMES: [&str; 7] =
        ["started", "duplicate", "cooling-down", "too-many", "ignored", "no-target", "deferred"];

    /// One word for it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::Duplicate { .. } => "duplicate",
            Self::CoolingDown { .. } => "cooling-down",
            Self::TooMany { .. } => "too-many",
            Self::Ignored { .. } => "ignored",
            Self::NoTarget { .. } => "no-target",
            Self::Deferred { .. } => "deferred",
        }
    }
}

/// How one alert was dealt with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handled {
    /// The alert's fingerprint.
    pub fingerprint: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// Starts captures for alerts and pressure, and has bundles made of them.
pub struct Triggers {
    captures: Arc<Captures>,
    bundles: Arc<Bundles>,
    options: Options,
    gate: Mutex<Gate>,
    alerts: Counts,
}

impl Triggers {
    /// Nothing has fired yet.
    #[must_use]
    pub fn new(captures: Arc<Captures>, bundles: Arc<Bundles>, options: Options) -> Self {
        let gate = Mutex::new(Gate::new(options.cooldown, options.max_per_hour));
        Self { captures, bundles, options, gate, alerts: Counts::of(&Outcome::NAMES) }
    }

    /// Alerts that came in, by what became of them.
    #[must_use]
    pub fn alert_counts(&self) -> Vec<(&'static str, u64)> {
        self.alerts.read()
    }

    /// Deals with the alerts of a payload as Alertmanager posts it, in their order. Reads `/proc`
    /// and the cgroup hierarchy: call it on a thread that may block, within a tokio runtime.
    ///
    /// # Errors
    /// The payload is not Alertmanager's; nothing was started then.
    pub fn alertmanager(&self, payload: &[u8]) -> Result<Vec<Handled>, PayloadError> {
        let alerts = alert::parse(payload)?;
        let handle = |(index, alert): (usize, Alert)| {
            let fingerprint = alert.fingerprint.clone();
            let outcome = if index < MAX_ALERTS {
                self.alert(alert)
            } else {
                Outcome::Ignored { because: format!("only {MAX_ALERTS} alerts of a payload are looked at") }
            };
            tracing::info!(fingerprint, ?outcome, "an alert came in");
            self.alerts.add(outcome.name());
            Handled { fingerprint, outcome }
        };
        Ok(alerts.into_iter().enumerate().map(handle).collect())
    }

    fn alert(&self, alert: Alert) -> Outcome {
        if alert.status == AlertStatus::Resolved {
            return Outcome::Ignored { because: "it is resolved".to_owned() };
        }
        let source = format!("alert {}", alert.fingerprint);
        // Before the target is looked for: the process of a repeated alert may have gone.
        if let Some(outcome) = self.gate().source(&source, &alert.starts_at, Instant::now()).refusal() {
            return outcome;
        }
        let target = match target::of_alert(&alert, &self.options) {
            Ok(target) => target,
            Err(problem) => return Outcome::NoTarget { problem },
        };
        let cause = Cause::alert(&alert.fingerprint, alert.labels);
        self.start(&source, &alert.starts_at, target, cause)
    }

    /// Starts a capture, unless the gate or the captures themselves refuse.
    fn start(&self, source: &str, episode: &str, target: TargetSpec, cause: Cause) -> Outcome {
        let named = target::name(&target);
        let spec = CaptureSpec {
            kind: ProfileKind::OffCpu,
            target,
            duration: Some(self.options.duration),
            min_block: None,
            wakers: (!self.options.wakers).then_some(false),
            allowance: Allowance::default(),
            cause,
        };
        // Held until it is started, so that of many at a time one gets through.
        let mut gate = self.gate();
        let now = Instant::now();
        if let Some(outcome) = gate.check(source, episode, &named, now).refusal() {
            return outcome;
        }
        let started = match self.captures.start(spec) {
            Ok(capture) => {
                gate.started(source, episode, &named, &capture.id, now);
                capture
            }
            Err(error) => return refused(error),
        };
        drop(gate);
        tracing::warn!(id = started.id, cause = %started.cause, target = named, "triggered a capture");
        self.bundles.follow(&started.id);
        Outcome::Started { id: started.id }
    }

    fn gate(&self) -> std::sync::MutexGuard<'_, Gate> {
        // No method leaves half a change behind.
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Verdict {
    /// What it means for whoever wanted to start something; `None`: go.
    fn refusal(self) -> Option<Outcome> {
        let at = |left: Duration| SystemTime::now() + left;
        Some(match self {
            Self::Go => return None,
            Self::Duplicate { of } => Outcome::Duplicate { of },
            Self::Cooling { of, left } => Outcome::CoolingDown { of, until: at(left) },
            Self::TooMany { left } => Outcome::TooMany { until: at(left) },
        })
    }
}

fn refused(error: CaptureError) -> Outcome {
    match error {
        CaptureError::Busy { retry_after, .. } => {
            Outcome::Deferred { because: error.to_string(), retry_after }
        }
        CaptureError::ShuttingDown => {
            Outcome::Deferred { because: error.to_string(), retry_after: Duration::from_secs(30) }
        }
        CaptureError::Resolve(_) => Outcome::NoTarget { problem: error.to_string() },
        CaptureError::Invalid { .. } => Outcome::Ignored { because: error.to_string() },
    }
}
