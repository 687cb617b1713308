//! Plain values that flow through the stages: no I/O, no async, nothing that can fail for good data.

mod batch;
mod event;
mod finding;
mod frame;
mod host;
mod id;
mod kind;
mod labels;
mod loss;
mod profile;
mod quality;
mod sample;
mod selector;
mod status;
mod target;
mod time;
mod wait;
mod wait_rules;

pub use batch::{Batch, KindLoss, KindQuality, RawBatch, Window};
pub use event::{FileKey, MappedCode, ProcessChange, ProcessEvent};
pub use finding::{Finding, Severity};
pub use frame::{Frame, FrameKind, Module, SourceLine};
pub use host::{HostFacts, Pressure, Throttling};
pub use id::{CgroupId, Comm, Pid, ProcessId, Tid};
pub use kind::ProfileKind;
pub use labels::Labels;
pub use loss::{Loss, LossCount, Stage};
pub use profile::{Activity, Entry, Profile, Value};
pub use quality::StackQuality;
pub use sample::{Clock, Measure, RawSample, Sample, Sampled, StackFlags, StopReason, TaskState, WalkEnd};
pub use selector::{Selector, SelectorError};
pub use status::{Status, StoreStatus, Unwinding};
pub use target::{SamplerKind, Target};
pub use time::{ClockAnchor, MonoNs, TimeRange};
pub use wait::Wait;
pub use wait_rules::{IdleRule, Names, WaitRule, WaitRules};
