//! `--wait`: follows a capture until it ends or the person has enough.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::cli::Exit;
use crate::proto::{Capture, CaptureState, WatchRequest};

use super::super::connect::{Daemon, request};
use super::super::output::{Progress, clean, say};
use super::super::{Failure, summary, times};

/// How long after its planned end a capture may still be collecting.
const GRACE: Duration = Duration::from_secs(60);

/// Waits until the capture has ended, and says how.
pub(super) async fn until_ended(
    daemon: &Daemon,
    capture: Capture,
    duration: Duration,
) -> Result<(), Failure> {
    let id = clean(&capture.id);
    let mut progress = Progress::new();
    let ended = tokio::select! {
        ended = follow(daemon, capture, duration, &mut progress) => ended?,
        _ = tokio::signal::ctrl_c() => {
            progress.clear();
            return Err(Failure::new(Exit::Failure, format!("stopped waiting; capture {id} goes on"))
                .hint(format!("end it with `profiler capture stop {id}`, see it with `profiler capture show {id}`")));
        }
    };
    progress.clear();
    verdict(&ended)
}

async fn follow(
    daemon: &Daemon,
    mut capture: Capture,
    duration: Duration,
    progress: &mut Progress,
) -> Result<Capture, Failure> {
    let deadline = duration + GRACE;
    let until = Instant::now() + deadline;
    let mut captures = daemon.captures();
    let question = request(WatchRequest { id: capture.id.clone() }, deadline);
    let mut changes = daemon.answer(deadline, captures.watch(question)).await?;
    let mut second = tokio::time::interval(Duration::from_secs(1));
    while !has_ended(&capture) {
        tokio::select! {
            change = daemon.in_time(until.saturating_duration_since(Instant::now()), changes.message()) => {
                capture = change?.ok_or_else(|| Failure::malformed("the capture is followed no further"))?;
            }
            _ = second.tick() => progress.show(&progress_line(&capture, SystemTime::now())),
        }
    }
    Ok(capture)
}

fn has_ended(capture: &Capture) -> bool {
    matches!(capture.state(), CaptureState::Done | CaptureState::Failed)
}

/// `capture c7: running, 12s of 30s`.
fn progress_line(capture: &Capture, now: SystemTime) -> String {
    let state = super::state_name(capture.state());
    let planned = times::duration(capture.duration);
    let begun = times::system_time(capture.started).and_then(|started| now.duration_since(started).ok());
    match begun {
        Some(elapsed) => {
            let elapsed = times::short(elapsed.min(planned));
            format!("capture {}: {state}, {elapsed} of {}", capture.id, times::short(planned))
        }
        None => format!("capture {}: {state}", capture.id),
    }
}

/// What an ended capture means for the exit code.
fn verdict(capture: &Capture) -> Result<(), Failure> {
    let id = clean(&capture.id);
    let reason = clean(&capture.reason);
    if capture.state() == CaptureState::Failed {
        return Err(Failure::new(Exit::Failure, format!("capture {id} failed: {reason}")));
    }
    match &capture.summary {
        Some(result) if result.total > 0 => {
            summary::tell(result);
            say(&format!("write its flame graph with `profiler capture show {id} -o waits.svg`"));
            Ok(())
        }
        _ => {
            let reason = if reason.is_empty() { "no thread of the target waited".to_owned() } else { reason };
            Err(Failure::new(Exit::NoData, format!("capture {id} saw nothing: {reason}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::ProfileSummary;

    #[test]
    fn verdicts() {
        let ended = |state: CaptureState, total| Capture {
            id: "c7".to_owned(),
            state: state.into(),
            summary: Some(ProfileSummary { total, ..ProfileSummary::default() }),
            ..Capture::default()
        };
        assert_eq!(verdict(&ended(CaptureState::Done, 5)), Ok(()));
        let exit = |state, total| verdict(&ended(state, total)).expect_err("must fail").exit;
        assert_eq!(exit(CaptureState::Done, 0), Exit::NoData);
        assert_eq!(exit(CaptureState::Failed, 5), Exit::Failure);
    }

    #[test]
    fn progress() {
        let started = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let capture = Capture {
            id: "c7".to_owned(),
            state: CaptureState::Running.into(),
            started: Some(started.into()),
            duration: times::to_proto(Duration::from_secs(30)),
            ..Capture::default()
        };
        let line = |after| progress_line(&capture, started + Duration::from_secs(after));
        assert_eq!(line(12), "capture c7: running, 12s of 30s");
        assert_eq!(line(99), "capture c7: running, 30s of 30s");
    }
}
