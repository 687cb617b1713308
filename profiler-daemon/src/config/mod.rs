//! The daemon's configuration: defaults < file < environment < flags, checked as one.

mod error;
mod file;
mod key;
mod keys;
mod pressure;
mod values;
mod wait_rules;
mod webhook;
mod write;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::level_filters::LevelFilter;

pub use error::{ConfigError, Origin, Problem};
pub use pressure::{PressureResource, PressureRule, PressureScope};
pub use values::{CpuEvent, Listen, LogFormat};
pub use wait_rules::wait_rules;
pub use webhook::{LabelKind, LabelTarget, Secret};

use key::Key;
use keys::KEYS;

/// Everything that can be set on the daemon. Each value is inside its range, and the values fit
/// together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where gRPC is served; at least one address.
    pub listen: Vec<Listen>,
    /// Where HTTP (`/metrics`, `/healthz`) is served; `None`: nowhere.
    pub http: Option<std::net::SocketAddr>,
    /// A file with the token that callers of `/flamegraph` must show; absolute. `None`: no flame
    /// graphs over HTTP.
    pub http_token_file: Option<PathBuf>,
    /// Whether TCP addresses that other machines reach are allowed without TLS.
    pub insecure: bool,
    /// Where state is kept across restarts; absolute.
    pub state_dir: PathBuf,
    /// Where the lock and the default socket are; absolute.
    pub run_dir: PathBuf,
    /// Length of a window, 1 s to 10 min.
    pub window: Duration,
    /// The on-CPU sampler.
    pub on_cpu: OnCpu,
    /// The off-CPU clocks.
    pub off_cpu: OffCpu,
    /// What recording may cost.
    pub budget: Budget,
    /// How much is kept.
    pub retention: Retention,
    /// What is logged.
    pub log: Log,
    /// Limits of captures.
    pub capture: Capture,
    /// What starts captures by itself.
    pub trigger: Trigger,
    /// What a bundle holds, and how many are kept.
    pub bundle: Bundle,
    /// Alerts that start captures.
    pub webhook: Webhook,
    /// Pressure that starts captures.
    pub pressure: Pressure,
    /// How names are found.
    pub symbols: Symbols,
    /// Tables for unwinding stacks.
    pub unwind: Unwind,
}

/// The on-CPU sampler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnCpu {
    /// Samples a second and CPU, 1 to 100000 Hz.
    pub frequency: u32,
    /// What makes a sample due.
    pub event: CpuEvent,
}

/// The off-CPU clocks, which every thread of the host has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffCpu {
    /// Whether off-CPU time is recorded all the time.
    pub enabled: bool,
    /// Off-CPU time of a thread between two samples, 100 us to 1 min, or zero: every interval. The
    /// budget may make it longer.
    pub period: Duration,
    /// Rules that tell what threads wait for, beside the built-in ones; absolute.
    pub wait_rules: Option<PathBuf>,
}

/// What recording may cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Off-CPU samples a second, 1 to 1 000 000.
    pub off_cpu_samples: u32,
    /// CPU time of the daemon in thousandths of one CPU, 1 to 1 000 000; `None`: 10 for every 8
    /// CPUs.
    pub millicpus: Option<u32>,
    /// Bytes a second that windows may take in the store, 1 KiB to 1 GiB.
    pub store_bytes: u64,
}

/// How much is kept; whichever limit is met first counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Age at which a window goes; at least one window's length, at most a year.
    pub age: Duration,
    /// Bytes of all windows on disk, 1 MiB to 1 TiB.
    pub bytes: u64,
    /// Whether nothing is kept across restarts.
    pub in_memory: bool,
}

/// What is logged to stderr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Least severity that is logged.
    pub level: LevelFilter,
    /// Text for people, or one JSON object a line.
    pub format: LogFormat,
}

/// Limits of captures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// Longest capture anybody can start, 1 s to 10 min.
    pub max_duration: Duration,
    /// Most captures at a time, 1 to 64.
    pub max_running: u32,
    /// Waits a second above which a capture is ended, 1 to 10 000 000.
    pub max_events: u32,
    /// Memory above which a capture is ended, bytes, 64 KiB to 1 GiB.
    pub max_bytes: u64,
    /// CPU time of the daemon above which a capture is ended, thousandths of a CPU, 1 to 1 000 000.
    pub max_millicpus: u32,
}

/// What alerts and pressure may start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// Length of a capture that was triggered, 1 s to 10 min.
    pub duration: Duration,
    /// For how long after a start the same alert or target starts nothing, 0 to a day.
    pub cooldown: Duration,
    /// Most captures that triggers start within any hour, 1 to 1000.
    pub max_per_hour: u32,
    /// Whether captures of processes and cgroups record who ended the waits.
    pub wakers: bool,
}

/// What a bundle holds, and how many are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// How much of the time before a capture it holds, 0 to a day.
    pub before: Duration,
    /// Most bundles on disk, 1 to 10000.
    pub max_count: u32,
    /// Bytes of all bundles on disk, 1 MiB to 1 TiB.
    pub max_bytes: u64,
}

