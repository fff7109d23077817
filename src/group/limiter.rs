//! `Limiter`: how many tasks may run at once, and who is next.
//!
//! Plain data under the lock of the group's [`Registry`](super::registry::Registry), so that a task enters, takes its
//! permit, and gives it back to the next in the same critical sections in which it is listed and removed.
//!
//! Invariants:
//!
//! 1. `running` is the number of permits that are held. It exceeds `limit` only after the limit was lowered.
//! 2. `waiting` entries of the registry wait for a permit, and each stands in `queue` once, by its key and its id. What else
//!    stands there has withdrawn: its key is vacant, or another task's.
//! 3. While there is room, nobody waits: whoever makes room hands it on in the same critical section.

use std::collections::VecDeque;

use crate::task::TaskId;

pub(super) struct Limiter {
    /// `usize::MAX` once it was lifted: tasks are still counted.
    limit: usize,
    running: usize,
    queue: VecDeque<(u32, TaskId)>,
    waiting: usize,
}

/// A task's share in the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permit {
    /// The group had no limit when it was spawned.
    None,
    Held,
    Waiting,
}

/// Those who withdrew are cleared away when they are more than those who wait, and than this.
const SLACK: usize = 16;

impl Limiter {
    /// `running` tasks are there already, and hold a permit from now on.
    pub(super) fn new(running: usize) -> Self {
        Self {
            limit: usize::MAX,
            running,
            queue: VecDeque::new(),
            waiting: 0,
        }
    }

    pub(super) fn set_limit(&mut self, limit: Option<usize>) {
        self.limit = limit.unwrap_or(usize::MAX);
    }

    /// `None` if it was lifted.
    pub(super) fn limit(&self) -> Option<usize> {
        (self.limit != usize::MAX).then_some(self.limit)
    }

    /// How many permits are held.
    pub(super) fn held(&self) -> usize {
        self.running
    }

    /// Takes a permit if there is room and nobody waits; `false` if not.
    pub(super) fn try_acquire(&mut self) -> bool {
        let has_room = self.waiting == 0 && self.running < self.limit;
        self.running += usize::from(has_room);
        has_room
    }

    pub(super) fn enqueue(&mut self, key: u32, id: TaskId) {
        self.queue.push_back((key, id));
        self.waiting += 1;
    }

    /// Gives a permit back. Whoever calls it grants it to the next.
    pub(super) fn release(&mut self) {
        self.running -= 1;
    }

    /// One who waited gives up; `is_waiting` tells by key and id who still does.
    pub(super) fn withdraw(&mut self, is_waiting: impl Fn(u32, TaskId) -> bool) {
        self.waiting -= 1;
        if self.queue.len() > 2 * self.waiting + SLACK {
            self.queue.retain(|&(key, id)| is_waiting(key, id));
        }
    }

    /// Takes the next in the queue if there is room: one who waits, or has withdrawn. The caller knows which, and calls
    /// `acquire_for_waiting` for the former.
    pub(super) fn next(&mut self) -> Option<(u32, TaskId)> {
        match self.running < self.limit {
            true => self.queue.pop_front(),
            false => None,
        }
    }

    pub(super) fn acquire_for_waiting(&mut self) {
        self.waiting -= 1;
        self.running += 1;
    }
}
