//! `BatchSnapshot`: a batch, as a snapshot shows it.

use std::borrow::Cow;
use std::time::Duration;

use super::{EndSnapshot, Place};
use crate::batch::SourceState;

/// A batch in a [`Snapshot`](crate::Snapshot), with its context.
///
/// Its further workers are tasks of a group below it, if it has any; the first is the caller's own task.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct BatchSnapshot {
    pub(super) id: u64,
    pub(super) name: Option<Cow<'static, str>>,
    pub(super) place: Place,
    pub(super) remaining: Option<Duration>,
    pub(super) end: Option<EndSnapshot>,
    pub(super) limit: usize,
    pub(super) workers: usize,
    pub(super) idle: usize,
    pub(super) live: usize,
    pub(super) unstarted: usize,
    pub(super) done: usize,
    pub(super) unyielded: usize,
    pub(super) source: SourceState,
    pub(super) waiting: Vec<usize>,
}

impl BatchSnapshot {
    /// Returns its number. Groups, batches, scopes and tasks of the process are numbered together.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Returns its name, if it was given one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns where it was made.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Returns the time left to its deadline, if it has one.
    pub fn remaining(&self) -> Option<Duration> {
        self.remaining
    }

    /// Returns how its context ended; `None` while it is live.
    pub fn end(&self) -> Option<&EndSnapshot> {
        self.end.as_ref()
    }

    /// Returns how many items may be in hand at once.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Returns how many workers it has, the caller's task among them if that is one.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Returns how many of the workers have nothing to do.
    pub fn idle(&self) -> usize {
        self.idle
    }

    /// Returns how many items are in hand: pulled and not done. A worker tells of those that are done when it has to wait, or
    /// has come to the end of a block.
    pub fn live(&self) -> usize {
        self.live
    }

    /// Returns how many of the items in hand have not been started.
    pub fn unstarted(&self) -> usize {
        self.unstarted
    }

    /// Returns how many items are done.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Returns how many results of [`map_stream`](crate::Batch::map_stream) its consumer has not taken: they take room under
    /// the limit. Those that have to wait for another, since their order is that of the items, are among them, and so may be
    /// a few that it has taken since. Zero while the source is being asked.
    pub fn unyielded(&self) -> usize {
        self.unyielded
    }

    /// Returns what its source was doing.
    pub fn source(&self) -> SourceState {
        self.source
    }

    /// Returns the indexes of the items that have been polled, have to wait, or have been woken and not polled again; sorted, so
    /// that the oldest is the first. Those that a worker is polling at the moment are not among them.
    pub fn waiting(&self) -> &[usize] {
        &self.waiting
    }
}
