//! `Registry`: the tasks of a group that have not ended. It serves the cancellation of siblings, the limit, the wait for
//! the last of them, drop and grace, and the list of who is still there.
//!
//! Owned by the group's `Core`. One lock, since a task comes here three times in its life: when it is spawned, when it
//! first has to wait, and when it ends.
//!
//! A task that ends is over for its group, whose `wait` may go on. But the value that it returned is put into the runtime's
//! memory a moment later, and if the handle goes in that moment nobody fetches it. So a task with a value that has a
//! destructor keeps its entry until that value has gone to the handle, or is dropped. In steps:
//!
//! 1. The task has ended, and its handle is gone: it counts as live until the [`Receipt`](super::guard::Receipt) that
//!    lies beside the value is dropped.
//! 2. The task has ended, and its handle is there: it is `DELIVERED` and counts no more. A handle that fetches the value
//!    drops the receipt. A handle that is dropped makes the entry count again (`HELD`) before it lets go of the value.
//!
//! Invariants:
//!
//! 1. `live` is the number of entries that count: all tasks, except those that were delivered and are not held, and except
//!    those that only wait for a slot. Whoever lets it fall to zero takes the waiter out in the same critical section,
//!    and wakes it afterwards.
//! 2. `stage` only rises. From `Ended` on no task is added.
//! 3. A task that leaves its waker learns the stage of that moment. Whoever raises the stage takes the wakers out after
//!    that. Hence a task sees the stage, or is woken for it.
//! 4. A key means the same task until that task's entry is removed, by the task or by its receipt. Others compare the id.
//! 5. From `Ended` on a registry without live tasks keeps no runtime.
//!
//! Lock order: innermost. Wakers, names, runtimes and guests are cloned where that is foreign, dropped and woken with no
//! lock held.
//!
//! Why not shards, one for each thread? Tasks are spawned by few threads and end on many: they would meet on the shard of
//! the spawning thread. Why not a page of tasks for each place in the source, with a bit for each? It saved a lock for tasks that never
//! wait, and cost a group with three tasks four allocations, and 2 KiB for a task that outlived its page.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::panic::Location;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::guest::Guest;
use super::limiter::{Limiter, Permit};
use crate::ordered_slab::OrderedSlab;
use crate::panic::{contain, discard};
use crate::sync::{AtomicU8, Mutex, MutexGuard, Ordering};
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

/// A task that is to be added.
pub(crate) struct Spec {
    pub(crate) name: Option<Name>,
    pub(crate) location: &'static Location<'static>,
    pub(crate) slot: SlotRequest,
}

/// A task that was added.
pub(crate) struct Added {
    pub(crate) key: u32,
    pub(crate) id: TaskId,
    pub(crate) is_queued: bool,
    /// `None` before the group's first task.
    pub(crate) runtime: Option<Handle>,
}

/// Why the end of a task was none of its own making; in `State::fates`.
pub(crate) mod fate {
    /// It completed, or its failure is in the outcome.
    pub(crate) const ITS_OWN: u8 = 0;
    /// It was cut short, or not started, because the context had ended.
    pub(crate) const CUT: u8 = 1;
    /// Its runtime went away.
    pub(crate) const LOST: u8 = 2;
    /// It was spawned when the context had ended. No task came of it.
    pub(crate) const REFUSED: u8 = 4;
}

pub(crate) struct Registry {
    state: Mutex<State>,
    /// `State::stage`, for those who only want to know.
    stage: AtomicU8,
}

struct State {
    stage: Stage,
    fates: u8,
    live: u32,
    /// Those of the live that a runtime can be told to drop.
    abortable: u32,
    entries: OrderedSlab<Entry>,
    /// Where the tasks run: given to the builder, else the runtime of the first spawn.
    runtime: Option<Handle>,
    /// Who waits for the last task. One at most: waiting borrows the group.
    waiter: Option<Waker>,
    rest: Option<Box<Rest>>,
}

