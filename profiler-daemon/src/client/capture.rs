//! `profiler capture`: starts, follows, lists, shows and stops captures.

mod bundle;
mod wait;
mod watch;

use crate::cli::{
    CaptureArgs, CaptureCommand, CaptureIdArgs, CaptureShowArgs, CaptureStart, Destination, Exit, OffCpuArgs,
    QueryArgs, ReachArgs,
};
use crate::proto::{
    self, Capture, CaptureLimits, CaptureState, GetRequest, ListCapturesRequest, StartRequest, StopRequest,
    Target,
};

use super::connect::{ANSWER_DEADLINE, Daemon, request};
use super::output::{Output, clean, say};
use super::table::{Align, facts, table};
use super::{Failure, flamegraph, summary, times};

/// `profiler capture`.
///
/// # Errors
/// No daemon, no such capture, a refused start, a capture that failed or saw nothing.
pub async fn capture(args: &CaptureArgs) -> Result<(), Failure> {
    match &args.command {
        CaptureCommand::Start(CaptureStart::OffCpu(args)) => start(args).await,
        CaptureCommand::List(reach) => list(reach).await,
        CaptureCommand::Show(args) => show(args).await,
        CaptureCommand::Watch(args) => watch::watch(args).await,
        CaptureCommand::Bundle(args) => bundle::fetch(args).await,
        CaptureCommand::Stop(args) => stop(args).await,
    }
}

async fn start(args: &OffCpuArgs) -> Result<(), Failure> {
    let daemon = Daemon::connect(&args.reach.connect).await?;
    let mut captures = daemon.captures();
    let answer =
        daemon.answer(ANSWER_DEADLINE, captures.start(request(start_request(args), ANSWER_DEADLINE))).await;
    let answer = answer.map_err(|failure| match failure.exit {
        // A target that is not there is refused, as `record` does; there is no range without data.
        Exit::NoData => Failure { exit: Exit::Refused, ..failure },
        _ => failure,
    })?;
    // At once: whoever waits can already stop it by its id.
    Output::stdout().text(&format!("{}\n", clean(&answer.id)))?;
    if args.wait { wait::until_ended(&daemon, answer, args.duration).await } else { Ok(()) }
}

fn start_request(args: &OffCpuArgs) -> StartRequest {
    let cgroup = args.cgroup.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    StartRequest {
        kind: proto::ProfileKind::OffCpu.into(),
        target: Some(Target { pids: args.pids.clone(), cgroup }),
        duration: times::to_proto(args.duration),
        min_block: args.min_block.and_then(times::to_proto),
        bundle: args.bundle,
        wakers: (args.wakers || args.no_wakers).then_some(args.wakers),
        limits: Some(CaptureLimits {
            events_per_second: args.max_events.unwrap_or_default(),
            bytes: args.max_bytes.unwrap_or_default(),
            millicpus: args.max_millicpus.unwrap_or_default(),
        }),
    }
}

async fn list(reach: &ReachArgs) -> Result<(), Failure> {
    let daemon = Daemon::connect(&reach.connect).await?;
    let mut captures = daemon.captures();
    let question = request(ListCapturesRequest {}, ANSWER_DEADLINE);
    let answer = daemon.answer(ANSWER_DEADLINE, captures.list(question)).await?;
    let mut output = Output::stdout();
    if answer.captures.is_empty() {
        say("no captures; start one with `profiler capture start off-cpu`");
        return Ok(());
    }
    output.text(&as_table(&answer.captures, output.columns()))
}

fn as_table(captures: &[Capture], columns: Option<usize>) -> String {
    let header = [
        ("ID", Align::Left),
        ("KIND", Align::Left),
        ("STATE", Align::Left),
        ("STARTED", Align::Left),
        ("DURATION", Align::Right),
        ("TARGET", Align::Left),
    ];
    let cells = |capture: &Capture| {
        vec![
            capture.id.clone(),
            summary::kind_name(capture.kind).to_owned(),
            state_name(capture.state()).to_owned(),
            times::system_time(capture.started).map_or_else(|| "-".to_owned(), times::local),
            times::short(times::duration(capture.duration)),
            target(capture.target.as_ref()),
        ]
    };
    table(&header, &captures.iter().map(cells).collect::<Vec<_>>(), columns)
}

