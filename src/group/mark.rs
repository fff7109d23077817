//! `Mark`: what a task knows of itself without its page.
//!
//! One word, since it moves from the admission into the task: fields that are stored one by one and moved together make
//! the processor wait.

use super::registry::Stage;

/// The line in the low byte, flags above it.
#[derive(Clone, Copy)]
pub(super) struct Mark(u32);

/// Who stops a task when the context has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// The group: its future is dropped at the await it stands at.
    Dropped = 0,
    /// The task itself, until it is aborted.
    StopsItself = 1,
}

/// The policy's bit.
const POLICY: u32 = 8;

/// There are notes on the page.
const NOTES: u32 = 1 << 9;

/// The task waits for a slot.
const QUEUED: u32 = 1 << 10;

/// Where the stage lies at which the task left its waker, plus one.
const WAKER: u32 = 16;

impl Mark {
    pub(super) fn new(line: u8, policy: Policy) -> Self {
        Self(u32::from(line) | (policy as u32) << POLICY)
    }

    pub(super) fn line(self) -> u8 {
        self.0 as u8
    }

    pub(super) fn policy(self) -> Policy {
        match self.0 >> POLICY & 1 {
            0 => Policy::Dropped,
            _ => Policy::StopsItself,
        }
    }

    /// Whether there are notes on the page.
    pub(super) fn has_notes(self) -> bool {
        self.0 & NOTES != 0
    }

    pub(super) fn set_has_notes(&mut self) {
        self.0 |= NOTES;
    }

    /// Whether the task waits for a slot.
    pub(super) fn is_queued(self) -> bool {
        self.0 & QUEUED != 0
    }

    pub(super) fn set_queued(&mut self) {
        self.0 |= QUEUED;
    }

    pub(super) fn clear_queued(&mut self) {
        self.0 &= !QUEUED;
    }

    /// Whether the task left its waker at this stage.
    pub(super) fn has_left_waker(self, stage: Stage) -> bool {
        self.0 >> WAKER == stage as u32 + 1
    }

    pub(super) fn set_left_waker(&mut self, stage: Stage) {
        self.0 = self.0 & ((1 << WAKER) - 1) | (stage as u32 + 1) << WAKER;
    }
}
