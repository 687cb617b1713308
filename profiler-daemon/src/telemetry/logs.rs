//! Sets up logging: one subscriber for `tracing` and, bridged, for the `log` crate.

use std::io::IsTerminal as _;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::Registry;

/// What is logged, and how it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Least severity of our own lines. Libraries are heard from `warn` up, at `trace` in full.
    pub level: LevelFilter,
    /// One JSON object a line instead of text.
    pub json: bool,
    /// Colours: see [`colored`].
    pub color: Option<bool>,
}

/// A subscriber is set already.
#[derive(Debug, thiserror::Error)]
#[error("logging is set up already: {0}")]
pub struct LogError(String);

/// Sends log lines to stderr from now on, for the rest of the process's life.
///
/// # Errors
/// When called twice.
pub fn init(options: LogOptions) -> Result<(), LogError> {
    let subscriber = subscriber(options, colored(options.color), std::io::stderr);
    tracing::subscriber::set_global_default(subscriber).map_err(|error| LogError(error.to_string()))?;
    tracing_log::LogTracer::init().map_err(|error| LogError(error.to_string()))
}

/// Whether stderr gets colours; `None`: if it is a terminal and `NO_COLOR` is not set.
#[must_use]
pub fn colored(asked: Option<bool>) -> bool {
    asked.unwrap_or_else(|| {
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
    })
}

fn subscriber<W>(options: LogOptions, color: bool, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let libraries = if options.level == LevelFilter::TRACE {
        options.level
    } else {
        options.level.min(LevelFilter::WARN)
    };
    let targets = Targets::new()
        .with_default(libraries)
        .with_target("profiler_daemon", options.level)
        .with_target("profiler", options.level);
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(color).with_target(false);
    if options.json {
        Box::new(Registry::default().with(layer.json().flatten_event(true).with_filter(targets)))
    } else {
        Box::new(Registry::default().with(layer.with_filter(targets)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("lock").write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: LevelFilter, json: bool) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let options = LogOptions { level, json, color: Some(false) };
        let subscriber = subscriber(options, false, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(windows = 3, "ours");
            tracing::debug!("ours, detailed");
            tracing::info!(target: "h2", "library");
            tracing::warn!(target: "h2", "library trouble");
        });
        let bytes = captured.0.lock().expect("lock").clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn libraries_are_heard_from_warn_up() {
        let text = logged(LevelFilter::INFO, false);
        let messages: Vec<&str> =
            text.lines().filter_map(|line| line.split_once("Z ").map(|parts| parts.1.trim())).collect();
        assert_eq!(messages, ["INFO ours windows=3", "WARN library trouble"]);
        assert_eq!(logged(LevelFilter::OFF, false), "");
        assert_eq!(logged(LevelFilter::TRACE, false).lines().count(), 4);
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = logged(LevelFilter::INFO, true);
        let line: serde_json::Value =
            serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
        assert_eq!(
            (&line["level"], &line["message"], &line["windows"]),
            (&"INFO".into(), &"ours".into(), &3.into())
        );
    }
}
