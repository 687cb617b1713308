//! From an alert's labels to whose time is captured.

use std::collections::BTreeMap;

use super::Options;
use super::alert::Alert;
use crate::capture::TargetSpec;
use crate::config::{LabelKind, LabelTarget};
use crate::model::Pid;
use crate::procs::{self, NamedPlace};

/// Most processes of one name that are captured.
const MAX_PROCESSES: usize = 256;
/// Shortest part of a container's or pod's id: what is shorter is a word that anything can hold.
const MIN_ID: usize = 12;

/// Whose time an alert is about, by the first of its labels that leads to something.
///
/// # Errors
/// Which labels it has that could have named a target, and why none did.
pub(super) fn of_alert(alert: &Alert, options: &Options) -> Result<TargetSpec, String> {
    let mut problems = Vec::new();
    for mapping in &options.targets {
        let Some(value) = alert.labels.get(&mapping.label).map(|value| value.trim()) else { continue };
        match find(mapping.kind, value, &alert.labels) {
            Ok(target) => return Ok(target),
            Err(problem) => problems.push(format!("label {}={value:?}: {problem}", mapping.label)),
        }
    }
    if !problems.is_empty() {
        return Err(problems.join("; "));
    }
    if options.host_without_target {
        return Ok(TargetSpec::default());
    }
    let labels: Vec<String> = options.targets.iter().map(LabelTarget::to_string).collect();
    Err(format!(
        "no label names a target; looked for {}; set webhook.targets, or webhook.host_without_target",
        labels.join(", ")
    ))
}

/// What a label's value leads to. That there is such a process or cgroup is checked by captures,
/// except where it has to be searched for.
fn find(kind: LabelKind, value: &str, labels: &BTreeMap<String, String>) -> Result<TargetSpec, String> {
    match kind {
        LabelKind::Pid => {
            let pid = value.parse().map_err(|_| "is not a pid".to_owned())?;
            procs::identify(Pid(pid)).map_err(|error| error.to_string())?;
            Ok(TargetSpec { pids: vec![Pid(pid)], cgroup: None })
        }
        LabelKind::Comm => {
            let (found, count) = procs::by_comm(value, MAX_PROCESSES).map_err(|error| error.to_string())?;
            match count {
                0 => Err("no process has this name (at most 15 characters, as in /proc/PID/comm)".to_owned()),
                1..=MAX_PROCESSES => {
                    Ok(TargetSpec { pids: found.into_iter().map(|id| id.pid).collect(), cgroup: None })
                }
                _ => Err(format!("{count} processes have this name; {MAX_PROCESSES} can be captured")),
            }
        }
        LabelKind::Cgroup => {
            let (_, path) = procs::resolve_cgroup(value).map_err(|error| error.to_string())?;
            Ok(TargetSpec { pids: Vec::new(), cgroup: Some(path) })
        }
        LabelKind::Container | LabelKind::Pod => match by_id(kind, value) {
            Err(by_id) => by_name(kind, value, labels).map_err(|by_name| match by_name {
                Some(problem) => problem,
                None => by_id,
            }),
            found => found,
        },
    }
}

/// A container or a pod: the cgroup whose directory has its id in the name.
fn by_id(kind: LabelKind, value: &str) -> Result<TargetSpec, String> {
    // As Kubernetes writes it: `containerd://ID`.
    let id = value.rsplit("://").next().unwrap_or(value);
    let what = if kind == LabelKind::Pod { "the uid of a pod" } else { "the id of a container" };
    let fits =
        id.len() >= MIN_ID && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if !fits {
        return Err(format!(
            "is neither a known name nor {what}: that has at least {MIN_ID} letters and digits"
        ));
    }
    let found = procs::cgroups_named(id, 3).map_err(|error| error.to_string())?;
    one(found).unwrap_or_else(|| Err("no cgroup's name holds it".to_owned()))
}

/// A container or a pod by its name: what the alert says of pod and namespace tells equal names apart.
/// `None`: nothing has this name.
fn by_name(
    kind: LabelKind,
    value: &str,
    labels: &BTreeMap<String, String>,
) -> Result<TargetSpec, Option<String>> {
    if value.is_empty() {
        return Err(None);
    }
    let label = |name: &str| labels.get(name).map(String::as_str).filter(|text| !text.is_empty());
    let namespace = label("namespace");
    let wanted = match kind {
        LabelKind::Pod => NamedPlace { pod: Some(value), namespace, container: None },
        _ => NamedPlace { container: Some(value), pod: label("pod"), namespace },
    };
    let found = procs::cgroups_of(wanted, 3).map_err(|error| Some(error.to_string()))?;
    one(found).ok_or(None)?.map_err(Some)
}

/// The only one of the cgroups that were found; `None` where there are none.
fn one(mut found: Vec<String>) -> Option<Result<TargetSpec, String>> {
    let last = found.pop()?;
    if found.is_empty() {
        return Some(Ok(TargetSpec { pids: Vec::new(), cgroup: Some(last) }));
    }
    found.push(last);
    Some(Err(format!("several cgroups hold it: {}", found.join(", "))))
}

/// A target as one text, for telling targets apart.
pub(super) fn name(target: &TargetSpec) -> String {
    match &target.cgroup {
        Some(path) => format!("cgroup {path}"),
        None if target.is_host() => "host".to_owned(),
        None => {
            let mut pids: Vec<u32> = target.pids.iter().map(|pid| pid.0).collect();
            pids.sort_unstable();
            let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
            format!("pid {}", pids.join(","))
        }
    }
}
