//! `Registry`: the live tasks of a group. It serves the cancellation of siblings, drop, grace and the listing of who is
//! still there, and its wait groups are what `wait` waits on.
//!
//! Owned by the group's `Core`.
//!
//! Tasks lie in shards, so that workers do not meet on one lock; blocking tasks in one of their own, since nobody can
//! abort them. A spawning thread stays with a shard for a run of tasks and then moves on: then the workers that remove
//! tasks are mostly at other shards than the thread that adds them.
//!
//! Invariants:
//!
//! 1. A shard holds its tokens exactly while it has tasks. A task that spawns is in the registry until after what it
//!    spawned is, so the count of tokens does not touch zero between.
//! 2. A shard's `stage` only rises. From `Ended` on it takes no task.
//! 3. A task that leaves its waker learns the stage of that moment. Whoever raises the stage takes the wakers out in
//!    the same critical section and wakes them. Hence a task sees the stage, or is woken for it.
//!
//! Lock order: a shard's lock is the innermost; nothing is taken under it. Entries, tokens and wakers are dropped and
//! woken with no lock held.

use std::borrow::Cow;
use std::cell::Cell;
use std::ops::Range;
use std::panic::Location;
use std::task::Waker;
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::Instant;

use super::slots::Hold;
use crate::ordered_slab::OrderedSlab;
use crate::panic::contain;
use crate::sync::{AtomicU8, Mutex, Ordering};
use crate::task::TaskId;
use crate::wait_group::{Token, WaitGroup};

/// How many tasks a thread adds to one shard before it moves on.
const RUN: u32 = 32;

/// More shards than this cost a small group more than they save a large one.
const MAX_SHARDS: usize = 8;

/// The shard of blocking tasks, in a `Key`.
const BLOCKING: u8 = u8::MAX;

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Async,
    Blocking,
}

/// A task's name; only a named task pays for it.
pub(crate) type Name = Box<Cow<'static, str>>;

pub(crate) struct Registry {
    shards: Box<[Shard]>,
    blocking: Shard,
    /// A token for each shard that has tasks.
    everyone: WaitGroup,
    /// The same without the blocking shard.
    abortable: WaitGroup,
    /// The highest stage of any shard; a hint that saves the lock.
    stage: AtomicU8,
}

/// On cache lines of its own: two, since they are fetched in pairs.
#[repr(align(128))]
struct Shard(Mutex<Tasks>);

struct Tasks {
    live: OrderedSlab<Entry>,
    tokens: Option<Tokens>,
    stage: Stage,
    /// The group has, or once had, a limit: tasks ask for a slot.
    is_limited: bool,
    /// Reserved ids.
    ids: Range<u64>,
    /// How many ids to reserve next.
    reserve: u64,
}

struct Tokens {
    _everyone: Token,
    _abortable: Option<Token>,
}

/// What is known of a live task.
pub(crate) struct Entry {
    pub(crate) id: TaskId,
    pub(crate) name: Option<Name>,
    pub(crate) location: &'static Location<'static>,
    /// Since when it is known to be there. A task that ends in its first poll needs no clock read; so for an async one it
    /// is when the task first waits, or else when the list is first read.
    since: Option<Instant>,
    /// Left by the task when it first has to wait.
    waker: Option<Waker>,
    /// What the task gives back at its end.
    pub(crate) hold: Hold,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    pub(crate) shard: u8,
    pub(crate) entry: u32,
}

pub(crate) struct Registered {
    pub(crate) key: Key,
    pub(crate) id: TaskId,
    pub(crate) is_limited: bool,
}

/// What is left of a task that was removed. Its drop may wake whoever waits for the group.
pub(crate) struct Removed {
    /// What is to be given back to the slots.
    pub(crate) hold: Hold,
    _name: Option<Name>,
    _waker: Option<Waker>,
    tokens: Option<Tokens>,
}

impl Registry {
    /// The runtime decides how many shards are worth their while.
    pub(crate) fn new(runtime: Option<&Handle>) -> Self {
        let workers = match runtime {
            Some(runtime) if runtime.runtime_flavor() != RuntimeFlavor::CurrentThread => {
                runtime.metrics().num_workers()
            }
            _ => 1,
        };
        let shards = if workers == 1 {
            1
        } else {
            (2 * workers).next_power_of_two()
        };
        Self {
            shards: (0..shards.min(MAX_SHARDS)).map(|_| Shard::new()).collect(),
            blocking: Shard::new(),
            everyone: WaitGroup::new(),
            abortable: WaitGroup::new(),
            stage: AtomicU8::new(Stage::Open as u8),
        }
    }

    /// Adds a task; `None` if the group has ended.
    pub(crate) fn insert(
        &self,
        kind: Kind,
        name: Option<Name>,
        location: &'static Location<'static>,
    ) -> Option<Registered> {
        let shard = match kind {
            Kind::Async => self.pick(),
            Kind::Blocking => BLOCKING,
        };
        let since = match kind {
            Kind::Async => None,
            Kind::Blocking => Some(Instant::now()),
        };
        let mut tasks = self.shard(shard).0.lock();
        if tasks.stage != Stage::Open {
            drop(tasks);
            drop(name);
            return None;
        }
        let id = tasks.next_id();
        if tasks.live.is_empty() {
            tasks.tokens = Some(self.tokens(kind));
        }
        let entry = tasks.live.insert(Entry {
            id,
            name,
            location,
            since,
            waker: None,
            hold: Hold::Free,
        });
        Some(Registered {
            key: Key { shard, entry },
            id,
            is_limited: tasks.is_limited,
        })
    }

