//! Room under a group's limit, for those who wait for it: what [`Registry`] does for queued tasks and for slots.
//!
//! Who has a permit, and who is next, stands in the [`Limiter`](super::limiter::Limiter).

use std::panic::Location;
use std::task::Waker;

use super::entry::{Entry, Kind, SlotRequest, Stage};
use super::limiter::Permit;
use super::registry::Registry;
use super::tasks::wake;
use crate::task::TaskId;

/// How a wait for a permit stands.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Granted,
    NotYet,
    /// The context has ended.
    Ended,
}

/// What came of the request for a slot.
#[must_use]
pub(crate) enum SlotRequested {
    Unlimited,
    Granted,
    /// By its key.
    Queued(u32),
}

impl Registry {
    /// Asks whether one who waits for a permit has it, and if not leaves the waker, if one is given.
    pub(crate) fn poll_room(&self, key: u32, waker: Option<&Waker>) -> Room {
        let mut waker = waker.cloned();
        let mut tasks = self.tasks.lock();
        let stage = tasks.stage;
        let room = match tasks.entries.get_mut(key) {
            Some(entry) if entry.permit == Permit::Waiting => {
                if waker.is_some() {
                    std::mem::swap(&mut entry.waker, &mut waker);
                }
                match stage {
                    Stage::Open => Room::NotYet,
                    Stage::Ended | Stage::Aborting => Room::Ended,
                }
            }
            _ => Room::Granted,
        };
        drop(tasks);
        drop(waker);
        room
    }

    /// Takes a permit for a task that is still to come, or a place in the queue: then the key of it. `None` if the group
    /// has ended.
    pub(crate) fn request_slot(
        &self,
        location: &'static Location<'static>,
    ) -> Option<SlotRequested> {
        let mut tasks = self.tasks.lock();
        if tasks.stage != Stage::Open {
            return None;
        }
        Some(match tasks.acquire(SlotRequest::Queue) {
            None | Some(Permit::None) => SlotRequested::Unlimited,
            Some(Permit::Held) => SlotRequested::Granted,
            Some(Permit::Waiting) => {
                let id = TaskId::next();
                let entry = Entry::new(Kind::Slot, location, id, Permit::Waiting);
                SlotRequested::Queued(tasks.insert(entry))
            }
        })
    }

    /// Ends a wait in the queue; returns whether it came to a permit, which is the caller's then.
    pub(crate) fn leave_queue(&self, key: u32) -> bool {
        let mut tasks = self.tasks.lock();
        let Some(mut entry) = tasks.entries.remove(key) else {
            return false;
        };
        let is_granted = entry.permit == Permit::Held;
        if is_granted {
            entry.permit = Permit::None;
        }
        let aftermath = tasks.clear(key, &mut entry);
        drop(tasks);
        aftermath.see_to();
        is_granted
    }

    /// Lets at most `limit` tasks run from now on. Those that run already count.
    pub(crate) fn set_limit(&self, limit: Option<usize>) {
        let mut tasks = self.tasks.lock();
        if limit.is_none() && tasks.limiter().is_none() {
            return;
        }
        tasks.limiter_or_new().set_limit(limit);
        // One at a time: each is woken with no lock held.
        while let Some(next) = tasks.grant() {
            drop(tasks);
            wake(next);
            tasks = self.tasks.lock();
        }
    }
}
