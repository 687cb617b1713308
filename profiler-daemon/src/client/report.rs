//! `profiler report`: utilisation, saturation and errors, as text, JSON or Markdown.

use serde_json::{Value, json};

use crate::cli::{ReportArgs, ReportLayout};
use crate::proto::{Aspect, HotStack, ReportLine, ReportRequest, ReportResponse};

use super::connect::{Daemon, RENDER_DEADLINE, request};
use super::fit::{cut, wrap};
use super::output::{Output, clean};
use super::{Failure, summary, times};

/// What stands before a stack.
const INDENT: &str = "          ";

/// `profiler report`.
///
/// # Errors
/// No daemon, no data, a refused query.
pub async fn report(args: &ReportArgs) -> Result<(), Failure> {
    let daemon = Daemon::connect(&args.reach.connect).await?;
    let selection = summary::selection(&args.query, None);
    let question = ReportRequest { selection: Some(selection), stacks: args.stacks };
    let mut profiles = daemon.profiles();
    let answer = daemon.answer(RENDER_DEADLINE, profiles.report(request(question, RENDER_DEADLINE))).await?;
    let mut output = Output::stdout();
    let text = match args.output {
        ReportLayout::Text => as_text(&answer, output.columns()),
        ReportLayout::Json => as_json(&answer),
        ReportLayout::Markdown => as_markdown(&answer),
    };
    output.text(&text)
}

const SECTIONS: [(Aspect, &str); 3] =
    [(Aspect::Utilization, "Utilisation"), (Aspect::Saturation, "Saturation"), (Aspect::Errors, "Errors")];

fn of(report: &ReportResponse, aspect: Aspect) -> impl Iterator<Item = &ReportLine> {
    report.lines.iter().filter(move |line| line.aspect() == aspect)
}

/// `host, 2026-01-31 14:00:00 to 14:05:00 (5m covered)`.
fn head(report: &ReportResponse) -> String {
    let [from, to] = [report.from, report.to]
        .map(|time| times::system_time(time).map_or_else(|| "?".to_owned(), times::local));
    let covered = times::short(times::duration(report.covered));
    format!("{}, {from} to {to} ({covered} covered)", clean(&report.scope))
}

pub(super) fn as_text(report: &ReportResponse, columns: Option<usize>) -> String {
    let mut text = wrap("", &head(report), 2, columns) + "\n";
    for (aspect, title) in SECTIONS {
        text.push_str(&format!("\n{title}\n"));
        for line in of(report, aspect) {
            let label = format!("  {:<7} ", clean(&line.resource));
            text.push_str(&wrap(&label, &clean(&line.text), INDENT.len(), columns));
            text.push('\n');
            for stack in &line.stacks {
                text.push_str(&cut(&format!("{INDENT}{}", shown(stack)), columns));
                text.push('\n');
            }
        }
    }
    text
}

/// `45.2%  nginx: leaf < caller < caller`.
fn shown(stack: &HotStack) -> String {
    let frames = if stack.frames.is_empty() { "[no stack]".to_owned() } else { stack.frames.join(" < ") };
    clean(&format!("{:>5.1}%  {}: {frames}", 100.0 * stack.share, stack.comm))
}

fn as_markdown(report: &ReportResponse) -> String {
    let mut text = format!("# {}\n", escaped(&head(report)));
    for (aspect, title) in SECTIONS {
        text.push_str(&format!("\n## {title}\n\n"));
        for line in of(report, aspect) {
            text.push_str(&format!("- **{}**: {}\n", line.resource, escaped(&clean(&line.text))));
            for stack in &line.stacks {
                // A code span cannot hold the character that ends it.
                text.push_str(&format!("  - `{}`\n", shown(stack).trim_start().replace('`', "'")));
            }
        }
    }
    text
}

/// Text that Markdown takes for text.
fn escaped(text: &str) -> String {
    let special = |c: char| matches!(c, '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '#' | '|');
    text.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}

fn as_json(report: &ReportResponse) -> String {
    let aspect = |line: &ReportLine| match line.aspect() {
        Aspect::Utilization => "utilization",
        Aspect::Saturation => "saturation",
        Aspect::Errors => "errors",
        Aspect::Unspecified => "unspecified",
    };
    let stacks = |line: &ReportLine| -> Value {
        let stack =
            |stack: &HotStack| json!({"share": stack.share, "comm": stack.comm, "frames": stack.frames});
        line.stacks.iter().map(stack).collect()
    };
    let lines = report.lines.iter().map(|line| {
        json!({"aspect": aspect(line), "resource": line.resource, "measure": line.measure, "value": line.value,
               "unit": line.unit, "text": line.text, "stacks": stacks(line)})
    });
    let time = |time| times::system_time(time).and_then(times::rfc3339);
    let document = json!({
        "scope": report.scope,
        "from": time(report.from),
        "to": time(report.to),
        "covered_seconds": times::duration(report.covered).as_secs_f64(),
        "lines": lines.collect::<Value>(),
    });
    format!("{document:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::tests::check;

    fn report() -> ReportResponse {
        let line = |aspect: Aspect, resource: &str, text: &str, stacks| ReportLine {
            aspect: aspect.into(),
            resource: resource.to_owned(),
            measure: "m".to_owned(),
            value: 1.5,
            unit: "cpus".to_owned(),
            text: text.to_owned(),
            stacks,
        };
        let stack = HotStack {
            share: 0.5,
            comm: "a`b".to_owned(),
            frames: vec!["leaf".repeat(20), "main".to_owned()],
        };
        ReportResponse {
            scope: "/system.slice/a_b.service".to_owned(),
            lines: vec![
                line(
                    Aspect::Utilization,
                    "cpu",
                    "1.50 CPUs busy on average, 75.0 % of the host's 2",
                    vec![stack],
                ),
                line(Aspect::Saturation, "io", &"word ".repeat(20), Vec::new()),
            ],
            ..ReportResponse::default()
        }
    }

    #[test]
    fn text_fits_a_terminal() {
        let text = as_text(&report(), Some(80));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("\nUtilisation\n  cpu     1.50 CPUs busy"), "{text}");
        assert!(text.contains("           50.0%  a`b: leafleaf"), "{text}");
        let whole = as_text(&report(), None);
        assert!(whole.contains("< main\n") && whole.lines().count() < text.lines().count());
    }

    #[test]
    fn layouts_are_as_in_the_golden_files() {
        check("report.txt", &as_text(&report(), Some(80)));
        check("report.md", &as_markdown(&report()));
        check("report.json", &as_json(&report()));
    }

    #[test]
    fn markdown_and_json() {
        let markdown = as_markdown(&report());
        assert!(markdown.starts_with("# /system.slice/a\\_b.service, ? to ?"), "{markdown}");
        assert!(markdown.contains("\n  - `50.0%  a'b: leaf"), "{markdown}");
        let json: Value = serde_json::from_str(&as_json(&report())).expect("JSON");
        assert_eq!(json["lines"][0]["stacks"][0]["frames"][1], "main");
        assert_eq!(json["lines"][1]["aspect"], "saturation");
    }
}
