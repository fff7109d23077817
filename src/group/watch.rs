//! What whoever looks at a group is told: the list of its tasks, and, for a snapshot, its `Report`. Both are taken a chunk of
//! the registry at a time, so that nobody waits for long: tasks come and go meanwhile.
//!
//! What an earlier snapshot saw of each task is kept beside the registry, in `seen`, from snapshot to snapshot; a group that
//! nobody looks at has nothing there. Two snapshots at once may not find what the other is at: they say less then.

use std::panic::Location;
// Not from `crate::sync`: counts that no decision hangs on would only blow up the models.
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::diagnosis::Sighting;
use super::entry::{Copied, Kind, Name, Seen, SeenTasks, WAITED};
use super::fate::Counts;
use super::limiter::{Limiter, Permit};
use super::moment::Moment;
use super::registry::Registry;
use crate::slab::CHUNK;
use crate::task::TaskId;

pub(crate) struct Report {
    pub(crate) id: u64,
    pub(crate) name: Option<Name>,
    pub(crate) is_isolated: bool,
    /// Of a scope: how many tasks are live, and how many it has begun with so far.
    pub(crate) scope: Option<(u32, u32)>,
    pub(crate) members: Members,
}

/// How many tasks a scope has. Written by the scope's own poll alone, when those that were woken have been polled: a load and
/// a store do, and whoever looks while a poll lasts sees how it was before.
///
/// Why not what each of them is doing? They lie in the caller's task, where nobody else may look; an entry for each would be
/// a lock when it is spawned and another when it ends.
#[derive(Default)]
pub(crate) struct ScopeTasks {
    live: AtomicU32,
    /// The body is the first, so this is zero in a group.
    started: AtomicU32,
}

/// What the registry has.
pub(crate) struct Members {
    pub(crate) age: Duration,
    pub(crate) counts: Counts,
    pub(crate) ended_ago: Option<Duration>,
    pub(crate) limit: Option<usize>,
    pub(crate) slots_held: usize,
    /// Where `slot()` is being waited for.
    pub(crate) waits_for_slots: Vec<&'static Location<'static>>,
    pub(crate) tasks: Vec<Watched>,
}

/// A live task, as it is listed.
pub(crate) struct Listed {
    pub(crate) id: TaskId,
    pub(crate) name: Option<Name>,
    pub(crate) location: &'static Location<'static>,
    pub(crate) kind: Kind,
    pub(crate) age: Duration,
    /// As `age`, if that counts from when it first had to wait.
    pub(crate) waited_for: Option<Duration>,
    pub(crate) sighting: Sighting,
}

/// A task, and what it is doing.
pub(crate) struct Watched {
    pub(crate) task: Listed,
    pub(crate) sighting: Sighting,
    pub(crate) doing: Doing,
    pub(crate) holds_slot: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    Queued,
    /// It waits for its first poll, or for a thread.
    NotStarted,
    /// For at least so long.
    Running(Duration),
    /// For at least so long, if that is known.
    Waiting(Option<Duration>),
}

// Relaxed: nothing is published through the counts.
impl ScopeTasks {
    /// So many are there to be polled from now on, the body included.
    pub(crate) fn add(&self, tasks: usize) {
        let before = self.started.load(Ordering::Relaxed);
        self.started
            .store(before.wrapping_add(tasks as u32).max(1), Ordering::Relaxed);
    }

    pub(crate) fn set_live(&self, live: usize) {
        self.live.store(live as u32, Ordering::Relaxed);
    }

    pub(super) fn live(&self) -> u32 {
        self.live.load(Ordering::Relaxed)
    }

    pub(super) fn counts(&self) -> Option<(u32, u32)> {
        match self.started.load(Ordering::Relaxed) {
            0 => None,
            started => Some((self.live(), started)),
        }
    }
}

impl Copied {
    pub(super) fn listed(self, now: Moment, ended_ago: Option<Duration>) -> Listed {
        let age = self.since.until(now).unwrap_or_default();
        Listed {
            id: self.id,
            name: self.name,
            location: self.location,
            kind: self.kind,
            age,
            waited_for: (self.flags & WAITED != 0).then_some(age),
            sighting: Sighting {
                kind: self.kind,
                count: self.count,
                count_at_end: self.count_at_end,
                ended_ago,
                unchanged: Duration::ZERO,
            },
        }
    }
}

impl Registry {
    /// Lists the live tasks, those of guests included, a chunk at a time: tasks come and go meanwhile.
    pub(crate) fn list(&self) -> Vec<Listed> {
        let now = self.moment(Instant::now());
        let mut listed = Vec::new();
        let guests = self.tasks.lock().guests();
        self.for_each_copy(now, |copy, ended_ago| {
            if copy.kind != Kind::Slot {
                listed.push(copy.listed(now, ended_ago));
            }
        });
        listed.extend(guests.iter().flat_map(|guest| guest.registry().list()));
        listed
    }

