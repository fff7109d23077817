//! `Page`: up to [`LINES`] tasks of a group that were spawned at one place in the source.
//!
//! Owned by its tasks, and by its shard of the registry for as long as it takes more. What the tasks have in common is
//! there once; of its own a task has a bit in `live`, and notes if it needs any. So a task that ends in its first poll
//! costs a bit: no lock to be removed, and no memory but a share of the page's.
//!
//! Invariants:
//!
//! 1. A line is one task's, and another's only after the page had no owner but its shard and was made new. The memory of
//!    a page is given back when the last of its tasks has gone.
//! 2. The bits of `live` are set under the lock of the page's shard, and cleared by the tasks without it.
//! 3. From the moment when `COUNTED` is set, each task that is live then holds a slot of the group's limit: the one word
//!    decides whether it was live. No task is added later.
//! 4. `Noted::stage` only rises. A task that leaves its waker learns the stage of that moment. Whoever raises the stage
//!    takes the wakers out in the same critical section and wakes them. Hence a task sees the stage, or is woken for it.
//!
//! Lock order: the lock of the notes is innermost. Names and wakers are cloned, dropped and woken with no lock held.
//!
//! Why not use a line again at once? Then the vacant ones would have to be found, and a bit would not be enough to tell who is
//! live. The price: a task that outlives its page's others keeps the page: some hundred bytes, and up to two thousand more
//! if others waited when it did.

use std::panic::Location;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::notes::Notes;
use super::registry::{Kind, Name, Shards, Stage};
use super::slots::Hold;
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering};
use crate::task::TaskId;

/// Tasks on a page at most: a bit of the word is [`COUNTED`].
pub(super) const LINES: u8 = 63;

/// In `live`: the group's first limit was set while these tasks ran.
const COUNTED: u64 = 1 << LINES;

/// `O` is what a task needs of its group.
// `repr(C)` keeps what every task touches on one cache line with the reference count.
#[repr(C)]
pub(crate) struct Page<O> {
    /// A bit for each task that has not ended (invariants 2, 3).
    live: AtomicU64,
    pub(super) owner: O,
    /// The id of the task on line 0; the others' follow.
    first: TaskId,
    pub(super) kind: Kind,
    location: &'static Location<'static>,
    notes: Mutex<Noted>,
    /// The shard, and the page's key there, guarded by the shard's lock.
    shards: Shards<O>,
    shard: u8,
    pub(super) key: AtomicU32,
}

/// What only some tasks have.
struct Noted {
    stage: Stage,
    tags: Notes<Tag>,
    waits: Notes<Wait>,
}

/// A named task's name, a limited one's slot.
#[derive(Default)]
struct Tag {
    name: Option<Name>,
    hold: Hold,
}

/// A waiting task's waker, left by the task when it first has to wait.
#[derive(Default)]
struct Wait {
    waker: Option<Waker>,
    /// Since when the task is known to be there. One that ends in its first poll needs no clock read; so for an async one
    /// it is when it first waits, or else when it is first listed.
    since: Option<Instant>,
}

/// A live task, as it is listed.
pub(crate) struct Entry<'a> {
    pub(crate) id: TaskId,
    pub(crate) name: Option<&'a Name>,
    pub(crate) location: &'static Location<'static>,
    pub(crate) kind: Kind,
    pub(crate) age: Duration,
}

/// How a task has left its page.
#[must_use]
pub(super) struct Left {
    /// It held a slot, since the first limit was set while it ran.
    pub(super) was_counted: bool,
    /// No task of the page is live any more.
    pub(super) was_last: bool,
}

/// The notes of a task that is about to leave its page.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) hold: Hold,
    _name: Option<Name>,
    _waker: Option<Waker>,
}

/// What a new page is for.
pub(super) struct Opening<O> {
    pub(super) owner: O,
    pub(super) kind: Kind,
    pub(super) location: &'static Location<'static>,
    pub(super) shards: Shards<O>,
    pub(super) shard: u8,
    /// How many tasks it is to take.
    pub(super) lines: u8,
}

impl<O> Page<O> {
    /// A page whose first line is taken.
    pub(super) fn new(opening: Opening<O>) -> Arc<Self> {
        let lines = opening.lines;
        Arc::new(Self {
            live: AtomicU64::new(1),
            owner: opening.owner,
            first: TaskId::reserve(lines.into()),
            kind: opening.kind,
            location: opening.location,
            notes: Mutex::new(Noted::new(lines)),
            shards: opening.shards,
            shard: opening.shard,
            key: AtomicU32::new(u32::MAX),
        })
    }

    /// Makes a page new that nobody stands on any more.
    pub(super) fn renew(&mut self, lines: u8) {
        self.live = AtomicU64::new(0);
        self.first = TaskId::reserve(lines.into());
        self.notes = Mutex::new(Noted::new(lines));
    }

    pub(super) fn is_at(&self, location: &'static Location<'static>) -> bool {
        std::ptr::eq(self.location, location)
    }

