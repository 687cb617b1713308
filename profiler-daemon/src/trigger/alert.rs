//! Alertmanager's webhook payload, version 4, and what is wrong with one.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Longest fingerprint; Alertmanager's have 16 characters.
const MAX_FINGERPRINT: usize = 128;

/// An alert of a payload.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Alert {
    pub(super) status: AlertStatus,
    pub(super) labels: BTreeMap<String, String>,
    /// RFC 3339; the same for as long as the alert goes on.
    pub(super) starts_at: String,
    /// Hash of the labels.
    pub(super) fingerprint: String,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum AlertStatus {
    Firing,
    Resolved,
}

/// Fields that we do not need are not asked for, and may be of any kind.
#[derive(Debug, Deserialize)]
struct Payload {
    version: String,
    alerts: Vec<Alert>,
}

/// The payload is not what Alertmanager posts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct PayloadError {
    /// Where in the document: `alerts[0].labels.pid`, or `body` for the document itself.
    pub field: String,
    /// What is wrong there.
    pub problem: String,
}

/// Reads a payload: <https://prometheus.io/docs/alerting/latest/configuration/#webhook_config>.
pub(super) fn parse(payload: &[u8]) -> Result<Vec<Alert>, PayloadError> {
    let wrong = |field: &str, problem: String| PayloadError { field: field.to_owned(), problem };
    let mut document = serde_json::Deserializer::from_slice(payload);
    let read: Payload = serde_path_to_error::deserialize(&mut document).map_err(|error| {
        let path = error.path().to_string();
        let problem = error.into_inner().to_string();
        match missing(&problem) {
            Some(field) if path == "." => wrong(field, problem.clone()),
            Some(field) => wrong(&format!("{path}.{field}"), problem.clone()),
            None if path == "." || path == "?" => wrong("body", problem),
            None => wrong(&path, problem),
        }
    })?;
    document.end().map_err(|error| wrong("body", error.to_string()))?;
    // Grafana posts the same document and calls it version 1.
    if !matches!(read.version.as_str(), "4" | "1") {
        let version: String = read.version.chars().take(20).collect();
        return Err(wrong("version", format!("{version:?} is not known; known is \"4\"")));
    }
    for (index, alert) in read.alerts.iter().enumerate() {
        if alert.fingerprint.is_empty() || alert.fingerprint.len() > MAX_FINGERPRINT {
            let problem = format!("has {} characters, not 1 to {MAX_FINGERPRINT}", alert.fingerprint.len());
            return Err(wrong(&format!("alerts[{index}].fingerprint"), problem));
        }
        if let Err(error) = alert.starts_at.parse::<jiff::Timestamp>() {
            return Err(wrong(&format!("alerts[{index}].startsAt"), error.to_string()));
        }
    }
    Ok(read.alerts)
}

/// The field that serde says is missing.
fn missing(problem: &str) -> Option<&str> {
    problem.strip_prefix("missing field `")?.split('`').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(alerts: &str) -> String {
        format!(r#"{{"version":"4","status":"firing","alerts":{alerts}}}"#)
    }

    const ALERT: &str = r#"{"status":"firing","labels":{"pid":"7"},"startsAt":"2026-11-23T22:15:01.1Z","fingerprint":"c0ffee"}"#;

    #[test]
    fn the_documented_payload() {
        let alerts = parse(include_bytes!("../../testdata/alertmanager.json")).expect("valid");
        let shown: Vec<_> = alerts.iter().map(|alert| (alert.status, alert.fingerprint.as_str())).collect();
        assert_eq!(
            shown,
            [(AlertStatus::Firing, "a9a1ef0bd5f0b1cd"), (AlertStatus::Resolved, "3a1c33f0d7a0b0e2")]
        );
        assert_eq!(alerts[0].labels["pid"], "42");
        assert!(parse(payload("[]").as_bytes()).expect("valid").is_empty());
    }

    #[test]
    fn errors_name_the_field() {
        let with = |from: &str, to: &str| payload(&format!("[{ALERT},{}]", ALERT.replace(from, to)));
        for (text, field) in [
            ("nonsense".to_owned(), "body"),
            (String::new(), "body"),
            ("[1]".to_owned(), "[0]"),
            ("{}".to_owned(), "version"),
            (r#"{"version":"4"}"#.to_owned(), "alerts"),
            (r#"{"version":4,"alerts":[]}"#.to_owned(), "version"),
            (r#"{"version":"9","alerts":[]}"#.to_owned(), "version"),
            (payload("{}"), "alerts"),
            (payload("[7]"), "alerts[0]"),
            (payload(&format!("[{ALERT}]")) + "x", "body"),
            (with("\"firing\"", "\"on fire\""), "alerts[1].status"),
            (with("\"7\"", "7"), "alerts[1].labels.pid"),
            (with("c0ffee", ""), "alerts[1].fingerprint"),
            (with("2026-", "long ago "), "alerts[1].startsAt"),
            (with("\"fingerprint\"", "\"finger\""), "alerts[1].fingerprint"),
        ] {
            let error = parse(text.as_bytes()).expect_err(&text);
            assert_eq!(error.field, field, "{text}: {error}");
        }
    }
}