/// What most groups have not.
#[derive(Default)]
struct Rest {
    limiter: Option<Limiter>,
    names: BTreeMap<u32, Name>,
    /// Groups that were dropped inside this one, and have live tasks. Each counts as a live task here.
    guests: Vec<Arc<Guest>>,
}

struct Entry {
    location: &'static Location<'static>,
    id: TaskId,
    /// Left by the task when it first has to wait.
    waker: Option<Waker>,
    /// When the task first had to wait, or else when it was first listed: one that ends in its first poll costs no clock
    /// read.
    since: Option<Instant>,
    kind: Kind,
    permit: Permit,
    flags: u8,
}

/// In `Entry::flags`: the handle is gone, the task is not.
const DETACHED: u8 = 1;

/// In `Entry::flags`: the task is gone, the handle is not, or not quite.
const DELIVERED: u8 = 2;

/// In `Entry::flags`, with `DELIVERED`: the handle is gone, and the value may not be.
const HELD: u8 = 4;

/// A live task, as it is listed.
pub(crate) struct Listed {
    pub(crate) id: TaskId,
    pub(crate) name: Option<Name>,
    pub(crate) location: &'static Location<'static>,
    pub(crate) kind: Kind,
    pub(crate) age: Duration,
}

/// Whom to wake, and what to drop, when the lock has been released.
#[derive(Default)]
struct Aftermath {
    next: Option<Waker>,
    waiter: Option<Waker>,
    /// The task's own, which nobody needs any more.
    waker: Option<Waker>,
    _name: Option<Name>,
    _runtime: Option<Handle>,
}

/// How a wait for a permit stands.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Granted,
    NotYet,
    /// The context has ended.
    Ended,
}

impl Registry {
    pub(crate) fn new(runtime: Option<Handle>) -> Self {
        Self {
            state: Mutex::new(State {
                stage: Stage::Open,
                fates: 0,
                live: 0,
                abortable: 0,
                entries: OrderedSlab::default(),
                runtime,
                waiter: None,
                rest: None,
            }),
            stage: AtomicU8::new(Stage::Open as u8),
        }
    }

    /// Adds a task; `None` if the group has ended, or has no room for one that will not wait. A permit that a `Slot` held
    /// for it is given back then.
    pub(crate) fn add(&self, kind: Kind, spec: Spec) -> Option<Added> {
        let id = TaskId::next();
        let mut state = self.state.lock();
        let is_open = state.stage == Stage::Open;
        let permit = match is_open {
            true => state.acquire(spec.slot),
            false => None,
        };
        let Some(permit) = permit else {
            // Before the name, which is foreign.
            self.give_back(state, spec.slot == SlotRequest::Held);
            return None;
        };
        let key = state.insert(Entry::new(kind, spec.location, id, permit));
        if let Some(name) = spec.name {
            state.rest().names.insert(key, name);
        }
        Some(Added {
            key,
            id,
            is_queued: permit == Permit::Waiting,
            runtime: state.runtime.clone(),
        })
    }

    /// Makes `runtime` the group's, unless it has one; returns the group's.
    pub(crate) fn set_runtime(&self, runtime: Handle) -> Handle {
        let mut state = self.state.lock();
        let chosen = state.runtime.get_or_insert_with(|| runtime.clone()).clone();
        drop(state);
        drop(runtime);
        chosen
    }

    pub(crate) fn runtime(&self) -> Option<Handle> {
        self.state.lock().runtime.clone()
    }

    /// Removes a task that has ended, and gives its permit to the next.
    pub(crate) fn remove(&self, key: u32, fate: u8) {
        let mut state = self.state.lock();
        state.fates |= fate;
        let Some(mut entry) = state.entries.remove(key) else {
            return;
        };
        let mut aftermath = state.clear(key, &mut entry);
        state.uncount(entry.kind, &mut aftermath);
        drop(state);
        aftermath.see_to();
    }

