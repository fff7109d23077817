//! `Entry`: what a group's registry keeps of one task. `Copied` and `Seen`: what whoever looks at the group takes of it, and
//! remembers.

use std::borrow::Cow;
use std::panic::Location;
use std::sync::Arc;
use std::task::Waker;

use tokio::time::Instant;

use super::limiter::Permit;
use super::moment::Moment;
use crate::task::TaskId;

/// How far the group is on its way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Tasks run.
    Open = 0,
    /// The context has ended. Tasks that the group stops are dropped when polled; the others stop themselves.
    Ended = 1,
    /// The group was dropped or its grace is over: every task is dropped when polled.
    Aborting = 2,
}

/// Who stops a task when the context has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The group: its future is dropped at the await it stands at.
    Dropped,
    /// The same, on the thread where it was spawned.
    Local,
    /// The task itself, until it is aborted.
    Cooperative,
    /// The task itself, on a thread that nobody can stop.
    Blocking,
    /// No task: `slot()` waits for room.
    Slot,
}

/// A task's name; only a named task pays for it.
pub(crate) type Name = Arc<Cow<'static, str>>;

/// How a task comes to its permit, if the group has a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotRequest {
    /// It needs none.
    None,
    /// It queues for one.
    Queue,
    /// It takes one that is free now, or is refused.
    Now,
    /// A `Slot` has one for it.
    Held,
}

pub(super) struct Entry {
    pub(super) location: &'static Location<'static>,
    pub(super) id: TaskId,
    /// Left by the task when it first has to wait.
    pub(super) waker: Option<Waker>,
    /// When the task first had to wait, or else when it was first listed: one that ends in its first poll costs no clock
    /// read.
    pub(super) since: Moment,
    /// In [`Polls`](super::polls::Polls), when the context ended.
    pub(super) count_at_end: u32,
    pub(super) kind: Kind,
    pub(super) permit: Permit,
    pub(super) flags: u8,
}

/// In `Entry::flags`: the handle is gone, the task is not.
pub(super) const DETACHED: u8 = 1;

/// In `Entry::flags`: the task is gone, the handle is not, or not quite.
pub(super) const DELIVERED: u8 = 2;

/// In `Entry::flags`, with `DELIVERED`: the handle is gone, and the value may not be.
pub(super) const HELD: u8 = 4;

/// In `Entry::flags`: `since` is when it first had to wait.
pub(super) const WAITED: u8 = 8;

/// A live task, or one who waits for a slot, as it was under the lock. What is made of it takes longer, and waits until that
/// is released: others wait for the lock meanwhile.
pub(super) struct Copied {
    pub(super) location: &'static Location<'static>,
    pub(super) id: TaskId,
    pub(super) name: Option<Name>,
    pub(super) since: Moment,
    pub(super) count: u32,
    pub(super) count_at_end: u32,
    pub(super) kind: Kind,
    pub(super) permit: Permit,
    pub(super) flags: u8,
}

/// What a snapshot saw of a task, and since when it had been so.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    pub(super) id: TaskId,
    pub(super) count: u32,
    pub(super) since: Instant,
}

/// What the last snapshot saw of a group's tasks, in the order of their ids.
#[derive(Default)]
pub(super) struct SeenTasks(pub(super) Vec<Seen>);

impl Entry {
    pub(super) fn new(
        kind: Kind,
        location: &'static Location<'static>,
        id: TaskId,
        permit: Permit,
    ) -> Self {
        Self {
            location,
            id,
            waker: None,
            since: Moment::NONE,
            count_at_end: 0,
            kind,
            permit,
            flags: 0,
        }
    }

    /// Notes that it has to wait.
    #[inline]
    pub(super) fn note_wait(&mut self, now: Moment) {
        if self.since.is_none() {
            self.since = now;
            self.flags |= WAITED;
        }
    }

    /// Whether it is a task, and has not ended.
    pub(super) fn is_task(&self) -> bool {
        self.kind != Kind::Slot && self.flags & DELIVERED == 0
    }

    /// Whether it is one of `Tasks::live` (invariant 1).
    pub(super) fn counts(&self) -> bool {
        self.kind != Kind::Slot && self.flags & (DELIVERED | HELD) != DELIVERED
    }

    /// Whether it is the task of this id, and waits for a permit.
    pub(super) fn is_waiting(&self, id: TaskId) -> bool {
        self.permit == Permit::Waiting && self.id == id
    }

    /// A cooperative task hears of the end by its context, and of nothing but an abort from here.
    pub(super) fn is_concerned_by(&self, stage: Stage) -> bool {
        stage == Stage::Aborting || self.kind != Kind::Cooperative || self.permit == Permit::Waiting
    }
}
