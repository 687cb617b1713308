//! Parsers of single values, used while the command line is parsed.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::render::{DiffFormat, Format, HeatmapFormat};

use super::output::OutputFile;

/// Highest sampling frequency, Hz. The kernel's own limit (`kernel.perf_event_max_sample_rate`)
/// may be lower.
const MAX_FREQUENCY: u32 = 100_000;

/// Highest process id the kernel can give (`PID_MAX_LIMIT`, include/linux/threads.h).
const MAX_PID: u32 = 1 << 22;

const DAY: Duration = Duration::from_secs(86_400);

/// Where a daemon is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A unix socket.
    Unix(PathBuf),
    /// `http://HOST:PORT`.
    Http(String),
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
            return if path.is_absolute() {
                Ok(Self::Unix(path))
            } else {
                Err("the socket's path must be absolute: unix:///run/profiler/profiler.sock".to_owned())
            };
        }
        if text.starts_with("https://") {
            return Err("TLS is not supported; use a unix socket, or http:// through a tunnel".to_owned());
        }
        let Some(address) = text.strip_prefix("http://") else {
            return Err("expected unix:///PATH or http://HOST:PORT".to_owned());
        };
        let address = address.strip_suffix('/').unwrap_or(address);
        let port = address.rsplit_once(':').and_then(|(host, port)| {
            let host_is_one = !host.is_empty() && !host.contains(['/', '@', ' ']);
            port.parse::<u16>().ok().filter(|port| host_is_one && *port > 0)
        });
        match port {
            Some(_) => Ok(Self::Http(format!("http://{address}"))),
            None => Err("expected http://HOST:PORT with a port from 1 to 65535".to_owned()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Http(url) => f.write_str(url),
        }
    }
}

/// How long `record` runs: 100 ms to a day.
pub(super) fn record_duration(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_millis(100)..=DAY)
}

/// How long a capture runs: 1 s to 10 min.
pub(super) fn capture_duration(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_secs(1)..=Duration::from_secs(600))
}

/// Shortest interval that is recorded: 0 to an hour.
pub(super) fn min_block(text: &str) -> Result<Duration, String> {
    duration(text, Duration::ZERO..=Duration::from_secs(3600))
}

/// How far back a range reaches: 1 s to ten years.
pub(super) fn since(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_secs(1)..=DAY * 3650)
}

fn duration(text: &str, range: RangeInclusive<Duration>) -> Result<Duration, String> {
    let value = humantime::parse_duration(text)
        .map_err(|error| format!("not a duration such as 10s, 500ms or 15m: {error}"))?;
    if range.contains(&value) {
        return Ok(value);
    }
    let show = |value: &Duration| humantime::format_duration(*value).to_string();
    Err(format!("must be between {} and {}", show(range.start()), show(range.end())))
}

/// A sampling frequency, Hz.
pub(super) fn frequency(text: &str) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|value| (1..=MAX_FREQUENCY).contains(value))
        .ok_or_else(|| format!("must be a whole number of Hz between 1 and the limit of {MAX_FREQUENCY}"))
}

/// A size of at least one byte: `65536`, `64KiB`, `16MiB`.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let size: Option<bytesize::ByteSize> = text.parse().ok();
    size.map(|size| size.as_u64())
        .filter(|&size| size > 0)
        .ok_or_else(|| "must be a size such as 16MiB".to_owned())
}

/// A process id.
pub(super) fn pid(text: &str) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|value| (1..=MAX_PID).contains(value))
        .ok_or_else(|| format!("must be a process id between 1 and {MAX_PID}"))
}

/// A path that says its format by its extension.
pub(super) fn output_file(text: &str) -> Result<OutputFile, String> {
    let path = PathBuf::from(text);
    if path.file_name().is_none() {
        return Err("must name a file".to_owned());
    }
    let format = Format::from_path(&path).map_err(|error| error.to_string())?;
    Ok(OutputFile { path, format })
}

/// A part of a whole in percent: `5%` or `5` is 0.05.
pub(super) fn percent(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.strip_suffix('%').unwrap_or(text).trim().parse().ok();
    let number = number.filter(|number| (0.0..=100_000.0).contains(number));
    number.map(|number| number / 100.0).ok_or_else(|| "expected a percentage such as 5%".to_owned())
}

/// A path that says the format of a heat map by its extension.
pub(super) fn heatmap_file(text: &str) -> Result<(PathBuf, HeatmapFormat), String> {
    let path = PathBuf::from(text);
    let format = HeatmapFormat::from_path(&path)?;
    Ok((path, format))
}

/// Cells a second, which must be whole milliseconds long.
pub(super) fn heatmap_rows(text: &str) -> Result<u32, String> {
    let rows = text.parse().ok().filter(|rows| (1..=100).contains(rows) && 1000 % rows == 0);
    rows.ok_or_else(|| "must be a divisor of 1000 from 1 to 100, such as 10, 20, 50 or 100".to_owned())
}

/// A path that says the format of a difference by its extension.
pub(super) fn diff_file(text: &str) -> Result<(PathBuf, DiffFormat), String> {
    let path = PathBuf::from(text);
    let format = DiffFormat::from_path(&path)?;
    Ok((path, format))
}

/// A regular expression, checked here for a good message; the daemon gets the text.
pub(super) fn regex(text: &str) -> Result<String, String> {
    regex::Regex::new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// A selector, checked here for a good message; the daemon gets the text.
pub(super) fn selector(text: &str) -> Result<String, String> {
    crate::model::Selector::parse(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// A capture's id: one word of letters, digits, `-` and `_`.
pub(super) fn capture_id(text: &str) -> Result<String, String> {
    let fits = (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if fits { Ok(text.to_owned()) } else { Err("not a capture id; see `profiler capture list`".to_owned()) }
}