    /// The task has ended, and returns a value that its handle may fetch, or may not. Returns its id.
    pub(crate) fn deliver(&self, key: u32) -> TaskId {
        let mut state = self.state.lock();
        let entry = state.entries.get_mut(key);
        let entry = entry.expect("errgroup: a task is listed until its end");
        let (id, kind, permit) = (entry.id, entry.kind, entry.permit);
        let is_detached = entry.flags & DETACHED != 0;
        entry.permit = Permit::None;
        let waker = entry.waker.take();
        if !is_detached {
            entry.flags |= DELIVERED;
        }
        let mut aftermath = Aftermath {
            next: state.release(permit),
            waker,
            ..Aftermath::default()
        };
        if !is_detached {
            state.uncount(kind, &mut aftermath);
        }
        drop(state);
        aftermath.see_to();
        id
    }

    /// The handle is about to be dropped, and the value with it, unless that is still on its way.
    pub(crate) fn detach(&self, key: u32, id: TaskId) {
        let mut state = self.state.lock();
        let Some(entry) = state.entry(key, id) else {
            return;
        };
        if entry.flags & DELIVERED == 0 {
            entry.flags |= DETACHED;
            return;
        }
        entry.flags |= HELD;
        let kind = entry.kind;
        state.count(kind);
    }

    /// The value has gone to the handle, or is dropped.
    pub(crate) fn remove_delivered(&self, key: u32, id: TaskId) {
        let mut state = self.state.lock();
        if state.entry(key, id).is_none() {
            return;
        }
        let Some(mut entry) = state.entries.remove(key) else {
            return;
        };
        let mut aftermath = state.clear(key, &mut entry);
        if entry.counts() {
            state.uncount(entry.kind, &mut aftermath);
        }
        drop(state);
        aftermath.see_to();
    }

    /// Leaves the waker of a task that has to wait, to be woken when the stage rises; returns the stage (invariant 3).
    pub(crate) fn leave_waker(&self, key: u32, waker: &Waker) -> Stage {
        let waker = Some(waker.clone());
        let now = Instant::now();
        let mut state = self.state.lock();
        let stage = state.stage;
        let replaced = match state.entries.get_mut(key) {
            Some(entry) => {
                entry.since.get_or_insert(now);
                std::mem::replace(&mut entry.waker, waker)
            }
            None => waker,
        };
        drop(state);
        drop(replaced);
        stage
    }

    /// As `leave_waker`, of one whose waker may change.
    pub(crate) fn refresh_waker(&self, key: u32, waker: &Waker) -> Stage {
        {
            let mut state = self.state.lock();
            let stage = state.stage;
            let entry = state.entries.get_mut(key);
            let left = entry.and_then(|entry| entry.waker.as_ref());
            if left.is_some_and(|left| left.will_wake(waker)) {
                return stage;
            }
        }
        self.leave_waker(key, waker)
    }

