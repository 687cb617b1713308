//! Why a capture was started, and the labels that came with that.

use std::fmt;

/// Most labels of a cause; an alert has a dozen.
const MAX_LABELS: usize = 64;
/// Longest name or value of a label, characters.
const MAX_TEXT: usize = 1024;

/// Why a capture was started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cause {
    /// Somebody asked for it.
    #[default]
    Request,
    /// An alert fired.
    Alert {
        /// The alert's name.
        name: String,
        /// Alertmanager's fingerprint of its labels.
        fingerprint: String,
        /// Its labels, in the order of their names.
        labels: Vec<(String, String)>,
    },
    /// Tasks were stalled for longer than a rule allows.
    Pressure {
        /// What there was pressure on: `cpu`, `io` or `memory`.
        resource: &'static str,
        /// The rule, as configured.
        rule: String,
    },
    /// The capture is from an earlier life of the daemon, which kept what was shown of the cause.
    Stored {
        /// As it was shown.
        text: String,
        /// The labels stamped on the capture.
        labels: Vec<(String, String)>,
    },
}

impl Cause {
    /// An alert with its labels cut to a bounded size.
    #[must_use]
    pub fn alert(fingerprint: &str, labels: impl IntoIterator<Item = (String, String)>) -> Self {
        let cut = |text: &str| text.chars().take(MAX_TEXT).collect::<String>();
        let mut labels: Vec<(String, String)> = labels.into_iter().collect();
        labels.sort();
        let name = labels.iter().find(|(name, _)| name == "alertname").map(|(_, value)| cut(value));
        labels.truncate(MAX_LABELS);
        let labels = labels.iter().map(|(name, value)| (cut(name), cut(value))).collect();
        Self::Alert { name: name.unwrap_or_default(), fingerprint: cut(fingerprint), labels }
    }

    /// Names of the causes that start captures.
    pub(super) const NAMES: [&str; 3] = ["request", "alert", "pressure"];

    /// Which of them it is, for counting.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Request | Self::Stored { .. } => "request",
            Self::Alert { .. } => "alert",
            Self::Pressure { .. } => "pressure",
        }
    }

    /// The labels stamped on the capture.
    #[must_use]
    pub fn labels(&self) -> &[(String, String)] {
        match self {
            Self::Alert { labels, .. } | Self::Stored { labels, .. } => labels,
            Self::Request | Self::Pressure { .. } => &[],
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request => f.write_str("request"),
            Self::Alert { name, fingerprint, .. } => write!(f, "alert {name} ({fingerprint})"),
            Self::Pressure { rule, .. } => write!(f, "pressure: {rule}"),
            Self::Stored { text, .. } => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_bounded_and_the_name_survives() {
        let many = (0..100).map(|n| (format!("a{n:03}"), "x".repeat(5000)));
        let cause = Cause::alert("f", many.chain([("alertname".to_owned(), "Slow".to_owned())]));
        assert_eq!(cause.labels().len(), 64);
        assert!(cause.labels().iter().all(|(_, value)| value.len() == 1024));
        assert_eq!(cause.to_string(), "alert Slow (f)");
    }
}