    pub(crate) fn remove(&self, key: Key) -> Removed {
        let mut tasks = self.shard(key.shard).0.lock();
        let removed = tasks.live.remove_with(key.entry, |entry| Removed {
            hold: entry.hold,
            _name: entry.name.take(),
            _waker: entry.waker.take(),
            tokens: None,
        });
        let mut removed = removed.expect("errgroup: a task is removed once");
        if tasks.live.is_empty() {
            removed.tokens = tasks.tokens.take();
        }
        removed
    }

    /// Leaves a task's waker, to be woken when the stage rises (invariant 3).
    pub(crate) fn leave_waker(&self, key: Key, waker: &Waker) -> Stage {
        let waker = waker.clone();
        let now = Instant::now();
        let mut tasks = self.shard(key.shard).0.lock();
        let stage = tasks.stage;
        let replaced = match tasks.live.get_mut(key.entry) {
            Some(entry) => {
                entry.since.get_or_insert(now);
                entry.waker.replace(waker)
            }
            None => Some(waker),
        };
        drop(tasks);
        drop(replaced);
        stage
    }

    /// Raises the stage and wakes the tasks that wait (invariant 3).
    pub(crate) fn raise(&self, stage: Stage) {
        // Release: pairs with `stage`. A task that misses it here meets it in its shard.
        self.stage.fetch_max(stage as u8, Ordering::Release);
        for shard in self.all_shards() {
            let mut wakers = Vec::new();
            let mut tasks = shard.0.lock();
            if tasks.stage < stage {
                tasks.stage = stage;
                tasks
                    .live
                    .for_each_mut(|entry| wakers.extend(entry.waker.take()));
            }
            drop(tasks);
            for waker in wakers {
                contain(|| waker.wake());
            }
        }
    }

    pub(crate) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Open,
            1 => Stage::Ended,
            _ => Stage::Aborting,
        }
    }

    /// From now on tasks need slots; those that run already are marked as holding one, and counted.
    pub(crate) fn limit(&self) -> usize {
        self.all_shards()
            .map(|shard| {
                let mut tasks = shard.0.lock();
                tasks.is_limited = true;
                tasks.live.for_each_mut(|entry| entry.hold = Hold::Slot);
                tasks.live.len()
            })
            .sum()
    }

    pub(crate) fn len(&self) -> usize {
        self.all_shards()
            .map(|shard| shard.0.lock().live.len())
            .sum()
    }

    /// Calls `f` with every live task and its age, under the lock of its shard: `f` is not to call foreign code.
    pub(crate) fn for_each(&self, mut f: impl FnMut(Kind, &Entry, Duration)) {
        let now = Instant::now();
        let mut visit = |kind, shard: &Shard| {
            shard.0.lock().live.for_each_mut(|entry| {
                let since = *entry.since.get_or_insert(now);
                f(kind, entry, now.saturating_duration_since(since));
            });
        };
        for shard in &self.shards {
            visit(Kind::Async, shard);
        }
        visit(Kind::Blocking, &self.blocking);
    }

    /// Calls `f` with one live task, as `for_each`.
    pub(crate) fn with<R>(&self, key: Key, f: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        let mut tasks = self.shard(key.shard).0.lock();
        tasks.live.get_mut(key.entry).map(f)
    }

    pub(crate) fn everyone(&self) -> &WaitGroup {
        &self.everyone
    }

    pub(crate) fn abortable(&self) -> &WaitGroup {
        &self.abortable
    }

    fn tokens(&self, kind: Kind) -> Tokens {
        Tokens {
            _everyone: self.everyone.token(),
            _abortable: (kind == Kind::Async).then(|| self.abortable.token()),
        }
    }

    fn all_shards(&self) -> impl Iterator<Item = &Shard> {
        self.shards.iter().chain([&self.blocking])
    }

    #[inline]
    fn shard(&self, shard: u8) -> &Shard {
        self.shards.get(shard as usize).unwrap_or(&self.blocking)
    }

    #[inline]
    fn pick(&self) -> u8 {
        thread_local!(static ADDED: Cell<u32> = const { Cell::new(0) });
        let last = self.shards.len() as u32 - 1;
        if last == 0 {
            return 0;
        }
        let added = ADDED.get();
        ADDED.set(added.wrapping_add(1));
        ((added / RUN) & last) as u8
    }
}

impl Shard {
    fn new() -> Self {
        Self(Mutex::new(Tasks {
            live: OrderedSlab::default(),
            tokens: None,
            stage: Stage::Open,
            is_limited: false,
            ids: 0..0,
            reserve: 1,
        }))
    }
}

impl Tasks {
    /// Ids are unique in the process. Shards reserve them in runs that grow, so that small groups leave small gaps.
    #[inline]
    fn next_id(&mut self) -> TaskId {
        const MOST: u64 = 64;
        if self.ids.is_empty() {
            self.ids = TaskId::reserve(self.reserve);
            self.reserve = (self.reserve * 2).min(MOST);
        }
        let id = self.ids.start;
        self.ids.start += 1;
        TaskId(id)
    }
}
