//! `profiler list`: what a daemon has stored: kinds, gaps, processes, containers.

use serde_json::{Value, json};

use crate::cli::{Layout, ListArgs};
use crate::proto::{ContainerRow, ListRequest, ListResponse, ProcessRow, ProfileSummary, TimeRange};

use super::connect::{Daemon, RENDER_DEADLINE, request};
use super::output::{Output, say};
use super::table::{Align, table};
use super::{Failure, summary, times};

/// Gaps that are shown in a table; JSON has all.
const GAPS: usize = 5;

/// `profiler list`.
///
/// # Errors
/// No daemon, no data, a refused query.
pub async fn list(args: &ListArgs) -> Result<(), Failure> {
    let daemon = Daemon::connect(&args.reach.connect).await?;
    let question = ListRequest { selection: Some(summary::selection(&args.query, None)), limit: args.limit };
    let mut profiles = daemon.profiles();
    let answer = daemon.answer(RENDER_DEADLINE, profiles.list(request(question, RENDER_DEADLINE))).await?;
    let facts = summary::with_data(answer.summary.clone())?;
    let mut output = Output::stdout();
    match args.output {
        Layout::Table => {
            output.text(&as_tables(&facts, &answer, output.columns()))?;
            answer.kinds.iter().for_each(|kind| {
                let from_to = [kind.from, kind.to]
                    .map(|time| times::system_time(time).map_or_else(String::new, times::local));
                say(&format!("stored {}: {} to {}", summary::kind_name(kind.kind), from_to[0], from_to[1]));
            });
            answer.gaps.iter().take(GAPS).for_each(|gap| say(&format!("no data: {}", shown(gap))));
            if let Some(more) = answer.gaps.len().checked_sub(GAPS).filter(|more| *more > 0) {
                say(&format!("no data in {more} more stretches; --output json has all"));
            }
            summary::tell(&facts);
            Ok(())
        }
        Layout::Json => output.text(&as_json(&facts, &answer)),
    }
}

fn seconds(gap: &TimeRange) -> f64 {
    let (from, to) = (times::system_time(gap.from), times::system_time(gap.to));
    let length = from.zip(to).and_then(|(from, to)| to.duration_since(from).ok());
    length.unwrap_or_default().as_secs_f64()
}

fn shown(gap: &TimeRange) -> String {
    match (times::system_time(gap.from), times::system_time(gap.to)) {
        (Some(from), Some(to)) => {
            let length = times::short(to.duration_since(from).unwrap_or_default());
            format!("{} to {} ({length})", times::local(from), times::local(to))
        }
        _ => "?".to_owned(),
    }
}

/// Containers only where there are any.
pub(super) fn as_tables(facts: &ProfileSummary, answer: &ListResponse, columns: Option<usize>) -> String {
    let mut text = as_table(facts, &answer.processes, columns);
    if !answer.containers.is_empty() {
        text.push('\n');
        text.push_str(&containers(facts, &answer.containers, columns));
    }
    text
}

fn as_table(facts: &ProfileSummary, rows: &[ProcessRow], columns: Option<usize>) -> String {
    let header = [
        ("SHARE", Align::Right),
        ("VALUE", Align::Right),
        ("PID", Align::Right),
        ("COMM", Align::Left),
        ("IN", Align::Left),
        ("EXE", Align::Left),
    ];
    let cells = |row: &ProcessRow| {
        vec![
            summary::percent(row.value, facts.total),
            row.value.to_string(),
            row.pid.to_string(),
            row.comm.clone(),
            place(row),
            row.exe.clone(),
        ]
    };
    table(&header, &rows.iter().map(cells).collect::<Vec<_>>(), columns)
}

/// The container, or else the unit.
fn place(row: &ProcessRow) -> String {
    match (row.pod.as_str(), row.container.as_str(), row.unit.as_str()) {
        ("", "", "") => "-".to_owned(),
        ("", "", unit) => unit.to_owned(),
        ("", container, _) => container.to_owned(),
        (pod, container, _) => format!("{pod}/{container}"),
    }
}

fn containers(facts: &ProfileSummary, rows: &[ContainerRow], columns: Option<usize>) -> String {
    let header = [
        ("SHARE", Align::Right),
        ("VALUE", Align::Right),
        ("NAMESPACE", Align::Left),
        ("POD", Align::Left),
        ("CONTAINER", Align::Left),
    ];
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let cells = |row: &ContainerRow| {
        vec![
            summary::percent(row.value, facts.total),
            row.value.to_string(),
            or_dash(&row.namespace),
            or_dash(&row.pod),
            row.container.clone(),
        ]
    };
    table(&header, &rows.iter().map(cells).collect::<Vec<_>>(), columns)
}

