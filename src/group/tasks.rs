//! `Tasks`: what a group's [`Registry`](super::registry::Registry) keeps under its lock. Plain data: nothing here wakes,
//! or drops what is foreign, but hands it out as [`Aftermath`] for the time after the lock.
//!
//! The invariants stand in the head of `registry.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::entry::{Copied, Entry, Kind, Name, SeenTasks, SlotRequest, Stage};
use super::fate::Ends;
use super::guest::Guest;
use super::limiter::{Limiter, Permit};
use super::moment::Moment;
use super::polls::Polls;
use crate::context::Steps;
use crate::panic::{contain, discard};
use crate::slab::Slab;
use crate::task::TaskId;

pub(super) struct Tasks {
    pub(super) stage: Stage,
    pub(super) ends: Ends,
    /// The group was dropped.
    pub(super) is_abandoned: bool,
    /// The group is being stopped, and its context has ended.
    pub(super) has_grace: bool,
    pub(super) live: u32,
    /// Those of the live that a runtime can be told to drop.
    pub(super) abortable: u32,
    pub(super) entries: Slab<Entry>,
    /// Where the tasks run: given to the builder, else the runtime of the first spawn.
    pub(super) runtime: Option<Handle>,
    /// Who waits for the last task. One at most: waiting borrows the group.
    pub(super) waiter: Option<Waker>,
    pub(super) rest: Option<Box<Rest>>,
    /// When the context ended, if there were tasks.
    pub(super) ended: Moment,
    /// What snapshots have seen. Taken out by whoever takes one.
    pub(super) seen: Option<Box<SeenTasks>>,
}

/// What most groups have not.
#[derive(Default)]
pub(super) struct Rest {
    pub(super) limiter: Option<Limiter>,
    pub(super) names: BTreeMap<u32, Name>,
    /// Groups that were dropped inside this one, and have live tasks. Each counts as a live task here.
    pub(super) guests: Vec<Arc<Guest>>,
    /// Made when somebody first asks for a step of the group's stop.
    pub(super) steps: Option<Arc<Steps>>,
}

/// Whom to wake, and what to drop, when the lock has been released.
#[derive(Default)]
pub(super) struct Aftermath {
    pub(super) next: Option<Waker>,
    pub(super) waiter: Option<Waker>,
    /// The task's own, which nobody needs any more.
    pub(super) waker: Option<Waker>,
    pub(super) _name: Option<Name>,
    pub(super) _runtime: Option<Handle>,
}

impl Aftermath {
    pub(super) fn see_to(self) {
        wake(self.next);
        if let Some(waker) = self.waker {
            discard(waker);
        }
        wake(self.waiter);
    }
}

pub(super) fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        contain(|| waker.wake());
    }
}

impl Tasks {
    pub(super) fn new(runtime: Option<Handle>) -> Self {
        Self {
            stage: Stage::Open,
            ends: Ends::default(),
            is_abandoned: false,
            has_grace: false,
            live: 0,
            abortable: 0,
            entries: Slab::default(),
            runtime,
            waiter: None,
            rest: None,
            ended: Moment::NONE,
            seen: None,
        }
    }

