//! `Queue`: what the workers of a batch share: the source, the permits, the items, and who has nothing to do.
//!
//! An item is _unstarted_ from its pull on, then _running_ while a worker polls it, _waiting_ while nobody has to, and
//! _ready_ once it was woken. A worker takes whatever there is to be done, and is _idle_ when there is nothing.
//!
//! Owned by the batch, its workers, and the wakers of its items and its source. These may outlive the batch in foreign
//! hands, so everything of the user's is taken out at the end, by `close` and `take_source`.
//!
//! Invariants:
//!
//! 1. No foreign code runs under the lock. Who polls the source has taken it out, and so has who polls an item.
//! 2. `used <= limit`. A pull takes its permits before it begins, and gives back those for which no item came. An item
//!    gives its permit back when it is done, or when its result has been yielded (`Permits`).
//! 3. While there is work that nobody has in hand (`work`), some worker is not idle. Whoever makes work while he is none
//!    himself, or leaves it, wakes an idle one, under the same lock; a worker becomes idle under the lock, after a look. A
//!    worker that finds more than it can do itself calls another (`Next::Call`).
//! 4. A worker has nothing in hand between two of its polls (`put_back`). So work goes on although one of them, the
//!    caller, is not polled again.
//! 5. After `close` no item is given out. What a pull still brings in is taken out by the end, which closes again.
//!
//! Those of the source and of the items that wait stand in the files of these.
//!
//! Why are items that one worker has pulled shown to the others while it pulls more? The source may block its thread until
//! an item that it gave out before has run. So each is unstarted at once, and another worker watches: it leaves them to the
//! puller as long as the pull proceeds, and takes them if not.
//!
//! Why one lock, and not a queue a worker? An item that waits takes it three times, some 20 ns each, where a task of its
//! own costs 400. Items that end at once come in blocks. And there is one order, and one place to look into.

mod items;
mod source;
mod watch;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};

use futures::Stream;

pub(super) use self::items::Running;
pub(super) use self::source::{Pull, Source};
pub(crate) use self::watch::Report;
pub use self::watch::SourceState;

use self::items::Items;
use self::source::Place;
use crate::context::{Listing, Node};
use crate::panic::contain;
use crate::sync::{AtomicUsize, Mutex, MutexGuard, Ordering};
use crate::task::TaskId;

/// The id of the worker that the batch's caller polls.
pub(super) const CALLER: usize = 0;

/// As a waker it is the source's.
pub(super) struct Queue<T, Fut> {
    pub(super) rules: Rules,
    /// How many permits the consumer of a stream gathers before it gives them back. A hint.
    release_size: AtomicUsize,
    state: Mutex<State<T, Fut>>,
    pub(super) name: Option<Cow<'static, str>>,
    /// In snapshots.
    id: TaskId,
    listing: Listing,
}

/// What never changes.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    /// The most permits.
    pub(super) limit: usize,
    /// The most workers.
    pub(super) workers: usize,
    /// The runtime has no other thread.
    pub(super) is_single_threaded: bool,
    pub(super) permits: Permits,
}

/// When an item gives its permit back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permits {
    WhenDone,
    /// When its result is yielded: `release`.
    WhenYielded,
}

struct State<T, Fut> {
    source: Place<T>,
    /// Pulled by workers that gave way, or in the pull under way; nearly in the order of the indexes.
    unstarted: VecDeque<(usize, T)>,
    items: Items<Fut>,
    used: usize,
    /// Items that were pulled and are not known to be done.
    live: usize,
    /// Those that are.
    done: usize,
    pulls: usize,
    workers: usize,
    /// The ids and wakers of those that are idle.
    idle: Vec<(usize, Waker)>,
    /// The caller's, which is woken last: nobody knows when the caller comes.
    idle_caller: Option<Waker>,
    is_closed: bool,
    /// The batch's context, for snapshots.
    node: Weak<Node>,
    /// No worker is left.
    is_finished: bool,
}

struct ItemWaker<T, Fut> {
    queue: Arc<Queue<T, Fut>>,
    key: usize,
}

