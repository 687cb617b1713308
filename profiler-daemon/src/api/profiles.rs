//! `ProfileService`: queries over the stored windows and the results of captures.

use std::time::{Duration, SystemTime};

use tonic::{Request, Response, Status};

use super::error::ApiError;
use super::live::{Watch, WindowStream};
use super::query::{AskedRange, Need, Queries, Question, Source, blocking, selector};
use super::sending::{Sent, sent};
use super::{HostReader, convert, diff, heatmap, report};
use crate::model::{ProfileKind, TimeRange};
use crate::proto::profile_service_server::ProfileService;
use crate::proto::query_response::Part;
use crate::proto::{
    DiffRequest, DiffResponse, HeatmapRequest, ListRequest, ListResponse, QueryRequest, QueryResponse,
    ReportRequest, ReportResponse, Selection, TopRequest, TopResponse, WatchWindowsRequest,
};
use crate::render::{self, Format, TopOptions, View};
use crate::store::{containers, processes};

/// Largest piece of a rendered profile in one message, bytes.
const MAX_CHUNK: usize = 1 << 20;
const DEFAULT_TOP_ROWS: u32 = 30;
const DEFAULT_PROCESS_ROWS: u32 = 100;
/// How long records may be on their way to the open window.
const UNDER_WAY: Duration = Duration::from_secs(2);
/// Most rows of a table; a table is one message.
const MAX_ROWS: u32 = 5_000;

pub(super) struct Profiles {
    pub(super) queries: Queries,
    pub(super) watch: Watch,
    pub(super) host: HostReader,
}

#[tonic::async_trait]
impl ProfileService for Profiles {
    type QueryStream = Sent<QueryResponse>;
    type DiffStream = Sent<DiffResponse>;
    type HeatmapStream = Sent<QueryResponse>;
    type WatchStream = WindowStream;

    async fn query(&self, request: Request<QueryRequest>) -> Result<Response<Self::QueryStream>, Status> {
        let QueryRequest { selection, format, wakers } = request.into_inner();
        let view = if wakers { View::Wakers } else { View::Waits };
        let format = convert::format(format)?;
        let question = blocking(move || question("selection", selection)).await?;
        let chunks = self.queries.answer(Need::RENDERED, question, move |answer| {
            let rendered = answer.render(format, view)?;
            let text = format != Format::Pprof;
            Ok(Chunks::new(answer.told(), Pieces::of(rendered, text)))
        });
        let (chunks, turn) = chunks.await?;
        let turn = turn.keep(chunks.pieces.len());
        Ok(Response::new(sent(chunks, turn)))
    }

    async fn top(&self, request: Request<TopRequest>) -> Result<Response<TopResponse>, Status> {
        let TopRequest { selection, limit, by, focus, ignore, cumulative } = request.into_inner();
        let read = move || {
            let options = TopOptions {
                by: convert::group_by(by)?,
                focus: convert::regex("focus", &focus)?,
                ignore: convert::regex("ignore", &ignore)?,
                cumulative,
                limit: rows(limit, DEFAULT_TOP_ROWS)?,
            };
            Ok((options, question("selection", selection)?))
        };
        let (options, question) = blocking(read).await?;
        let answer = self.queries.answer(Need::PROFILE, question, move |answer| {
            let top = render::top_by(&answer.profile, &options);
            let rows = top.rows.into_iter().map(convert::top_row).collect();
            let waits = top.waits.into_iter().map(convert::wait_times).collect();
            Ok(TopResponse { summary: Some(answer.told()), rows, shown: top.shown, waits })
        });
        Ok(Response::new(answer.await?.0))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let ListRequest { selection, limit } = request.into_inner();
        let limit = rows(limit, DEFAULT_PROCESS_ROWS)?;
        let question = blocking(move || question("selection", selection)).await?;
        let list = self.queries.work(Need::PROFILE, move |queries| {
            let answer = queries.merge(&question)?;
            let processes = processes(&answer.profile).into_iter().take(limit);
            let containers = containers(&answer.profile).into_iter().take(limit);
            let kinds = [ProfileKind::OnCpu, ProfileKind::OffCpu].into_iter();
            let kinds = kinds.filter_map(|kind| Some(convert::stored(kind, queries.stored(kind)?)));
            Ok(ListResponse {
                summary: Some(answer.told()),
                processes: processes.map(convert::process_row).collect(),
                containers: containers.map(convert::container_row).collect(),
                kinds: kinds.collect(),
                gaps: told_gaps(answer.gaps).into_iter().take(limit).map(convert::range).collect(),
            })
        });
        Ok(Response::new(list.await?.0))
    }

    async fn diff(&self, request: Request<DiffRequest>) -> Result<Response<Self::DiffStream>, Status> {
        let (chunks, turn) = diff::answer(&self.queries, request.into_inner()).await?;
        Ok(Response::new(sent(chunks, turn)))
    }

    async fn watch(
        &self,
        request: Request<WatchWindowsRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let windows = self.watch.windows(request.into_inner()).await?;
        Ok(Response::new(windows))
    }

