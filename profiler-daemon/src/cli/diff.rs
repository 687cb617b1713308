//! `profiler diff`: two profiles against each other, and the gate for CI.

use std::path::PathBuf;

use super::exit::exit_codes;
use super::{Operand, ReachArgs, values};
use crate::model::ProfileKind;
use crate::render::{DiffFormat, Gate, Normalize};

const AFTER_HELP: &str = concat!(
    "\
OPERAND is one of
  RANGE [SELECTOR]   stored by the daemon: '-2h..-1h', 'yesterday 14:00..14:10 comm=\"nginx\"'
  capture:ID         what a capture recorded
  FILE               .json or .folded, as `record` and `flamegraph` write them; needs no daemon

The table has the frames that changed most, growth first. CHANGE is in percentage points of the
whole; ~ marks what the noise of sampling can explain. The SVG is as wide as the second side, red
where a frame itself grew, blue where it shrank.

--fail-over 5% makes it a gate: it exits 1 and names the frames if any, by itself or with what it
calls, became more than 5 % more expensive relative to the rest of the profile. A function that
became 10 % slower counts as 10 %, however large its share is. Growth that noise can explain
passes: two equal programs pass 99 times of 100. With few samples only large growth is seen, so
record at 999 Hz for some seconds. Frames below --min-share on both sides, and those above 95 %
on one, are not judged. Where both sides do the same work, --normalize work sees more.

Let the program start several times in each recording (record -F 999 -o new.json -- sh -c ...): how
a program comes to lie in memory can make one of its functions 10 % slower from its start to its
end, which a recording of one start cannot tell from a change of the program.

Examples:
  profiler diff --base 'yesterday 14:00..15:00' --with 'today 14:00..15:00' -o diff.svg
  profiler diff --base -2h..-1h --with -1h.. --where 'unit=\"web.service\"'
  profiler record -F 999 -o new.json -- ./benchmark && profiler diff old.json new.json --fail-over 5%

",
    exit_codes!()
);

/// `profiler diff`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct DiffArgs {
    /// Both sides; the same as --base and --with
    #[arg(value_names = ["BASE", "WITH"], num_args = 2, required_unless_present_all = ["base", "with"])]
    pub operands: Vec<Operand>,
    /// What it is compared with
    #[arg(
        long,
        value_name = "OPERAND",
        allow_hyphen_values = true,
        conflicts_with = "operands",
        requires = "with"
    )]
    pub base: Option<Operand>,
    /// What is looked at
    #[arg(
        long,
        value_name = "OPERAND",
        allow_hyphen_values = true,
        conflicts_with = "operands",
        requires = "base"
    )]
    pub with: Option<Operand>,
    /// What is made equal: total (compares shares), time (CPUs kept busy) or work (nothing)
    #[arg(long, value_name = "WHAT", default_value = "total")]
    pub normalize: Normalize,
    /// Exit 1 if a frame grew by more than this, such as 5%
    #[arg(long, value_name = "PERCENT", value_parser = values::percent)]
    pub fail_over: Option<f64>,
    /// Judge frames with at least this share of the whole
    #[arg(long, value_name = "PERCENT", default_value = "2%", value_parser = values::percent, requires = "fail_over")]
    pub min_share: f64,
    /// Most rows that are shown, 1 to 1000
    #[arg(long, value_name = "N", default_value = "30", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// Write to FILE in place of the table; its extension says the format: .svg, .folded, .json
    #[arg(short, long, value_name = "FILE", value_parser = values::diff_file)]
    pub output: Option<(PathBuf, DiffFormat)>,
    /// Write to stdout in this format in place of the table: svg, folded or json
    #[arg(long, value_name = "FORMAT", conflicts_with = "output")]
    pub format: Option<DiffFormat>,
    /// Where the daemon is.
    #[command(flatten)]
    pub reach: ReachArgs,
    /// What was measured, for stored ranges: on-cpu or off-cpu [default: on-cpu]
    #[arg(long, value_name = "KIND", help_heading = "Query")]
    pub kind: Option<ProfileKind>,
    /// Whose, on both sides: see `profiler top --help`
    #[arg(long = "where", value_name = "SELECTOR", value_parser = values::selector, help_heading = "Query")]
    pub selector: Option<String>,
}

impl DiffArgs {
    /// The base and the other side; `None` if clap let a line without them through.
    #[must_use]
    pub fn sides(&self) -> Option<[&Operand; 2]> {
        match (self.operands.as_slice(), &self.base, &self.with) {
            ([base, with], _, _) => Some([base, with]),
            (_, Some(base), Some(with)) => Some([base, with]),
            _ => None,
        }
    }

    /// What is judged.
    #[must_use]
    pub fn gate(&self) -> Option<Gate> {
        self.fail_over.map(|fail_over| Gate { fail_over, min_share: self.min_share })
    }

    /// The format that is wanted in place of the table.
    #[must_use]
    pub fn rendering(&self) -> Option<DiffFormat> {
        self.output.as_ref().map(|(_, format)| *format).or(self.format)
    }
}
