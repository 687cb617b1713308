//! One `Arc<Frame>` for equal frames, so that profiles compare and store them by pointer.

use std::sync::Arc;

use ahash::AHashSet;

use crate::model::Frame;

/// The frames handed out so far, up to a bound.
#[derive(Debug)]
pub(super) struct Interner {
    // Names and paths come from processes, so their hash must not be one that collisions can be
    // made for.
    frames: AHashSet<Arc<Frame>>,
    limit: usize,
}

impl Interner {
    /// An interner that starts over once it has `limit` frames.
    pub(super) fn new(limit: usize) -> Self {
        Self { frames: AHashSet::default(), limit }
    }

    /// The shared form of a frame.
    pub(super) fn intern(&mut self, frame: Frame) -> Arc<Frame> {
        if let Some(known) = self.frames.get(&frame) {
            return Arc::clone(known);
        }
        if self.frames.len() >= self.limit {
            // Frames that are still in use elsewhere stay alive there; equal ones that come later
            // are another allocation, which costs memory but nothing else.
            self.frames.clear();
        }
        let frame = Arc::new(frame);
        self.frames.insert(Arc::clone(&frame));
        frame
    }
}

#[cfg(test)]
mod tests {
    use crate::model::FrameKind;

    use super::*;

    #[test]
    fn equal_frames_are_one_and_the_number_is_bounded() {
        let frame = |name: &str| Frame {
            name: name.into(),
            kind: FrameKind::User,
            module: None,
            address: 1,
            source: None,
            named: true,
        };
        let mut interner = Interner::new(2);
        let first = interner.intern(frame("a"));
        assert!(Arc::ptr_eq(&first, &interner.intern(frame("a"))));
        assert!(!Arc::ptr_eq(&first, &interner.intern(frame("b"))));
        interner.intern(frame("c"));
        assert!(interner.frames.len() <= 2);
    }
}
