//! `ProfileService`: queries over the stored windows and the results of captures.

use std::time::SystemTime;

use tokio_stream::Iter;
use tonic::{Request, Response, Status};

use super::convert;
use super::error::ApiError;
use super::query::{AskedRange, Queries, Question, Source, selector};
use crate::proto::profile_service_server::ProfileService;
use crate::proto::query_response::Part;
use crate::proto::{
    ListRequest, ListResponse, QueryRequest, QueryResponse, Selection, TopRequest, TopResponse,
};
use crate::render::{self, Format};
use crate::store::processes;

/// Largest piece of a rendered profile in one message, bytes.
const MAX_CHUNK: usize = 1 << 20;
const DEFAULT_TOP_ROWS: u32 = 30;
const DEFAULT_PROCESS_ROWS: u32 = 100;
/// Most rows of a table; a table is one message.
const MAX_ROWS: u32 = 5_000;

pub(super) struct Profiles {
    pub(super) queries: Queries,
}

#[tonic::async_trait]
impl ProfileService for Profiles {
    type QueryStream = Iter<Chunks>;

    async fn query(&self, request: Request<QueryRequest>) -> Result<Response<Self::QueryStream>, Status> {
        let QueryRequest { selection, format } = request.into_inner();
        let format = convert::format(format)?;
        let question = question(selection)?;
        let chunks = self.queries.answer(question, move |answer| {
            let rendered = answer.render(format)?;
            let summary = Part::Summary(convert::summary(&answer.summary));
            let text = format != Format::Pprof;
            Ok(Chunks { summary: Some(summary), rendered, at: 0, text })
        });
        Ok(Response::new(tokio_stream::iter(chunks.await?)))
    }

    async fn top(&self, request: Request<TopRequest>) -> Result<Response<TopResponse>, Status> {
        let TopRequest { selection, limit } = request.into_inner();
        let limit = rows(limit, DEFAULT_TOP_ROWS)?;
        let answer = self.queries.answer(question(selection)?, move |answer| {
            let rows = render::top(&answer.profile, limit).into_iter().map(convert::top_row).collect();
            Ok(TopResponse { summary: Some(convert::summary(&answer.summary)), rows })
        });
        Ok(Response::new(answer.await?))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let ListRequest { selection, limit } = request.into_inner();
        let limit = rows(limit, DEFAULT_PROCESS_ROWS)?;
        let answer = self.queries.answer(question(selection)?, move |answer| {
            let rows = processes(&answer.profile).into_iter().take(limit);
            let processes = rows.map(convert::process_row).collect();
            Ok(ListResponse { summary: Some(convert::summary(&answer.summary)), processes })
        });
        Ok(Response::new(answer.await?))
    }
}

fn rows(limit: u32, default: u32) -> Result<usize, ApiError> {
    match limit {
        0 => Ok(default as usize),
        1..=MAX_ROWS => Ok(limit as usize),
        _ => {
            let problem = format!("{limit} rows asked for, {MAX_ROWS} allowed");
            Err(ApiError::Invalid { field: "limit", problem })
        }
    }
}

fn question(selection: Option<Selection>) -> Result<Question, ApiError> {
    let Selection { kind, r#where, range, capture_id } = selection.unwrap_or_default();
    let selector = selector(&r#where)?;
    if !capture_id.is_empty() {
        return Ok(Question { source: Source::Capture { id: capture_id }, selector });
    }
    let range = range.unwrap_or_default();
    let range = AskedRange {
        since: convert::duration("selection.range.since", range.since)?,
        from: convert::time("selection.range.from", range.from)?,
        to: convert::time("selection.range.to", range.to)?,
    };
    let source = Source::Windows {
        kind: convert::stored_kind("selection.kind", kind)?,
        range: range.at(SystemTime::now())?,
    };
    Ok(Question { source, selector })
}

/// The messages of an answer: the summary, then the rendered profile in pieces.
pub(super) struct Chunks {
    summary: Option<Part>,
    rendered: Vec<u8>,
    at: usize,
    /// Text is cut between characters.
    text: bool,
}

impl Iterator for Chunks {
    type Item = Result<QueryResponse, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(summary) = self.summary.take() {
            return Some(Ok(QueryResponse { part: Some(summary) }));
        }
        let rest = self.rendered.get(self.at..)?;
        let mut length = rest.len().min(MAX_CHUNK);
        // Bytes 10xxxxxx go on with a character (RFC 3629); a character has at most 4 bytes.
        while self.text && length > 0 && rest.get(length).is_some_and(|byte| byte & 0xc0 == 0x80) {
            length -= 1;
        }
        let chunk = rest.get(..length).filter(|chunk| !chunk.is_empty())?;
        self.at += length;
        let part = if self.text {
            // Renderers write UTF-8; anything else is shown as U+FFFD.
            Part::Text(String::from_utf8_lossy(chunk).into_owned())
        } else {
            Part::Data(chunk.to_vec())
        };
        Some(Ok(QueryResponse { part: Some(part) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(rendered: Vec<u8>, text: bool) -> Vec<Part> {
        let chunks = Chunks { summary: None, rendered, at: 0, text };
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
