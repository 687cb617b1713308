//! `profiler top`: the heaviest functions as a table or JSON.

use serde_json::{Value, json};

use crate::cli::{Layout, TopArgs};
use crate::proto::{self, ProfileSummary, TopRequest, TopRow, WaitTimes};
use crate::render::{GroupBy, short_time};

use super::connect::{Daemon, RENDER_DEADLINE, request};
use super::output::{Output, say};
use super::table::{Align, table};
use super::{Failure, summary};

/// `profiler top`.
///
/// # Errors
/// No daemon, no data, a refused query.
pub async fn top(args: &TopArgs) -> Result<(), Failure> {
    let daemon = Daemon::connect(&args.reach.connect).await?;
    let question = TopRequest {
        selection: Some(summary::selection(&args.query, None)),
        limit: args.limit,
        by: by(args.by).into(),
        focus: args.focus.clone().unwrap_or_default(),
        ignore: args.ignore.clone().unwrap_or_default(),
        cumulative: args.cumulative,
    };
    let mut profiles = daemon.profiles();
    let answer = daemon.answer(RENDER_DEADLINE, profiles.top(request(question, RENDER_DEADLINE))).await?;
    let facts = summary::with_data(answer.summary)?;
    let mut output = Output::stdout();
    match args.output {
        Layout::Table => {
            // First, as the table's header: whoever reads the first rows has read what they are worth.
            summary::tell(&facts);
            output.text(&as_table(&facts, &answer.rows, title(args.by), output.columns()))?;
            if !answer.waits.is_empty() {
                output.text(&format!("\n{}", waits_table(&answer.waits, output.columns())))?;
            }
            if answer.shown < facts.total {
                let share = summary::percent(answer.shown, facts.total);
                say(&format!(
                    "{share} of the whole is left by --focus and --ignore; shares are of the whole"
                ));
            }
            Ok(())
        }
        Layout::Json => output.text(&as_json(&facts, &answer.rows, answer.shown, &answer.waits)),
    }
}

fn by(by: GroupBy) -> proto::GroupBy {
    match by {
        GroupBy::Frame => proto::GroupBy::Frame,
        GroupBy::Process => proto::GroupBy::Process,
        GroupBy::Thread => proto::GroupBy::Thread,
        GroupBy::Container => proto::GroupBy::Container,
        GroupBy::Pod => proto::GroupBy::Pod,
        GroupBy::Unit => proto::GroupBy::Unit,
        GroupBy::Reason => proto::GroupBy::Reason,
    }
}

fn title(by: GroupBy) -> &'static str {
    match by {
        GroupBy::Frame => "FRAME",
        GroupBy::Process => "PROCESS",
        GroupBy::Thread => "THREAD",
        GroupBy::Container => "CONTAINER",
        GroupBy::Pod => "POD",
        GroupBy::Unit => "UNIT",
        GroupBy::Reason => "REASON",
    }
}

/// A table whose last column has this title. Groups have no part that is not their own.
pub(super) fn as_table(
    facts: &ProfileSummary,
    rows: &[TopRow],
    title: &str,
    columns: Option<usize>,
) -> String {
    if title != "FRAME" {
        let header =
            [("SHARE", Align::Right), ("±", Align::Right), ("VALUE", Align::Right), (title, Align::Left)];
        let cells = |row: &TopRow| {
            vec![
                summary::percent(row.total, facts.total),
                error(row.total_error, facts.total),
                row.total.to_string(),
                row.frame.clone(),
            ]
        };
        return table(&header, &rows.iter().map(cells).collect::<Vec<_>>(), columns);
    }
    let header = [
        ("SELF%", Align::Right),
        ("±", Align::Right),
        ("SELF", Align::Right),
        ("TOTAL%", Align::Right),
        ("±", Align::Right),
        ("TOTAL", Align::Right),
        ("FRAME", Align::Left),
    ];
    let cells = |row: &TopRow| {
        vec![
            summary::percent(row.self_, facts.total),
            error(row.self_error, facts.total),
            row.self_.to_string(),
            summary::percent(row.total, facts.total),
            error(row.total_error, facts.total),
            row.total.to_string(),
            row.frame.clone(),
        ]
    };
    table(&header, &rows.iter().map(cells).collect::<Vec<_>>(), columns)
}

