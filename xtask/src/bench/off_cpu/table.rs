//! One row a tool and rate: medians of all rounds.

use std::collections::BTreeMap;

use super::programs::Program;
use super::ring::Counted;

/// A program that ran less often while it was timed says nothing.
const FEW_RUNS: u64 = 200;
/// What is aimed at.
const GOAL_NS: f64 = 250.0;
const GOAL_RATIO: &str = "0.99 at 20 k switches/s and CPU, 0.92 at the highest rate";

/// One run of a tool.
#[derive(Clone, Debug, Default)]
pub(super) struct Run {
    pub(super) counted: Counted,
    /// What the workload did without the tool, right before and after.
    pub(super) nothing: Counted,
    /// CPU time of the tool itself, in CPUs.
    pub(super) cpus: f64,
    /// Runs of its programs, by name.
    pub(super) programs: BTreeMap<String, Program>,
}

/// All runs of a tool at one rate.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub(super) runs: Vec<Run>,
    /// Why there are no more of them.
    pub(super) failed: Option<String>,
}

impl Row {
    /// What the one program of this tool takes, ns a run.
    pub(super) fn floor_ns(&self) -> Option<f64> {
        let timed = self.timed();
        timed.into_values().map(|(ns, _)| ns).reduce(f64::min)
    }

    /// Median time of a run, ns, and runs, by program.
    fn timed(&self) -> BTreeMap<&str, (f64, u64)> {
        let mut all: BTreeMap<&str, Vec<(f64, u64)>> = BTreeMap::new();
        for (name, program) in self.runs.iter().flat_map(|run| &run.programs) {
            if program.runs >= FEW_RUNS {
                let each = program.run_ns as f64 / program.runs as f64;
                all.entry(name).or_default().push((each, program.runs));
            }
        }
        let median_of = |list: &[(f64, u64)]| {
            let ns = quartiles(list.iter().map(|(ns, _)| *ns).collect())[1];
            (ns, list.iter().map(|(_, runs)| runs).sum())
        };
        all.into_iter().map(|(name, list)| (name, median_of(&list))).collect()
    }

    pub(super) fn line(&self, shape: &str, tool: &str, floor_ns: Option<f64>) -> String {
        if let Some(why) = &self.failed {
            let why: Vec<&str> = why.split_whitespace().collect();
            return format!("| {shape} | - | {tool} | {} | - | - | - |", why.join(" ").replace('|', "/"));
        }
        let switches = quartiles(self.runs.iter().map(|run| run.nothing.switches).collect())[1];
        let ratio = |run: &Run| run.counted.passes / run.nothing.passes.max(1.0);
        let [low, median, high] = quartiles(self.runs.iter().map(ratio).collect());
        let cpus = quartiles(self.runs.iter().map(|run| run.cpus).collect())[1];
        let timed = self.timed();
        let floor_ns = floor_ns.unwrap_or(0.0);
        let each: Vec<String> =
            timed.iter().map(|(name, (ns, runs))| format!("{name} {ns:.0} x {runs}")).collect();
        // The hook of the switch runs at each; the others are counted with how often they ran.
        let most = timed.values().map(|(_, runs)| *runs).max().unwrap_or(0);
        let above: f64 = timed.values().map(|(ns, runs)| (ns - floor_ns) * *runs as f64).sum();
        let a_switch = if most == 0 { "-".to_owned() } else { format!("{:.0}", above / most as f64) };
        format!(
            "| {shape} | {switches:.0} | {tool} | {median:.3} [{low:.3} {high:.3}] | {a_switch} | {} | {:.2} |",
            if each.is_empty() { "-".to_owned() } else { each.join(", ") },
            cpus * 100.0,
        )
    }
}

pub(super) fn head(cpus: usize) {
    println!(
        "Throughput is that of the workload with the tool by that without, median [quartiles]; {cpus} CPUs.\n"
    );
    println!(
        "| threads | switches/s and CPU | beside it | throughput | programs, ns a switch above the empty one \
         | each program, ns x runs | tool, % of a CPU |"
    );
    println!("| --- | ---: | --- | ---: | ---: | --- | ---: |");
}

pub(super) fn foot() {
    println!("\nGoals of continuous off-CPU time: at most {GOAL_NS} ns a switch; throughput {GOAL_RATIO}.");
}

/// Lower quartile, median and upper quartile; zeros of nothing.
fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = share * values.len().saturating_sub(1) as f64;
        let (low, high) = (place.floor() as usize, place.ceil() as usize);
        let value = |index: usize| values.get(index).copied().unwrap_or(0.0);
        value(low) + (value(high) - value(low)) * place.fract()
    };
    [at(0.25), at(0.5), at(0.75)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(passes: f64, switch_ns: u64) -> Run {
        let program = |run_ns, runs| Program { tag: String::new(), run_ns, runs };
        Run {
            counted: Counted { passes, switches: 0.0 },
            nothing: Counted { passes: 100.0, switches: 50.0 },
            cpus: 0.01,
            programs: [
                ("switch".to_owned(), program(switch_ns * 1000, 1000)),
                ("wakeup".to_owned(), program(100 * 500, 500)),
                ("rare".to_owned(), program(1_000_000, 3)),
            ]
            .into(),
        }
    }

    #[test]
    fn a_row_has_medians_above_the_floor() {
        let row = Row { runs: vec![run(90.0, 300), run(95.0, 200), run(10.0, 900)], failed: None };
        let line = row.line("pair", "ours", Some(50.0));
        // 300 - 50 of the switch, half of 100 - 50 of the wake-up.
        assert_eq!(
            line,
            "| pair | 50 | ours | 0.900 [0.500 0.925] | 275 | switch 300 x 3000, wakeup 100 x 1500 | 1.00 |"
        );
        assert_eq!(row.floor_ns(), Some(100.0));
    }

    #[test]
    fn a_tool_that_is_missing_has_a_row() {
        let row = Row { runs: Vec::new(), failed: Some("cannot\n be | found".to_owned()) };
        assert_eq!(row.line("pair", "peer", None), "| pair | - | peer | cannot be / found | - | - | - |");
    }

    #[test]
    fn quartiles_of_few() {
        assert_eq!(quartiles(vec![]), [0.0, 0.0, 0.0]);
        assert_eq!(quartiles(vec![7.0]), [7.0, 7.0, 7.0]);
        assert_eq!(quartiles(vec![3.0, 1.0]), [1.5, 2.0, 2.5]);
    }
}
