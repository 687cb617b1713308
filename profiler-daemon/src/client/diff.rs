//! `profiler diff`: compares two profiles, here or in the daemon, and judges what grew.

mod sides;

use crate::cli::{DiffArgs, Exit, PendingFile};
use crate::render::{Change, DiffFormat, Gate, Share, Verdict};

use super::Failure;
use super::output::{Output, say};
use super::table::{Align, table};

/// Frames that the error names; all are listed above it.
const NAMED: usize = 5;

/// Smallest change of a share that is shown: 0.05 percentage points.
const SHOWN: f64 = 0.0005;

/// The outcome of a comparison, wherever it was made.
struct Compared {
    /// Frames that changed most.
    changes: Vec<Change>,
    verdict: Option<Verdict>,
    /// The other format, where one is wanted.
    rendered: Vec<u8>,
    /// What the sides hold, for people.
    sides: [String; 2],
}

/// `profiler diff`.
///
/// # Errors
/// No daemon, no data, sides that cannot be compared, an output that cannot be written; growth above
/// `--fail-over`.
pub async fn diff(args: &DiffArgs) -> Result<(), Failure> {
    let Some([base, with]) = args.sides() else {
        return Err(Failure::new(Exit::Usage, "two sides are needed: see `profiler diff --help`"));
    };
    // An output that cannot be written is known before anything has worked for it.
    let file = args.output.as_ref().map(|(path, _)| PendingFile::create(path)).transpose()?;
    let compared = if base.is_remote() && with.is_remote() {
        sides::compare_there(args, base, with).await?
    } else {
        sides::compare_here(args, base, with).await?
    };
    let mut output = Output::stdout();
    match (file, args.rendering()) {
        (Some(mut file), _) => {
            file.write(&compared.rendered)?;
            file.commit()?;
        }
        (None, Some(DiffFormat::Json | DiffFormat::Folded | DiffFormat::Svg)) => {
            output.text(&String::from_utf8_lossy(&compared.rendered))?;
        }
        (None, None) => {
            let changes: Vec<Change> = compared.changes.into_iter().filter(is_seen).collect();
            if changes.is_empty() {
                say("no share changed by more than 0.05 percentage points");
            } else {
                output.text(&as_table(&changes, output.columns()))?;
            }
        }
    }
    let [base, with] = &compared.sides;
    say(&format!("base: {base}"));
    say(&format!("with: {with}"));
    if let Some((path, _)) = &args.output {
        say(&format!("wrote {}", path.display()));
    }
    match (args.gate(), &compared.verdict) {
        (Some(gate), Some(verdict)) => judge(gate, verdict),
        _ => Ok(()),
    }
}

/// Whether the table would show more than zeros.
fn is_seen(change: &Change) -> bool {
    [&change.own, &change.total].iter().any(|share| share.change().abs() >= SHOWN)
}

pub(super) fn as_table(changes: &[Change], columns: Option<usize>) -> String {
    let header = [
        ("SELF%", Align::Right),
        ("CHANGE", Align::Right),
        ("TOTAL%", Align::Right),
        ("CHANGE", Align::Right),
        ("FRAME", Align::Left),
    ];
    let share = |share: f64| format!("{:.1}%", 100.0 * share);
    let cells = |change: &Change| {
        vec![
            share(change.own.with_share),
            moved(&change.own),
            share(change.total.with_share),
            moved(&change.total),
            change.frame.clone(),
        ]
    };
    table(&header, &changes.iter().map(cells).collect::<Vec<_>>(), columns)
}

/// Percentage points, marked where noise explains them.
fn moved(share: &Share) -> String {
    let points = 100.0 * share.change();
    if share.change().abs() < SHOWN {
        return "0.0 ".to_owned();
    }
    format!("{points:+.1}{}", if share.is_clear() { ' ' } else { '~' })
}

