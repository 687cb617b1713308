//! `profiler capture watch`: a line for each change of a capture's state.

use std::time::{Duration, SystemTime};

use crate::cli::CaptureIdArgs;
use crate::proto::{Capture, CaptureState, WatchRequest};

use super::super::connect::{ANSWER_DEADLINE, Daemon, request};
use super::super::output::Output;
use super::super::{Failure, summary, times};
use super::state_name;

/// Longer than any capture runs and settles; a watch that says nothing for so long is broken.
const DEADLINE: Duration = Duration::from_secs(900);

/// Follows a capture until it ends.
pub(super) async fn watch(args: &CaptureIdArgs) -> Result<(), Failure> {
    let daemon = Daemon::connect(&args.reach.connect).await?;
    let mut captures = daemon.captures();
    let question = request(WatchRequest { id: args.id.clone() }, DEADLINE);
    let mut changes = daemon.answer(ANSWER_DEADLINE, captures.watch(question)).await?;
    let mut output = Output::stdout();
    let mut last = None;
    while let Some(capture) = daemon.in_time(DEADLINE, changes.message()).await? {
        output.text(&line(&capture, SystemTime::now()))?;
        if output.is_closed() {
            return Ok(());
        }
        last = Some(capture);
    }
    match last {
        Some(capture) if matches!(capture.state(), CaptureState::Done | CaptureState::Failed) => Ok(()),
        _ => Err(Failure::malformed("the capture is followed no further")),
    }
}

/// `2026-01-31 14:00:00 c7 done: 5000 microseconds, 3 records, lost nothing`.
fn line(capture: &Capture, now: SystemTime) -> String {
    let mut text = format!("{} {} {}", times::local(now), capture.id, state_name(capture.state()));
    if !capture.reason.is_empty() {
        text.push_str(&format!(" ({})", capture.reason));
    }
    if let Some(result) = &capture.summary {
        let lost = summary::losses(&result.losses);
        text.push_str(&format!(
            ": {} {}, {} records, lost {lost}",
            result.total, result.unit, result.records
        ));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::ProfileSummary;

    #[test]
    fn a_line_a_state() {
        let shown = |capture: &Capture| {
            let text = line(capture, SystemTime::UNIX_EPOCH);
            text.split_once("c7").map(|(_, rest)| rest.to_owned()).unwrap_or_default()
        };
        let mut capture =
            Capture { id: "c7".to_owned(), state: CaptureState::Running.into(), ..Capture::default() };
        assert_eq!(shown(&capture), " running\n");
        capture.state = CaptureState::Done.into();
        capture.reason = "stopped on request".to_owned();
        capture.summary =
            Some(ProfileSummary { total: 5, unit: "microseconds".to_owned(), ..ProfileSummary::default() });
        assert_eq!(shown(&capture), " done (stopped on request): 5 microseconds, 0 records, lost nothing\n");
    }
}