    /// Asks whether one who waits for a permit has it, and if not leaves the waker, if one is given.
    pub(crate) fn poll_room(&self, key: u32, waker: Option<&Waker>) -> Room {
        let mut waker = waker.cloned();
        let mut state = self.state.lock();
        let stage = state.stage;
        let room = match state.entries.get_mut(key) {
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
        drop(state);
        drop(waker);
        room
    }

    /// Takes a permit for a task that is still to come, or a place in the queue: then the key of it. `None` if the group
    /// has ended.
    pub(crate) fn request_slot(
        &self,
        location: &'static Location<'static>,
    ) -> Option<SlotRequested> {
        let mut state = self.state.lock();
        if state.stage != Stage::Open {
            return None;
        }
        Some(match state.acquire(SlotRequest::Queue) {
            None | Some(Permit::None) => SlotRequested::Unlimited,
            Some(Permit::Held) => SlotRequested::Granted,
            Some(Permit::Waiting) => {
                let id = TaskId::next();
                let entry = Entry::new(Kind::Slot, location, id, Permit::Waiting);
                SlotRequested::Queued(state.insert(entry))
            }
        })
    }

    /// Ends a wait in the queue; returns whether it came to a permit, which is the caller's then.
    pub(crate) fn leave_queue(&self, key: u32) -> bool {
        let mut state = self.state.lock();
        let Some(mut entry) = state.entries.remove(key) else {
            return false;
        };
        let is_granted = entry.permit == Permit::Held;
        if is_granted {
            entry.permit = Permit::None;
        }
        let aftermath = state.clear(key, &mut entry);
        drop(state);
        aftermath.see_to();
        is_granted
    }

    /// Gives back the permit of a slot that nothing was spawned through.
    pub(crate) fn release_slot(&self) {
        self.give_back(self.state.lock(), true);
    }

    fn give_back(&self, mut state: MutexGuard<'_, State>, is_held: bool) {
        let next = match is_held {
            true => state.release(Permit::Held),
            false => None,
        };
        drop(state);
        wake(next);
    }

    /// Lets at most `limit` tasks run from now on. Those that run already count.
    pub(crate) fn set_limit(&self, limit: Option<usize>) {
        let mut state = self.state.lock();
        if limit.is_none() && state.limiter().is_none() {
            return;
        }
        state.limiter_or_new().set_limit(limit);
        // One at a time: each is woken with no lock held.
        while let Some(next) = state.grant() {
            drop(state);
            wake(next);
            state = self.state.lock();
        }
    }

    /// Raises the stage, then wakes the tasks that it concerns.
    pub(crate) fn raise(&self, stage: Stage) {
        // Release: pairs with `stage`. A task that misses it here meets it under the lock.
        self.stage.fetch_max(stage as u8, Ordering::Release);
        let mut state = self.state.lock();
        state.stage = state.stage.max(stage);
        let runtime = state.unused_runtime();
        let mut wakers = Vec::new();
        // A chunk at a time, so that nobody waits for long. Nothing is added meanwhile (invariant 2).
        for chunk in 0.. {
            if !state.take_wakers(chunk, stage, &mut wakers) {
                break;
            }
            drop(state);
            wakers.drain(..).for_each(|waker| wake(Some(waker)));
            state = self.state.lock();
        }
        drop(state);
        drop(runtime);
    }

    #[inline]
    pub(crate) fn stage(&self) -> Stage {
        // Acquire: pairs with `raise`.
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Open,
            1 => Stage::Ended,
            _ => Stage::Aborting,
        }
    }

    pub(crate) fn record(&self, fate: u8) {
        self.state.lock().fates |= fate;
    }

    pub(crate) fn fates(&self) -> u8 {
        self.state.lock().fates
    }

    /// As `fates`; whether something was refused is told once.
    pub(crate) fn take_fates(&self) -> u8 {
        let mut state = self.state.lock();
        let fates = state.fates;
        state.fates &= !fate::REFUSED;
        fates
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().live == 0
    }

    /// The tasks that have not ended, those of guests included.
    pub(crate) fn len(&self) -> usize {
        let state = self.state.lock();
        let guests = state.guests();
        let own = state.live as usize - guests.len();
        drop(state);
        own + guests
            .iter()
            .map(|guest| guest.registry().len())
            .sum::<usize>()
    }

    /// Ready when the last task has ended.
    pub(crate) fn poll_empty(&self, cx: &TaskContext<'_>) -> Poll<()> {
        self.poll_until(cx, |registry| registry.is_empty())
    }

    /// Ready when no task is left that can be aborted. While tasks are being aborted, each that ends wakes the waiter.
    pub(crate) fn poll_aborted(&self, cx: &TaskContext<'_>) -> Poll<()> {
        self.poll_until(cx, Self::is_aborted)
    }

    fn poll_until(&self, cx: &TaskContext<'_>, is_over: impl Fn(&Self) -> bool) -> Poll<()> {
        if is_over(self) {
            return Poll::Ready(());
        }
        let waker = cx.waker();
        let mut state = self.state.lock();
        if !state
            .waiter
            .as_ref()
            .is_some_and(|left| left.will_wake(waker))
        {
            drop(state);
            let waker = Some(waker.clone());
            state = self.state.lock();
            let replaced = std::mem::replace(&mut state.waiter, waker);
            drop(state);
            drop(replaced);
        } else {
            drop(state);
        }
        // It may have come to that before the waker was there.
        if !is_over(self) {
            return Poll::Pending;
        }
        self.forget_waiter();
        Poll::Ready(())
    }

