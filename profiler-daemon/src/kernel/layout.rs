//! Finds the kernel's structure fields in BTF, once, at load time.

use btfparse::{Offset, Readable, TypeInformation, TypeVariant};
use profiler_common::layout::{ABSENT, KernelLayout};
use profiler_common::limits::MAX_KERNEL_FRAMES;

use super::KernelError;

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Reads offsets for the running kernel.
pub(super) fn read(runs: super::Runs) -> Result<KernelLayout, KernelError> {
    let bytes = std::fs::read(VMLINUX).map_err(|error| KernelError::Btf(error.to_string()))?;
    let types =
        TypeInformation::new(&Bytes(&bytes)).map_err(|error| KernelError::Btf(format!("{error:?}")))?;
    let task = Struct::find(&types, "task_struct")?;
    let css_set = Struct::find(&types, "css_set")?;
    let cgroup = Struct::find(&types, "cgroup")?;
    let node = Struct::find(&types, "kernfs_node")?;
    let signal = Struct::find(&types, "signal_struct")?;
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
        task_signal: task.field("signal")?,
        signal_live: signal.field("live")?,
        task_cgroups: task.field("cgroups")?,
        css_set_dfl_cgrp: css_set.field("dfl_cgrp")?,
        cgroup_kn: cgroup.field("kn")?,
        cgroup_level: cgroup.field("level")?,
        cgroup_ancestors: cgroup.field("ancestors").unwrap_or(ABSENT),
        cgroup_ancestor_ids: cgroup.field("ancestor_ids").unwrap_or(ABSENT),
        kernfs_node_id: node.field("id")?,
        switch_has_state: u32::from(switch_has_state(&types)?),
        max_stack: max_stack(),
        check_walks: u32::from(runs.check_walks),
        time_walks: u32::from(runs.time_walks),
        // Before 6.19 the address itself, from then on the first member of a structure.
        task_rseq: task.field("rseq").unwrap_or(ABSENT),
        self_tgid: std::process::id(),
    })
}

struct Struct<'a> {
    types: &'a TypeInformation,
    name: &'static str,
    id: u32,
}

impl<'a> Struct<'a> {
    /// A structure by name; functions and typedefs may have the same one.
    fn find(types: &'a TypeInformation, name: &'static str) -> Result<Self, KernelError> {
        let named = |kind: &TypeVariant| match kind {
            TypeVariant::Struct(found) => found.name().as_deref() == Some(name),
            _ => false,
        };
        let id = types.get().iter().find_map(|(&id, kind)| named(kind).then_some(id));
        let id = id.ok_or_else(|| KernelError::Layout(format!("struct {name}")))?;
        Ok(Self { types, name, id })
    }

    /// Byte offset of a member, looking into anonymous structures and unions as C does.
    fn field(&self, field: &str) -> Result<u32, KernelError> {
        match self.types.offset_of(self.id, field) {
            Ok((_, Offset::ByteOffset(offset))) => Ok(offset),
            _ => Err(KernelError::Layout(format!("struct {}.{field}", self.name))),
        }
    }

    fn any_field(&self, fields: &[&str]) -> Result<u32, KernelError> {
        fields
            .iter()
            .find_map(|field| self.field(field).ok())
            .ok_or_else(|| KernelError::Layout(format!("struct {}.{}", self.name, fields.join(" or "))))
    }
}

/// Whether `sched_switch` passes the previous task's state (from 5.18): its BTF prototype then has
/// five parameters, the first being the tracepoint's private data.
fn switch_has_state(types: &TypeInformation) -> Result<bool, KernelError> {
    const NAME: &str = "btf_trace_sched_switch";
    let missing = || KernelError::Layout(NAME.to_owned());
    let named = |kind: &TypeVariant| match kind {
        TypeVariant::Typedef(found) if found.name().as_deref() == Some(NAME) => Some(*found.tid()),
        _ => None,
    };
    let pointer = types.get().values().find_map(named).ok_or_else(missing)?;
    let prototype = types.pointee_tid(pointer).map_err(|_| missing())?;
    match types.get().get(&prototype) {
        Some(TypeVariant::FuncProto(prototype)) => Ok(prototype.parameter_list().len() >= 5),
        _ => Err(missing()),
    }
}

/// Bytes as the parser wants them.
struct Bytes<'a>(&'a [u8]);

impl Readable for Bytes<'_> {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> btfparse::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(buffer.len());
        let bytes = self.0.get(start..end).ok_or_else(|| {
            // The parser takes this as the end of the types when it is met between two of them.
            btfparse::Error::new(btfparse::ErrorKind::EOF, "read past the end")
        })?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}

/// Depth at which a kernel stack is cut: the kernel's limit, by default where the setting cannot be
/// read, or our own.
fn max_stack() -> u32 {
    const DEFAULT: u32 = 127; // PERF_MAX_STACK_DEPTH, include/uapi/linux/perf_event.h
    std::fs::read_to_string("/proc/sys/kernel/perf_event_max_stack")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(DEFAULT)
        .min(MAX_KERNEL_FRAMES as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_field_on_the_running_kernel() {
        if !std::path::Path::new(VMLINUX).exists() {
            eprintln!("skipped: this kernel has no BTF");
            return;
        }
        let layout = read(super::super::Runs::default()).expect("a layout");
        assert!(layout.task_tgid == layout.task_pid + 4, "pid and tgid are neighbours: {layout:?}");
        assert!(layout.cgroup_ancestors != ABSENT || layout.cgroup_ancestor_ids != ABSENT);
    }
}
