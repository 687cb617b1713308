//! What goes wrong in the API, and the one place where it becomes a gRPC status.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::bundle::BundleError;
use crate::capture::{CaptureError, ResolveError};
use crate::render::{DiffError, RenderError};

/// What goes wrong in the API.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// A field of the request is wrong.
    #[error("{field}: {problem}")]
    Invalid { field: &'static str, problem: String },
    /// A field of a part of the request is wrong.
    #[error("{part}.{field}: {problem}")]
    InvalidIn { part: &'static str, field: &'static str, problem: String },
    /// Two profiles cannot be compared.
    #[error(transparent)]
    Diff(#[from] DiffError),
    /// No data in the range, or none that matches.
    #[error("{message}")]
    NoData { kind: &'static str, message: String },
    #[error("no capture has the id {id:?}; the ones known are listed by CaptureService.List")]
    NoCapture { field: &'static str, id: String },
    #[error("the result of capture {id} was removed to make room for newer ones")]
    ResultGone { id: String },
    #[error("capture {id} has not ended yet")]
    NotEnded { id: String, retry_after: Duration },
    #[error("capture {id} failed: {reason}")]
    CaptureFailed { id: String, reason: String },
    #[error(transparent)]
    Capture(#[from] CaptureError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error("the answer exceeds {max_bytes} bytes: ask for a shorter range or a narrower selector")]
    TooLarge { max_bytes: usize },
    #[error("{limit} callers watch already")]
    TooManyWatchers { limit: usize },
    #[error("other queries are still being answered")]
    Busy { retry_after: Duration },
    #[error("nothing of the answer was taken for {} s", patience.as_secs())]
    NotTaken { patience: Duration },
    #[error("cannot render the profile: {0}")]
    Render(RenderError),
    #[error("the request was not finished: {0}")]
    Unfinished(tokio::task::JoinError),
}

impl ApiError {
    /// The same error for a message that stands under another name in its request.
    pub(super) fn in_field(self, message: &'static str, name: &'static str) -> Self {
        match self {
            Self::Invalid { field, problem } if field == message => Self::Invalid { field: name, problem },
            Self::Invalid { field, problem } if message != name => {
                let field =
                    field.strip_prefix(message).and_then(|rest| rest.strip_prefix('.')).unwrap_or(field);
                Self::InvalidIn { part: name, field, problem }
            }
            other => other,
        }
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let message = error.to_string();
        let mut details = ErrorDetails::new();
        let code = match error {
            ApiError::Invalid { field, problem } => invalid(&mut details, field, problem),
            ApiError::InvalidIn { part, field, problem } => {
                invalid(&mut details, &format!("{part}.{field}"), problem)
            }
            ApiError::Diff(error) => invalid(&mut details, "with", error.to_string()),
            ApiError::NoData { kind, .. } => missing(&mut details, "profile", kind, &message),
            ApiError::NoCapture { field, id } => {
                details.add_bad_request_violation(field, "no capture has this id");
                missing(&mut details, "capture", &id, &message)
            }
            ApiError::ResultGone { id } => missing(&mut details, "capture result", &id, &message),
            ApiError::NotEnded { id, retry_after } => {
                details.set_retry_info(Some(retry_after));
                precondition(&mut details, "CAPTURE_NOT_ENDED", &id, &message)
            }
            ApiError::CaptureFailed { id, reason } => {
                precondition(&mut details, "CAPTURE_FAILED", &id, &reason)
            }
            ApiError::Capture(error) => capture(&mut details, error, &message),
            ApiError::Bundle(error) => bundle(&mut details, error, &message),
            ApiError::TooLarge { .. } | ApiError::TooManyWatchers { .. } => Code::ResourceExhausted,
            ApiError::Busy { retry_after } => {
                details.set_retry_info(Some(retry_after));
                Code::ResourceExhausted
            }
            ApiError::NotTaken { .. } => Code::DeadlineExceeded,
            ApiError::Render(RenderError::Empty) => missing(&mut details, "profile", "", &message),
            ApiError::Render(RenderError::NoWakers) => missing(&mut details, "wakers", "", &message),
            ApiError::Render(_) | ApiError::Unfinished(_) => {
                tracing::error!("{message}");
                Code::Internal
            }
        };
        Self::with_error_details(code, message, details)
    }
}

fn capture(details: &mut ErrorDetails, error: CaptureError, message: &str) -> Code {
    match error {
        CaptureError::Invalid { field, problem } => invalid(details, field, problem),
        CaptureError::Busy { retry_after, .. } => {
            details.set_retry_info(Some(retry_after));
            Code::ResourceExhausted
        }
        CaptureError::Resolve(ResolveError::NoProcess { pid }) => {
            details.add_bad_request_violation("target.pids", message);
            missing(details, "process", &pid.to_string(), message)
        }
        CaptureError::Resolve(ResolveError::NoCgroup { path }) => {
            details.add_bad_request_violation("target.cgroup", message);
            missing(details, "cgroup", &path, message)
        }
        CaptureError::Resolve(ResolveError::Unavailable { problem, fix }) => {
            // `Help` wants a link; the fix is text, so it goes where text goes.
            precondition(details, "HOST", &problem, &fix)
        }
        CaptureError::ShuttingDown => Code::Unavailable,
    }
}

fn bundle(details: &mut ErrorDetails, error: BundleError, message: &str) -> Code {
    match error {
        BundleError::Unknown { id } => {
            details.add_bad_request_violation("id", message);
            missing(details, "bundle", &id, message)
        }
        BundleError::NotEnded { id, retry_after } => {
            details.set_retry_info(Some(retry_after));
            precondition(details, "CAPTURE_NOT_ENDED", &id, message)
        }
        BundleError::Disk { id, .. } => {
            tracing::error!("{message}");
            precondition(details, "BUNDLE_DIRECTORY", &id, message)
        }
        BundleError::Unfinished { .. } => {
            tracing::error!("{message}");
            Code::Internal
        }
    }
}

fn invalid(details: &mut ErrorDetails, field: &str, problem: String) -> Code {
    details.add_bad_request_violation(field, problem);
    Code::InvalidArgument
}

fn missing(details: &mut ErrorDetails, kind: &str, name: &str, message: &str) -> Code {
    details.set_resource_info(kind, name, "", message);
    Code::NotFound
}

fn precondition(details: &mut ErrorDetails, kind: &str, subject: &str, description: &str) -> Code {
    details.add_precondition_failure_violation(kind, subject, description);
    Code::FailedPrecondition
}