async fn show(args: &CaptureShowArgs) -> Result<(), Failure> {
    let daemon = Daemon::connect(&args.reach.connect).await?;
    let mut captures = daemon.captures();
    let question = request(GetRequest { id: args.id.clone() }, ANSWER_DEADLINE);
    let answer = daemon.answer(ANSWER_DEADLINE, captures.get(question)).await?;
    let wanted = args.rendering.output.is_some() || args.rendering.format.is_some() || args.rendering.wakers;
    let destination = args.rendering.destination();
    if wanted && matches!(destination, Destination::Stdout(_)) {
        // The facts must not be mixed with the data.
        description(&answer).lines().for_each(say);
    } else {
        Output::stdout().text(&description(&answer))?;
    }
    if wanted {
        let selection = summary::selection(&QueryArgs::default(), Some(&args.id));
        flamegraph::fetch(&args.reach.connect, selection, &args.rendering).await?;
    }
    Ok(())
}

async fn stop(args: &CaptureIdArgs) -> Result<(), Failure> {
    let daemon = Daemon::connect(&args.reach.connect).await?;
    let mut captures = daemon.captures();
    let question = request(StopRequest { id: args.id.clone() }, ANSWER_DEADLINE);
    let answer = daemon.answer(ANSWER_DEADLINE, captures.stop(question)).await?;
    say(&format!("{}: {}", answer.id, state_name(answer.state())));
    Ok(())
}

/// The facts of a capture, a line each.
fn description(capture: &Capture) -> String {
    let time = |time| times::system_time(time).map_or_else(|| "-".to_owned(), times::local);
    let mut rows = vec![
        ("id", capture.id.clone()),
        ("kind", summary::kind_name(capture.kind).to_owned()),
        ("target", target(capture.target.as_ref())),
        ("state", state_name(capture.state()).to_owned()),
        ("started", time(capture.started)),
        ("ended", time(capture.ended)),
        ("duration", times::short(times::duration(capture.duration))),
        ("min block", times::short(times::duration(capture.min_block))),
    ];
    if capture.wakers {
        rows.push(("wakers", "recorded".to_owned()));
    }
    if let Some(limits) = capture.limits.filter(|limits| *limits != CaptureLimits::default()) {
        let CaptureLimits { events_per_second, bytes, millicpus } = limits;
        let bytes = bytesize::ByteSize(bytes).display().iec();
        rows.push(("limits", format!("{events_per_second} waits a second, {bytes}, {millicpus} millicpus")));
    }
    if !capture.cause.is_empty() {
        rows.push(("cause", capture.cause.clone()));
    }
    // Names of labels are not known before: they go into the value.
    let mut labels: Vec<_> = capture.labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    labels.sort();
    rows.extend(labels.into_iter().map(|label| ("label", label)));
    if !capture.reason.is_empty() {
        rows.push(("reason", capture.reason.clone()));
    }
    if let Some(result) = &capture.summary {
        rows.push(("result", format!("{} {}, {} records", result.total, result.unit, result.records)));
        rows.push(("lost", summary::losses(&result.losses)));
        if let Some(stacks) = &result.stacks {
            let text = summary::shares(stacks).long();
            rows.push(("stacks", text.trim_start_matches("stacks: ").to_owned()));
        }
    }
    facts(&rows)
}

fn target(target: Option<&Target>) -> String {
    match target {
        Some(target) if !target.pids.is_empty() => {
            let pids: Vec<String> = target.pids.iter().map(u32::to_string).collect();
            format!("pid {}", pids.join(","))
        }
        Some(target) if !target.cgroup.is_empty() => format!("cgroup {}", target.cgroup),
        _ => "host".to_owned(),
    }
}

fn state_name(state: CaptureState) -> &'static str {
    match state {
        CaptureState::Unspecified => "unknown",
        CaptureState::Pending => "pending",
        CaptureState::Running => "running",
        CaptureState::Done => "done",
        CaptureState::Failed => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_a_capture() {
        let capture = Capture {
            id: "c7".to_owned(),
            kind: proto::ProfileKind::OffCpu.into(),
            target: Some(Target { pids: vec![4, 5], cgroup: String::new() }),
            state: CaptureState::Failed.into(),
            reason: "the target ended\x1b".to_owned(),
            ..Capture::default()
        };
        let text = description(&capture);
        assert!(
            text.starts_with("id         c7\nkind       off-cpu\ntarget     pid 4,5\nstate      failed\n"),
            "{text}"
        );
        assert!(text.ends_with("reason     the target ended\u{fffd}\n"), "{text}");
        let table = as_table(&[capture], Some(80));
        assert_eq!(
            table,
            "ID  KIND     STATE   STARTED  DURATION  TARGET\nc7  off-cpu  failed  -              0s  pid 4,5\n"
        );
    }
}