/// Alerts that start captures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// What callers must show; without one, and without a file, there is no webhook.
    pub token: Option<Secret>,
    /// A file that holds the token; absolute.
    pub token_file: Option<PathBuf>,
    /// Which labels name a target, tried in this order.
    pub targets: Vec<LabelTarget>,
    /// Whether an alert without any of these labels means the whole host.
    pub host_without_target: bool,
}

/// Pressure that starts captures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pressure {
    /// The rules; none: nothing is watched.
    pub rules: Vec<PressureRule>,
}

/// How names are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbols {
    /// Directories with separate debug files, searched in order; absolute.
    pub debug_dirs: Vec<PathBuf>,
    /// Whether inlined functions are shown as frames (needs debug information).
    pub inlined: bool,
    /// debuginfod servers, asked in order; empty: nobody is asked.
    pub debuginfod_urls: Vec<String>,
    /// Bytes of all files kept from them, 16 MiB to 1 TiB.
    pub debuginfod_cache_bytes: u64,
}

/// Tables for unwinding stacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unwind {
    /// Memory of the tables in the kernel, taken at once, 1 MiB to 1 GiB.
    pub table_bytes: u64,
    /// Disk space of tables kept across restarts, in [`Config::state_dir`]; 0 keeps none.
    pub cache_bytes: u64,
}

/// A checked configuration, and what is odd about where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Things that are probably mistakes, one line each: unknown `PROFILER_` variables.
    pub warnings: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![Listen::Unix(PathBuf::from("/run/profiler/profiler.sock"))],
            http: None,
            http_token_file: None,
            insecure: false,
            state_dir: PathBuf::from("/var/lib/profiler"),
            run_dir: PathBuf::from("/run/profiler"),
            window: Duration::from_secs(10),
            on_cpu: OnCpu { frequency: 99, event: CpuEvent::Auto },
            off_cpu: OffCpu { enabled: true, period: Duration::from_millis(10), wait_rules: None },
            budget: Budget { off_cpu_samples: 500, millicpus: None, store_bytes: 64 << 10 },
            retention: Retention { age: Duration::from_secs(86_400), bytes: 1 << 30, in_memory: false },
            log: Log { level: LevelFilter::INFO, format: LogFormat::Text },
            capture: Capture {
                max_duration: Duration::from_secs(600),
                max_running: 4,
                max_events: 50_000,
                max_bytes: 64 << 20,
                max_millicpus: 1000,
            },
            trigger: Trigger {
                duration: Duration::from_secs(30),
                cooldown: Duration::from_secs(15 * 60),
                max_per_hour: 12,
                wakers: true,
            },
            bundle: Bundle { before: Duration::from_secs(5 * 60), max_count: 20, max_bytes: 256 << 20 },
            webhook: Webhook {
                token: None,
                token_file: None,
                targets: [
                    ("pid", LabelKind::Pid),
                    ("cgroup", LabelKind::Cgroup),
                    ("container_id", LabelKind::Container),
                    ("pod_uid", LabelKind::Pod),
                    ("container", LabelKind::Container),
                    ("pod", LabelKind::Pod),
                    ("comm", LabelKind::Comm),
                ]
                .map(|(label, kind)| LabelTarget { label: label.to_owned(), kind })
                .to_vec(),
                host_without_target: false,
            },
            pressure: Pressure { rules: Vec::new() },
            symbols: Symbols {
                debug_dirs: vec![PathBuf::from("/usr/lib/debug")],
                inlined: true,
                debuginfod_urls: Vec::new(),
                debuginfod_cache_bytes: 1 << 30,
            },
            unwind: Unwind { table_bytes: 32 << 20, cache_bytes: 256 << 20 },
        }
    }
}

impl Config {
    /// Reads all layers and checks the result.
    ///
    /// `environment` is what [`std::env::vars_os`] gives; only `PROFILER_` names are looked at.
    /// `flags` are pairs of a key's name (`on_cpu.frequency`) and its text; lists are separated
    /// by commas.
    ///
    /// # Errors
    /// All problems of all layers at once, each with the file and line, the variable or the flag.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: &[(&str, String)],
    ) -> Result<Loaded, ConfigError> {
        let mut layers = Layers::default();
        if let Some(path) = file {
            match file::read(path) {
                Ok(text) => layers.file(path, &text),
                Err(problem) => layers.problems.push(problem),
            }
        }
        layers.environment(environment);
        layers.flags(flags);
        layers.finish()
    }

    /// The effective configuration as TOML that [`Config::load`] accepts.
    #[must_use]
    pub fn to_toml(&self) -> String {
        write::toml(self, write::Comments::No)
    }

    /// The defaults as a file with a comment for each key.
    #[must_use]
    pub fn default_file() -> String {
        write::toml(&Self::default(), write::Comments::Yes)
    }

    /// Names of all keys, sections with a dot: `on_cpu.frequency`.
    pub fn keys() -> impl Iterator<Item = &'static str> {
        KEYS.iter().map(|key| key.name)
    }
}

