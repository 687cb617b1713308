//! `profiler capture`: bounded sessions with more detail than the continuous profile.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;

use super::exit::exit_codes;
use super::{ReachArgs, Rendering, values};

const AFTER_HELP: &str = concat!(
    "\
Examples:
  profiler capture start off-cpu -d 30s -p 1234 --wait
  profiler capture list
  profiler capture show ID -o waits.svg
  profiler capture show ID --wakers -o wakers.svg
  profiler capture watch ID
  profiler capture bundle ID -o incident
  profiler capture stop ID

",
    exit_codes!()
);

/// `profiler capture`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP, disable_help_subcommand = true)]
pub struct CaptureArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: CaptureCommand,
}

/// What to do with captures.
#[derive(Clone, Debug, Subcommand)]
pub enum CaptureCommand {
    /// Start a capture and print its id
    #[command(subcommand, disable_help_subcommand = true, after_help = exit_codes!())]
    Start(CaptureStart),
    /// List the captures, newest first
    #[command(after_help = exit_codes!())]
    List(ReachArgs),
    /// Show the facts of a capture; with -o or --format its flame graph
    #[command(after_help = exit_codes!())]
    Show(CaptureShowArgs),
    /// Follow a capture: a line for each change of its state, until it ends
    #[command(after_help = exit_codes!())]
    Watch(CaptureIdArgs),
    /// Fetch the bundle of a capture: the minutes before, the capture, the comparison with a day earlier
    #[command(after_help = exit_codes!())]
    Bundle(CaptureBundleArgs),
    /// End a capture early; what was seen is kept
    #[command(after_help = exit_codes!())]
    Stop(CaptureIdArgs),
}

/// The kinds of capture.
#[derive(Clone, Debug, Subcommand)]
pub enum CaptureStart {
    /// Where threads wait, and for how long
    OffCpu(OffCpuArgs),
}

const OFF_CPU_AFTER_HELP: &str = concat!(
    "\
The id goes to stdout, also with --wait. Ctrl-C ends the waiting, not the capture.

Examples:
  profiler capture start off-cpu -p 1234 --wait
  id=$(profiler capture start off-cpu -d 1m --cgroup /system.slice/nginx.service)

",
    exit_codes!()
);

/// `profiler capture start off-cpu`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = OFF_CPU_AFTER_HELP,
    group = clap::ArgGroup::new("target").args(["pids", "cgroup"])
)]
pub struct OffCpuArgs {
    /// How long, 1s to 10m
    #[arg(short, long, value_name = "DURATION", default_value = "30s", value_parser = values::capture_duration)]
    pub duration: Duration,
    /// Only these processes; may be repeated or separated by commas
    #[arg(short, long = "pid", value_name = "PID", value_delimiter = ',', value_parser = values::pid)]
    pub pids: Vec<u32>,
    /// Only this cgroup and those below it: a path below the cgroup v2 mount, or absolute
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<PathBuf>,
    /// Shortest time off the CPU that is recorded [default: 1ms for the host, 0 for a target]
    #[arg(long, value_name = "DURATION", value_parser = values::min_block)]
    pub min_block: Option<Duration>,
    /// Record who ends the waits, and where [default: for a target, not for the host]
    #[arg(long)]
    pub wakers: bool,
    /// Do not record who ends the waits
    #[arg(long, conflicts_with = "wakers")]
    pub no_wakers: bool,
    /// End early above so many waits a second [default: the daemon's capture.max_events]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_events: Option<u64>,
    /// End early above so much memory, such as 16MiB [default: the daemon's capture.max_bytes]
    #[arg(long, value_name = "BYTES", value_parser = values::bytes)]
    pub max_bytes: Option<u64>,
    /// End early above so many thousandths of a CPU [default: the daemon's capture.max_millicpus]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_millicpus: Option<u64>,
    /// Return when the capture has ended
    #[arg(long)]
    pub wait: bool,
    /// Make a bundle of it when it has ended; `profiler capture bundle` fetches it
    #[arg(long)]
    pub bundle: bool,
    /// Where the daemon is.
    #[command(flatten)]
    pub reach: ReachArgs,
}

/// `profiler capture show`.
#[derive(Clone, Debug, clap::Args)]
pub struct CaptureShowArgs {
    /// The capture
    #[arg(value_name = "ID", value_parser = values::capture_id)]
    pub id: String,
    /// Where its flame graph goes; without, only the facts are shown.
    #[command(flatten)]
    pub rendering: Rendering,
    /// Where the daemon is.
    #[command(flatten)]
    pub reach: ReachArgs,
}

/// `profiler capture bundle`.
#[derive(Clone, Debug, clap::Args)]
pub struct CaptureBundleArgs {
    /// The capture
    #[arg(value_name = "ID", value_parser = values::capture_id)]
    pub id: String,
    /// The directory to write to; must not exist [default: ID]
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Where the daemon is.
    #[command(flatten)]
    pub reach: ReachArgs,
}

/// `profiler capture stop` and `profiler capture watch`.
#[derive(Clone, Debug, clap::Args)]
pub struct CaptureIdArgs {
    /// The capture
    #[arg(value_name = "ID", value_parser = values::capture_id)]
    pub id: String,
    /// Where the daemon is.
    #[command(flatten)]
    pub reach: ReachArgs,
}
