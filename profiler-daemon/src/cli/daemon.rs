//! `profiler daemon`: the agent. Its flags are texts; `config` checks them with all other layers.

use std::path::PathBuf;

use super::exit::exit_codes;

const AFTER_HELP: &str = concat!(
    "\
Each option is also a key of the configuration file and an environment variable: PROFILER_ and its
name in capitals (PROFILER_ON_CPU_FREQUENCY). Flags override variables, which override the file.

Examples:
  profiler daemon
  profiler daemon --config /etc/profiler/profiler.toml --log-format json
  profiler daemon --listen 127.0.0.1:9191 --http 127.0.0.1:9190

",
    exit_codes!()
);

/// Declares the flags once: as arguments, and as pairs of a configuration key and its text.
macro_rules! daemon_args {
    ($($(#[doc = $doc:literal])* $field:ident = $key:literal, $value:literal;)*) => {
        /// `profiler daemon`.
        #[derive(Clone, Debug, Default, clap::Args)]
        #[command(after_help = AFTER_HELP)]
        pub struct DaemonArgs {
            /// Configuration file (TOML)
            #[arg(long, value_name = "FILE", env = "PROFILER_CONFIG", hide_env_values = true)]
            pub config: Option<PathBuf>,
            /// Where gRPC is served: unix:///PATH or HOST:PORT; may be repeated
            #[arg(long, value_name = "ADDR")]
            pub listen: Vec<String>,
            $(
                $(#[doc = $doc])*
                #[arg(long, value_name = $value)]
                pub $field: Option<String>,
            )*
        }

        impl DaemonArgs {
            /// The flags that were given, as pairs of a configuration key and its text.
            #[must_use]
            pub fn settings(&self) -> Vec<(&'static str, String)> {
                let listen = (!self.listen.is_empty()).then(|| ("listen", self.listen.join(",")));
                let others = [$(($key, &self.$field)),*];
                let others = others.into_iter().filter_map(|(key, text)| Some((key, text.clone()?)));
                listen.into_iter().chain(others).collect()
            }
        }
    };
}

daemon_args! {
    /// Where HTTP is served (/metrics, /healthz, /readyz) [default: nowhere]
    http = "http", "HOST:PORT";
    /// File with the token that callers of /flamegraph must show; without it there are none
    http_token_file = "http_token_file", "FILE";
    /// Allow TCP addresses that other machines can reach, without TLS and authorisation
    insecure = "insecure", "BOOL";
    /// Directory for what is kept across restarts
    state_dir = "state_dir", "DIR";
    /// Directory for the lock and the default socket
    run_dir = "run_dir", "DIR";
    /// Length of a window, the finest step of a time range
    window = "window", "DURATION";
    /// On-CPU samples a second and CPU, 1 to 100000
    on_cpu_frequency = "on_cpu.frequency", "HERTZ";
    /// What makes an on-CPU sample due: auto or cpu-clock
    on_cpu_event = "on_cpu.event", "EVENT";
    /// Record all the time where threads wait: true or false
    off_cpu_enabled = "off_cpu.enabled", "BOOL";
    /// Off-CPU time of a thread between two samples; 0s takes every interval
    off_cpu_period = "off_cpu.period", "DURATION";
    /// File with rules that tell what threads wait for
    off_cpu_wait_rules = "off_cpu.wait_rules", "FILE";
    /// Off-CPU samples a second of the whole host that recording may take
    budget_off_cpu_samples = "budget.off_cpu_samples", "N";
    /// CPU time that the daemon and its eBPF programs may take, in thousandths of a CPU
    budget_millicpus = "budget.millicpus", "N";
    /// Bytes a second that new windows may take in the store
    budget_store_bytes = "budget.store_bytes", "SIZE";
    /// Age at which stored windows go
    retention_age = "retention.age", "DURATION";
    /// Size of all stored windows at which the oldest go
    retention_bytes = "retention.bytes", "SIZE";
    /// Keep history in memory only: true or false
    retention_in_memory = "retention.in_memory", "BOOL";
    /// Least severity that is logged: off, error, warn, info, debug or trace
    log_level = "log.level", "LEVEL";
    /// How log lines look: text or json
    log_format = "log.format", "FORMAT";
    /// Longest capture that can be started
    capture_max_duration = "capture.max_duration", "DURATION";
    /// Most captures at a time
    capture_max_running = "capture.max_running", "N";
    /// Length of a capture that an alert or pressure starts
    trigger_duration = "trigger.duration", "DURATION";
    /// How long after a start the same alert or target starts nothing
    trigger_cooldown = "trigger.cooldown", "DURATION";
    /// Most captures that alerts and pressure start within any hour
    trigger_max_per_hour = "trigger.max_per_hour", "N";
    /// How much of the time before a capture its bundle holds
    bundle_before = "bundle.before", "DURATION";
    /// Most bundles that are kept
    bundle_max_count = "bundle.max_count", "N";
    /// Size of all bundles at which the oldest go
    bundle_max_bytes = "bundle.max_bytes", "SIZE";
    /// File with the token that Alertmanager must show; without it there is no webhook
    webhook_token_file = "webhook.token_file", "FILE";
    /// Which alert labels name whose time to capture: LABEL=KIND, separated by commas
    webhook_targets = "webhook.targets", "LABEL=KIND";
    /// Whether an alert without such a label means the whole host: true or false
    webhook_host_without_target = "webhook.host_without_target", "BOOL";
    /// Pressure that starts a capture: "host cpu some 1s/2s", separated by commas
    pressure_rules = "pressure.rules", "RULES";
    /// Directories with separate debug files, separated by commas
    symbols_debug_dirs = "symbols.debug_dirs", "DIRS";
    /// Show inlined functions as frames: true or false
    symbols_inlined = "symbols.inlined", "BOOL";
    /// debuginfod servers asked for debug information, separated by commas [default: nobody]
    symbols_debuginfod_urls = "symbols.debuginfod_urls", "URLS";
    /// Size of all files kept from debuginfod servers
    symbols_debuginfod_cache_bytes = "symbols.debuginfod_cache_bytes", "SIZE";
}