    /// Gives up the wait of `poll_empty` and `poll_aborted`.
    pub(crate) fn forget_waiter(&self) {
        let waiter = self.state.lock().waiter.take();
        drop(waiter);
    }

    fn is_aborted(&self) -> bool {
        let state = self.state.lock();
        if state.abortable > 0 {
            return false;
        }
        let guests = state.guests();
        drop(state);
        guests.iter().all(|guest| guest.registry().is_aborted())
    }

    /// Has the waiter look again.
    pub(crate) fn nudge(&self) {
        let waiter = self.state.lock().waiter.take();
        wake(waiter);
    }

    pub(super) fn add_guest(&self, guest: Arc<Guest>) {
        let mut state = self.state.lock();
        state.live += 1;
        state.rest().guests.push(guest);
    }

    /// A guest's last task has ended. A second call does nothing.
    pub(super) fn remove_guest(&self, guest: &Arc<Guest>) {
        let mut state = self.state.lock();
        let guests = &mut state.rest().guests;
        let Some(place) = guests.iter().position(|other| Arc::ptr_eq(other, guest)) else {
            return;
        };
        let guest = guests.swap_remove(place);
        state.live -= 1;
        let waiter = state.waiter_to_wake();
        let runtime = state.unused_runtime();
        drop(state);
        drop((guest, runtime));
        wake(waiter);
    }

    /// The name, the id and the place of a task, for a failure.
    pub(crate) fn describe(
        &self,
        key: u32,
    ) -> Option<(Option<Name>, TaskId, &'static Location<'static>)> {
        let mut state = self.state.lock();
        let name = state.name(key);
        let entry = state.entries.get_mut(key)?;
        Some((name, entry.id, entry.location))
    }

    /// Lists the live tasks, those of guests included, a chunk at a time: tasks come and go meanwhile.
    pub(crate) fn list(&self) -> Vec<Listed> {
        let now = Instant::now();
        let mut listed = Vec::new();
        let mut state = self.state.lock();
        let guests = state.guests();
        for chunk in 0.. {
            if !state.list(chunk, now, &mut listed) {
                break;
            }
            drop(state);
            state = self.state.lock();
        }
        drop(state);
        listed.extend(guests.iter().flat_map(|guest| guest.registry().list()));
        listed
    }
}

/// What came of the request for a slot.
#[must_use]
pub(crate) enum SlotRequested {
    Unlimited,
    Granted,
    /// By its key.
    Queued(u32),
}

impl Entry {
    fn new(kind: Kind, location: &'static Location<'static>, id: TaskId, permit: Permit) -> Self {
        Self {
            location,
            id,
            waker: None,
            since: None,
            kind,
            permit,
            flags: 0,
        }
    }

    /// Whether it is a task, and has not ended.
    fn is_task(&self) -> bool {
        self.kind != Kind::Slot && self.flags & DELIVERED == 0
    }

    /// Whether it is one of `State::live` (invariant 1).
    fn counts(&self) -> bool {
        self.kind != Kind::Slot && self.flags & (DELIVERED | HELD) != DELIVERED
    }

    /// Whether it is the task of this id, and waits for a permit.
    fn is_waiting(&self, id: TaskId) -> bool {
        self.permit == Permit::Waiting && self.id == id
    }

    /// A cooperative task hears of the end by its context, and of nothing but an abort from here.
    fn is_concerned_by(&self, stage: Stage) -> bool {
        stage == Stage::Aborting || self.kind != Kind::Cooperative || self.permit == Permit::Waiting
    }
}

impl Aftermath {
    fn see_to(self) {
        wake(self.next);
        if let Some(waker) = self.waker {
            discard(waker);
        }
        wake(self.waiter);
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        contain(|| waker.wake());
    }
}

impl State {
    fn rest(&mut self) -> &mut Rest {
        self.rest.get_or_insert_default()
    }

    fn limiter(&self) -> Option<&Limiter> {
        self.rest.as_ref()?.limiter.as_ref()
    }

