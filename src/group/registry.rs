//! `Registry`: the tasks of a group that have not ended. It serves the cancellation of siblings, the limit (see
//! [`room`](super::room)), the wait for the last of them, drop and grace, and the list of who is still there (see
//! [`watch`](super::watch)).
//!
//! Owned by the group's `Core`. One lock, since a task comes here three times in its life: when it is spawned, when it
//! first has to wait, and when it ends.
//!
//! A task that ends is over for its group, whose `wait` may go on. But the value that it returned is put into the runtime's
//! memory a moment later, and if the handle goes in that moment nobody fetches it. So a task with a value that has a
//! destructor keeps its entry until that value has gone to the handle, or is dropped. In steps:
//!
//! 1. The task has ended, and its handle is gone: it counts as live until the [`Receipt`](crate::task::Receipt) that
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

use std::panic::Location;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::entry::{DELIVERED, DETACHED, Entry, HELD, Kind, Name, SlotRequest, Stage};
use super::fate::{Counts, Fate, Lacks};
use super::guest::Guest;
use super::limiter::Permit;
use super::moment::Moment;
use super::polls::Polls;
use super::tasks::{Aftermath, Tasks, wake};
use crate::context::{Grace, Listing, Node, Steps};
use crate::panic::discard;
use crate::sync::{AtomicU8, Mutex, MutexGuard, Ordering};
use crate::task::TaskId;

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
    /// `None` if there is none.
    pub(crate) runtime: Option<Handle>,
}

pub(crate) struct Registry {
    pub(super) tasks: Mutex<Tasks>,
    /// `Tasks::stage`, for those who only want to know.
    stage: AtomicU8,
    pub(crate) start: Instant,
    pub(super) polls: Polls,
    listing: Listing,
}

impl Registry {
    pub(crate) fn new(runtime: Option<Handle>) -> Self {
        Self {
            tasks: Mutex::new(Tasks::new(runtime)),
            stage: AtomicU8::new(Stage::Open as u8),
            start: Instant::now(),
            polls: Polls::default(),
            listing: Listing::default(),
        }
    }

    /// Adds a task; `None` if the group has ended, or has no room for one that will not wait. A permit that a `Slot` held
    /// for it is given back then.
    ///
    /// `current` is asked for the runtime with the first task.
    pub(crate) fn add(
        &self,
        kind: Kind,
        spec: Spec,
        current: impl FnOnce() -> Option<Handle>,
    ) -> Option<Added> {
        let id = TaskId::next();
        let mut tasks = self.tasks.lock();
        let is_open = tasks.stage == Stage::Open;
        let permit = match is_open {
            true => tasks.acquire(spec.slot),
            false => None,
        };
        let Some(permit) = permit else {
            // Before the name, which is foreign.
            self.give_back(tasks, spec.slot == SlotRequest::Held);
            return None;
        };
        let key = tasks.insert(Entry::new(kind, spec.location, id, permit));
        self.polls.begin(key);
        if let Some(name) = spec.name {
            tasks.rest().names.insert(key, name);
        }
        if tasks.runtime.is_none() {
            tasks.runtime = current();
        }
        Some(Added {
            key,
            id,
            is_queued: permit == Permit::Waiting,
            runtime: tasks.runtime.clone(),
        })
    }

    #[inline]
    pub(super) fn moment(&self, now: Instant) -> Moment {
        Moment::new(self.start, now)
    }

    /// Enters the directory. A second call does nothing.
    pub(crate) fn enter_directory(&self, node: &Arc<Node>) {
        self.listing.enter(node);
    }

    pub(crate) fn runtime(&self) -> Option<Handle> {
        self.tasks.lock().runtime.clone()
    }

    /// Removes a task that has ended, and gives its permit to the next.
    pub(crate) fn remove(&self, key: u32, fate: Fate) {
        let mut tasks = self.tasks.lock();
        tasks.ends.count(fate);
        let Some(mut entry) = tasks.entries.remove(key) else {
            return;
        };
        // By far most tasks have no permit and no name, and are not the last.
        if tasks.is_plain() {
            tasks.live -= 1;
            tasks.abortable -= u32::from(entry.kind != Kind::Blocking);
            drop(tasks);
            if let Some(waker) = entry.waker {
                discard(waker);
            }
            return;
        }
        let mut aftermath = tasks.clear(key, &mut entry);
        tasks.uncount(entry.kind, &mut aftermath);
        drop(tasks);
        aftermath.see_to();
    }

    /// The task has ended, and returns a value that its handle may fetch, or may not.
    pub(crate) fn deliver(&self, key: u32) {
        let mut tasks = self.tasks.lock();
        tasks.ends.count(Fate::Completed);
        let entry = tasks.entries.get_mut(key);
        let entry = entry.expect("errgroup: a task is listed until its end");
        let (kind, permit) = (entry.kind, entry.permit);
        let is_detached = entry.flags & DETACHED != 0;
        entry.permit = Permit::None;
        let waker = entry.waker.take();
        if !is_detached {
            entry.flags |= DELIVERED;
        }
        let mut aftermath = Aftermath {
            next: tasks.release(permit),
            waker,
            ..Aftermath::default()
        };
        if !is_detached {
            tasks.uncount(kind, &mut aftermath);
        }
        drop(tasks);
        aftermath.see_to();
    }

