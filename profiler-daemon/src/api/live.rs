//! `ProfileService.Watch`: windows as they are sealed.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::{Semaphore, broadcast};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

use super::convert;
use super::error::ApiError;
use super::profiles::rows;
use super::query::{blocking, selector};
use crate::model::{Profile, ProfileKind, Selector, Window};
use crate::proto::{WatchWindowsRequest, WatchWindowsResponse};
use crate::render;
use crate::store::Summary;

const DEFAULT_ROWS: u32 = 10;
/// Callers that may watch at a time: each window is merged for each of them.
const MAX_WATCHERS: usize = 16;

pub(super) type WindowStream = Pin<Box<dyn Stream<Item = Result<WatchWindowsResponse, Status>> + Send>>;

/// Tells callers of new windows.
#[derive(Clone)]
pub(super) struct Watch {
    windows: broadcast::Sender<Window>,
    places: Arc<Semaphore>,
}

struct Wanted {
    kind: ProfileKind,
    selector: Selector,
    limit: usize,
}

impl Watch {
    pub(super) fn new(windows: broadcast::Sender<Window>) -> Self {
        Self { windows, places: Arc::new(Semaphore::new(MAX_WATCHERS)) }
    }

    /// All windows from now on that have the kind.
    pub(super) async fn windows(&self, request: WatchWindowsRequest) -> Result<WindowStream, ApiError> {
        let r#where = request.r#where;
        let selector = blocking(move || selector(&r#where));
        let wanted = Wanted {
            kind: convert::stored_kind("kind", request.kind)?,
            selector: selector.await.map_err(|error| error.in_field("selection.where", "where"))?,
            limit: rows(request.limit, DEFAULT_ROWS)?,
        };
        let wanted = Arc::new(wanted);
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| ApiError::TooManyWatchers { limit: MAX_WATCHERS })?;
        let mut missed = 0;
        let windows = BroadcastStream::new(self.windows.subscribe()).then(move |window| {
            let wanted = Arc::clone(&wanted);
            async move {
                let BroadcastStreamRecvError::Lagged(missed) = match window {
                    Ok(window) => return Ok(blocking(move || Ok(wanted.told(&window))).await),
                    Err(lagged) => lagged,
                };
                Err(missed)
            }
        });
        let windows = windows.filter_map(move |told| {
            let _held_as_long_as_the_stream = &place;
            match told {
                Ok(Ok(told)) => {
                    told.map(|told| Ok(WatchWindowsResponse { missed: std::mem::take(&mut missed), ..told }))
                }
                Ok(Err(error)) => Some(Err(error.into())),
                Err(count) => {
                    missed += count;
                    None
                }
            }
        });
        Ok(Box::pin(windows))
    }
}

impl Wanted {
    /// A window is small: it is merged without a turn.
    fn told(&self, window: &Window) -> Option<WatchWindowsResponse> {
        let recorded = window.profiles.iter().find(|profile| profile.kind() == self.kind)?;
        let mut profile = Profile::new(self.kind);
        profile.merge_selected(recorded, &self.selector);
        let summary = Summary::of(&profile, window.range, window.range.length());
        let rows = render::top(&profile, self.limit).into_iter().map(convert::top_row).collect();
        Some(WatchWindowsResponse { summary: Some(convert::summary(&summary)), rows, missed: 0 })
    }
}