/// What the layers said so far: the last origin of each key, and all problems.
#[derive(Default)]
struct Layers {
    config: Config,
    origins: BTreeMap<&'static str, Origin>,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Layers {
    fn file(&mut self, path: &Path, text: &str) {
        for setting in file::settings(path, text) {
            match setting {
                Ok((key, line, values)) => {
                    let origin = Origin::File { path: path.to_owned(), line };
                    self.set(key, origin, &values);
                }
                Err(problem) => self.problems.push(problem),
            }
        }
    }

    fn environment(&mut self, environment: impl IntoIterator<Item = (OsString, OsString)>) {
        let mut variables: Vec<(String, OsString)> = environment
            .into_iter()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| name.starts_with("PROFILER_"))
            .collect();
        variables.sort();
        for (name, value) in variables {
            let Some(key) = KEYS.iter().find(|key| key.variable() == name) else {
                if !matches!(name.as_str(), "PROFILER_CONFIG" | "PROFILER_CONNECT") {
                    let nearest = key::nearest(&name, KEYS.iter().map(Key::variable));
                    self.warnings.push(match nearest {
                        Some(known) => {
                            format!("{name} is not a known variable and has no effect; did you mean {known}?")
                        }
                        None => format!("{name} is not a known variable and has no effect"),
                    });
                }
                continue;
            };
            let origin = Origin::Environment(name);
            match value.into_string() {
                Ok(text) => self.set(key, origin, &key.shape.split(&text)),
                Err(_) => self.problems.push(Problem::new(origin, "is not valid UTF-8")),
            }
        }
    }

    fn flags(&mut self, flags: &[(&str, String)]) {
        for (name, text) in flags {
            match KEYS.iter().find(|key| key.name == *name) {
                Some(key) => self.set(key, Origin::Flag(key.flag()), &key.shape.split(text)),
                None => {
                    let problem = Problem::new(Origin::Flag(format!("--{name}")), "is not a known setting");
                    self.problems.push(problem);
                }
            }
        }
    }

    fn set(&mut self, key: &'static Key, origin: Origin, values: &[String]) {
        match (key.set)(&mut self.config, values) {
            Ok(()) => {
                self.origins.insert(key.name, origin);
            }
            Err(message) => self.problems.push(Problem::new(origin, message)),
        }
    }

    fn finish(mut self) -> Result<Loaded, ConfigError> {
        if !self.origins.contains_key("listen") {
            self.config.listen = vec![Listen::Unix(self.config.run_dir.join("profiler.sock"))];
        }
        self.check_together();
        match ConfigError::of(self.problems) {
            Some(error) => Err(error),
            None => Ok(Loaded { config: self.config, warnings: self.warnings }),
        }
    }

    /// What no key can check alone.
    fn check_together(&mut self) {
        let config = &self.config;
        let mut found = Vec::new();
        for address in &config.listen {
            if let Err(message) = address.check() {
                found.push(("listen", message));
            }
        }
        if !config.insecure {
            let exposed = |what: &str, address: &std::net::SocketAddr| {
                format!(
                    "{address} would serve {what} unencrypted and without authorisation to other machines; \
                     use a loopback address or a unix socket, or set insecure = true if the network is trusted"
                )
            };
            for address in &config.listen {
                if let Listen::Tcp(address) = address
                    && !address.ip().is_loopback()
                {
                    found.push(("listen", exposed("profiles", address)));
                }
            }
            if let Some(address) = &config.http
                && !address.ip().is_loopback()
            {
                found.push(("http", exposed("metrics", address)));
            }
        }
        if config.retention.age < config.window {
            let message = format!(
                "{} is shorter than one window of {}; nothing would be kept",
                humantime::format_duration(config.retention.age),
                humantime::format_duration(config.window)
            );
            found.push(("retention.age", message));
        }
        if config.trigger.duration > config.capture.max_duration {
            let message = format!(
                "{} is longer than capture.max_duration ({})",
                humantime::format_duration(config.trigger.duration),
                humantime::format_duration(config.capture.max_duration)
            );
            found.push(("trigger.duration", message));
        }
        let webhook = &config.webhook;
        if webhook.token.is_some() && webhook.token_file.is_some() {
            found.push(("webhook.token_file", "give a token or a file that holds it, not both".to_owned()));
        }
        if config.http.is_none() && (webhook.token.is_some() || webhook.token_file.is_some()) {
            let key = if webhook.token.is_some() { "webhook.token" } else { "webhook.token_file" };
            found.push((key, "the webhook is served over HTTP, which is off: set http".to_owned()));
        }
        if config.http.is_none() && config.http_token_file.is_some() {
            let problem = "flame graphs are served over HTTP, which is off: set http".to_owned();
            found.push(("http_token_file", problem));
        }
        for (key, message) in found {
            let origin = self.origins.get(key).cloned().unwrap_or(Origin::Default(key));
            self.problems.push(Problem::new(origin, message));
        }
    }
}
