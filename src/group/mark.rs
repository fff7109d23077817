//! `Mark`: what a task knows of itself without its page.
//!
//! One word, since it moves often: from the admission into the task, out of it again at the end. Fields that are stored
//! one by one and moved together make the processor wait.

use super::registry::Stage;

/// The line in the low byte, a field in each of the others; they start at `0`.
#[derive(Clone, Copy)]
pub(super) struct Mark(u64);

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It may start.
    Admitted = 0,
    /// It waits for a slot.
    Queued = 1,
    /// It has been polled, and has to wait.
    Started = 2,
    /// It has been released.
    Over = 3,
}

/// Who stops a task when the context has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// The group: its future is dropped at the await it stands at.
    Dropped = 0,
    /// The task itself, until it is aborted.
    StopsItself = 1,
}

/// Where a field lies.
const PHASE: u32 = 8;
const POLICY: u32 = 16;
const NOTES: u32 = 24;
const WAKER: u32 = 32;

impl Mark {
    pub(super) fn new(line: u8, policy: Policy) -> Self {
        Self(u64::from(line) | (policy as u64) << POLICY)
    }

    pub(super) fn line(self) -> u8 {
        self.field(0)
    }

    pub(super) fn is(self, phase: Phase) -> bool {
        self.field(PHASE) == phase as u8
    }

    pub(super) fn set_phase(&mut self, phase: Phase) {
        self.set(PHASE, phase as u8);
    }

    pub(super) fn has_policy(self, policy: Policy) -> bool {
        self.field(POLICY) == policy as u8
    }

    /// Whether there are notes on the page.
    pub(super) fn has_notes(self) -> bool {
        self.field(NOTES) != 0
    }

    pub(super) fn set_has_notes(&mut self) {
        self.set(NOTES, 1);
    }

    /// Whether the task left its waker at this stage.
    pub(super) fn has_left_waker(self, stage: Stage) -> bool {
        self.field(WAKER) == stage as u8 + 1
    }

    pub(super) fn set_left_waker(&mut self, stage: Stage) {
        self.set(WAKER, stage as u8 + 1);
    }

    fn field(self, at: u32) -> u8 {
        (self.0 >> at) as u8
    }

    fn set(&mut self, at: u32, value: u8) {
        self.0 = self.0 & !(0xff << at) | u64::from(value) << at;
    }
}
