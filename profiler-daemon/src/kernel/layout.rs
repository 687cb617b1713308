//! Finds the kernel's structure fields in BTF, once, at load time.

use btf_rs::{Backend, Btf, Type};
use profiler_common::layout::{ABSENT, KernelLayout};

use super::KernelError;

/// Most members that are looked through for one field, anonymous structures included.
const MAX_NESTING: u32 = 8;

/// Reads offsets for the running kernel.
pub(super) fn read() -> Result<KernelLayout, KernelError> {
    let types = Btf::from_file_with_backend("/sys/kernel/btf/vmlinux", Backend::Mmap)
        .map_err(|error| KernelError::Btf(error.to_string()))?;
    let task = Struct::find(&types, "task_struct")?;
    let css_set = Struct::find(&types, "css_set")?;
    let cgroup = Struct::find(&types, "cgroup")?;
    let node = Struct::find(&types, "kernfs_node")?;
    Ok(KernelLayout {
        task_pid: task.field("pid")?,
        task_tgid: task.field("tgid")?,
        task_flags: task.field("flags")?,
        task_comm: task.field("comm")?,
        task_state: task.any_field(&["__state", "state"])?,
        task_group_leader: task.field("group_leader")?,
        task_start_time: task.field("start_time")?,
        // Called real_start_time before 5.5.
        task_start_boottime: task.any_field(&["start_boottime", "real_start_time"])?,
        task_cgroups: task.field("cgroups")?,
        css_set_dfl_cgrp: css_set.field("dfl_cgrp")?,
        cgroup_kn: cgroup.field("kn")?,
        cgroup_level: cgroup.field("level")?,
        cgroup_ancestors: cgroup.field("ancestors").unwrap_or(ABSENT),
        cgroup_ancestor_ids: cgroup.field("ancestor_ids").unwrap_or(ABSENT),
        kernfs_node_id: node.field("id")?,
        switch_has_state: u32::from(switch_has_state(&types)?),
        max_stack: max_stack(),
        self_tgid: std::process::id(),
    })
}

struct Struct<'a> {
    types: &'a Btf,
    name: &'static str,
    found: btf_rs::Struct,
}

impl<'a> Struct<'a> {
    fn find(types: &'a Btf, name: &'static str) -> Result<Self, KernelError> {
        let candidates = types.resolve_types_by_name(name).unwrap_or_default();
        let found = candidates.into_iter().find_map(|candidate| match candidate {
            Type::Struct(found) => Some(found),
            _ => None,
        });
        let found = found.ok_or_else(|| KernelError::Layout(format!("struct {name}")))?;
        Ok(Self { types, name, found })
    }

    fn field(&self, field: &str) -> Result<u32, KernelError> {
        offset(self.types, &self.found.members, field, MAX_NESTING)
            .ok_or_else(|| KernelError::Layout(format!("struct {}.{field}", self.name)))
    }

    fn any_field(&self, fields: &[&str]) -> Result<u32, KernelError> {
        fields
            .iter()
            .find_map(|field| self.field(field).ok())
            .ok_or_else(|| KernelError::Layout(format!("struct {}.{}", self.name, fields.join(" or "))))
    }
}

/// Byte offset of a member, looking into anonymous structures and unions as C does.
fn offset(types: &Btf, members: &[btf_rs::Member], field: &str, nesting: u32) -> Option<u32> {
    for member in members {
        let name = types.resolve_name(member).unwrap_or_default();
        if name == field {
            return Some(member.bit_offset() / 8);
        }
        if !name.is_empty() || nesting == 0 {
            continue;
        }
        let inner = match types.resolve_chained_type(member) {
            Ok(Type::Struct(inner) | Type::Union(inner)) => inner,
            _ => continue,
        };
        if let Some(inside) = offset(types, &inner.members, field, nesting - 1) {
            return Some(member.bit_offset() / 8 + inside);
        }
    }
    None
}

/// Whether `sched_switch` passes the previous task's state (from 5.18): its BTF prototype then has
/// five parameters, the first being the tracepoint's private data.
fn switch_has_state(types: &Btf) -> Result<bool, KernelError> {
    let missing = || KernelError::Layout("btf_trace_sched_switch".to_owned());
    let candidates = types.resolve_types_by_name("btf_trace_sched_switch").map_err(|_| missing())?;
    for candidate in candidates {
        let Type::Typedef(typedef) = candidate else { continue };
        for link in types.chained_type_iter(&typedef) {
            if let Type::FuncProto(prototype) = link {
                return Ok(prototype.parameters.len() >= 5);
            }
        }
    }
    Err(missing())
}

/// Depth limit of the kernel's stack walk; the default where the setting cannot be read.
fn max_stack() -> u32 {
    const DEFAULT: u32 = 127; // PERF_MAX_STACK_DEPTH, include/uapi/linux/perf_event.h
    std::fs::read_to_string("/proc/sys/kernel/perf_event_max_stack")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_field_on_the_running_kernel() {
        if !std::path::Path::new("/sys/kernel/btf/vmlinux").exists() {
            eprintln!("skipped: this kernel has no BTF");
            return;
        }
        let layout = read().expect("a layout");
        assert!(layout.task_tgid == layout.task_pid + 4, "pid and tgid are neighbours: {layout:?}");
        assert!(layout.cgroup_ancestors != ABSENT || layout.cgroup_ancestor_ids != ABSENT);
    }
}