/// What a worker has in hand.
pub(super) struct Hand<T, Fut> {
    pub(super) id: usize,
    /// Items with their indexes, in order, that it is to start.
    pub(super) block: VecDeque<(usize, T)>,
    /// The item that it polls. Without a future, the memory for the next that it starts.
    pub(super) current: Option<Running<Fut>>,
    pub(super) pull: Option<Pull<T>>,
    /// Items that are done and not yet told of.
    pub(super) done: usize,
    /// What it leaves when it becomes idle.
    pub(super) waker: Option<Waker>,
    /// It has left its waker; somebody may have taken it.
    pub(super) is_idle: bool,
    /// How far another's pull had come when it last looked.
    seen: Option<usize>,
    /// How many items that were woken it polls before it takes new ones: as many as it took of those.
    polls: usize,
    /// It has called another worker for what it sees now.
    has_called: bool,
}

/// What a worker does next.
pub(super) enum Next {
    /// It polls the current item.
    Poll,
    /// It starts the items of its block.
    Start,
    /// It pulls.
    Pull,
    /// There is more to do than that: it calls another worker, and gives way to it.
    Call(Call),
    /// It looks again after the others had their turn: another pulls, or its source has woken itself.
    GiveWay,
    /// The same, and it leaves nothing that somebody else could do meanwhile: another pulls.
    Watch,
    /// There is nothing: it is idle, if it had a waker to leave.
    Idle,
    /// Nor will there be.
    Over,
}

/// Another worker to be called.
#[must_use]
pub(super) enum Call {
    Wake(Waker),
    /// One that is to be started, by its id. It is counted already.
    Start(usize),
}

impl<T, Fut> Hand<T, Fut> {
    pub(super) fn new(id: usize) -> Self {
        Self {
            id,
            block: VecDeque::new(),
            current: None,
            pull: None,
            done: 0,
            waker: None,
            is_idle: false,
            seen: None,
            polls: 0,
            has_called: false,
        }
    }
}

impl<T: Send + 'static, Fut: Send + 'static> Queue<T, Fut> {
    /// A queue with one worker.
    pub(super) fn new(
        stream: Pin<Box<dyn Stream<Item = T> + Send>>,
        rules: Rules,
        name: Option<Cow<'static, str>>,
    ) -> Arc<Self> {
        let queue = Arc::new(Self {
            rules,
            release_size: AtomicUsize::new(1),
            state: Mutex::new(State {
                source: Place::Over,
                unstarted: VecDeque::new(),
                items: Items::new(),
                used: 0,
                live: 0,
                done: 0,
                pulls: 0,
                workers: 1,
                idle: Vec::new(),
                idle_caller: None,
                is_closed: false,
                node: Weak::new(),
                is_finished: false,
            }),
            name,
            id: TaskId::next(),
            listing: Listing::default(),
        });
        queue.state.lock().source = Place::Here(Source {
            stream,
            waker: Waker::from(queue.clone()),
            next: 0,
        });
        queue
    }

    /// The memory for one more item.
    pub(super) fn memory(self: &Arc<Self>) -> Running<Fut> {
        let added = self.state.lock().items.add();
        added.unwrap_or_else(|key| {
            let queue = self.clone();
            Running::new(key, Waker::from(Arc::new(ItemWaker { queue, key })))
        })
    }
}

impl<T, Fut> Queue<T, Fut> {
    /// Takes note of what a worker has done, and tells what it does next, with `size` new items at most.
    pub(super) fn next(&self, hand: &mut Hand<T, Fut>, size: usize) -> Next {
        let mut state = self.state.lock();
        let (is_hasty, unused) = state.settle(hand, self.rules);
        let next = match is_hasty {
            true => Next::GiveWay,
            false => state.choose(hand, size, self.rules),
        };
        match next {
            Next::Over => wake_all(state),
            _ => drop(state),
        }
        drop(unused);
        next
    }