    async fn heatmap(
        &self,
        request: Request<HeatmapRequest>,
    ) -> Result<Response<Self::HeatmapStream>, Status> {
        let (chunks, turn) = heatmap::answer(&self.queries, request.into_inner()).await?;
        let turn = turn.keep(chunks.pieces.len());
        Ok(Response::new(sent(chunks, turn)))
    }

    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        Ok(Response::new(report::answer(&self.queries, &self.host, request.into_inner()).await?))
    }
}

/// The last moment before a question is no gap: what was recorded in it is still on its way.
fn told_gaps(mut gaps: Vec<TimeRange>) -> Vec<TimeRange> {
    let recent =
        |gap: &TimeRange| gap.length() <= UNDER_WAY && gap.to.elapsed().is_ok_and(|ago| ago <= UNDER_WAY);
    if gaps.last().is_some_and(recent) {
        gaps.pop();
    }
    gaps
}

pub(super) fn rows(limit: u32, default: u32) -> Result<usize, ApiError> {
    match limit {
        0 => Ok(default as usize),
        1..=MAX_ROWS => Ok(limit as usize),
        _ => {
            let problem = format!("{limit} rows asked for, {MAX_ROWS} allowed");
            Err(ApiError::Invalid { field: "limit", problem })
        }
    }
}

/// Reads a selection; `field` is its name in the request.
pub(super) fn question(field: &'static str, selection: Option<Selection>) -> Result<Question, ApiError> {
    let read = || {
        let Selection { kind, r#where, range, capture_id } = selection.unwrap_or_default();
        let selector = selector(&r#where)?;
        if !capture_id.is_empty() {
            return Ok(Question { source: Source::Capture { id: capture_id }, selector });
        }
        let range = asked(range.unwrap_or_default())?;
        let kind = convert::stored_kind("selection.kind", kind)?;
        Ok(Question { source: Source::Windows { kind, range }, selector })
    };
    // Requests with two selections have them under other names.
    read().map_err(|error: ApiError| error.in_field("selection", field))
}

/// Reads a range as of now.
pub(super) fn asked(range: crate::proto::TimeRange) -> Result<TimeRange, ApiError> {
    let range = AskedRange {
        since: convert::duration("selection.range.since", range.since)?,
        from: convert::time("selection.range.from", range.from)?,
        to: convert::time("selection.range.to", range.to)?,
    };
    range.at(SystemTime::now())
}

/// The messages of an answer: the summary, then the rendered profile in pieces.
pub(super) struct Chunks {
    summary: Option<Part>,
    pieces: Pieces,
}

impl Chunks {
    pub(super) fn new(summary: crate::proto::ProfileSummary, pieces: Pieces) -> Self {
        Self { summary: Some(Part::Summary(summary)), pieces }
    }
}

/// A rendered profile in pieces.
pub(super) struct Pieces {
    rendered: Vec<u8>,
    at: usize,
    /// Text is cut between characters.
    text: bool,
}

impl Pieces {
    pub(super) fn of(rendered: Vec<u8>, text: bool) -> Self {
        Self { rendered, at: 0, text }
    }

    /// Bytes of all pieces.
    pub(super) fn len(&self) -> usize {
        self.rendered.len()
    }
}

impl Iterator for Pieces {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let rest = self.rendered.get(self.at..)?;
        let mut length = rest.len().min(MAX_CHUNK);
        // Bytes 10xxxxxx go on with a character (RFC 3629); a character has at most 4 bytes.
        while self.text && length > 0 && rest.get(length).is_some_and(|byte| byte & 0xc0 == 0x80) {
            length -= 1;
        }
        let piece = rest.get(..length).filter(|piece| !piece.is_empty())?.to_vec();
        self.at += length;
        Some(piece)
    }
}

impl Iterator for Chunks {
    type Item = Result<QueryResponse, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(summary) = self.summary.take() {
            return Some(Ok(QueryResponse { part: Some(summary) }));
        }
        let piece = self.pieces.next()?;
        let part = if self.pieces.text { Part::Text(text(&piece)) } else { Part::Data(piece) };
        Some(Ok(QueryResponse { part: Some(part) }))
    }
}

/// Renderers write UTF-8; anything else is shown as U+FFFD.
pub(super) fn text(piece: &[u8]) -> String {
    String::from_utf8_lossy(piece).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(rendered: Vec<u8>, text: bool) -> Vec<Part> {
        let chunks = Chunks { summary: None, pieces: Pieces::of(rendered, text) };
        chunks.map(|chunk| chunk.expect("a message").part.expect("a part")).collect()
    }

    #[test]
    fn text_is_cut_between_characters() {
        // One byte, then two-byte characters: the limit falls into the middle of one.
        let whole = format!("x{}", "é".repeat(MAX_CHUNK));
        let parts = parts(whole.clone().into_bytes(), true);
        assert_eq!(parts.len(), 3);
        let mut joined = String::new();
        for part in parts {
            let Part::Text(text) = part else { panic!("not text") };
            assert!(text.len() <= MAX_CHUNK);
            joined.push_str(&text);
        }
        assert_eq!(joined, whole);
    }

    #[test]
    fn data_is_cut_anywhere() {
        let whole = vec![0x80; MAX_CHUNK + 1];
        let lengths: Vec<usize> = parts(whole, false)
            .into_iter()
            .map(|part| if let Part::Data(data) = part { data.len() } else { 0 })
            .collect();
        assert_eq!(lengths, [MAX_CHUNK, 1]);
    }
}
