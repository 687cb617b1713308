//! The one table of all keys: how each is named, documented, set and shown.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use super::key::{Key, Shape};
use super::values::{self, one};

const YEAR: Duration = Duration::from_secs(365 * 86_400);
const DAY: Duration = Duration::from_secs(86_400);
/// Each rule costs a task and two open files.
const MAX_RULES: usize = 64;
const CAPTURE_RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);
const CLOCK_RANGE: RangeInclusive<Duration> = Duration::from_micros(100)..=Duration::from_secs(60);
const WINDOW_RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);

/// All keys, sections together.
pub(super) static KEYS: &[Key] = &[
    Key {
        name: "listen",
        help: "Where gRPC is served: \"unix:///PATH\" or \"HOST:PORT\" with an IP address or localhost.\n\
               Default: profiler.sock in run_dir.",
        shape: Shape::List,
        set: |config, texts| {
            if texts.is_empty() {
                return Err("wants at least one address".to_owned());
            }
            config.listen = texts.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
            Ok(())
        },
        show: |config| Some(list(config.listen.iter().map(ToString::to_string))),
    },
    Key {
        name: "http",
        help: "Where HTTP is served (/metrics, /healthz, /readyz): \"127.0.0.1:9190\". Default: nowhere.",
        shape: Shape::Text,
        set: |config, texts| {
            config.http = Some(values::socket_address(one(texts))?);
            Ok(())
        },
        show: |config| config.http.map(|address| address.to_string().into()),
    },
    Key {
        name: "http_token_file",
        help: "File with the bearer token that callers of /flamegraph must show, 16 to 4096 characters.\n\
               Without it no flame graph is served over HTTP.",
        shape: Shape::Text,
        set: |config, texts| values::absolute(one(texts)).map(|value| config.http_token_file = Some(value)),
        show: |config| config.http_token_file.as_deref().map(path),
    },
    Key {
        name: "insecure",
        help: "Allow TCP addresses that other machines can reach, without TLS and authorisation.",
        shape: Shape::Boolean,
        set: |config, texts| values::boolean(one(texts)).map(|value| config.insecure = value),
        show: |config| Some(config.insecure.into()),
    },
    Key {
        name: "state_dir",
        help: "Directory for what is kept across restarts. If the default cannot be used, history is in\n\
               memory, with a warning; if another one cannot be used, the daemon does not start.",
        shape: Shape::Text,
        set: |config, texts| values::absolute(one(texts)).map(|value| config.state_dir = value),
        show: |config| Some(path(&config.state_dir)),
    },
    Key {
        name: "run_dir",
        help: "Directory for the lock and the default socket.",
        shape: Shape::Text,
        set: |config, texts| values::absolute(one(texts)).map(|value| config.run_dir = value),
        show: |config| Some(path(&config.run_dir)),
    },
    Key {
        name: "window",
        help: "Length of a window, the finest step of a time range: 1s to 10m.",
        shape: Shape::Text,
        set: |config, texts| values::duration(one(texts), WINDOW_RANGE).map(|value| config.window = value),
        show: |config| Some(duration(config.window)),
    },
    Key {
        name: "on_cpu.frequency",
        help: "Samples a second and CPU, 1 to 100000 Hz. 99 keeps out of step with periodic work.",
        shape: Shape::Integer,
        set: |config, texts| {
            values::number(one(texts), 1..=100_000).map(|value| config.on_cpu.frequency = value)
        },
        show: |config| Some(config.on_cpu.frequency.into()),
    },
    Key {
        name: "on_cpu.event",
        help: "What makes a sample due: auto (the CPU's reference cycles where it counts them, else the\n\
               kernel's clock) or cpu-clock. Reference cycles see into code that has interrupts disabled.",
        shape: Shape::Text,
        set: |config, texts| one(texts).parse().map(|value| config.on_cpu.event = value),
        show: |config| Some(config.on_cpu.event.to_string().into()),
    },
    Key {
        name: "off_cpu.enabled",
        help: "Record all the time where threads wait, too.",
        shape: Shape::Boolean,
        set: |config, texts| values::boolean(one(texts)).map(|value| config.off_cpu.enabled = value),
        show: |config| Some(config.off_cpu.enabled.into()),
    },
    Key {
        name: "off_cpu.period",
        help: "Off-CPU time of a thread between two samples: 100us to 1m; the budget may make it longer.\n\
               0s takes every interval, whatever it costs.",
        shape: Shape::Text,
        set: |config, texts| {
            let text = one(texts);
            let zero = humantime::parse_duration(text).is_ok_and(|value| value.is_zero());
            config.off_cpu.period = if zero { Duration::ZERO } else { values::duration(text, CLOCK_RANGE)? };
            Ok(())
        },
        show: |config| Some(duration(config.off_cpu.period)),
    },
    Key {
        name: "off_cpu.wait_rules",
        help: "File with rules that tell what threads wait for, beside the built-in ones.\n\
               deploy/wait-rules.toml shows the form.",
        shape: Shape::Text,
        set: |config, texts| {
            values::absolute(one(texts)).map(|value| config.off_cpu.wait_rules = Some(value))
        },
        show: |config| config.off_cpu.wait_rules.as_deref().map(path),
    },
    Key {
        name: "budget.off_cpu_samples",
        help: "Off-CPU samples a second of the whole host, 1 to 1000000: off_cpu.period is made longer to hold it.",
        shape: Shape::Integer,
        set: |config, texts| {
            values::number(one(texts), 1..=1_000_000).map(|value| config.budget.off_cpu_samples = value)
        },
        show: |config| Some(config.budget.off_cpu_samples.into()),
    },
    Key {
        name: "budget.millicpus",
        help: "CPU time of the daemon and its eBPF programs in thousandths of a CPU, 1 to 1000000: rates are\n\
               lowered to hold it, and at last off-CPU time is taken of a share of the threads only.\n\
               Default: 10 for every 8 CPUs.",
        shape: Shape::Integer,
        set: |config, texts| {
            values::number(one(texts), 1..=1_000_000).map(|value| config.budget.millicpus = Some(value))
        },
        show: |config| config.budget.millicpus.map(Into::into),
    },
    Key {
        name: "budget.store_bytes",
        help: "Bytes a second that new windows may take in the store: 1KiB to 1GiB. Held in the same way.",
        shape: Shape::Text,
        set: |config, texts| {
            values::bytes(one(texts), 1 << 10..=1 << 30).map(|value| config.budget.store_bytes = value)
        },
        show: |config| Some(values::format_bytes(config.budget.store_bytes).into()),
    },
    Key {
        name: "retention.age",
        help: "Age at which stored windows go: one window to 365d.",
        shape: Shape::Text,
        set: |config, texts| {
            values::duration(one(texts), Duration::from_secs(1)..=YEAR)
                .map(|value| config.retention.age = value)
        },
        show: |config| Some(duration(config.retention.age)),
    },
    Key {
        name: "retention.bytes",
        help: "Size of all stored windows at which the oldest go: 1MiB to 1TiB. In memory, 256MiB at most.",
        shape: Shape::Text,
        set: |config, texts| {
            values::bytes(one(texts), 1 << 20..=1 << 40).map(|value| config.retention.bytes = value)
        },
        show: |config| Some(values::format_bytes(config.retention.bytes).into()),
    },
    Key {
        name: "retention.in_memory",
        help: "Keep history in memory only: a restart loses it.",
        shape: Shape::Boolean,
        set: |config, texts| values::boolean(one(texts)).map(|value| config.retention.in_memory = value),
        show: |config| Some(config.retention.in_memory.into()),
    },
    Key {
        name: "log.level",
        help: "Least severity that is logged: off, error, warn, info, debug or trace.",
        shape: Shape::Text,
        set: |config, texts| values::level(one(texts)).map(|value| config.log.level = value),
        show: |config| Some(config.log.level.to_string().into()),
    },
    Key {
        name: "log.format",
        help: "How log lines look: text or json.",
        shape: Shape::Text,
        set: |config, texts| one(texts).parse().map(|value| config.log.format = value),
        show: |config| Some(config.log.format.to_string().into()),
    },
    Key {
        name: "capture.max_duration",
        help: "Longest capture that can be started: 1s to 10m.",
        shape: Shape::Text,
        set: |config, texts| {
            values::duration(one(texts), CAPTURE_RANGE).map(|value| config.capture.max_duration = value)
        },
        show: |config| Some(duration(config.capture.max_duration)),
    },
    Key {
        name: "capture.max_running",
        help: "Most captures at a time: 1 to 64.",
        shape: Shape::Integer,
        set: |config, texts| {
            values::number(one(texts), 1..=64).map(|value| config.capture.max_running = value)
        },
        show: |config| Some(config.capture.max_running.into()),
    },
    Key {
        name: "capture.max_events",
        help: "Waits a second above which a capture is ended, keeping what was seen: 1 to 10000000.",
        shape: Shape::Integer,
        set: |config, texts| {
            values::number(one(texts), 1..=10_000_000).map(|value| config.capture.max_events = value)
        },
        show: |config| Some(config.capture.max_events.into()),
    },
    Key {
        name: "capture.max_bytes",
        help: "Memory above which a capture is ended, keeping what was seen: 64KiB to 1GiB.",
        shape: Shape::Text,
        set: |config, texts| {
            values::bytes(one(texts), 1 << 16..=1 << 30).map(|value| config.capture.max_bytes = value)
        },
        show: |config| Some(values::format_bytes(config.capture.max_bytes).into()),
    },
    Key {
        name: "capture.max_millicpus",
        help: "CPU time of the daemon, in thousandths of a CPU, above which a capture is ended: 1 to 1000000.",
        shape: Shape::Integer,
        set: |config, texts| {
            values::number(one(texts), 1..=1_000_000).map(|value| config.capture.max_millicpus = value)
        },
        show: |config| Some(config.capture.max_millicpus.into()),
    },
    Key {
        name: "trigger.wakers",
        help: "Record who ended the waits in triggered captures of processes and cgroups.",
        shape: Shape::Boolean,
        set: |config, texts| values::boolean(one(texts)).map(|value| config.trigger.wakers = value),
        show: |config| Some(config.trigger.wakers.into()),
    },
    Key {
        name: "trigger.duration",
        help: "Length of a capture that an alert or pressure starts: 1s to 10m.",
        shape: Shape::Text,
        set: |config, texts| {
            values::duration(one(texts), CAPTURE_RANGE).map(|value| config.trigger.duration = value)
        },
        show: |config| Some(duration(config.trigger.duration)),
    },
    Key {
        name: "trigger.cooldown",
        help: "How long after a start the same alert or the same target starts nothing: 0s to 1d.",
        shape: Shape::Text,
        set: |config, texts| {
            values::duration(one(texts), Duration::ZERO..=DAY).map(|value| config.trigger.cooldown = value)
        },
        show: |config| Some(duration(config.trigger.cooldown)),
    },
    Key {
        name: "trigger.max_per_hour",
        help: "Most captures that alerts and pressure start within any hour: 1 to 1000.",
        shape: Shape::Integer,
        set: |config, texts| {
            values::number(one(texts), 1..=1000).map(|value| config.trigger.max_per_hour = value)
        },
        show: |config| Some(config.trigger.max_per_hour.into()),
    },
    Key {
        name: "bundle.before",
        help: "How much of the time before a capture its bundle holds: 0s to 1d.",
        shape: Shape::Text,
        set: |config, texts| {
            values::duration(one(texts), Duration::ZERO..=DAY).map(|value| config.bundle.before = value)
        },
        show: |config| Some(duration(config.bundle.before)),
    },
    Key {
        name: "bundle.max_count",
        help: "Most bundles in state_dir, 1 to 10000; the oldest go.",
        shape: Shape::Integer,
        set: |config, texts| {
            values::number(one(texts), 1..=10_000).map(|value| config.bundle.max_count = value)
        },
        show: |config| Some(config.bundle.max_count.into()),
    },
    Key {
        name: "bundle.max_bytes",
        help: "Size of all bundles in state_dir at which the oldest go: 1MiB to 1TiB.",
        shape: Shape::Text,
        set: |config, texts| {
            values::bytes(one(texts), 1 << 20..=1 << 40).map(|value| config.bundle.max_bytes = value)
        },
        show: |config| Some(values::format_bytes(config.bundle.max_bytes).into()),
    },
    Key {
        name: "webhook.token_file",
        help: "File with the bearer token that Alertmanager must show at /webhook/alertmanager.\n\
               Without a token there is no webhook.",
        shape: Shape::Text,
        set: |config, texts| {
            values::absolute(one(texts)).map(|value| config.webhook.token_file = Some(value))
        },
        show: |config| config.webhook.token_file.as_deref().map(path),
    },
    Key {
        name: "webhook.token",
        help: "The token itself, 16 to 4096 characters; a file is better kept secret.",
        shape: Shape::Text,
        set: |config, texts| one(texts).parse().map(|value| config.webhook.token = Some(value)),
        // A secret: settings are shown to whoever may ask for them.
        show: |_| None,
    },
    Key {
        name: "webhook.targets",
        help: "Which alert labels name whose time to capture, as LABEL=KIND, tried in this order.\n\
               Kinds: pid, comm, cgroup (path), container (id or name), pod (uid or name).",
        shape: Shape::List,
        set: |config, texts| {
            config.webhook.targets = texts.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
            Ok(())
        },
        show: |config| Some(list(config.webhook.targets.iter().map(ToString::to_string))),
    },
    Key {
        name: "webhook.host_without_target",
        help: "Whether an alert without any of these labels means the whole host; if not, it is refused.",
        shape: Shape::Boolean,
        set: |config, texts| {
            values::boolean(one(texts)).map(|value| config.webhook.host_without_target = value)
        },
        show: |config| Some(config.webhook.host_without_target.into()),
    },
    Key {
        name: "pressure.rules",
        help: "Pressure that starts a capture, as \"SCOPE RESOURCE some|full STALL/WINDOW\", for example\n\
               \"host cpu some 1s/2s\" or \"system.slice/db.service memory full 100ms/1s\".\n\
               The scope is host or the path of a cgroup, the resource cpu, io or memory.",
        shape: Shape::List,
        set: |config, texts| {
            if texts.len() > MAX_RULES {
                return Err(format!("{} rules given, {MAX_RULES} allowed", texts.len()));
            }
            config.pressure.rules = texts.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
            Ok(())
        },
        show: |config| Some(list(config.pressure.rules.iter().map(ToString::to_string))),
    },
    Key {
        name: "symbols.debug_dirs",
        help: "Directories with separate debug files, searched in this order.",
        shape: Shape::List,
        set: |config, texts| {
            config.symbols.debug_dirs =
                texts.iter().map(|text| values::absolute(text)).collect::<Result<_, _>>()?;
            Ok(())
        },
        show: |config| Some(list(config.symbols.debug_dirs.iter().map(|path| path.display().to_string()))),
    },
    Key {
        name: "symbols.inlined",
        help: "Show inlined functions as frames, where debug information knows them.",
        shape: Shape::Boolean,
        set: |config, texts| values::boolean(one(texts)).map(|value| config.symbols.inlined = value),
        show: |config| Some(config.symbols.inlined.into()),
    },
    Key {
        name: "symbols.debuginfod_urls",
        help: "Servers asked for debug information that is not on this host: \"https://HOST/...\". They learn\n\
               which binaries run here. Default: nobody is asked.",
        shape: Shape::List,
        set: |config, texts| {
            config.symbols.debuginfod_urls =
                texts.iter().map(|text| values::http_url(text)).collect::<Result<_, _>>()?;
            Ok(())
        },
        show: |config| Some(list(config.symbols.debuginfod_urls.iter().cloned())),
    },
    Key {
        name: "symbols.debuginfod_cache_bytes",
        help: "Size of all files from such servers, kept in state_dir, at which the oldest go: 16MiB to 1TiB.\n\
               A file above half of it is not fetched.",
        shape: Shape::Text,
        set: |config, texts| {
            values::bytes(one(texts), 16 << 20..=1 << 40)
                .map(|value| config.symbols.debuginfod_cache_bytes = value)
        },
        show: |config| Some(values::format_bytes(config.symbols.debuginfod_cache_bytes).into()),
    },
    Key {
        name: "unwind.table_bytes",
        help: "Kernel memory for unwinding tables, taken at once: 1MiB to 1GiB. Half a byte or so for each\n\
               10 of mapped code.",
        shape: Shape::Text,
        set: |config, texts| {
            values::bytes(one(texts), 1 << 20..=1 << 30).map(|value| config.unwind.table_bytes = value)
        },
        show: |config| Some(values::format_bytes(config.unwind.table_bytes).into()),
    },
    Key {
        name: "unwind.cache_bytes",
        help: "Disk space in state_dir for unwinding tables, so that a restart need not build them: up to 1TiB.",
        shape: Shape::Text,
        set: |config, texts| {
            values::bytes(one(texts), 0..=1 << 40).map(|value| config.unwind.cache_bytes = value)
        },
        show: |config| Some(values::format_bytes(config.unwind.cache_bytes).into()),
    },
];

fn list(items: impl Iterator<Item = String>) -> toml::Value {
    toml::Value::Array(items.map(toml::Value::from).collect())
}

fn path(path: &Path) -> toml::Value {
    path.display().to_string().into()
}

fn duration(value: Duration) -> toml::Value {
    humantime::format_duration(value).to_string().into()
}
