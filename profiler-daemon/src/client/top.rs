//! `profiler top`: the heaviest functions as a table or JSON.

use serde_json::json;

use crate::cli::{Layout, TopArgs};
use crate::proto::{ProfileSummary, TopRequest, TopRow};

use super::connect::{Daemon, RENDER_DEADLINE, request};
use super::output::Output;
use super::table::{Align, table};
use super::{Failure, summary};

/// `profiler top`.
///
/// # Errors
/// No daemon, no data, a refused query.
pub async fn top(args: &TopArgs) -> Result<(), Failure> {
    let daemon = Daemon::connect(&args.reach.connect).await?;
    let question = TopRequest { selection: Some(summary::selection(&args.query, None)), limit: args.limit };
    let mut profiles = daemon.profiles();
    let answer = daemon.answer(RENDER_DEADLINE, profiles.top(request(question, RENDER_DEADLINE))).await?;
    let facts = summary::with_data(answer.summary)?;
    let mut output = Output::stdout();
    match args.output {
        Layout::Table => {
            // First, as the table's header: whoever reads the first rows has read what they are worth.
            summary::tell(&facts);
            output.text(&as_table(&facts, &answer.rows, output.columns()))
        }
        Layout::Json => output.text(&as_json(&facts, &answer.rows)),
    }
}

fn as_table(facts: &ProfileSummary, rows: &[TopRow], columns: Option<usize>) -> String {
    let header = [
        ("SELF%", Align::Right),
        ("SELF", Align::Right),
        ("TOTAL%", Align::Right),
        ("TOTAL", Align::Right),
        ("FRAME", Align::Left),
    ];
    let cells = |row: &TopRow| {
        vec![
            summary::percent(row.self_, facts.total),
            row.self_.to_string(),
            summary::percent(row.total, facts.total),
            row.total.to_string(),
            row.frame.clone(),
        ]
    };
    table(&header, &rows.iter().map(cells).collect::<Vec<_>>(), columns)
}

fn as_json(facts: &ProfileSummary, rows: &[TopRow]) -> String {
    let rows: Vec<_> =
        rows.iter().map(|row| json!({"frame": row.frame, "self": row.self_, "total": row.total})).collect();
    format!("{:#}\n", json!({"summary": summary::to_json(facts), "rows": rows}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_whole_profile() {
        let facts = ProfileSummary { total: 200, ..ProfileSummary::default() };
        let rows = [TopRow { frame: "main\x1b[2J".to_owned(), self_: 1, total: 200 }];
        assert_eq!(
            as_table(&facts, &rows, Some(80)),
            "SELF%  SELF  TOTAL%  TOTAL  FRAME\n 0.5%     1  100.0%    200  main\u{fffd}[2J\n"
        );
        let json: serde_json::Value = serde_json::from_str(&as_json(&facts, &rows)).expect("JSON");
        assert_eq!(json["rows"][0]["self"], 1);
        assert_eq!(json["summary"]["total"], 200);
    }
}