/// A standard error in percent of the whole, with one digit that counts.
fn error(error: f64, whole: u64) -> String {
    match 100.0 * error / whole.max(1) as f64 {
        percent if percent <= 0.0 => "0".to_owned(),
        percent if percent < 0.095 => format!("{percent:.2}"),
        percent => format!("{percent:.1}"),
    }
}

/// How long waits were, by what for.
pub(super) fn waits_table(waits: &[WaitTimes], columns: Option<usize>) -> String {
    let right = |title| (title, Align::Right);
    let header = [
        right("WAITS"),
        right("P50"),
        right("P90"),
        right("P99"),
        right("MAX"),
        right("STILL"),
        right("LONGEST"),
        ("FOR", Align::Left),
    ];
    let cells = |waits: &WaitTimes| {
        let times = [waits.p50_ns, waits.p90_ns, waits.p99_ns, waits.max_ns];
        let time = |ns: u64| if ns == 0 { "-".to_owned() } else { short_time(ns) };
        let mut cells = vec![format!("{:.0}", waits.count)];
        cells.extend(times.map(time));
        cells.extend([format!("{:.0}", waits.still), time(waits.longest_still_ns), waits.what.clone()]);
        cells
    };
    table(&header, &waits.iter().map(cells).collect::<Vec<_>>(), columns)
}

fn waits_json(waits: &[WaitTimes]) -> Value {
    let bucket = |bucket: &proto::WaitBucket| json!([bucket.from_ns, bucket.to_ns, bucket.count]);
    waits
        .iter()
        .map(|waits| {
            json!({"what": waits.what, "count": waits.count, "records": waits.records, "p50_ns": waits.p50_ns,
                   "p90_ns": waits.p90_ns, "p99_ns": waits.p99_ns, "max_ns": waits.max_ns, "still": waits.still,
                   "longest_still_ns": waits.longest_still_ns,
                   "buckets": waits.buckets.iter().map(bucket).collect::<Value>()})
        })
        .collect()
}

fn as_json(facts: &ProfileSummary, rows: &[TopRow], shown: u64, waits: &[WaitTimes]) -> String {
    let document = json!({"summary": summary::to_json(facts), "shown": shown, "rows": rows_json(rows),
                          "waits": waits_json(waits)});
    format!("{document:#}\n")
}

/// The rows for programs.
pub(super) fn rows_json(rows: &[TopRow]) -> Value {
    rows.iter()
        .map(|row| {
            json!({"frame": row.frame, "self": row.self_, "total": row.total, "self_error": row.self_error,
                   "total_error": row.total_error, "waits": waits_json(&row.waits)})
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_whole_profile() {
        let facts = ProfileSummary { total: 200, ..ProfileSummary::default() };
        let rows = [TopRow {
            frame: "main\x1b[2J".to_owned(),
            self_: 1,
            total: 200,
            self_error: 0.1,
            total_error: 5.0,
            waits: Vec::new(),
        }];
        assert_eq!(
            as_table(&facts, &rows, "FRAME", Some(80)),
            "SELF%     ±  SELF  TOTAL%    ±  TOTAL  FRAME\n 0.5%  0.05     1  100.0%  2.5    200  main\u{fffd}[2J\n"
        );
        let json: serde_json::Value = serde_json::from_str(&as_json(&facts, &rows, 200, &[])).expect("JSON");
        assert_eq!(json["rows"][0]["self"], 1);
        assert_eq!(json["summary"]["total"], 200);
        assert_eq!(
            as_table(&facts, &rows, "UNIT", Some(80)),
            " SHARE    ±  VALUE  UNIT\n100.0%  2.5    200  main\u{fffd}[2J\n"
        );
    }
}
