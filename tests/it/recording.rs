//! What the recording tests share: one `profiler record` in a directory of its own.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use profiler_tests::folded::Folded;
use profiler_tests::pprof::Profile;
use profiler_tests::run::{LIMIT, Outcome, Running, command};
use profiler_tests::stacks::Stacks;
use profiler_tests::svg::Svg;
use profiler_tests::workload::Workload;
use tempfile::TempDir;

/// A directory for the files of one recording.
pub(crate) struct Recording {
    dir: TempDir,
}

impl Recording {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { dir: TempDir::new()? })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `profiler record OPTIONS... -o FILE...`, where `options` are split at blanks.
    fn line(&self, options: &str, files: &[&str]) -> Vec<OsString> {
        let mut line = vec![OsString::from("record")];
        line.extend(options.split_whitespace().map(OsString::from));
        for file in files {
            line.extend([OsString::from("-o"), self.path(file).into()]);
        }
        line
    }

    /// Starts a recording and comes back at once.
    pub(crate) fn start(&self, options: &str, files: &[&str]) -> Result<Running> {
        Running::start(command(self.line(options, files))?)
    }

    /// Records and waits for the end.
    pub(crate) fn record(&self, options: &str, files: &[&str]) -> Result<Outcome> {
        self.start(options, files)?.wait()
    }

    /// Records a workload from its start to its end.
    pub(crate) fn record_workload(
        &self,
        options: &str,
        files: &[&str],
        workload: &Workload,
    ) -> Result<Outcome> {
        self.record_command(options, files, workload.line())
    }

    /// Records a command and its children from its start to its end.
    pub(crate) fn record_command(
        &self,
        options: &str,
        files: &[&str],
        command_line: &[OsString],
    ) -> Result<Outcome> {
        let mut line = self.line(options, files);
        line.push("--".into());
        line.extend(command_line.iter().cloned());
        let mut command = command(line)?;
        // What a program leaves behind goes with the recording.
        command.current_dir(self.dir.path());
        Running::start(command)?.wait_at_most(2 * LIMIT)
    }

    /// Records these workloads, one after the other. Each must end with success.
    pub(crate) fn record_in_turn<'a>(
        &self,
        options: &str,
        files: &[&str],
        workloads: impl IntoIterator<Item = &'a Workload>,
    ) -> Result<Outcome> {
        let quoted = |workload: &Workload| {
            let words: Vec<String> =
                workload.line().iter().map(|word| format!("'{}'", word.display())).collect();
            words.join(" ")
        };
        let script: Vec<String> = workloads.into_iter().map(quoted).collect();
        let line = ["sh".into(), "-c".into(), OsString::from(script.join(" && "))];
        self.record_command(options, files, &line)
    }

    /// The profile in its JSON form.
    pub(crate) fn stacks(&self, name: &str) -> Result<Stacks> {
        Stacks::parse(&self.text(name)?).with_context(|| format!("{name} is no profile as JSON"))
    }

    pub(crate) fn text(&self, name: &str) -> Result<String> {
        std::fs::read_to_string(self.path(name)).with_context(|| format!("no file {name}"))
    }

    pub(crate) fn folded(&self, name: &str) -> Result<Folded> {
        Folded::parse(&self.text(name)?).with_context(|| format!("{name} is not folded"))
    }

    pub(crate) fn svg(&self, name: &str) -> Result<Svg> {
        Svg::parse(&self.text(name)?).with_context(|| format!("{name} is no flame graph"))
    }

    pub(crate) fn pprof(&self, name: &str) -> Result<Profile> {
        let bytes = std::fs::read(self.path(name)).with_context(|| format!("no file {name}"))?;
        Profile::decode_gz(&bytes).with_context(|| format!("{name} is no pprof"))
    }
}

/// `part / whole`, for assertions on ratios.
pub(crate) fn ratio(part: f64, whole: f64) -> f64 {
    assert!(whole > 0.0, "nothing to compare {part} with");
    part / whole
}

/// Whether `seen` is within this share of the truth.
pub(crate) fn within(share: f64, seen: f64, truth: f64) -> bool {
    (ratio(seen, truth) - 1.0).abs() <= share
}

/// Time that a hypervisor takes from this machine. A thread's own CPU clock leaves it out; to the
/// sampler the thread is running meanwhile. Zero on hardware of one's own.
pub(crate) struct Stolen(f64);

impl Stolen {
    pub(crate) fn since_now() -> Result<Self> {
        Ok(Self(Self::total()?))
    }

    pub(crate) fn seconds(&self) -> Result<f64> {
        Ok(Self::total()? - self.0)
    }

    /// Eighth column of the first line of `/proc/stat`, in ticks of 10 ms: all CPUs since boot.
    fn total() -> Result<f64> {
        let stat = std::fs::read_to_string("/proc/stat")?;
        let all = stat.lines().next().context("an empty /proc/stat")?;
        Ok(all.split_whitespace().nth(8).context("no steal column")?.parse::<f64>()? / 100.0)
    }
}

/// Walks that a checking run compared, from what it said. Fails if one differed, or none was compared.
pub(crate) fn checked_walks(outcome: &Outcome) -> Result<u64> {
    let line = outcome.stderr.lines().find_map(|line| line.strip_prefix("profiler: walks: "));
    let line = line.with_context(|| format!("no walks were compared: {outcome}"))?;
    let (checked, differed) = line
        .strip_suffix(" differed")
        .and_then(|line| line.split_once(" checked, "))
        .with_context(|| format!("what does this say? {line}"))?;
    println!("walks: {line}");
    ensure!(differed == "0", "{differed} of {checked} walks differ from a walk without cache and window");
    Ok(checked.parse()?)
}