    /// As `list`, for a snapshot, and without guests: these are groups of their own there.
    pub(super) fn watch(&self, now: Instant) -> Members {
        let mut members = self.members(now);
        let before = self.exchange_seen(None).unwrap_or_default();
        let mut before = before.0.into_iter().peekable();
        let mut seen = Vec::with_capacity(members.tasks.len());
        for task in &mut members.tasks {
            let id = task.task.id;
            while before.next_if(|seen| seen.id < id).is_some() {}
            let before = before.next_if(|seen| seen.id == id);
            seen.push(task.note(before, now));
        }
        let seen = (!seen.is_empty()).then(|| Box::new(SeenTasks(seen)));
        drop(self.exchange_seen(seen));
        members
    }

    fn exchange_seen(&self, seen: Option<Box<SeenTasks>>) -> Option<Box<SeenTasks>> {
        std::mem::replace(&mut self.tasks.lock().seen, seen)
    }

    fn members(&self, now: Instant) -> Members {
        let (mut tasks, mut waits) = (Vec::new(), Vec::new());
        let age = now.saturating_duration_since(self.start);
        let now = self.moment(now);
        self.for_each_copy(now, |copy, ended_ago| {
            let permit = copy.permit;
            match copy.kind {
                Kind::Slot => waits.push(copy.location),
                _ => tasks.push(Watched::new(
                    copy.listed(now, ended_ago),
                    permit == Permit::Waiting,
                    permit == Permit::Held,
                )),
            }
        });
        tasks.sort_unstable_by_key(|task: &Watched| task.task.id);
        let state = self.tasks.lock();
        let limiter = state.limiter();
        Members {
            age,
            ended_ago: state.ended.until(now),
            counts: state.ends.counts(),
            limit: limiter.and_then(Limiter::limit),
            slots_held: limiter.map_or(0, Limiter::held),
            waits_for_slots: waits,
            tasks,
        }
    }

    /// Calls `f` with each task, each wait for a slot, and how long ago the context ended; with no lock held.
    fn for_each_copy(&self, now: Moment, mut f: impl FnMut(Copied, Option<Duration>)) {
        let mut copies = Vec::with_capacity(CHUNK);
        for chunk in 0.. {
            let mut tasks = self.tasks.lock();
            let is_there = tasks.copy(chunk, now, &self.polls, &mut copies);
            let ended_ago = tasks.ended.until(now);
            drop(tasks);
            if !is_there {
                break;
            }
            copies.drain(..).for_each(|copy| f(copy, ended_ago));
        }
    }
}

impl Watched {
    pub(super) fn new(task: Listed, is_queued: bool, holds_slot: bool) -> Self {
        let sighting = task.sighting;
        let doing = match sighting.count {
            _ if is_queued => Doing::Queued,
            0 => Doing::NotStarted,
            _ if sighting.is_in_poll() => Doing::Running(Duration::ZERO),
            // Polled once, and when it had to wait was noted.
            _ => Doing::Waiting((sighting.polls() == 1).then_some(task.waited_for).flatten()),
        };
        Self {
            task,
            sighting,
            doing,
            holds_slot,
        }
    }

    /// Compares the task with what an earlier snapshot saw of it.
    fn note(&mut self, before: Option<Seen>, now: Instant) -> Seen {
        let count = self.sighting.count;
        let same = before.filter(|seen| seen.count == count);
        let since = same.map_or(now, |seen| seen.since);
        let unchanged = now.saturating_duration_since(since);
        self.sighting.unchanged = unchanged;
        match &mut self.doing {
            // A thread that has run since before the task was first listed.
            Doing::Running(time) if self.sighting.kind == Kind::Blocking => *time = unchanged,
            Doing::Running(time) => *time = unchanged,
            Doing::Waiting(time) if same.is_some() => {
                *time = Some(time.unwrap_or_default().max(unchanged))
            }
            Doing::Queued | Doing::NotStarted | Doing::Waiting(_) => {}
        }
        let id = self.task.id;
        Seen { id, count, since }
    }

    /// For how long at least a task that holds a slot has not gone on; `None` if it runs, or nothing is known.
    pub(crate) fn idle(&self) -> Option<Duration> {
        match self.doing {
            Doing::Waiting(time) => time,
            _ => None,
        }
    }
}

impl Members {
    pub(crate) fn queued(&self) -> usize {
        let queued = |task: &&Watched| task.doing == Doing::Queued;
        self.tasks.iter().filter(queued).count()
    }

    /// For how long at least every slot has been held by a task that waits, while somebody is queued.
    pub(crate) fn stalled(&self) -> Option<Duration> {
        let limit = self.limit?;
        let is_queued = self.queued() > 0 || !self.waits_for_slots.is_empty();
        let holders = self.tasks.iter().filter(|task| task.holds_slot);
        let mut idle = Vec::new();
        for holder in holders {
            idle.push(holder.idle()?);
        }
        // A slot that nobody runs in yet is its waiter's to use.
        let are_all = idle.len() >= limit && idle.len() == self.slots_held;
        match is_queued && are_all {
            true => idle.into_iter().min(),
            false => None,
        }
    }
}