    /// Whether a task is live. Under the shard's lock it cannot become `true` meanwhile.
    pub(super) fn is_live(&self) -> bool {
        // Relaxed: only `enter` decides by it, and looks again.
        self.live.load(Ordering::Relaxed) != 0
    }

    /// Adds a task, under the shard's lock; returns whether others were live.
    pub(super) fn enter(&self, line: u8) -> bool {
        // Relaxed: a task starts after this, and the lock orders it for those who list the page. The bit is clear, so
        // that adding sets it, in one instruction: to set a bit and tell what was there takes a loop.
        self.live.fetch_add(1 << line, Ordering::Relaxed) != 0
    }

    /// Removes a task, whose notes have been taken.
    #[inline]
    pub(super) fn leave(&self, line: u8) -> Left {
        // AcqRel: what the tasks did that left before happens before what the last one lets go on. The bit is set.
        let was = self.live.fetch_sub(1 << line, Ordering::AcqRel);
        Left {
            was_counted: was & COUNTED != 0,
            was_last: was & !COUNTED == 1 << line,
        }
    }

    #[cold]
    pub(super) fn take_notes(&self, line: u8) -> Taken {
        let mut notes = self.notes.lock();
        let tag = notes.tags.take(line).unwrap_or_default();
        let wait = notes.waits.take(line).unwrap_or_default();
        Taken {
            hold: tag.hold,
            _name: tag.name,
            _waker: wait.waker,
        }
    }

    /// Leaves a task's waker, to be woken when the stage rises (invariant 4).
    pub(super) fn leave_waker(&self, line: u8, waker: &Waker) -> Stage {
        let waker = waker.clone();
        let now = Instant::now();
        let mut notes = self.notes.lock();
        let stage = notes.stage;
        let wait = notes.waits.at(line);
        wait.since.get_or_insert(now);
        let replaced = wait.waker.replace(waker);
        drop(notes);
        drop(replaced);
        stage
    }

    /// Raises the stage and takes the wakers of the tasks that wait (invariant 4).
    pub(super) fn raise(&self, stage: Stage, wakers: &mut Vec<Waker>) {
        let mut notes = self.notes.lock();
        if notes.stage < stage {
            notes.stage = stage;
            wakers.extend(notes.waits.iter_mut().filter_map(|wait| wait.waker.take()));
        }
    }

    pub(super) fn set_name(&self, line: u8, name: Name) {
        self.notes.lock().tags.at(line).name = Some(name);
    }

    pub(super) fn set_hold(&self, line: u8, hold: Hold) {
        self.notes.lock().tags.at(line).hold = hold;
    }

    pub(super) fn set_since(&self, line: u8, now: Instant) {
        self.notes.lock().waits.at(line).since = Some(now);
    }

    pub(super) fn hold(&self, line: u8) -> Hold {
        let notes = self.notes.lock();
        let tag = notes.tags.get(line);
        tag.map_or(Hold::Free, |tag| tag.hold)
    }

    /// The task's name. For a failure: it costs a lock.
    pub(super) fn name(&self, line: u8) -> Option<Name> {
        let notes = self.notes.lock();
        notes.tags.get(line)?.name.clone()
    }

    pub(super) fn id(&self, line: u8) -> TaskId {
        TaskId(self.first.0 + u64::from(line))
    }

    pub(super) fn location(&self) -> &'static Location<'static> {
        self.location
    }

    /// From now on the live tasks hold slots; returns how many (invariant 3).
    pub(super) fn count(&self) -> usize {
        let live = self.live.fetch_or(COUNTED, Ordering::Relaxed);
        live.count_ones() as usize
    }

    pub(super) fn len(&self) -> usize {
        // Acquire: pairs with the release of each task that has left.
        let live = self.live.load(Ordering::Acquire) & !COUNTED;
        live.count_ones() as usize
    }

    /// Calls `f` with every live task, under the lock of the notes: `f` is not to call foreign code.
    pub(super) fn for_each(&self, now: Instant, mut f: impl FnMut(Entry<'_>)) {
        let mut notes = self.notes.lock();
        let live = self.live.load(Ordering::Acquire);
        for line in (0..LINES).filter(|line| live & 1 << line != 0) {
            let since = *notes.waits.at(line).since.get_or_insert(now);
            let tag = notes.tags.get(line);
            f(Entry {
                id: self.id(line),
                name: tag.and_then(|tag| tag.name.as_ref()),
                location: self.location,
                kind: self.kind,
                age: now.saturating_duration_since(since),
            });
        }
    }
}

impl Noted {
    fn new(lines: u8) -> Self {
        Self {
            stage: Stage::Open,
            tags: Notes::new(lines),
            waits: Notes::new(lines),
        }
    }
}

impl<O> Drop for Page<O> {
    /// The last of its tasks has gone, and the shard has given it up.
    fn drop(&mut self) {
        self.shards.forget(self.shard, &self.key);
    }
}
