//! Blocked threads are told apart by what they wait for; idle ones are folded under one frame.

use std::sync::Arc;

use crate::model::{Frame, FrameKind, Measure, Sample, TaskState, WaitRules};

/// The name of the frame that the stacks of idle threads stand on.
const IDLE: &str = "[idle]";

/// The rules, and the frame for what is idle by them.
#[derive(Debug)]
pub(super) struct Waits {
    rules: WaitRules,
    idle: Arc<Frame>,
}

impl Waits {
    pub(super) fn new(rules: WaitRules) -> Self {
        let idle = Frame {
            name: IDLE.into(),
            kind: FrameKind::User,
            module: None,
            address: 0,
            source: None,
            named: true,
        };
        Self { rules, idle: Arc::new(idle) }
    }

    /// Says of each off-CPU interval what was waited for.
    pub(super) fn name(&self, samples: &mut [Sample]) {
        for sample in samples {
            let Measure::OffCpu { state, wait, preempted_ns, .. } = &mut sample.measure else { continue };
            if *state == TaskState::Running || *preempted_ns > 0 {
                continue;
            }
            let stack = sample.stack.iter().map(Arc::as_ref);
            *wait = self.rules.wait(*state, stack.clone());
            if self.rules.is_idle(*state, stack) {
                sample.stack = sample.stack.iter().chain([&self.idle]).map(Arc::clone).collect();
            }
        }
    }
}
