//! Questions about stored profiles, from gRPC and HTTP alike: reading, merging, rendering.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::convert;
use super::error::ApiError;
use crate::capture::{CaptureState, Captures};
use crate::model::{Profile, ProfileKind, Selector, TimeRange};
use crate::proto;
use crate::render::{self, About, Format, RenderError, View};
use crate::store::{MAX_MERGED_BYTES, Queried, Store, Summary};

/// Memory that all questions together take, MiB. The unit and the DaemonSet in deploy/ allow the
/// daemon 512M; the rest of that is for recording, and for the making of a bundle.
const MEMORY: u32 = 192;
/// A merged profile, MiB.
const PROFILE: u32 = (MAX_MERGED_BYTES >> 20) as u32;
/// Largest rendered answer, MiB.
const RENDERED: u32 = 48;
/// How long a question waits for its turn.
const PATIENCE: Duration = Duration::from_secs(30);
/// The range when none is given.
pub(super) const DEFAULT_RANGE: Duration = Duration::from_secs(15 * 60);

/// What is asked for.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) source: Source,
    pub(super) selector: Selector,
}

/// Where the data comes from.
#[derive(Debug)]
pub(super) enum Source {
    Windows { kind: ProfileKind, range: TimeRange },
    Capture { id: String },
}

/// A merged profile that is not empty.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) profile: Arc<Profile>,
    pub(super) summary: Summary,
    /// Parts of the range that was asked for without data.
    pub(super) gaps: Vec<TimeRange>,
    /// From here on it is of a window that is still open.
    open_from: Option<SystemTime>,
    /// How finely it is cut; `None` of a capture.
    resolution: Option<Duration>,
    title: String,
}

impl Answer {
    /// What it is about, for renderers.
    pub(super) fn about(&self) -> About {
        About {
            title: self.title.clone(),
            range: self.summary.range,
            covered: self.summary.covered,
            command: None,
        }
    }

    /// What it is worth, for the caller.
    pub(super) fn told(&self) -> proto::ProfileSummary {
        proto::ProfileSummary {
            open_from: self.open_from.map(Into::into),
            resolution: self.resolution.map(convert::length),
            ..convert::summary(&self.summary)
        }
    }

    /// Writes the profile in a format.
    pub(super) fn render(&self, format: Format, view: View) -> Result<Vec<u8>, ApiError> {
        bounded(|out| render::render_view(&self.profile, &self.about(), format, view, out))
    }
}

/// What a renderer writes, if it is not too much.
pub(super) fn bounded(
    write: impl FnOnce(&mut dyn Write) -> Result<(), RenderError>,
) -> Result<Vec<u8>, ApiError> {
    let max_bytes = (RENDERED as usize) << 20;
    let mut out = Bounded { bytes: Vec::new(), max: max_bytes, full: false };
    match write(&mut out) {
        Ok(()) => Ok(out.bytes),
        Err(_) if out.full => Err(ApiError::TooLarge { max_bytes }),
        Err(error) => Err(ApiError::Render(error)),
    }
}

/// What answering takes, MiB.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need(u32);

impl Need {
    pub(super) const PROFILE: Self = Self(PROFILE);
    pub(super) const RENDERED: Self = Self(PROFILE + RENDERED);
    pub(super) const TWO_PROFILES: Self = Self(2 * PROFILE);
    pub(super) const TWO_RENDERED: Self = Self(2 * PROFILE + RENDERED);
}

const _: () = assert!(Need::TWO_RENDERED.0 <= MEMORY, "a difference would wait for ever");

/// The right to hold the memory of an answer.
#[derive(Debug)]
pub(super) struct Turn(OwnedSemaphorePermit);

impl Turn {
    /// Gives back all but what so many bytes take.
    pub(super) fn keep(mut self, bytes: usize) -> Self {
        let surplus = self.0.num_permits().saturating_sub(bytes.div_ceil(1 << 20));
        drop(self.0.split(surplus));
        self
    }
}

/// Does what does not belong on an async thread, such as compiling regular expressions.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(ApiError::Unfinished)?
}

/// Answers questions, as many at a time as memory allows, off the async threads. Its clones share
/// that memory.
#[derive(Clone)]
pub(super) struct Queries {
    store: Arc<Store>,
    captures: Arc<Captures>,
    turns: Arc<Semaphore>,
}

impl Queries {
    pub(super) fn new(store: Arc<Store>, captures: Arc<Captures>) -> Self {
        Self { store, captures, turns: Arc::new(Semaphore::new(MEMORY as usize)) }
    }

