//! `Slots`: how many tasks may run, and who is next.
//!
//! Owned by the group's `Core`. A group that never had a limit never comes here.
//!
//! Invariants:
//!
//! 1. `running` is the number of slots held. It exceeds `limit` only after the limit was lowered.
//! 2. While a slot is free, nobody is queued.
//! 3. A ticket is in `queue` until its slot is granted or its holder withdraws. Tickets are never reused, so for its
//!    holder "not in the queue" means "granted".
//!
//! Lock order: `Slots` before a shard of the registry (in `set_limit`). Wakers are cloned, woken and dropped outside.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::task::{Poll, Waker};

use crate::panic::contain;
use crate::sync::{Mutex, MutexGuard};

pub(crate) struct Slots(Mutex<State>);

struct State {
    limit: Option<NonZeroUsize>,
    /// Set with the first limit, for good: from then on every task is counted.
    is_limited: bool,
    running: usize,
    queue: BTreeMap<u64, Option<Waker>>,
    next_ticket: u64,
}

/// What a task has of the slots, and gives back at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Nothing: the group had no limit.
    #[default]
    Free,
    /// A slot.
    Slot,
    /// A place in the queue, or the slot that it came to (invariant 3).
    Queued(u64),
}

impl Slots {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State {
            limit: None,
            is_limited: false,
            running: 0,
            queue: BTreeMap::new(),
            next_ticket: 0,
        }))
    }

    /// Sets the limit. `census` marks and counts the tasks that run already; it is called with the first limit.
    pub(crate) fn set_limit(&self, limit: Option<NonZeroUsize>, census: impl FnOnce() -> usize) {
        let mut state = self.0.lock();
        state.limit = limit;
        if limit.is_some() && !std::mem::replace(&mut state.is_limited, true) {
            state.running += census();
        }
        Self::grant(state);
    }

    /// Takes a slot if one is free.
    pub(crate) fn try_hold(&self) -> Option<Hold> {
        let mut state = self.0.lock();
        if !state.is_limited {
            return Some(Hold::Free);
        }
        state.has_room().then(|| {
            state.running += 1;
            Hold::Slot
        })
    }

    /// Takes a slot, or a place in the queue.
    pub(crate) fn hold(&self) -> Hold {
        if let Some(hold) = self.try_hold() {
            return hold;
        }
        let mut state = self.0.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.queue.insert(ticket, None);
        // A slot may have come free between the two locks (invariant 2).
        Self::grant(state);
        Hold::Queued(ticket)
    }

    /// Asks whether a ticket's slot has been granted.
    pub(crate) fn poll_granted(&self, ticket: u64, waker: &Waker) -> Poll<()> {
        let waker = waker.clone();
        let mut state = self.0.lock();
        let (poll, unused) = match state.queue.get_mut(&ticket) {
            Some(place) => (Poll::Pending, place.replace(waker)),
            None => (Poll::Ready(()), Some(waker)),
        };
        drop(state);
        drop(unused);
        poll
    }

    /// Takes back what `hold` gave, granted meanwhile or not.
    pub(crate) fn release(&self, hold: Hold) {
        let mut state = self.0.lock();
        let withdrawn = match hold {
            Hold::Free => return,
            Hold::Slot => None,
            Hold::Queued(ticket) => state.queue.remove(&ticket),
        };
        if withdrawn.is_none() {
            state.running -= 1;
        }
        Self::grant(state);
        drop(withdrawn);
    }

    /// Hands free slots to the first in the queue (invariant 2), and wakes them.
    fn grant(mut state: MutexGuard<'_, State>) {
        let mut wakers = Vec::new();
        while let Some(waker) = state.admit_next() {
            wakers.extend(waker);
        }
        drop(state);
        for waker in wakers {
            contain(|| waker.wake());
        }
    }
}

impl State {
    fn has_free_slot(&self) -> bool {
        self.limit.is_none_or(|limit| self.running < limit.get())
    }

    /// Gives a free slot to the first in the queue; `None` if there is neither one nor the other.
    fn admit_next(&mut self) -> Option<Option<Waker>> {
        if !self.has_free_slot() {
            return None;
        }
        let (_, waker) = self.queue.pop_first()?;
        self.running += 1;
        Some(waker)
    }

    /// Room for one who has not queued.
    fn has_room(&self) -> bool {
        self.queue.is_empty() && self.has_free_slot()
    }
}
