//! A pressure rule: whose pressure, on what, and from how much on a capture is started.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Windows that the kernel watches (kernel/sched/psi.c: `WINDOW_MIN_US`, `WINDOW_MAX_US`).
const WINDOWS: std::ops::RangeInclusive<Duration> = Duration::from_millis(500)..=Duration::from_secs(10);

/// `host cpu some 200ms/2s`: stalled for 200 ms within any 2 s.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PressureRule {
    /// Whose pressure.
    pub scope: PressureScope,
    /// Pressure on what.
    pub resource: PressureResource,
    /// Time in which all tasks were stalled; otherwise, in which some were.
    pub full: bool,
    /// How much stalled time within a window; above 0, at most the window.
    pub threshold: Duration,
    /// The window, 500 ms to 10 s.
    pub window: Duration,
}

/// Whose pressure is meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PressureScope {
    /// The whole host.
    Host,
    /// A cgroup: its path below the cgroup v2 mount, without a leading slash.
    Cgroup(String),
}

/// What there can be pressure on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PressureResource {
    /// Runnable tasks wait for a CPU.
    Cpu,
    /// Tasks wait for I/O.
    Io,
    /// Tasks wait for memory: reclaim, refaults, swap-in.
    Memory,
}

impl PressureResource {
    /// The name, as the kernel's files have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Io => "io",
            Self::Memory => "memory",
        }
    }
}

impl PressureRule {
    /// `some` or `full`, as the kernel says.
    #[must_use]
    pub fn extent(&self) -> &'static str {
        if self.full { "full" } else { "some" }
    }
}

impl FromStr for PressureRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |problem: &str| {
            format!(
                "pressure rule {text:?}: {problem}; write SCOPE RESOURCE EXTENT STALL/WINDOW, \
                 such as \"host cpu some 200ms/2s\" or \"system.slice/db.service memory full 100ms/1s\""
            )
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        let &[scope, resource, extent, times] = words.as_slice() else {
            return Err(wrong(&format!("has {} words instead of 4", words.len())));
        };
        let scope = match scope.trim_matches('/') {
            "host" => PressureScope::Host,
            "" => return Err(wrong("the root cgroup is the host: write host")),
            path if path.split('/').any(|part| matches!(part, "" | "." | "..")) => {
                return Err(wrong(&format!("{path:?} is not the path of a cgroup")));
            }
            path => PressureScope::Cgroup(path.to_owned()),
        };
        let resource = match resource {
            "cpu" => PressureResource::Cpu,
            "io" => PressureResource::Io,
            "memory" => PressureResource::Memory,
            other => return Err(wrong(&format!("{other:?} is not a resource: use cpu, io or memory"))),
        };
        let full = match extent {
            "some" => false,
            "full" => true,
            other => return Err(wrong(&format!("{other:?} is no extent: use some or full"))),
        };
        if full && resource == PressureResource::Cpu && scope == PressureScope::Host {
            return Err(wrong("a host never stalls on the CPU in full, the kernel always says 0: use some"));
        }
        let (threshold, window) =
            times.split_once('/').ok_or_else(|| wrong(&format!("{times:?} is not STALL/WINDOW")))?;
        let time = |text: &str| {
            humantime::parse_duration(text)
                .map_err(|error| wrong(&format!("{text:?} is not a duration: {error}")))
        };
        let (threshold, window) = (time(threshold)?, time(window)?);
        if !WINDOWS.contains(&window) {
            return Err(wrong("the window must be between 500ms and 10s"));
        }
        if threshold < Duration::from_micros(1) || threshold > window {
            return Err(wrong("the stall must be above 0 and not longer than the window"));
        }
        Ok(Self { scope, resource, full, threshold, window })
    }
}

impl fmt::Display for PressureScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Cgroup(path) => f.write_str(path),
        }
    }
}

impl fmt::Display for PressureRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One word each, so that it can be read again.
        let time = |time| humantime::format_duration(time).to_string().replace(' ', "");
        write!(f, "{} {} {} ", self.scope, self.resource.name(), self.extent())?;
        write!(f, "{}/{}", time(self.threshold), time(self.window))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_read() {
        for text in [
            "host cpu some 200ms/2s",
            "host io full 1s/1s500ms",
            "system.slice/x.service memory full 100ms/1s",
        ] {
            assert_eq!(text.parse::<PressureRule>().map(|rule| rule.to_string()).as_deref(), Ok(text));
        }
        let rule: PressureRule = " /a/b/  cpu full 1ms/10s ".parse().expect("valid");
        assert_eq!(rule.scope, PressureScope::Cgroup("a/b".to_owned()));
        assert_eq!((rule.resource, rule.extent()), (PressureResource::Cpu, "full"));
    }

    #[test]
    fn errors_name_the_rule_and_the_word() {
        for (text, part) in [
            ("host cpu some", "3 words instead of 4"),
            ("host disk some 1s/2s", "\"disk\" is not a resource"),
            ("host cpu any 1s/2s", "\"any\" is no extent"),
            ("host cpu full 1s/2s", "use some"),
            ("/ cpu some 1s/2s", "the root cgroup is the host"),
            ("../x cpu some 1s/2s", "not the path of a cgroup"),
            ("host cpu some 200ms", "is not STALL/WINDOW"),
            ("host cpu some 200/2s", "\"200\" is not a duration"),
            ("host cpu some 0s/2s", "above 0"),
            ("host cpu some 3s/2s", "not longer than the window"),
            ("host cpu some 1ms/100ms", "between 500ms and 10s"),
            ("host cpu some 1s/11s", "between 500ms and 10s"),
        ] {
            let error = text.parse::<PressureRule>().expect_err(text);
            assert!(error.contains(part) && error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
