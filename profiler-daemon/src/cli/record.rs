//! `profiler record`: one profile now, without a daemon.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::ProfileKind;
use crate::render::Format;

use super::exit::exit_codes;
use super::output::{Destination, OutputFile};
use super::values;

const AFTER_HELP: &str = concat!(
    "\
Without -o and --format the profile goes to profile.svg if stdout is a terminal or a command is
given, else to stdout as folded stacks. Ctrl-C ends early and still writes what was seen.

Examples:
  profiler record -o host.svg                             # the whole host for 10 s
  profiler record -d 30s -p 1234,1240 -o a.svg -o a.pb.gz # two processes, two formats
  profiler record --off-cpu --cgroup /system.slice/nginx.service -o waits.svg
  profiler record --off-cpu --wakers -p 1234 -o who.svg    # who ended the waits
  profiler record --wall -o build.svg -- make -j4         # a command and its children
  profiler record --format folded | sort -k2 -rn | head

",
    exit_codes!()
);

/// `profiler record`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = AFTER_HELP,
    group = clap::ArgGroup::new("waits").args(["off_cpu", "wall"]),
    group = clap::ArgGroup::new("target").args(["pids", "cgroup", "command"])
)]
pub struct RecordArgs {
    /// How long, 100ms to 1day [default: 10s, or until COMMAND ends]
    #[arg(short, long, value_name = "DURATION", value_parser = values::record_duration)]
    pub duration: Option<Duration>,
    /// On-CPU samples a second and CPU, 1 to 100000
    #[arg(
        short = 'F',
        long,
        value_name = "HERTZ",
        default_value = "99",
        value_parser = values::frequency,
        conflicts_with = "off_cpu"
    )]
    pub frequency: u32,
    /// Only these processes; may be repeated or separated by commas
    #[arg(short, long = "pid", value_name = "PID", value_delimiter = ',', value_parser = values::pid)]
    pub pids: Vec<u32>,
    /// Only this cgroup and those below it: a path below the cgroup v2 mount, or absolute
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<PathBuf>,
    /// Time off the CPU (blocked, waiting to run) instead of time on it
    #[arg(long)]
    pub off_cpu: bool,
    /// Time on and off the CPU in one graph, in microseconds
    #[arg(long)]
    pub wall: bool,
    /// Shortest time off the CPU that is recorded [default: 1ms for the host, 0 for a target]
    #[arg(long, value_name = "DURATION", value_parser = values::min_block, requires = "waits")]
    pub min_block: Option<Duration>,
    /// Record who ends the waits, and show them on top of each wait, upside down: a wake-up graph
    #[arg(long, requires = "waits")]
    pub wakers: bool,
    /// Write to FILE, may be repeated; its extension says the format: .svg, .folded, .pb.gz (pprof),
    /// .speedscope.json, .firefox.json (Firefox Profiler) or .json
    #[arg(short, long = "output", value_name = "FILE", value_parser = values::output_file)]
    pub outputs: Vec<OutputFile>,
    /// Write to stdout in this format: folded, svg, pprof, speedscope, firefox or json
    #[arg(long, value_name = "FORMAT", conflicts_with_all = ["outputs", "command"])]
    pub format: Option<Format>,
    /// Keep unwinding tables here, so that the next recording need not build them [default:
    /// /var/cache/profiler for root, else profiler in $XDG_CACHE_HOME or ~/.cache]
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// No progress and no summary
    #[arg(short, long)]
    pub quiet: bool,
    /// What the programs do beside their job, for tests and benches: their results go to stderr
    #[arg(long, value_name = "RUN", value_enum, hide = true)]
    pub walks: Vec<WalkRun>,
    /// Run this and record it and its children; it keeps stdin, stdout and stderr
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// What is done beside each walk of a user stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum WalkRun {
    /// Do it again without cache and window, and compare.
    Check,
    /// Time it, and the kernel's own along frame pointers beside it.
    Time,
}

/// Who is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordTarget<'a> {
    /// Everybody.
    Host,
    /// These processes.
    Pids(&'a [u32]),
    /// A cgroup, as given.
    Cgroup(&'a std::path::Path),
    /// A command to start: the program and its arguments.
    Command(&'a OsString, &'a [OsString]),
}

impl RecordArgs {
    /// What is measured.
    #[must_use]
    pub fn kind(&self) -> ProfileKind {
        match (self.off_cpu, self.wall) {
            (true, _) => ProfileKind::OffCpu,
            (_, true) => ProfileKind::Wall,
            _ => ProfileKind::OnCpu,
        }
    }

    /// Who is recorded.
    #[must_use]
    pub fn target(&self) -> RecordTarget<'_> {
        match (self.command.split_first(), &self.cgroup) {
            (Some((program, arguments)), _) => RecordTarget::Command(program, arguments),
            (None, Some(path)) => RecordTarget::Cgroup(path),
            (None, None) if self.pids.is_empty() => RecordTarget::Host,
            (None, None) => RecordTarget::Pids(&self.pids),
        }
    }

    /// How long to record; `None`: until the command ends.
    #[must_use]
    pub fn length(&self) -> Option<Duration> {
        self.duration.or_else(|| self.command.is_empty().then_some(Duration::from_secs(10)))
    }

    /// Shortest off-CPU interval to record.
    #[must_use]
    pub fn min_block(&self) -> Duration {
        let host = self.target() == RecordTarget::Host;
        self.min_block.unwrap_or(if host { Duration::from_millis(1) } else { Duration::ZERO })
    }

    /// Where the profile goes; at least one place.
    #[must_use]
    pub fn destinations(&self, stdout_is_terminal: bool) -> Vec<Destination> {
        if !self.outputs.is_empty() {
            return self.outputs.iter().cloned().map(Destination::File).collect();
        }
        let place = match self.format {
            Some(format) => Destination::Stdout(format),
            // The command's own output must not be mixed with the profile.
            None if stdout_is_terminal || !self.command.is_empty() => {
                Destination::File(OutputFile { path: PathBuf::from("profile.svg"), format: Format::Svg })
            }
            None => Destination::Stdout(Format::Folded),
        };
        vec![place]
    }
}