    /// Merges what is asked for and hands it to `use_it`, both on a blocking thread.
    pub(super) async fn answer<T: Send + 'static>(
        &self,
        need: Need,
        question: Question,
        use_it: impl FnOnce(Answer) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<(T, Turn), ApiError> {
        self.work(need, move |this| use_it(this.merge(&question)?)).await
    }

    /// Does work that merges, when its turn comes, on a blocking thread. The turn is handed on, for
    /// as long as the answer is held.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        need: Need,
        work: impl FnOnce(&Self) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<(T, Turn), ApiError> {
        let turn = tokio::time::timeout(PATIENCE, Arc::clone(&self.turns).acquire_many_owned(need.0));
        let Ok(Ok(turn)) = turn.await else { return Err(ApiError::Busy { retry_after: PATIENCE }) };
        let this = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            // The turn ends with the work, also when the client has gone before it.
            let turn = Turn(turn);
            work(&this).map(|done| (done, turn))
        });
        done.await.map_err(ApiError::Unfinished)?
    }

    pub(super) fn merge(&self, question: &Question) -> Result<Answer, ApiError> {
        match &question.source {
            Source::Windows { kind, range } => self.merge_windows(*kind, *range, &question.selector),
            Source::Capture { id } => self.merge_capture(id, &question.selector),
        }
    }

    fn merge_windows(
        &self,
        kind: ProfileKind,
        asked: TimeRange,
        selector: &Selector,
    ) -> Result<Answer, ApiError> {
        let queried = self.store.query(kind, selector, asked);
        // Windows mostly count whole, so the answer may reach beyond what was asked for.
        let range = queried.range.map_or(asked, |range| TimeRange {
            from: range.from.min(asked.from),
            to: range.to.max(asked.to),
        });
        if queried.profile.total_shown() == 0 {
            return Err(self.no_data(kind, asked, queried.range.is_some(), selector));
        }
        let summary = Summary::of(&queried.profile, range, queried.covered);
        let title = format!("{kind}, {}", from_to(range));
        let Queried { profile, gaps, open_from, resolution, .. } = queried;
        let profile = Arc::new(profile);
        Ok(Answer { profile, summary, gaps, open_from, resolution: Some(resolution), title })
    }

    /// From when to when windows of a kind are stored.
    pub(super) fn stored(&self, kind: ProfileKind) -> Option<TimeRange> {
        self.store.stored(kind)
    }

    fn no_data(&self, kind: ProfileKind, asked: TimeRange, recorded: bool, selector: &Selector) -> ApiError {
        let mut message = if !recorded {
            format!("no {kind} data between {} and {}", time(asked.from), time(asked.to))
        } else if selector.is_empty() {
            format!("nothing was sampled {kind} between {} and {}", time(asked.from), time(asked.to))
        } else {
            format!("nothing {kind} between {} and {} matches the selector", time(asked.from), time(asked.to))
        };
        message.push_str(&self.stored_text(kind));
        ApiError::NoData { kind: kind.name(), message }
    }

    /// From when to when windows of a kind are stored, in words.
    pub(super) fn stored_text(&self, kind: ProfileKind) -> String {
        match self.store.stored(kind) {
            Some(stored) => format!("; stored: {} to {}", time(stored.from), time(stored.to)),
            None => "; no window of that kind is stored yet".to_owned(),
        }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    fn merge_capture(&self, id: &str, selector: &Selector) -> Result<Answer, ApiError> {
        let Some(result) = self.store.capture(id) else {
            return Err(self.no_result(id));
        };
        let kind = result.summary.kind;
        let (profile, summary) = if selector.is_empty() {
            (Arc::clone(&result.profile), result.summary.clone())
        } else {
            let mut profile = Profile::new(kind);
            profile.merge_selected(&result.profile, selector);
            let summary = Summary::of(&profile, result.range, result.summary.covered);
            (Arc::new(profile), summary)
        };
        if profile.total_shown() == 0 {
            let what = if result.summary.total == 0 { "recorded" } else { "matches the selector" };
            let message = format!("capture {id}: nothing {what}; lost: {}", summary.loss);
            return Err(ApiError::NoData { kind: kind.name(), message });
        }
        let title = format!("{kind}, capture {id}");
        Ok(Answer { profile, summary, gaps: Vec::new(), open_from: None, resolution: None, title })
    }

    fn no_result(&self, id: &str) -> ApiError {
        let id = id.to_owned();
        let Some(capture) = self.captures.get(&id) else {
            return ApiError::NoCapture { field: "selection.capture_id", id };
        };
        match capture.state {
            CaptureState::Done => ApiError::ResultGone { id },
            CaptureState::Failed => ApiError::CaptureFailed { id, reason: capture.reason },
            CaptureState::Pending | CaptureState::Running => {
                ApiError::NotEnded { id, retry_after: capture.time_left() }
            }
        }
    }
}

