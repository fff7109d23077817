//! `Registry`: the live tasks of a group. It serves the cancellation of siblings, drop, grace and the listing of who is
//! still there, and its wait groups are what `wait` waits on.
//!
//! Owned by the group's `Core`.
//!
//! Tasks stand on [`Page`]s. The pages lie in shards: a thread adds its tasks to one shard, so that workers do not meet
//! on one lock, and a task leaves without a shard's lock. Blocking tasks have a shard of their own, since nobody can
//! abort them.
//!
//! Invariants:
//!
//! 1. A page with a live task counts once in each wait group. The shard's lock keeps a page from being entered twice at
//!    once. A task that spawns is live until after what it spawned is, so the count does not touch zero between.
//! 2. A shard's `stage` only rises. From `Ended` on it takes no task and has no open page: that breaks the cycle of the
//!    group, its open pages, and the group again.
//! 3. A page is in its shard's `pages` until its last owner drops it.
//!
//! Lock order: a shard's lock before that of a page's notes. Pages, and with them the group, are dropped with no lock
//! held: their drop asks for the shard's.

use std::borrow::Cow;
use std::cell::Cell;
use std::panic::Location;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Weak};
use std::task::Waker;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::Instant;

use super::page::{Entry, LINES, Opening, Page};
use crate::ordered_slab::OrderedSlab;
use crate::panic::contain;
use crate::sync::{AtomicU8, AtomicU32, Mutex, MutexGuard, Ordering};
use crate::wait_group::WaitGroup;

/// More shards than this cost a small group more than they save a large one.
const MAX_SHARDS: usize = 8;

/// Pages that a shard fills at once, each for one place in the source.
const OPEN_PAGES: usize = 4;

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

/// `O` is what a task needs of its group.
pub(crate) struct Registry<O> {
    shards: Shards<O>,
    /// Counts the pages that have a live task.
    everyone: WaitGroup,
    /// The same without the blocking shard.
    abortable: WaitGroup,
    /// The highest stage of any shard; a hint that saves the lock.
    stage: AtomicU8,
}

/// The shards of async tasks, and the one of blocking tasks at the end.
pub(super) struct Shards<O>(Arc<[Shard<O>]>);

/// On cache lines of its own: two, since they are fetched in pairs.
#[repr(align(128))]
struct Shard<O>(Mutex<State<O>>);

struct State<O> {
    stage: Stage,
    /// The group has, or once had, a limit: tasks ask for a slot.
    is_limited: bool,
    /// How many tasks the next page takes: few at first, so that small groups leave small gaps in the ids.
    lines: u8,
    /// At most one for each place in the source, the latest last.
    open: Vec<Open<O>>,
    pages: OrderedSlab<Weak<Page<O>>>,
}

struct Open<O> {
    page: Arc<Page<O>>,
    /// The next line, and the one after the last.
    next: u8,
    lines: u8,
}

/// A task's place.
pub(crate) struct Registered<O> {
    pub(crate) page: Arc<Page<O>>,
    pub(crate) line: u8,
    pub(crate) is_limited: bool,
}

impl<O> Registry<O> {
    /// The runtime decides how many shards are worth their while.
    pub(crate) fn new(runtime: Option<&Handle>) -> Self {
        let workers = match runtime {
            Some(runtime) if runtime.runtime_flavor() != RuntimeFlavor::CurrentThread => {
                runtime.metrics().num_workers()
            }
            _ => 1,
        };
        Self {
            shards: Shards::new(workers.next_power_of_two().min(MAX_SHARDS)),
            everyone: WaitGroup::new(),
            abortable: WaitGroup::new(),
            stage: AtomicU8::new(Stage::Open as u8),
        }
    }

