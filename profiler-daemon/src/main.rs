//! The program `profiler`: parses the command line, runs one command, exits with its code.

use std::future::Future;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::ColorChoice;
use tracing::level_filters::LevelFilter;

use profiler_daemon::cli::{CheckArgs, Cli, Command, DaemonArgs, Exit, GlobalArgs, RecordArgs};
use profiler_daemon::client::{self, Failure};
use profiler_daemon::telemetry::{self, LogOptions};

fn main() -> ExitCode {
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
            complain(&failure, &cli.global);
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
        Command::Top(args) => ask(&cli.global, client::top(args)),
        Command::List(args) => ask(&cli.global, client::list(args)),
        Command::Status(args) => ask(&cli.global, client::status(args)),
        Command::Capture(args) => ask(&cli.global, client::capture(args)),
    }
}

fn record(_args: &RecordArgs, _global: &GlobalArgs) -> Result<(), Failure> {
    Err(Failure::new(Exit::Failure, "record is not part of this build"))
}

fn daemon(_args: &DaemonArgs, _global: &GlobalArgs) -> Result<(), Failure> {
    Err(Failure::new(Exit::Failure, "daemon is not part of this build"))
}

fn check(_args: &CheckArgs, _global: &GlobalArgs) -> Result<(), Failure> {
    Err(Failure::new(Exit::Failure, "check is not part of this build"))
}

/// Runs a command of the client to its end.
fn ask(global: &GlobalArgs, command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let failed = |what: String| Failure::new(Exit::Failure, what);
    telemetry::init(log_options(global)).map_err(|error| failed(error.to_string()))?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(format!("cannot start: {error}")))?
        .block_on(command)
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

/// Says on stderr what went wrong.
fn complain(failure: &Failure, global: &GlobalArgs) {
    let colored = color(global).unwrap_or_else(|| {
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
    });
    let label = if colored { "\x1b[1;31merror:\x1b[0m" } else { "error:" };
    // Nobody listening is no failure.
    let _ = writeln!(std::io::stderr(), "{label} {failure}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use profiler_daemon::cli::Cli;
    use profiler_daemon::config::Config;

    /// Only here both halves meet: `cli` does not know `config`.
    #[test]
    fn each_key_of_the_configuration_is_a_flag() {
        let command = Cli::command();
        let daemon = command.find_subcommand("daemon").expect("the command");
        let flags: Vec<String> =
            daemon.get_arguments().filter_map(|argument| argument.get_long().map(str::to_owned)).collect();
        let mut expected: Vec<String> = Config::keys().map(|key| key.replace(['.', '_'], "-")).collect();
        expected.insert(0, "config".to_owned());
        let mut flags: Vec<String> = flags.into_iter().filter(|flag| flag != "help").collect();
        flags.sort();
        expected.sort();
        assert_eq!(flags, expected);

        let values = expected
            .iter()
            .filter(|flag| *flag != "config")
            .flat_map(|flag| [format!("--{flag}"), "x".to_owned()]);
        let line = ["profiler", "daemon"].map(str::to_owned).into_iter().chain(values).map(Into::into);
        let profiler_daemon::cli::Command::Daemon(args) = Cli::parse_line(line).expect("valid").command
        else {
            panic!("not daemon");
        };
        let mut keys: Vec<&str> = args.settings().into_iter().map(|(key, _)| key).collect();
        let mut known: Vec<&str> = Config::keys().collect();
        keys.sort_unstable();
        known.sort_unstable();
        assert_eq!(keys, known);
    }
}