    /// Shows an item to the others while its worker pulls on. Somebody may have to be called for it.
    pub(super) fn show(&self, item: (usize, T)) -> Option<Call> {
        let mut state = self.state.lock();
        state.unstarted.push_back(item);
        state.live += 1;
        state.call(self.rules)
    }

    /// Puts back the current item, which has to wait, or only for its next poll (`is_ready`). It stays in hand if the
    /// batch is over: then `false`.
    pub(super) fn wait(&self, hand: &mut Hand<T, Fut>, is_ready: bool) -> bool {
        self.state
            .lock()
            .items
            .put_back(&mut hand.current, is_ready)
    }

    /// Takes what a worker has in hand (invariant 4).
    pub(super) fn put_back(&self, hand: &mut Hand<T, Fut>) {
        let mut state = self.state.lock();
        let (_, unused) = state.settle(hand, self.rules);
        while let Some(item) = hand.block.pop_back() {
            state.unstarted.push_front(item);
        }
        self.wake_idle(state);
        drop(unused);
    }

    // Relaxed, both: nothing hangs on it.
    pub(super) fn release_size(&self) -> usize {
        self.release_size.load(Ordering::Relaxed)
    }

    pub(super) fn set_release_size(&self, size: usize) {
        self.release_size.store(size, Ordering::Relaxed);
    }

    /// Gives back the permits of results that were yielded.
    pub(super) fn release(&self, permits: usize) {
        let mut state = self.state.lock();
        state.used -= permits;
        self.wake_idle(state);
    }

    fn wake_item(&self, key: usize) {
        let mut state = self.state.lock();
        if state.items.wake(key) {
            self.wake_idle(state);
        }
    }

    fn wake_source(&self) {
        let mut state = self.state.lock();
        state.source.wake();
        self.wake_idle(state);
    }

    fn wake_idle(&self, mut state: MutexGuard<'_, State<T, Fut>>) {
        let idle = match state.work(self.rules) {
            0 => None,
            _ => state.take_idle(),
        };
        drop(state);
        if let Some(waker) = idle {
            contain(|| waker.wake());
        }
    }

    /// Ends the work, done or not: nothing starts from now on. Wakes the idle ones, and hands out all items.
    pub(super) fn close(&self) -> (VecDeque<(usize, T)>, Vec<Running<Fut>>) {
        let mut state = self.state.lock();
        state.is_closed = true;
        let items = (std::mem::take(&mut state.unstarted), state.items.close());
        wake_all(state);
        items
    }

    /// Whether every item that was pulled is done, as far as the workers have told.
    pub(super) fn is_done(&self) -> bool {
        self.state.lock().live == 0
    }

    /// Hands out the source if it has not ended. No worker is left.
    pub(super) fn take_source(&self) -> Option<Source<T>> {
        let mut state = self.state.lock();
        state.is_finished = true;
        let source = state.source.end();
        drop(state);
        // Foreign code may keep a waker, and the queue with it, for long.
        self.listing.leave();
        source
    }
}

impl<T, Fut> State<T, Fut> {
    /// Takes note of what a worker has done, and that it is not idle. Returns whether its source has woken itself, and a
    /// waker to be dropped without the lock.
    fn settle(&mut self, hand: &mut Hand<T, Fut>, rules: Rules) -> (bool, Option<Waker>) {
        let done = std::mem::take(&mut hand.done);
        self.live -= done;
        self.done += done;
        if rules.permits == Permits::WhenDone {
            self.used -= done;
        }
        let pull = hand.pull.take();
        let is_hasty = pull.is_some_and(|pull| self.end_pull(pull, &mut hand.block));
        let unused = match std::mem::take(&mut hand.is_idle) {
            false => None,
            true if hand.id == CALLER => self.idle_caller.take(),
            true => {
                let place = self.idle.iter().position(|(id, _)| *id == hand.id);
                place.map(|place| self.idle.remove(place).1)
            }
        };
        (is_hasty, unused)
    }

    fn take_idle(&mut self) -> Option<Waker> {
        let idle = self.idle.pop().map(|(_, waker)| waker);
        idle.or_else(|| self.idle_caller.take())
    }

