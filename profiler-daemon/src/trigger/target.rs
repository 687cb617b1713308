//! From an alert's labels to whose time is captured.

use super::Options;
use super::alert::Alert;
use crate::capture::TargetSpec;
use crate::config::{LabelKind, LabelTarget};
use crate::model::Pid;
use crate::procs;

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
        match find(mapping.kind, value) {
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
fn find(kind: LabelKind, value: &str) -> Result<TargetSpec, String> {
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
        LabelKind::Container | LabelKind::Pod => by_id(kind, value),
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
        return Err(format!("is not {what}: that has at least {MIN_ID} letters and digits"));
    }
    let mut found = procs::cgroups_named(id, 3).map_err(|error| error.to_string())?;
    match (found.pop(), found.is_empty()) {
        (Some(path), true) => Ok(TargetSpec { pids: Vec::new(), cgroup: Some(path) }),
        (Some(last), false) => {
            found.push(last);
            Err(format!("several cgroups hold it: {}", found.join(", ")))
        }
        (None, _) => Err("no cgroup's name holds it".to_owned()),
    }
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
