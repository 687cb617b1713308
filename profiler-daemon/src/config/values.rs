//! Texts to checked values: addresses, durations, sizes, numbers, paths.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use tracing::level_filters::LevelFilter;

/// An address on which gRPC is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A unix socket; absolute path.
    Unix(PathBuf),
    /// TCP without TLS.
    Tcp(SocketAddr),
}

impl Listen {
    /// Longest path of a unix socket: `sun_path` without its NUL (unix(7)).
    const MAX_PATH: usize = 107;

    pub(super) fn check(&self) -> Result<(), String> {
        match self {
            Self::Unix(path) if !path.is_absolute() || path.file_name().is_none() => {
                Err(format!("unix://{} is not an absolute path; write unix:///run/...", path.display()))
            }
            Self::Unix(path) if path.as_os_str().len() > Self::MAX_PATH => {
                let length = path.as_os_str().len();
                Err(format!("the socket's path has {length} bytes; at most {} are possible", Self::MAX_PATH))
            }
            _ => Ok(()),
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let listen = match text.strip_prefix("unix:") {
            Some(path) => Self::Unix(PathBuf::from(path.strip_prefix("//").unwrap_or(path))),
            None => Self::Tcp(socket_address(text)?),
        };
        listen.check()?;
        Ok(listen)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "{address}"),
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("{text:?} is not a log format; use text or json")),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// What makes an on-CPU sample due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuEvent {
    /// Reference cycles of the CPU where it counts them, else the kernel's clock.
    Auto,
    /// The kernel's clock.
    CpuClock,
}

impl FromStr for CpuEvent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu-clock" => Ok(Self::CpuClock),
            _ => Err(format!("{text:?} is not an event; use auto or cpu-clock")),
        }
    }
}

impl fmt::Display for CpuEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::CpuClock => "cpu-clock",
        })
    }
}

/// The text of a key that is not a list.
pub(super) fn one(texts: &[String]) -> &str {
    texts.first().map_or("", String::as_str)
}

/// An IP address, or localhost, with a port. Other names are not looked up: they could change.
pub(super) fn socket_address(text: &str) -> Result<SocketAddr, String> {
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    numeric.parse().map_err(|_| {
        format!("{text:?} is not an address; write IP:PORT (such as 127.0.0.1:9190), localhost:PORT or unix:///PATH")
    })
}

pub(super) fn duration(text: &str, range: RangeInclusive<Duration>) -> Result<Duration, String> {
    let value = humantime::parse_duration(text)
        .map_err(|error| format!("{text:?} is not a duration such as 10s, 15m or 1h: {error}"))?;
    if range.contains(&value) {
        Ok(value)
    } else {
        let show = |value: &Duration| humantime::format_duration(*value).to_string();
        Err(format!("{text} is not between {} and {}", show(range.start()), show(range.end())))
    }
}

pub(super) fn bytes(text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    let value: ByteSize =
        text.parse().map_err(|_| format!("{text:?} is not a size such as 256MiB or 2GiB"))?;
    if range.contains(&value.as_u64()) {
        Ok(value.as_u64())
    } else {
        Err(format!(
            "{text} is not between {} and {}",
            format_bytes(*range.start()),
            format_bytes(*range.end())
        ))
    }
}

/// Exact, in the largest unit that leaves no fraction: `256MiB`.
pub(super) fn format_bytes(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    units
        .iter()
        .find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift)
        .map_or_else(|| format!("{bytes}B"), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

/// An address of a web server.
pub(super) fn http_url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let plain = |text: &str| text.chars().all(|char| char.is_ascii_graphic() && !"?#\"\\".contains(char));
    match rest {
        Some(rest) if !rest.is_empty() && !rest.starts_with('/') && plain(rest) => Ok(text.to_owned()),
        _ => Err(format!("{text:?} is not a server's address; write https://HOST/PATH or http://HOST:PORT")),
    }
}

pub(super) fn number(text: &str, range: RangeInclusive<u32>) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|value| range.contains(value))
        .ok_or_else(|| format!("{text} is not a whole number between {} and {}", range.start(), range.end()))
}

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| format!("{text:?} is neither true nor false"))
}

pub(super) fn level(text: &str) -> Result<LevelFilter, String> {
    // LevelFilter would also take numbers and the empty string.
    let known = ["off", "error", "warn", "info", "debug", "trace"];
    let level = known.contains(&text).then(|| text.parse().ok()).flatten();
    level.ok_or_else(|| format!("{text:?} is not a level; use {}", known.join(", ")))
}

pub(super) fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    if path.is_absolute() && !text.contains('\0') {
        Ok(path.to_owned())
    } else {
        Err(format!("{text:?} is not an absolute path"))
    }
}