fn as_json(facts: &ProfileSummary, answer: &ListResponse) -> String {
    let times = |from, to| {
        let [from, to] = [from, to].map(|time| times::system_time(time).and_then(times::rfc3339));
        (from, to)
    };
    let processes = answer.processes.iter().map(|row| {
        json!({"pid": row.pid, "comm": row.comm, "exe": row.exe, "container": row.container, "pod": row.pod,
               "unit": row.unit, "value": row.value})
    });
    let containers = answer.containers.iter().map(|row| {
        json!({"container": row.container, "pod": row.pod, "namespace": row.namespace, "value": row.value})
    });
    let kinds = answer.kinds.iter().map(|kind| {
        let (from, to) = times(kind.from, kind.to);
        json!({"kind": summary::kind_name(kind.kind), "from": from, "to": to})
    });
    let gaps = answer.gaps.iter().map(|gap| {
        let (from, to) = times(gap.from, gap.to);
        json!({"from": from, "to": to, "seconds": seconds(gap)})
    });
    let document = json!({
        "summary": summary::to_json(facts),
        "processes": processes.collect::<Value>(),
        "containers": containers.collect::<Value>(),
        "kinds": kinds.collect::<Value>(),
        "gaps": gaps.collect::<Value>(),
    });
    format!("{document:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> ProfileSummary {
        ProfileSummary { total: 4, ..ProfileSummary::default() }
    }

    #[test]
    fn json_is_as_documented() {
        let second = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let facts = ProfileSummary {
            kind: 1,
            unit: "samples".to_owned(),
            total: 4,
            records: 4,
            from: second(0),
            to: second(10),
            covered: Some(prost_types::Duration { seconds: 10, nanos: 0 }),
            frequency_hz: 99.0,
            total_error: 2.0,
            open_from: second(5),
            resolution: Some(prost_types::Duration { seconds: 0, nanos: 1_000_000 }),
            ..ProfileSummary::default()
        };
        let answer = ListResponse {
            processes: vec![ProcessRow { pid: 7, comm: "a".to_owned(), value: 4, ..ProcessRow::default() }],
            containers: vec![ContainerRow { container: "c".to_owned(), value: 4, ..ContainerRow::default() }],
            kinds: vec![crate::proto::StoredKind { kind: 1, from: second(0), to: second(10) }],
            gaps: vec![TimeRange { since: None, from: second(10), to: second(12) }],
            ..ListResponse::default()
        };
        let document: Value = serde_json::from_str(&as_json(&facts, &answer)).expect("JSON");
        let golden = json!({
            "summary": {
                "kind": "on-cpu", "unit": "samples", "total": 4, "total_error": 2.0, "records": 4,
                "from": "1970-01-01T00:00:00Z", "to": "1970-01-01T00:00:10Z", "covered_seconds": 10.0,
                "open_from": "1970-01-01T00:00:05Z", "resolution_seconds": 0.001,
                "frequency_hz": 99.0, "losses": [], "stacks": null,
            },
            "processes": [{"pid": 7, "comm": "a", "exe": "", "container": "", "pod": "", "unit": "", "value": 4}],
            "containers": [{"container": "c", "pod": "", "namespace": "", "value": 4}],
            "kinds": [{"kind": "on-cpu", "from": "1970-01-01T00:00:00Z", "to": "1970-01-01T00:00:10Z"}],
            "gaps": [{"from": "1970-01-01T00:00:10Z", "to": "1970-01-01T00:00:12Z", "seconds": 2.0}],
        });
        assert_eq!(document, golden);
    }

    #[test]
    fn a_name_cannot_forge_a_row() {
        let row = ProcessRow { pid: 7, comm: "a\nb".to_owned(), value: 1, ..ProcessRow::default() };
        assert_eq!(
            as_table(&facts(), &[row], None),
            "SHARE  VALUE  PID  COMM  IN  EXE\n25.0%      1    7  a\u{fffd}b   -\n"
        );
    }

    #[test]
    fn containers_are_listed_where_there_are_any() {
        let process = ProcessRow {
            pid: 7,
            comm: "nginx".to_owned(),
            exe: "/bin/nginx".to_owned(),
            value: 4,
            container: "web".to_owned(),
            pod: "web-0".to_owned(),
            unit: "x.scope".to_owned(),
        };
        let container = ContainerRow {
            container: "web".to_owned(),
            pod: "web-0".to_owned(),
            namespace: "shop".to_owned(),
            value: 4,
        };
        let answer =
            ListResponse { processes: vec![process], containers: vec![container], ..ListResponse::default() };
        assert_eq!(
            as_tables(&facts(), &answer, Some(80)),
            " SHARE  VALUE  PID  COMM   IN         EXE\n\
             100.0%      4    7  nginx  web-0/web  /bin/nginx\n\
             \n \
             SHARE  VALUE  NAMESPACE  POD    CONTAINER\n\
             100.0%      4  shop       web-0  web\n"
        );
        let json: Value = serde_json::from_str(&as_json(&facts(), &answer)).expect("JSON");
        assert_eq!(
            (&json["containers"][0]["namespace"], &json["processes"][0]["unit"]),
            (&json!("shop"), &json!("x.scope"))
        );
        assert_eq!(json["gaps"], json!([]));
    }
}