    /// The handle is about to be dropped, and the value with it, unless that is still on its way.
    pub(crate) fn detach(&self, key: u32, id: TaskId) {
        let mut tasks = self.tasks.lock();
        let Some(entry) = tasks.entry(key, id) else {
            return;
        };
        if entry.flags & DELIVERED == 0 {
            entry.flags |= DETACHED;
            return;
        }
        entry.flags |= HELD;
        let kind = entry.kind;
        tasks.count(kind);
    }

    /// The value has gone to the handle, or is dropped.
    pub(crate) fn remove_delivered(&self, key: u32) {
        let mut tasks = self.tasks.lock();
        let Some(mut entry) = tasks.entries.remove(key) else {
            return;
        };
        let mut aftermath = tasks.clear(key, &mut entry);
        if entry.counts() {
            tasks.uncount(entry.kind, &mut aftermath);
        }
        drop(tasks);
        aftermath.see_to();
    }

    /// Leaves the waker of a task that has to wait, to be woken when the stage rises; returns the stage (invariant 3).
    pub(crate) fn leave_waker(&self, key: u32, waker: &Waker) -> Stage {
        let waker = Some(waker.clone());
        let now = self.moment(Instant::now());
        let mut tasks = self.tasks.lock();
        let stage = tasks.stage;
        let replaced = match tasks.entries.get_mut(key) {
            Some(entry) => {
                entry.note_wait(now);
                std::mem::replace(&mut entry.waker, waker)
            }
            None => waker,
        };
        drop(tasks);
        drop(replaced);
        stage
    }

    /// As `leave_waker`, of one whose waker may change.
    pub(crate) fn refresh_waker(&self, key: u32, waker: &Waker) -> Stage {
        {
            let mut tasks = self.tasks.lock();
            let stage = tasks.stage;
            let entry = tasks.entries.get_mut(key);
            let left = entry.and_then(|entry| entry.waker.as_ref());
            if left.is_some_and(|left| left.will_wake(waker)) {
                return stage;
            }
        }
        self.leave_waker(key, waker)
    }

    /// Gives back the permit of a slot that nothing was spawned through.
    pub(crate) fn release_slot(&self) {
        self.give_back(self.tasks.lock(), true);
    }

    fn give_back(&self, mut tasks: MutexGuard<'_, Tasks>, is_held: bool) {
        let next = match is_held {
            true => tasks.release(Permit::Held),
            false => None,
        };
        drop(tasks);
        wake(next);
    }