    /// Adds a task; `None` if the group has ended.
    #[inline]
    pub(crate) fn insert(
        &self,
        owner: &O,
        kind: Kind,
        location: &'static Location<'static>,
    ) -> Option<Registered<O>>
    where
        O: Clone,
    {
        let shard = match kind {
            Kind::Async => self.shards.pick(),
            Kind::Blocking => self.shards.blocking(),
        };
        let mut state = self.shards.lock(shard);
        if state.stage != Stage::Open {
            return None;
        }
        let is_limited = state.is_limited;
        let (page, line) = match state.take_line(location) {
            Some((page, line)) => {
                self.enter(&page, line);
                (page, line)
            }
            None => {
                let opening = Opening {
                    owner: owner.clone(),
                    kind,
                    location,
                    shards: self.shards.clone(),
                    shard,
                    lines: state.lines,
                };
                (self.open(state, opening), 0)
            }
        };
        Some(Registered {
            page,
            line,
            is_limited,
        })
    }

    /// Enters a task (invariant 1). The other end of the race is `Life::release`.
    #[inline]
    fn enter(&self, page: &Page<O>, line: u8) {
        // An empty page is counted first. One that empties between the two looks is counted afterwards: its last task has
        // given up its count or is about to, and no task that could be waited for had spawned this one.
        let was_counted = page.is_live();
        if !was_counted {
            self.begin(page.kind);
        }
        if !page.enter(line) && was_counted {
            self.begin(page.kind);
        }
    }

    /// Starts a page, whose first line is taken.
    #[cold]
    fn open(&self, mut state: MutexGuard<'_, State<O>>, opening: Opening<O>) -> Arc<Page<O>> {
        let (lines, location) = (opening.lines, opening.location);
        self.begin(opening.kind);
        let page = Page::new(opening);
        list(&mut state.pages, &page);
        state.lines = LINES;
        let given_up = state.give_up(location);
        state.open.push(Open {
            page: page.clone(),
            next: 1,
            lines,
        });
        drop(state);
        drop(given_up);
        page
    }

