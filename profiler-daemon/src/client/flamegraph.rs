//! `profiler flamegraph`: fetches a rendered profile, chunk by chunk.

use std::path::Path;

use tokio::time::Instant;
use tonic::Streaming;

use crate::cli::{Destination, Endpoint, Exit, FlamegraphArgs, PendingFile, Rendering};
use crate::proto::query_response::Part;
use crate::proto::{self, QueryRequest, QueryResponse};
use crate::render::Format;

use super::connect::{Daemon, RENDER_DEADLINE, request};
use super::output::{Output, say};
use super::{Failure, summary};

/// `profiler flamegraph`.
///
/// # Errors
/// No daemon, no data, a refused query, an output that cannot be written.
pub async fn flamegraph(args: &FlamegraphArgs) -> Result<(), Failure> {
    let selection = summary::selection(&args.query, args.capture.as_deref());
    fetch(&args.reach.connect, selection, &args.rendering).await
}

/// Writes the flame graph of a selection as wanted.
pub(super) async fn fetch(
    endpoint: &Endpoint,
    selection: proto::Selection,
    rendering: &Rendering,
) -> Result<(), Failure> {
    let destination = rendering.destination();
    // An output that cannot be written is known before the daemon has worked for it.
    let sink = Sink::open(&destination)?;
    let daemon = Daemon::connect(endpoint).await?;
    let format = format(destination.format()).into();
    let question = QueryRequest { selection: Some(selection), format, wakers: rendering.wakers };
    let mut profiles = daemon.profiles();
    let parts = daemon.answer(RENDER_DEADLINE, profiles.query(request(question, RENDER_DEADLINE))).await?;
    let Some(facts) = receive(&daemon, parts, sink).await? else { return Ok(()) };
    summary::tell(&facts);
    if let Destination::File(file) = destination {
        say(&format!("wrote {}", file.path.display()));
    }
    Ok(())
}

/// Brings an answer to its place; what it is worth, or `None` where nobody reads any more.
pub(super) async fn receive(
    daemon: &Daemon,
    mut parts: Streaming<QueryResponse>,
    mut sink: Sink,
) -> Result<Option<proto::ProfileSummary>, Failure> {
    let until = Instant::now() + RENDER_DEADLINE;
    let mut facts = None;
    while let Some(message) =
        daemon.in_time(until.saturating_duration_since(Instant::now()), parts.message()).await?
    {
        match message.part {
            Some(Part::Summary(summary)) => facts = Some(summary::with_data(Some(summary))?),
            Some(Part::Text(text)) => sink.text(&text)?,
            Some(Part::Data(data)) => sink.bytes(&data)?,
            None => {}
        }
        if sink.is_closed() {
            return Ok(None);
        }
    }
    let facts = summary::with_data(facts)?;
    sink.finish()?;
    Ok(Some(facts))
}

fn format(format: Format) -> proto::Format {
    match format {
        Format::Folded => proto::Format::Folded,
        Format::Svg => proto::Format::Svg,
        Format::Pprof => proto::Format::Pprof,
        Format::Speedscope => proto::Format::Speedscope,
        Format::Json => proto::Format::Json,
        Format::Firefox => proto::Format::Firefox,
    }
}

/// Where the chunks go.
pub(super) enum Sink {
    File(PendingFile),
    Stdout(Output),
}

impl Sink {
    pub(super) fn file(path: &Path) -> Result<Self, Failure> {
        Ok(Self::File(PendingFile::create(path)?))
    }

    pub(super) fn stdout() -> Self {
        Self::Stdout(Output::stdout())
    }

    fn open(destination: &Destination) -> Result<Self, Failure> {
        match destination {
            Destination::File(file) => Ok(Self::File(PendingFile::create(&file.path)?)),
            Destination::Stdout(format) => {
                let output = Output::stdout();
                if output.is_terminal() && !format.is_text() {
                    return Err(Failure::new(
                        Exit::Usage,
                        format!("{format} is binary and stdout is a terminal"),
                    )
                    .hint("write it to a file: -o profile.pb.gz"));
                }
                Ok(Self::Stdout(output))
            }
        }
    }

    fn text(&mut self, text: &str) -> Result<(), Failure> {
        match self {
            Self::File(file) => Ok(file.write(text.as_bytes())?),
            Self::Stdout(output) => output.text(text),
        }
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Self::File(file) => Ok(file.write(bytes)?),
            Self::Stdout(output) => output.bytes(bytes),
        }
    }

    fn is_closed(&self) -> bool {
        matches!(self, Self::Stdout(output) if output.is_closed())
    }

    fn finish(self) -> Result<(), Failure> {
        match self {
            Self::File(file) => Ok(file.commit()?),
            Self::Stdout(_) => Ok(()),
        }
    }
}
