//! The daemon's configuration: defaults < file < environment < flags, checked as one.

mod error;
mod file;
mod keys;
mod values;
mod wait_rules;
mod write;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::level_filters::LevelFilter;

pub use error::{ConfigError, Origin, Problem};
pub use values::{Listen, LogFormat};
pub use wait_rules::wait_rules;

use keys::{KEYS, Key};

/// Everything that can be set on the daemon. Each value is inside its range, and the values fit
/// together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where gRPC is served; at least one address.
    pub listen: Vec<Listen>,
    /// Where HTTP (`/metrics`, `/healthz`) is served; `None`: nowhere.
    pub http: Option<std::net::SocketAddr>,
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
    /// How names are found.
    pub symbols: Symbols,
}

/// The on-CPU sampler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnCpu {
    /// Samples a second and CPU, 1 to 100000 Hz.
    pub frequency: u32,
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
}

/// How much is kept; whichever limit is met first counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Age at which a window goes; at least one window's length, at most a year.
    pub age: Duration,
    /// Bytes of all windows, 1 MiB to 1 TiB.
    pub bytes: u64,
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
}

/// How names are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbols {
    /// Directories with separate debug files, searched in order; absolute.
    pub debug_dirs: Vec<PathBuf>,
    /// Whether inlined functions are shown as frames (needs debug information).
    pub inlined: bool,
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
            insecure: false,
            state_dir: PathBuf::from("/var/lib/profiler"),
            run_dir: PathBuf::from("/run/profiler"),
            window: Duration::from_secs(10),
            on_cpu: OnCpu { frequency: 99 },
            off_cpu: OffCpu { enabled: true, period: Duration::from_millis(10), wait_rules: None },
            budget: Budget { off_cpu_samples: 500, millicpus: None },
            retention: Retention { age: Duration::from_secs(3600), bytes: 256 << 20 },
            log: Log { level: LevelFilter::INFO, format: LogFormat::Text },
            capture: Capture { max_duration: Duration::from_secs(600), max_running: 4 },
            symbols: Symbols { debug_dirs: vec![PathBuf::from("/usr/lib/debug")], inlined: true },
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
                    let nearest = keys::nearest(&name, KEYS.iter().map(Key::variable));
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
        for (key, message) in found {
            let origin = self.origins.get(key).cloned().unwrap_or(Origin::Default(key));
            self.problems.push(Problem::new(origin, message));
        }
    }
}
