//! The program `profiler`: parses the command line, runs one command, exits with its code.

use std::future::Future;
use std::process::ExitCode;

use clap::ColorChoice;
use tracing::level_filters::LevelFilter;

use profiler_daemon::agent;
use profiler_daemon::cli::{CheckArgs, Cli, Command, DaemonArgs, Exit, GlobalArgs, RecordArgs};
use profiler_daemon::client::{self, Failure};
use profiler_daemon::config::{Config, LogFormat};
use profiler_daemon::symbolize;
use profiler_daemon::telemetry::{self, LogOptions};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(first) if first == agent::EXEC_STOPPED => return agent::exec_stopped(arguments),
        Some(first) if first == symbolize::SYMBOL_READER => return symbolize::read_symbols(),
        _ => {}
    }
    let cli = match Cli::parse_line(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            // A closed stderr must not turn a usage error into another one.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Ok }.into();
        }
    };
    match run(&cli) {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => {
            client::complain(&failure, telemetry::colored(color(&cli.global)));
            failure.exit.into()
        }
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    match &cli.command {
        // The three that work on this host.
        Command::Record(args) => record(args, &cli.global),
        Command::Daemon(args) => daemon(args, &cli.global),
        Command::Check(args) => check(args, &cli.global),
        // Those that ask a daemon.
        Command::Flamegraph(args) => ask(&cli.global, client::flamegraph(args)),
        Command::Heatmap(args) => ask(&cli.global, client::heatmap(args)),
        Command::Top(args) => ask(&cli.global, client::top(args)),
        Command::List(args) => ask(&cli.global, client::list(args)),
        Command::Diff(args) => ask(&cli.global, client::diff(args)),
        Command::Report(args) => ask(&cli.global, client::report(args)),
        Command::Watch(args) => ask(&cli.global, client::watch(args)),
        Command::Status(args) => ask(&cli.global, client::status(args)),
        Command::Capture(args) => ask(&cli.global, client::capture(args)),
    }
}

fn record(args: &RecordArgs, global: &GlobalArgs) -> Result<(), Failure> {
    init_log(log_options(global))?;
    agent::record(args).map_err(|error| Failure::new(error.exit(), error.to_string()))
}

fn daemon(args: &DaemonArgs, global: &GlobalArgs) -> Result<(), Failure> {
    let loaded = Config::load(args.config.as_deref(), std::env::vars_os(), &args.settings())
        .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    let log = &loaded.config.log;
    let level = log.level.max(log_options(global).level);
    init_log(LogOptions { level, json: log.format == LogFormat::Json, color: color(global) })?;
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    agent::daemon(&loaded.config).map_err(|error| Failure::new(error.exit(), error.to_string()))
}

fn check(args: &CheckArgs, global: &GlobalArgs) -> Result<(), Failure> {
    init_log(log_options(global))?;
    client::print_findings(&agent::check(), args.output)
}

/// Runs a command of the client to its end.
fn ask(global: &GlobalArgs, command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let failed = |what: String| Failure::new(Exit::Failure, what);
    init_log(log_options(global))?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(format!("cannot start: {error}")))?
        .block_on(command)
}

fn init_log(options: LogOptions) -> Result<(), Failure> {
    telemetry::init(options).map_err(|error| Failure::new(Exit::Failure, error.to_string()))
}

/// What a command that is not the daemon logs.
fn log_options(global: &GlobalArgs) -> LogOptions {
    let level = match global.verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    LogOptions { level, json: false, color: color(global) }
}

/// Colours on or off as asked for; `None`: as the terminal has it.
fn color(global: &GlobalArgs) -> Option<bool> {
    match global.color {
        ColorChoice::Auto => None,
        ColorChoice::Always => Some(true),
        ColorChoice::Never => Some(false),
    }
}