    /// Returns whether the source has woken itself.
    fn end_pull(&mut self, pull: Pull<T>, block: &mut VecDeque<(usize, T)>) -> bool {
        self.used -= pull.permits;
        self.live += block.len();
        if !self.unstarted.is_empty() {
            // They come after what was shown.
            self.unstarted.append(block);
        }
        self.source.put_back(pull)
    }

    fn choose(&mut self, hand: &mut Hand<T, Fut>, size: usize, rules: Rules) -> Next {
        if self.is_over() {
            return Next::Over;
        }
        let has_called = std::mem::take(&mut hand.has_called);
        let own = usize::from(hand.block.is_empty());
        if self.work(rules) > own && !has_called {
            if let Some(call) = self.call(rules) {
                hand.has_called = true;
                return Next::Call(call);
            }
        }
        if !hand.block.is_empty() {
            return Next::Start;
        }
        // As many old items as new ones: neither starves.
        let has_new = !self.unstarted.is_empty() || self.can_pull(rules);
        let is_pulled = self.source.is_taken();
        if (hand.polls > 0 || !has_new || is_pulled) && self.items.take_ready(&mut hand.current) {
            hand.polls = hand.polls.saturating_sub(1);
            return Next::Poll;
        }
        if is_pulled && hand.seen.replace(self.pulled()) != Some(self.pulled()) {
            return match hand.id {
                // Nobody knows when it comes back.
                CALLER => Next::GiveWay,
                _ => Next::Watch,
            };
        }
        if has_new {
            hand.polls = size;
            return self.take_new(hand, size, rules);
        }
        if let Some(waker) = hand.waker.take() {
            hand.is_idle = true;
            match hand.id {
                CALLER => self.idle_caller = Some(waker),
                id => self.idle.push((id, waker)),
            }
        }
        Next::Idle
    }

    fn take_new(&mut self, hand: &mut Hand<T, Fut>, size: usize, rules: Rules) -> Next {
        if !self.unstarted.is_empty() {
            let size = size.min(self.unstarted.len());
            hand.block.extend(self.unstarted.drain(..size));
            return Next::Start;
        }
        let permits = size.min(rules.limit - self.used);
        self.used += permits;
        self.pulls += 1;
        hand.pull = self.source.take(permits);
        Next::Pull
    }

    /// Whether no worker will have anything to do any more.
    fn is_over(&self) -> bool {
        self.is_closed || (self.live == 0 && self.source.is_over())
    }

    /// Changes with each pull, and while it proceeds.
    fn pulled(&self) -> usize {
        self.live + self.done + self.pulls
    }

    fn can_pull(&self, rules: Rules) -> bool {
        self.used < rules.limit && self.source.is_here()
    }

    /// How many workers could do something now.
    fn work(&self, rules: Rules) -> usize {
        let (has_unstarted, can_pull) = (!self.unstarted.is_empty(), self.can_pull(rules));
        self.items.ready() + usize::from(has_unstarted) + usize::from(can_pull)
    }

    /// Another worker, if one is idle or may be started.
    fn call(&mut self, rules: Rules) -> Option<Call> {
        if let Some(waker) = self.take_idle() {
            return Some(Call::Wake(waker));
        }
        let may_start = !self.is_closed && self.workers < rules.workers;
        may_start.then(|| {
            self.workers += 1;
            Call::Start(self.workers)
        })
    }
}

fn wake_all<T, Fut>(mut state: MutexGuard<'_, State<T, Fut>>) {
    let (caller, idle) = (state.idle_caller.take(), std::mem::take(&mut state.idle));
    drop(state);
    for waker in idle.into_iter().map(|(_, waker)| waker).chain(caller) {
        contain(|| waker.wake());
    }
}

impl<T: Send + 'static, Fut: Send + 'static> Wake for ItemWaker<T, Fut> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.queue.wake_item(self.key);
    }
}

impl<T: Send + 'static, Fut: Send + 'static> Wake for Queue<T, Fut> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_source();
    }
}
