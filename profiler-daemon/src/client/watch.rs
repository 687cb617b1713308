//! `profiler watch`: a table for every window, when it is sealed.

use serde_json::json;

use crate::cli::{Layout, WatchArgs};
use crate::model::ProfileKind;
use crate::proto::{WatchWindowsRequest, WatchWindowsResponse};

use super::connect::Daemon;
use super::output::{Output, say};
use super::{Failure, fit, summary, top};

/// `profiler watch`.
///
/// # Errors
/// No daemon, a refused query; the daemon ends.
pub async fn watch(args: &WatchArgs) -> Result<(), Failure> {
    let daemon = Daemon::connect(&args.reach.connect).await?;
    let question = WatchWindowsRequest {
        kind: summary::kind(args.kind.unwrap_or(ProfileKind::OnCpu)).into(),
        r#where: args.selector.clone().unwrap_or_default(),
        limit: args.limit,
    };
    let mut profiles = daemon.profiles();
    let windows = profiles.watch(question).await.map_err(|status| daemon.failure(&status))?;
    let mut windows = windows.into_inner();
    let mut output = Output::stdout();
    let mut left = args.windows.unwrap_or(u64::MAX);
    while left > 0
        && let Some(window) = windows.message().await.map_err(|status| daemon.failure(&status))?
    {
        match args.output {
            Layout::Table => output.text(&as_text(&window, output.columns()))?,
            Layout::Json => output.text(&as_json(&window))?,
        }
        if output.is_closed() {
            return Ok(());
        }
        left -= 1;
    }
    if left > 0 && args.windows.is_some() {
        say("the daemon ended the watch");
    }
    Ok(())
}

fn as_text(window: &WatchWindowsResponse, columns: Option<usize>) -> String {
    let facts = window.summary.clone().unwrap_or_default();
    let mut text = fit::wrap("", &summary::line(&facts), 2, columns) + "\n";
    if window.missed > 0 {
        text.push_str(&format!("{} windows before this one were missed\n", window.missed));
    }
    if window.rows.is_empty() {
        text.push_str("nothing matched\n");
    } else {
        text.push_str(&top::as_table(&facts, &window.rows, "FRAME", columns));
    }
    text.push('\n');
    text
}

/// One line.
fn as_json(window: &WatchWindowsResponse) -> String {
    let facts = window.summary.clone().unwrap_or_default();
    let document = json!({
        "summary": summary::to_json(&facts),
        "rows": top::rows_json(&window.rows),
        "missed": window.missed,
    });
    format!("{document}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{ProfileSummary, TopRow};

    #[test]
    fn a_window_is_a_table_or_a_line() {
        let summary =
            ProfileSummary { kind: 1, total: 4, unit: "samples".to_owned(), ..ProfileSummary::default() };
        let row = TopRow { frame: "main".to_owned(), self_: 4, total: 4, ..TopRow::default() };
        let window = WatchWindowsResponse { summary: Some(summary), rows: vec![row], missed: 2 };
        assert_eq!(
            as_text(&window, Some(80)),
            "on-cpu 4 samples (0s covered), lost nothing\n2 windows before this one were missed\n \
             SELF%  ±  SELF  TOTAL%  ±  TOTAL  FRAME\n100.0%  0     4  100.0%  0      4  main\n\n"
        );
        let line = as_json(&window);
        assert_eq!(line.lines().count(), 1);
        let json: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!((&json["rows"][0]["self"], &json["missed"]), (&json!(4), &json!(2)));
        let empty = WatchWindowsResponse::default();
        assert!(as_text(&empty, None).ends_with("nothing matched\n\n"));
    }
}
