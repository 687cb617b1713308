//! Protobuf times to and from ours, and to text.

use std::time::{Duration, SystemTime};

use jiff::tz::TimeZone;
use jiff::{Timestamp, Unit};

/// A protobuf time; `None` where it is missing or out of range.
pub(super) fn system_time(time: Option<prost_types::Timestamp>) -> Option<SystemTime> {
    time.and_then(|time| SystemTime::try_from(time).ok())
}

/// A protobuf duration; zero where it is missing, negative or out of range.
pub(super) fn duration(duration: Option<prost_types::Duration>) -> Duration {
    duration.and_then(|duration| Duration::try_from(duration).ok()).unwrap_or_default()
}

/// Our durations are far below the limit of protobuf's.
pub(super) fn to_proto(duration: Duration) -> Option<prost_types::Duration> {
    duration.try_into().ok()
}

/// Local time to the millisecond: `2026-01-31 14:05:00.250`.
pub(super) fn local_exact(time: SystemTime) -> String {
    match Timestamp::try_from(time) {
        Ok(time) => time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S.%3f").to_string(),
        Err(_) => "?".to_owned(),
    }
}

/// Local time to the second: `2026-01-31 14:05:00`.
pub(super) fn local(time: SystemTime) -> String {
    match Timestamp::try_from(time) {
        Ok(time) => time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => "?".to_owned(),
    }
}

/// RFC 3339 in UTC, for JSON.
pub(super) fn rfc3339(time: SystemTime) -> Option<String> {
    let time = Timestamp::try_from(time).ok()?.round(Unit::Millisecond).ok()?;
    Some(time.to_string())
}

/// A duration for people: whole seconds from a second up, three digits below.
pub(super) fn short(duration: Duration) -> String {
    let rounded = match duration {
        d if d >= Duration::from_secs(1) => Duration::from_secs(d.as_secs()),
        d if d >= Duration::from_millis(1) => {
            Duration::from_millis(d.as_secs() * 1000 + u64::from(d.subsec_millis()))
        }
        d => d,
    };
    humantime::format_duration(rounded).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        assert_eq!(short(Duration::from_millis(90_500)), "1m 30s");
        assert_eq!(short(Duration::from_micros(1_500)), "1ms");
        assert_eq!(short(Duration::ZERO), "0s");
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1500);
        assert_eq!(rfc3339(time).as_deref(), Some("1970-01-01T00:00:01.5Z"));
    }

    #[test]
    fn hostile_values_are_shown_as_nothing() {
        let far = prost_types::Timestamp { seconds: i64::MAX, nanos: i32::MAX };
        let far = system_time(Some(far)).expect("std can hold it");
        assert_eq!((local(far).as_str(), rfc3339(far)), ("?", None));
        assert_eq!(duration(Some(prost_types::Duration { seconds: -5, nanos: 0 })), Duration::ZERO);
        assert_eq!(to_proto(Duration::from_secs(30)).map(|d| d.seconds), Some(30));
    }
}