    /// Raises the stage, then wakes the tasks that it concerns. Returns whether there are any.
    pub(crate) fn raise(&self, stage: Stage) -> bool {
        let mut tasks = self.tasks.lock();
        tasks.stage = tasks.stage.max(stage);
        // Under the lock: who sees it here relies on it there, as `Core::stop_admission` does. Release: pairs with `stage`.
        self.stage.fetch_max(stage as u8, Ordering::Release);
        let runtime = tasks.unused_runtime();
        // Guests have no entry here.
        if tasks.entries.is_empty() && tasks.live == 0 {
            drop(tasks);
            drop(runtime);
            return false;
        }
        let is_end = tasks.note_end(self.start);
        let mut wakers = Vec::new();
        // A chunk at a time, so that nobody waits for long. Nothing is added meanwhile (invariant 2).
        for chunk in 0.. {
            if is_end {
                tasks.note_counts(chunk, &self.polls);
            }
            if !tasks.take_wakers(chunk, stage, &mut wakers) {
                break;
            }
            drop(tasks);
            wakers.drain(..).for_each(|waker| wake(Some(waker)));
            tasks = self.tasks.lock();
        }
        drop(tasks);
        drop(runtime);
        true
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

    /// Counts what was no task of the registry's.
    pub(crate) fn record(&self, fate: Fate) {
        self.tasks.lock().ends.count(fate);
    }

    /// Something was spawned when the context had ended.
    pub(crate) fn record_refused(&self, fate: Fate) {
        let mut tasks = self.tasks.lock();
        tasks.ends.count(fate);
        tasks.ends.has_refused = true;
    }

    pub(crate) fn counts(&self) -> Counts {
        self.tasks.lock().ends.counts()
    }

    pub(crate) fn lacks(&self) -> Lacks {
        self.tasks.lock().ends.lacks()
    }

    /// It has been told.
    pub(crate) fn forget_refused(&self) {
        self.tasks.lock().ends.has_refused = false;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tasks.lock().live == 0
    }

    /// The tasks that have not ended, those of guests included.
    pub(crate) fn len(&self) -> usize {
        let tasks = self.tasks.lock();
        let guests = tasks.guests();
        let own = tasks.live as usize - guests.len();
        drop(tasks);
        own + guests
            .iter()
            .map(|guest| guest.registry().len())
            .sum::<usize>()
    }

    /// Ready when the last task has ended.
    pub(crate) fn poll_empty(&self, cx: &TaskContext<'_>) -> Poll<()> {
        {
            let tasks = self.tasks.lock();
            if tasks.live == 0 {
                return Poll::Ready(());
            }
            if tasks.is_waited_for_by(cx.waker()) {
                return Poll::Pending;
            }
        }
        let waker = cx.waker().clone();
        let mut tasks = self.tasks.lock();
        let (poll, unused) = match tasks.live {
            0 => (Poll::Ready(()), Some(waker)),
            _ => (Poll::Pending, tasks.waiter.replace(waker)),
        };
        drop(tasks);
        drop(unused);
        poll
    }

    /// Ready when no task is left that can be aborted. While tasks are being aborted, each that ends wakes the waiter.
    pub(crate) fn poll_aborted(&self, cx: &TaskContext<'_>) -> Poll<()> {
        if !self.is_aborted() {
            let waker = Some(cx.waker().clone());
            let replaced = std::mem::replace(&mut self.tasks.lock().waiter, waker);
            drop(replaced);
        }
        // It may have come to that before the waker was there.
        match self.is_aborted() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// Gives up the wait of `poll_empty` and `poll_aborted`.
    pub(crate) fn forget_waiter(&self) {
        let waiter = self.tasks.lock().waiter.take();
        discard(waiter);
    }

    fn is_aborted(&self) -> bool {
        let tasks = self.tasks.lock();
        if tasks.abortable > 0 {
            return false;
        }
        let guests = tasks.guests();
        drop(tasks);
        guests.iter().all(|guest| guest.registry().is_aborted())
    }

    /// Whether somebody waits for the last task, and the context ended at least so long ago.
    pub(super) fn is_waited_for_since_end(&self, now: Instant, time: Duration) -> bool {
        let tasks = self.tasks.lock();
        let ended_ago = tasks.ended.until(self.moment(now));
        tasks.waiter.is_some() && ended_ago.is_some_and(|ago| ago >= time)
    }

    /// Has the waiter look again.
    pub(crate) fn nudge(&self) {
        let waiter = self.tasks.lock().waiter.take();
        wake(waiter);
    }

    /// The owner is gone. Returns whether there is anybody left to wait for.
    pub(crate) fn abandon(&self) -> bool {
        let mut tasks = self.tasks.lock();
        tasks.is_abandoned = true;
        tasks.live > 0
    }

    /// What those below the group's context look to while it is stopped. `None` if the owner is gone, and nothing was
    /// aborted.
    pub(crate) fn steps(&self) -> Option<Arc<Steps>> {
        let mut tasks = self.tasks.lock();
        let is_over = tasks.is_abandoned && tasks.stage != Stage::Aborting;
        let steps = (!is_over).then(|| tasks.rest().steps.get_or_insert_default().clone());
        drop(tasks);
        steps
    }

    pub(crate) fn grace(&self) -> Grace {
        let tasks = self.tasks.lock();
        match tasks.stage {
            Stage::Aborting => Grace::Over,
            _ if tasks.has_grace && !tasks.is_abandoned => Grace::Running,
            _ => Grace::Open,
        }
    }

    pub(crate) fn set_grace(&self, has_grace: bool) {
        self.tasks.lock().has_grace = has_grace;
    }

    /// The steps that somebody has asked for. Whoever ends them has set the stage, or the grace, before: the other end of
    /// this race looks at them after it has made its node.
    pub(crate) fn made_steps(&self) -> Option<Arc<Steps>> {
        self.tasks.lock().rest.as_ref()?.steps.clone()
    }

    /// `false` if the owner is gone and all tasks have ended: then nobody waits here.
    pub(super) fn add_guest(&self, guest: &Arc<Guest>) -> bool {
        let mut tasks = self.tasks.lock();
        if tasks.is_abandoned && tasks.live == 0 {
            return false;
        }
        tasks.live += 1;
        tasks.rest().guests.push(guest.clone());
        true
    }

    /// A guest's last task has ended. A second call does nothing.
    pub(super) fn remove_guest(&self, guest: &Arc<Guest>) {
        let mut tasks = self.tasks.lock();
        let guests = &mut tasks.rest().guests;
        let Some(place) = guests.iter().position(|other| Arc::ptr_eq(other, guest)) else {
            return;
        };
        let guest = guests.swap_remove(place);
        tasks.live -= 1;
        let waiter = tasks.waiter_to_wake();
        let runtime = tasks.unused_runtime();
        drop(tasks);
        drop((guest, runtime));
        wake(waiter);
    }

    /// The name, the id and the place of a task, for a failure.
    pub(crate) fn describe(
        &self,
        key: u32,
    ) -> Option<(Option<Name>, TaskId, &'static Location<'static>)> {
        let mut tasks = self.tasks.lock();
        let name = tasks.name(key);
        let entry = tasks.entries.get_mut(key)?;
        Some((name, entry.id, entry.location))
    }
}
