//! Why a command did not do what it was asked, and with which code it exits.

use std::fmt;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::cli::{Endpoint, Exit, WriteError};

use super::output::clean;

/// Why a command did not do what it was asked: a message, perhaps a way out, an exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The code to exit with.
    pub exit: Exit,
    /// What went wrong: one line.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without a way out to name.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What the daemon answered instead of a result.
    pub(super) fn from_status(status: &Status, daemon: &Endpoint) -> Self {
        let message = clean(status.message());
        match status.code() {
            Code::Unavailable => Self::unreachable(daemon, &message),
            Code::DeadlineExceeded | Code::Cancelled => Self::no_answer(daemon),
            Code::NotFound => Self::new(Exit::NoData, message),
            Code::InvalidArgument | Code::OutOfRange => {
                let details = status.get_error_details();
                let fields = details.bad_request().map_or(&[][..], |bad| &bad.field_violations);
                let fields: Vec<String> = fields
                    .iter()
                    .map(|violation| clean(&format!("{}: {}", violation.field, violation.description)))
                    .collect();
                let message = if fields.is_empty() { message } else { fields.join("; ") };
                Self::new(Exit::Usage, message)
            }
            Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::ResourceExhausted
            | Code::AlreadyExists => {
                let details = status.get_error_details();
                let retry = details.retry_info().and_then(|info| info.retry_delay);
                let help = details.help().and_then(|help| help.links.first());
                let hint = match (retry, help) {
                    (Some(delay), _) => Some(format!("try again in {} s", delay.as_secs_f64().ceil())),
                    (None, Some(link)) => Some(clean(&format!("{} {}", link.description, link.url))),
                    (None, None) => None,
                };
                Self { exit: Exit::Refused, message, hint }
            }
            Code::Unimplemented => {
                Self::new(Exit::Failure, format!("the daemon at {daemon} does not know this request"))
                    .hint("its version differs from this client's; see `profiler status`")
            }
            code => Self::new(Exit::Failure, format!("the daemon failed: {message} ({code:?})")),
        }
    }

    /// Nobody listens there.
    pub(super) fn unreachable(daemon: &Endpoint, cause: &str) -> Self {
        Self::new(Exit::Unreachable, format!("cannot reach the daemon at {daemon}: {}", clean(cause))).hint(
            "is the daemon running? start it with `systemctl start profiler` or `profiler daemon`, \
             or name another with --connect",
        )
    }

    /// Somebody listens, but does not answer in time.
    pub(super) fn no_answer(daemon: &Endpoint) -> Self {
        Self::new(Exit::Unreachable, format!("the daemon at {daemon} did not answer in time"))
            .hint("ask for less with --since or --where, and see the daemon's log")
    }

    /// The daemon's answer makes no sense.
    pub(super) fn malformed(what: &str) -> Self {
        Self::new(Exit::Failure, format!("the daemon's answer is malformed: {what}"))
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        Self::new(Exit::Failure, error.to_string())
    }
}

impl fmt::Display for Failure {
    /// The message, and the hint on a line of its own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    fn failure(status: &Status) -> Failure {
        Failure::from_status(status, &"unix:///run/p.sock".parse().expect("an endpoint"))
    }

    #[test]
    fn codes() {
        let exit = |code| failure(&Status::new(code, "m")).exit;
        assert_eq!(exit(Code::Unavailable), Exit::Unreachable);
        assert_eq!(exit(Code::DeadlineExceeded), Exit::Unreachable);
        assert_eq!(exit(Code::NotFound), Exit::NoData);
        assert_eq!(exit(Code::InvalidArgument), Exit::Usage);
        assert_eq!(exit(Code::FailedPrecondition), Exit::Refused);
        assert_eq!(exit(Code::PermissionDenied), Exit::Refused);
        assert_eq!(exit(Code::ResourceExhausted), Exit::Refused);
        assert_eq!(exit(Code::Internal), Exit::Failure);
    }

    #[test]
    fn messages_name_field_and_way_out() {
        let details = ErrorDetails::with_bad_request_violation("target.pids", "no process 7");
        let status = Status::with_error_details(Code::InvalidArgument, "invalid", details);
        assert_eq!(failure(&status).to_string(), "target.pids: no process 7");

        let details = ErrorDetails::with_retry_info(Some(std::time::Duration::from_millis(1500)));
        let status = Status::with_error_details(Code::ResourceExhausted, "4 captures run", details);
        assert_eq!(failure(&status).to_string(), "4 captures run\n  try again in 2 s");

        let gone = failure(&Status::unavailable("no\x1b[31m"));
        assert!(gone.to_string().contains("start it with"), "{gone}");
        assert!(!gone.to_string().contains('\x1b'));
    }
}
