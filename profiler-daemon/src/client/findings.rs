//! The findings of `profiler check` as a table or JSON, and the verdict.

use serde_json::json;

use crate::cli::{Exit, Layout};
use crate::model::{Finding, Severity};

use super::Failure;
use super::output::{Output, clean};

/// Prints the findings to stdout.
///
/// # Errors
/// [`Exit::Refused`] when a finding says that the profiler cannot run here; stdout cannot be
/// written.
pub fn print_findings(findings: &[Finding], layout: Layout) -> Result<(), Failure> {
    Output::stdout().text(&match layout {
        Layout::Table => as_table(findings),
        Layout::Json => as_json(findings),
    })?;
    match findings.iter().filter(|finding| finding.severity == Severity::Error).count() {
        0 => Ok(()),
        1 => Err(Failure::new(Exit::Refused, "the profiler cannot run here: 1 finding stands against it")),
        n => Err(Failure::new(
            Exit::Refused,
            format!("the profiler cannot run here: {n} findings stand against it"),
        )),
    }
}

/// Texts are sentences: each finding has lines of its own instead of columns.
fn as_table(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        text.push_str(&format!(
            "{:<7}  {}: {}\n",
            finding.severity.name(),
            finding.check,
            clean(&finding.message)
        ));
        if !finding.fix.is_empty() {
            text.push_str(&format!("{:<7}  fix: {}\n", "", clean(&finding.fix)));
        }
    }
    text
}

fn as_json(findings: &[Finding]) -> String {
    let rows: Vec<_> = findings
        .iter()
        .map(|finding| {
            json!({
                "check": finding.check,
                "severity": finding.severity.name(),
                "message": finding.message,
                "fix": finding.fix,
            })
        })
        .collect();
    format!("{:#}\n", json!({ "findings": rows }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(severity: Severity, fix: &str) -> Finding {
        Finding { check: "btf", severity, message: "what\nwas found".to_owned(), fix: fix.to_owned() }
    }

    #[test]
    fn fixes_follow_their_finding() {
        let findings = [finding(Severity::Ok, ""), finding(Severity::Error, "do this")];
        assert_eq!(
            as_table(&findings),
            "ok       btf: what\u{fffd}was found\nerror    btf: what\u{fffd}was found\n         fix: do this\n"
        );
        let json: serde_json::Value = serde_json::from_str(&as_json(&findings)).expect("JSON");
        assert_eq!(json["findings"][1]["severity"], "error");
    }
}