    fn limiter_mut(&mut self) -> Option<&mut Limiter> {
        self.rest.as_mut()?.limiter.as_mut()
    }

    /// With the first limit each task that runs is given a permit.
    fn limiter_or_new(&mut self) -> &mut Limiter {
        if self.limiter().is_none() {
            let mut running = 0;
            self.entries.for_each_mut(|entry| {
                if entry.is_task() {
                    entry.permit = Permit::Held;
                    running += 1;
                }
            });
            self.rest().limiter = Some(Limiter::new(running));
        }
        self.limiter_mut().expect("it was just made")
    }

    /// `None` if there is no room for one that will not wait.
    #[inline]
    fn acquire(&mut self, request: SlotRequest) -> Option<Permit> {
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
    fn insert(&mut self, entry: Entry) -> u32 {
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

    fn count(&mut self, kind: Kind) {
        self.live += 1;
        self.abortable += u32::from(kind != Kind::Blocking);
    }

    fn uncount(&mut self, kind: Kind, aftermath: &mut Aftermath) {
        self.live -= 1;
        self.abortable -= u32::from(kind != Kind::Blocking);
        aftermath.waiter = self.waiter_to_wake();
        aftermath._runtime = self.unused_runtime();
    }

    /// Taken out with the last task; while tasks are being aborted, with each.
    #[inline]
    fn waiter_to_wake(&mut self) -> Option<Waker> {
        match self.live == 0 || self.stage == Stage::Aborting {
            true => self.waiter.take(),
            false => None,
        }
    }

    #[inline]
    fn unused_runtime(&mut self) -> Option<Handle> {
        match self.live == 0 && self.stage != Stage::Open {
            true => self.runtime.take(),
            false => None,
        }
    }

    /// Takes from an entry that was removed what it has in common with others.
    #[inline]
    fn clear(&mut self, key: u32, entry: &mut Entry) -> Aftermath {
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
    fn release(&mut self, permit: Permit) -> Option<Waker> {
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
    fn withdraw(&mut self) {
        let State { entries, rest, .. } = self;
        if let Some(limiter) = rest.as_mut().and_then(|rest| rest.limiter.as_mut()) {
            limiter.withdraw(|key, id| entries.get(key).is_some_and(|entry| entry.is_waiting(id)));
        }
    }

    /// Gives a permit to the next in the queue, if there is room and somebody waits.
    fn grant(&mut self) -> Option<Option<Waker>> {
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
    fn take_wakers(&mut self, chunk: usize, stage: Stage, wakers: &mut Vec<Waker>) -> bool {
        let Some(entries) = self.entries.chunk_mut(chunk) else {
            return false;
        };
        let concerned = entries.filter(|(_, entry)| entry.is_concerned_by(stage));
        wakers.extend(concerned.filter_map(|(_, entry)| entry.waker.take()));
        true
    }

    /// Lists the tasks of a chunk; `false` beyond the last.
    fn list(&mut self, chunk: usize, now: Instant, listed: &mut Vec<Listed>) -> bool {
        let names = self.rest.as_ref().map(|rest| &rest.names);
        let Some(entries) = self.entries.chunk_mut(chunk) else {
            return false;
        };
        for (key, entry) in entries.filter(|(_, entry)| entry.is_task()) {
            let since = *entry.since.get_or_insert(now);
            listed.push(Listed {
                id: entry.id,
                name: names.and_then(|names| names.get(&key).cloned()),
                location: entry.location,
                kind: entry.kind,
                age: now.saturating_duration_since(since),
            });
        }
        true
    }

    fn entry(&mut self, key: u32, id: TaskId) -> Option<&mut Entry> {
        self.entries.get_mut(key).filter(|entry| entry.id == id)
    }

    fn name(&self, key: u32) -> Option<Name> {
        self.rest.as_ref()?.names.get(&key).cloned()
    }

    fn guests(&self) -> Vec<Arc<Guest>> {
        self.rest
            .as_ref()
            .map_or_else(Vec::new, |rest| rest.guests.clone())
    }
}
