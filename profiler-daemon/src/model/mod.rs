//! Plain values that flow through the stages: no I/O, no async, nothing that can fail for good data.

mod batch;
mod event;
mod finding;
mod frame;
mod id;
mod kind;
mod labels;
mod loss;
mod profile;
mod sample;
mod selector;
mod status;
mod target;
mod time;
mod wait;
mod wait_rules;

pub use batch::{Batch, KindLoss, RawBatch, Window};
pub use event::{FileKey, MappedCode, ProcessChange, ProcessEvent};
pub use finding::{Finding, Severity};
pub use frame::{Frame, FrameKind, Module, SourceLine};
pub use id::{CgroupId, Comm, Pid, ProcessId, Tid};
pub use kind::ProfileKind;
pub use labels::Labels;
pub use loss::{Loss, LossCount, Stage};
pub use profile::{Activity, Entry, Profile, StackQuality, Value};
pub use sample::{Clock, Measure, RawSample, Sample, Sampled, StackFlags, StopReason, TaskState, WalkEnd};
pub use selector::{Selector, SelectorError};
pub use status::Status;
pub use target::{SamplerKind, Target};
pub use time::{ClockAnchor, MonoNs, TimeRange};
pub use wait::Wait;
pub use wait_rules::{IdleRule, Names, WaitRule, WaitRules};