/// Says what grew; an error where that is too much.
fn judge(gate: Gate, verdict: &Verdict) -> Result<(), Failure> {
    let limit = percent(gate.fail_over);
    if verdict.undecided > 0 {
        let undecided = verdict.undecided;
        say(&format!(
            "{undecided} frames may have grown by more than {limit}, with too few samples to tell from noise: \
             record longer or at a higher frequency"
        ));
    }
    if verdict.failed.is_empty() {
        say(&format!("passed: of {} values none grew by more than {limit} beyond noise", verdict.tested));
        return Ok(());
    }
    for change in &verdict.failed {
        say(&grown(change, verdict));
    }
    let count = verdict.failed.len();
    let mut names: Vec<&str> =
        verdict.failed.iter().take(NAMED).map(|change| change.frame.as_str()).collect();
    if count > NAMED {
        names.push("...");
    }
    let frames = if count == 1 { "1 frame".to_owned() } else { format!("{count} frames") };
    let names = super::output::clean(&names.join(", "));
    Err(Failure::new(Exit::Failure, format!("{frames} grew by more than {limit}: {names}")))
}

/// `grew: f: self 30.0% -> 32.0% of the whole, that is +10.0% (+6.0% to +14.1%)`.
fn grown(change: &Change, verdict: &Verdict) -> String {
    let (what, share) =
        if verdict.fails(&change.own) { ("self", &change.own) } else { ("total", &change.total) };
    let at = |errors: f64| percent_signed((share.growth.ln_1p() + errors * share.error).exp_m1());
    format!(
        "grew: {}: {what} {} -> {} of the whole, {} more expensive than before (99% sure of {} to {})",
        change.frame,
        percent(share.base_share),
        percent(share.with_share),
        percent(share.growth),
        at(-2.576),
        at(2.576),
    )
}

fn percent(part: f64) -> String {
    let text = format!("{:.1}", 100.0 * part);
    format!("{}%", text.strip_suffix(".0").unwrap_or(&text))
}

fn percent_signed(part: f64) -> String {
    format!("{}{}", if part >= 0.0 { "+" } else { "" }, percent(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(base: f64, with: f64, error: f64) -> Share {
        Share { base_share: base, with_share: with, growth: with / base - 1.0, error, ..Share::default() }
    }

    #[test]
    fn noise_is_marked() {
        let change = |frame: &str, own, total| Change { frame: frame.to_owned(), own, total };
        let changes = [
            change("slow\x1b", share(0.2, 0.3, 0.01), share(0.9, 0.91, 0.05)),
            change("same", share(0.1, 0.1, 0.01), share(0.5, 0.4, 0.01)),
        ];
        assert_eq!(
            as_table(&changes, Some(80)),
            "SELF%  CHANGE  TOTAL%  CHANGE  FRAME\n\
             30.0%  +10.0    91.0%   +1.0~  slow\u{fffd}\n\
             10.0%    0.0    40.0%  -10.0   same\n"
        );
    }

    #[test]
    fn what_grew_is_named() {
        let gate = Gate { fail_over: 0.05, min_share: 0.01 };
        let slow =
            Change { frame: "slow".to_owned(), own: share(0.2, 0.22, 0.01), total: share(0.2, 0.22, 0.01) };
        let verdict = |failed| Verdict { gate: Some(gate), failed, undecided: 1, tested: 2, bound: 3.0 };
        assert_eq!(judge(gate, &verdict(Vec::new())), Ok(()));
        let failure = judge(gate, &verdict(vec![slow.clone()])).expect_err("grew");
        assert_eq!(
            (failure.exit, failure.message.as_str()),
            (Exit::Failure, "1 frame grew by more than 5%: slow")
        );
        assert_eq!(
            grown(&slow, &verdict(Vec::new())),
            "grew: slow: self 20% -> 22% of the whole, 10% more expensive than before (99% sure of +7.2% to +12.9%)"
        );
    }
}
