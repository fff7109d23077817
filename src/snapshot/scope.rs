//! `ScopeSnapshot`: a scope, as a snapshot shows it.

use std::time::Duration;

use super::{EndSnapshot, Place};

/// A [`scope`](crate::scope()) in a [`Snapshot`](crate::Snapshot), with its context.
///
/// Its tasks are counted, not listed: they lie in the future of the caller's task, where nobody else may look while that is
/// polled, and a list beside it would cost each of them a lock when it is spawned and another when it ends. What the caller's
/// task is doing, if that is a group's, is what they are doing.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ScopeSnapshot {
    pub(super) id: u64,
    pub(super) place: Place,
    pub(super) age: Duration,
    pub(super) remaining: Option<Duration>,
    pub(super) end: Option<EndSnapshot>,
    pub(super) live: usize,
    pub(super) started: usize,
}

impl ScopeSnapshot {
    /// Returns its number. Groups, batches, scopes and tasks of the process are numbered together.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Returns where it was made.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Returns how old it is.
    pub fn age(&self) -> Duration {
        self.age
    }

    /// Returns the time left to its deadline, if it has one.
    pub fn remaining(&self) -> Option<Duration> {
        self.remaining
    }

    /// Returns how its context ended; `None` while it is live.
    pub fn end(&self) -> Option<&EndSnapshot> {
        self.end.as_ref()
    }

    /// Returns how many tasks have not ended, the body included. Counted when a poll of the scope has polled those that were
    /// woken: one that blocks in its poll, or was spawned in this one, may not be in it yet.
    pub fn live(&self) -> usize {
        self.live
    }

    /// Returns how many tasks there have been so far, the body included; modulo 2³². Those that have ended are these less the
    /// [live](ScopeSnapshot::live).
    pub fn started(&self) -> usize {
        self.started
    }
}
