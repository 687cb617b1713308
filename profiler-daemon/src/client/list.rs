//! `profiler list`: what a daemon has stored, by process.

use crate::cli::ListArgs;
use crate::proto::{ListRequest, ProcessRow, ProfileSummary};

use super::connect::{Daemon, RENDER_DEADLINE, request};
use super::output::Output;
use super::table::{Align, table};
use super::{Failure, summary};

/// `profiler list`.
///
/// # Errors
/// No daemon, no data, a refused query.
pub async fn list(args: &ListArgs) -> Result<(), Failure> {
    let daemon = Daemon::connect(&args.reach.connect).await?;
    // No limit of ours: the daemon's.
    let question = ListRequest { selection: Some(summary::selection(&args.query, None)), limit: 0 };
    let mut profiles = daemon.profiles();
    let answer = daemon.answer(RENDER_DEADLINE, profiles.list(request(question, RENDER_DEADLINE))).await?;
    let facts = summary::with_data(answer.summary)?;
    let mut output = Output::stdout();
    output.text(&as_table(&facts, &answer.processes, output.columns()))?;
    summary::tell(&facts);
    Ok(())
}

fn as_table(facts: &ProfileSummary, rows: &[ProcessRow], columns: Option<usize>) -> String {
    let header = [
        ("SHARE", Align::Right),
        ("VALUE", Align::Right),
        ("PID", Align::Right),
        ("COMM", Align::Left),
        ("EXE", Align::Left),
    ];
    let cells = |row: &ProcessRow| {
        vec![
            summary::percent(row.value, facts.total),
            row.value.to_string(),
            row.pid.to_string(),
            row.comm.clone(),
            row.exe.clone(),
        ]
    };
    table(&header, &rows.iter().map(cells).collect::<Vec<_>>(), columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_forge_a_row() {
        let facts = ProfileSummary { total: 4, ..ProfileSummary::default() };
        let row = ProcessRow { pid: 7, comm: "a\nb".to_owned(), exe: String::new(), value: 1 };
        assert_eq!(
            as_table(&facts, &[row], None),
            "SHARE  VALUE  PID  COMM  EXE\n25.0%      1    7  a\u{fffd}b\n"
        );
    }
}