    /// Whether there is no limit, name or guest, and others are live: then a task that leaves concerns nobody but itself.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.rest.is_none() && self.live > 1 && self.stage != Stage::Aborting
    }

    pub(super) fn is_waited_for_by(&self, waker: &Waker) -> bool {
        let waiter = self.waiter.as_ref();
        waiter.is_some_and(|waiter| waiter.will_wake(waker))
    }

    pub(super) fn rest(&mut self) -> &mut Rest {
        self.rest.get_or_insert_default()
    }

    pub(super) fn limiter(&self) -> Option<&Limiter> {
        self.rest.as_ref()?.limiter.as_ref()
    }

    pub(super) fn limiter_mut(&mut self) -> Option<&mut Limiter> {
        self.rest.as_mut()?.limiter.as_mut()
    }

    /// With the first limit each task that runs is given a permit.
    pub(super) fn limiter_or_new(&mut self) -> &mut Limiter {
        if self.limiter().is_none() {
            let mut running = 0;
            for entry in self.entries.values_mut().filter(|entry| entry.is_task()) {
                entry.permit = Permit::Held;
                running += 1;
            }
            self.rest().limiter = Some(Limiter::new(running));
        }
        self.limiter_mut().expect("it was just made")
    }

    /// `None` if there is no room for one that will not wait.
    #[inline]
    pub(super) fn acquire(&mut self, request: SlotRequest) -> Option<Permit> {
        let Some(limiter) = self.limiter_mut() else {
            return Some(Permit::None);
        };
        match request {
            SlotRequest::None => Some(Permit::None),
            SlotRequest::Held => Some(Permit::Held),
            _ if limiter.try_acquire() => Some(Permit::Held),
            SlotRequest::Queue => Some(Permit::Waiting),
            SlotRequest::Now => None,
        }
    }

    #[inline]
    pub(super) fn insert(&mut self, entry: Entry) -> u32 {
        let (id, kind, permit) = (entry.id, entry.kind, entry.permit);
        let key = self.entries.insert(entry);
        if permit == Permit::Waiting {
            if let Some(limiter) = self.limiter_mut() {
                limiter.enqueue(key, id);
            }
        }
        if kind != Kind::Slot {
            self.count(kind);
        }
        key
    }

    pub(super) fn count(&mut self, kind: Kind) {
        self.live += 1;
        self.abortable += u32::from(kind != Kind::Blocking);
    }

    pub(super) fn uncount(&mut self, kind: Kind, aftermath: &mut Aftermath) {
        self.live -= 1;
        self.abortable -= u32::from(kind != Kind::Blocking);
        aftermath.waiter = self.waiter_to_wake();
        aftermath._runtime = self.unused_runtime();
    }

    /// Taken out with the last task; while tasks are being aborted, with each.
    #[inline]
    pub(super) fn waiter_to_wake(&mut self) -> Option<Waker> {
        match self.live == 0 || self.stage == Stage::Aborting {
            true => self.waiter.take(),
            false => None,
        }
    }

    #[inline]
    pub(super) fn unused_runtime(&mut self) -> Option<Handle> {
        match self.live == 0 && self.stage != Stage::Open {
            true => self.runtime.take(),
            false => None,
        }
    }

    /// Takes from an entry that was removed what it has in common with others.
    #[inline]
    pub(super) fn clear(&mut self, key: u32, entry: &mut Entry) -> Aftermath {
        Aftermath {
            next: self.release(entry.permit),
            waker: entry.waker.take(),
            _name: match &mut self.rest {
                Some(rest) => rest.names.remove(&key),
                None => None,
            },
            ..Aftermath::default()
        }
    }

    /// Gives back a permit, or a place in the queue; returns the waker of the next who may run.
    #[inline]
    pub(super) fn release(&mut self, permit: Permit) -> Option<Waker> {
        match permit {
            Permit::None => None,
            Permit::Held => {
                self.limiter_mut()?.release();
                self.grant().flatten()
            }
            Permit::Waiting => {
                self.withdraw();
                None
            }
        }
    }

    #[cold]
    pub(super) fn withdraw(&mut self) {
        let Tasks { entries, rest, .. } = self;
        if let Some(limiter) = rest.as_mut().and_then(|rest| rest.limiter.as_mut()) {
            limiter.withdraw(|key, id| entries.get(key).is_some_and(|entry| entry.is_waiting(id)));
        }
    }

    /// Gives a permit to the next in the queue, if there is room and somebody waits.
    pub(super) fn grant(&mut self) -> Option<Option<Waker>> {
        loop {
            let (key, id) = self.limiter_mut()?.next()?;
            let entry = self.entries.get_mut(key);
            let Some(entry) = entry.filter(|entry| entry.is_waiting(id)) else {
                // It has withdrawn.
                continue;
            };
            entry.permit = Permit::Held;
            let waker = entry.waker.take();
            self.limiter_mut()?.acquire_for_waiting();
            return Some(waker);
        }
    }

    /// Takes the wakers that a stage concerns out of a chunk; `false` beyond the last chunk.
    pub(super) fn take_wakers(
        &mut self,
        chunk: usize,
        stage: Stage,
        wakers: &mut Vec<Waker>,
    ) -> bool {
        let Some(entries) = self.entries.chunk_mut(chunk) else {
            return false;
        };
        let concerned = entries.filter(|(_, entry)| entry.is_concerned_by(stage));
        wakers.extend(concerned.filter_map(|(_, entry)| entry.waker.take()));
        true
    }

    /// Notes when the context ended; `false` if that was done before.
    pub(super) fn note_end(&mut self, start: Instant) -> bool {
        let is_first = self.ended.is_none();
        if is_first {
            // Under the lock: it is one clock read.
            self.ended = Moment::new(start, Instant::now());
        }
        is_first
    }

    /// The context has ended: notes how often the tasks of a chunk have been polled.
    pub(super) fn note_counts(&mut self, chunk: usize, polls: &Polls) {
        for (key, entry) in self.entries.chunk_mut(chunk).into_iter().flatten() {
            entry.count_at_end = polls.get(key);
        }
    }

    /// Copies the tasks of a chunk, and who waits for a slot; `false` beyond the last.
    pub(super) fn copy(
        &mut self,
        chunk: usize,
        now: Moment,
        polls: &Polls,
        copies: &mut Vec<Copied>,
    ) -> bool {
        let names = self.rest.as_ref().map(|rest| &rest.names);
        let names = names.filter(|names| !names.is_empty());
        let Some(entries) = self.entries.chunk_mut(chunk) else {
            return false;
        };
        for (key, entry) in entries {
            let is_wait = entry.kind == Kind::Slot && entry.permit == Permit::Waiting;
            if !is_wait && !entry.is_task() {
                continue;
            }
            if entry.since.is_none() {
                entry.since = now;
            }
            copies.push(Copied {
                location: entry.location,
                id: entry.id,
                name: names.and_then(|names| names.get(&key).cloned()),
                since: entry.since,
                count: polls.get(key),
                count_at_end: entry.count_at_end,
                kind: entry.kind,
                permit: entry.permit,
                flags: entry.flags,
            });
        }
        true
    }

    pub(super) fn entry(&mut self, key: u32, id: TaskId) -> Option<&mut Entry> {
        self.entries.get_mut(key).filter(|entry| entry.id == id)
    }

    pub(super) fn name(&self, key: u32) -> Option<Name> {
        self.rest.as_ref()?.names.get(&key).cloned()
    }

    pub(super) fn guests(&self) -> Vec<Arc<Guest>> {
        self.rest
            .as_ref()
            .map_or_else(Vec::new, |rest| rest.guests.clone())
    }
}