/// A range as it is asked for: the last `since`, or `from` to `to`.
#[derive(Debug, Default)]
pub(super) struct AskedRange {
    pub(super) since: Option<Duration>,
    pub(super) from: Option<SystemTime>,
    pub(super) to: Option<SystemTime>,
}

impl AskedRange {
    /// The range meant at the time `now`.
    pub(super) fn at(self, now: SystemTime) -> Result<TimeRange, ApiError> {
        let invalid = |field, problem: &str| Err(ApiError::Invalid { field, problem: problem.to_owned() });
        match self {
            Self { since: None, from: None, to: None } => Ok(TimeRange::ending(now, DEFAULT_RANGE)),
            Self { since: Some(Duration::ZERO), .. } => {
                invalid("selection.range.since", "must be longer than 0")
            }
            Self { since: Some(since), from: None, to: None } => Ok(TimeRange::ending(now, since)),
            Self { since: Some(_), .. } => invalid("selection.range", "give since, or from and to, not both"),
            Self { from: None, .. } => invalid("selection.range.from", "is missing although to is given"),
            Self { from: Some(from), to, .. } => {
                let to = to.unwrap_or(now);
                if from >= to {
                    return invalid("selection.range.from", "must be before to");
                }
                Ok(TimeRange { from, to })
            }
        }
    }
}

/// Reads a selector.
pub(super) fn selector(text: &str) -> Result<Selector, ApiError> {
    Selector::parse(text)
        .map_err(|error| ApiError::Invalid { field: "selection.where", problem: error.to_string() })
}

/// `FROM to TO`, to the millisecond where the range is so short that it matters.
fn from_to(range: TimeRange) -> String {
    const SHORT: Duration = Duration::from_secs(10);
    let exact = |at: SystemTime| match jiff::Timestamp::try_from(at) {
        Ok(exact) if range.length() < SHORT => exact.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string(),
        _ => time(at),
    };
    format!("{} to {}", exact(range.from), exact(range.to))
}

/// UTC, to the second.
pub(super) fn time(at: SystemTime) -> String {
    match jiff::Timestamp::try_from(at) {
        Ok(at) => at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        Err(_) => "a time that no calendar has".to_owned(),
    }
}

/// Memory that takes a bounded number of bytes.
struct Bounded {
    bytes: Vec<u8>,
    max: usize,
    full: bool,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.max - self.bytes.len() {
            self.full = true;
            return Err(io::Error::other("the answer is too large"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreOptions;

    #[tokio::test]
    async fn answers_hold_what_they_take_until_they_are_gone() {
        let store = Arc::new(Store::new(StoreOptions::default()));
        let captures = Captures::new(Arc::new(Nobody), Arc::clone(&store), crate::capture::Limits::default());
        let queries = Queries::new(store, Arc::new(captures));
        let free = || queries.turns.available_permits() as u32;
        let (length, turn) = queries.work(Need::RENDERED, |_| Ok(3 << 20)).await.expect("its turn");
        assert_eq!(free(), MEMORY - PROFILE - RENDERED);
        let turn = turn.keep(length);
        assert_eq!(free(), MEMORY - 3);
        // Another one, over HTTP say, takes from the same.
        let (_, other) = queries.clone().work(Need::TWO_RENDERED, |_| Ok(())).await.expect("its turn");
        assert_eq!(free(), MEMORY - 3 - Need::TWO_RENDERED.0);
        drop((turn, other));
        assert_eq!(free(), MEMORY);
    }

    struct Nobody;

    impl crate::capture::Recorder for Nobody {
        fn resolve(
            &self,
            _kind: ProfileKind,
            _target: &crate::capture::TargetSpec,
        ) -> Result<crate::model::Target, crate::capture::ResolveError> {
            Ok(crate::model::Target::Host)
        }

        fn start(
            &self,
            _session: u64,
            _kind: ProfileKind,
            _target: crate::model::Target,
            _detail: crate::model::Detail,
        ) -> crate::capture::BoxFuture<'_, Result<crate::capture::Recording, crate::capture::RecorderError>>
        {
            Box::pin(async { Err(crate::capture::RecorderError("nobody records".to_owned())) })
        }

        fn cpu_time(&self) -> std::time::Duration {
            std::time::Duration::ZERO
        }

        fn stop(&self, _session: u64) -> crate::capture::BoxFuture<'_, ()> {
            Box::pin(async {})
        }
    }
}