    /// Raises the stage and wakes the tasks that wait.
    pub(crate) fn raise(&self, stage: Stage) {
        // Release: pairs with `stage`. A task that misses it here meets it on its page.
        self.stage.fetch_max(stage as u8, Ordering::Release);
        let mut wakers: Vec<Waker> = Vec::new();
        for shard in self.shards.all() {
            for page in shard.close_pages(|state| state.stage = state.stage.max(stage)) {
                page.raise(stage, &mut wakers);
                for waker in wakers.drain(..) {
                    contain(|| waker.wake());
                }
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

    /// From now on tasks need slots; those that run already hold one, and are counted.
    pub(crate) fn limit(&self) -> usize {
        let mut running = 0;
        for shard in self.shards.all() {
            // Nobody else enters the pages that are counted.
            let pages = shard.close_pages(|state| state.is_limited = true);
            running += pages.iter().map(|page| page.count()).sum::<usize>();
        }
        running
    }

    /// Whether no task is live, once none can come any more: one that is on its way out counts as live.
    pub(crate) fn is_idle(&self) -> bool {
        self.everyone.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.pages().iter().map(|page| page.len()).sum()
    }

    /// Calls `f` with every live task, under the lock of its page: `f` is not to call foreign code.
    pub(crate) fn for_each(&self, mut f: impl FnMut(Entry<'_>)) {
        let now = Instant::now();
        for page in self.pages() {
            page.for_each(now, &mut f);
        }
    }

    fn pages(&self) -> Vec<Arc<Page<O>>> {
        let shards = self.shards.all().iter();
        shards.flat_map(|shard| shard.0.lock().pages()).collect()
    }

    pub(crate) fn everyone(&self) -> &WaitGroup {
        &self.everyone
    }

    pub(crate) fn abortable(&self) -> &WaitGroup {
        &self.abortable
    }

    fn begin(&self, kind: Kind) {
        self.everyone.add();
        if kind == Kind::Async {
            self.abortable.add();
        }
    }

    /// Gives up the count of a page whose last live task has left. Whoever waits for the group goes on.
    pub(super) fn end(&self, kind: Kind) {
        if kind == Kind::Async {
            self.abortable.done();
        }
        self.everyone.done();
    }
}

impl<O> Shards<O> {
    fn new(workers: usize) -> Self {
        Self((0..=workers).map(|_| Shard::new()).collect())
    }

    fn all(&self) -> &[Shard<O>] {
        &self.0
    }

    fn blocking(&self) -> u8 {
        (self.0.len() - 1) as u8
    }

    /// The shard of this thread.
    #[inline]
    fn pick(&self) -> u8 {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local!(static THREAD: Cell<usize> = const { Cell::new(usize::MAX) });
        let workers = self.0.len() - 1;
        if workers == 1 {
            return 0;
        }
        let mut thread = THREAD.get();
        if thread == usize::MAX {
            // Relaxed: the numbers only have to differ.
            thread = THREADS.fetch_add(1, Ordering::Relaxed);
            THREAD.set(thread);
        }
        // A power of two.
        (thread & (workers - 1)) as u8
    }

    #[inline]
    fn lock(&self, shard: u8) -> MutexGuard<'_, State<O>> {
        self.0[usize::from(shard)].0.lock()
    }

    /// Takes a page that is being dropped out of its shard.
    pub(super) fn forget(&self, shard: u8, key: &AtomicU32) {
        let mut state = self.lock(shard);
        let page = state.pages.remove(key.load(Ordering::Relaxed));
        drop(state);
        drop(page);
    }
}

impl<O> Clone for Shards<O> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<O> Shard<O> {
    fn new() -> Self {
        Self(Mutex::new(State {
            stage: Stage::Open,
            is_limited: false,
            lines: 4,
            open: Vec::new(),
            pages: OrderedSlab::default(),
        }))
    }

    /// Changes the state, and takes no more tasks on the pages of before. Returns those that somebody owns.
    fn close_pages(&self, change: impl FnOnce(&mut State<O>)) -> Vec<Arc<Page<O>>> {
        let mut state = self.0.lock();
        change(&mut state);
        let open = std::mem::take(&mut state.open);
        let pages = state.pages();
        drop(state);
        drop(open);
        pages
    }
}

impl<O> Open<O> {
    /// Makes a full page new if all its tasks have gone, so that a group that spawns now and then allocates none.
    #[cold]
    fn renew(&mut self, pages: &mut OrderedSlab<Weak<Page<O>>>) -> bool {
        // Only a page that is not listed has no owner but this one.
        let key = self.page.key.load(Ordering::Relaxed);
        drop(pages.remove(key));
        let page = Arc::get_mut(&mut self.page);
        let is_renewed = page.is_some();
        if let Some(page) = page {
            page.renew(self.lines);
            self.next = 0;
        }
        list(pages, &self.page);
        is_renewed
    }
}

/// Adds a page to its shard's.
fn list<O>(pages: &mut OrderedSlab<Weak<Page<O>>>, page: &Arc<Page<O>>) {
    let key = pages.insert(Arc::downgrade(page));
    // Relaxed, here and where it is loaded: both hold the lock.
    page.key.store(key, Ordering::Relaxed);
}

impl<O> State<O> {
    /// Takes the next line of the open page for a place in the source, if there is one.
    #[inline]
    fn take_line(&mut self, location: &'static Location<'static>) -> Option<(Arc<Page<O>>, u8)> {
        let is_there = |open: &Open<O>| open.page.is_at(location);
        let index = self.open.iter().rposition(is_there)?;
        let open = &mut self.open[index];
        if open.next == open.lines && !open.renew(&mut self.pages) {
            return None;
        }
        let line = open.next;
        open.next += 1;
        Some((open.page.clone(), line))
    }

    /// Makes room for an open page: in the place of the full one for the same place in the source, or of the oldest.
    fn give_up(&mut self, location: &'static Location<'static>) -> Option<Open<O>> {
        let full = self.open.iter().position(|open| open.page.is_at(location));
        let oldest = (self.open.len() == OPEN_PAGES).then_some(0);
        Some(self.open.remove(full.or(oldest)?))
    }

    /// The pages that somebody owns, to be looked at without the lock.
    fn pages(&mut self) -> Vec<Arc<Page<O>>> {
        let mut pages = Vec::new();
        self.pages.for_each_mut(|page| pages.extend(page.upgrade()));
        pages
    }
}
