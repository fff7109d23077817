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
//!    worker that finds more than it can do itself calls another (`Next::Call`). What a pull has shown so far counts, too:
//!    with `Shown::may_call` the puller calls somebody for it, and who becomes idle sets that, or finds an item.
//! 4. A wake-up of the source is never lost: it is noted even while the source is taken. Each leads to one poll. After
//!    its end, or a panic, the source is not polled again.
//! 5. A running item that is woken is ready as soon as it is put back. A waker left over from an earlier item of the same
//!    entry costs the present one a poll, and no more.
//! 6. A worker has nothing in hand between two of its polls (`put_back`). So work goes on although one of them, the
//!    caller, is not polled again.
//! 7. After `close` no item is given out. What a pull still brings in is taken out by the end, which closes again.
//!
//! Why are items that one worker has pulled shown to the others while it pulls more? The source may block its thread until
//! an item that it gave out before has run. So another worker watches, and takes them if the pull does not proceed. They lie
//! under a lock of their own, which hardly anybody else takes meanwhile: a pull shows an item in some nanoseconds.
//!
//! Lock order: `state`, then `shown`.
//!
//! Why one lock, and not a queue a worker? An item that waits takes it three times, some 20 ns each, where a task of its
//! own costs 400. Items that end at once come in blocks. And there is one order, and one place to look into.

mod watch;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::hint;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};

use futures::Stream;

use crate::context::{Listing, Node};
use crate::panic::contain;
use crate::sync::{AtomicBool, AtomicUsize, Mutex, MutexGuard, Ordering};
use crate::task::TaskId;

pub(crate) use self::watch::Report;
pub use self::watch::SourceState;

/// The id of the worker that the batch's caller polls.
pub(super) const CALLER: usize = 0;

/// As long as a pull of a block takes, about a microsecond.
const SPINS: usize = 32;

/// As a waker it is the source's.
// In this order, so that what the puller writes with each item (`shown`) does not lie beside what the others read meanwhile.
#[repr(C)]
pub(super) struct Queue<T, Fut> {
    pub(super) rules: Rules,
    /// How many permits the consumer of a stream gathers before it gives them back. A hint.
    pub(super) release_size: AtomicUsize,
    /// The source is taken. A hint.
    is_pulling: AtomicBool,
    state: Mutex<State<T, Fut>>,
    pub(super) name: Option<Cow<'static, str>>,
    /// In snapshots.
    id: TaskId,
    listing: Listing,
    shown: Mutex<Shown<T>>,
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
    /// Pulled by workers that gave way, in the order of the indexes.
    unstarted: VecDeque<(usize, T)>,
    /// By key.
    entries: Vec<Entry<Fut>>,
    /// How many items were woken, and the first and the last of them. `Entry::next` links them.
    ready: usize,
    first_ready: usize,
    last_ready: usize,
    spare: Vec<Running<Fut>>,
    used: usize,
    /// Items that were pulled and are not known to be done.
    live: usize,
    /// Those that are.
    done: usize,
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

/// What the pull under way has brought.
struct Shown<T> {
    /// In the order of the indexes. They count as `live` once they are taken.
    items: VecDeque<(usize, T)>,
    /// Counts the pulls, and what they show: it changes while a pull proceeds.
    progress: usize,
    /// Perhaps there is another worker to be called.
    may_call: bool,
}

/// Where the source is.
enum Place<T> {
    Here(Source<T>),
    /// It is not ready, and will wake.
    Waiting(Source<T>),
    /// A worker polls it.
    Taken {
        is_woken: bool,
    },
    Over,
}

pub(super) struct Source<T> {
    pub(super) stream: Pin<Box<dyn Stream<Item = T> + Send>>,
    pub(super) waker: Waker,
    /// The index of the next item.
    pub(super) next: usize,
}

/// A started item, or the memory for one.
pub(super) struct Running<Fut> {
    pub(super) future: Pin<Box<Option<Fut>>>,
    pub(super) waker: Waker,
    pub(super) index: usize,
    key: usize,
}

/// Where an item waits.
struct Entry<Fut> {
    waiting: Option<Running<Fut>>,
    /// It was woken since it was taken last. If it waits, it is ready.
    is_woken: bool,
    /// The key of the item that was woken after this one.
    next: usize,
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
    /// Items that are done and not yet told of.
    pub(super) done: usize,
    /// `Shown::progress` when another worker was last seen pulling.
    seen: Option<usize>,
    /// How many items that were woken it polls before it takes new ones: as many as it took of those.
    polls: usize,
    /// It has called another worker for what it sees now.
    has_called: bool,
    /// It has left a waker among the idle ones; somebody may have taken it.
    is_idle: bool,
}

/// What a worker does next.
pub(super) enum Next<T> {
    /// It polls the current item.
    Poll,
    /// It starts the items of its block.
    Start,
    /// It pulls, with so many permits.
    Pull(Source<T>, usize),
    /// There is more to do than that: it calls another worker, and gives way to it.
    Call(Call),
    /// Another pulls: it looks again after the others had their turn.
    Watch,
    /// There is nothing: it becomes idle.
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

/// How a pull has ended.
pub(super) enum Pulled<T> {
    Enough(Source<T>),
    NotReady(Source<T>),
    Dry,
}

impl<T, Fut> Hand<T, Fut> {
    pub(super) fn new(id: usize) -> Self {
        Self {
            id,
            block: VecDeque::new(),
            current: None,
            done: 0,
            seen: None,
            polls: 0,
            has_called: false,
            is_idle: false,
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
            state: Mutex::new(State {
                source: Place::Over,
                unstarted: VecDeque::new(),
                entries: Vec::new(),
                ready: 0,
                first_ready: 0,
                last_ready: 0,
                spare: Vec::new(),
                used: 0,
                live: 0,
                done: 0,
                workers: 1,
                idle: Vec::new(),
                idle_caller: None,
                is_closed: false,
                node: Weak::new(),
                is_finished: false,
            }),
            shown: Mutex::new(Shown {
                items: VecDeque::new(),
                progress: 0,
                may_call: rules.workers > 1,
            }),
            is_pulling: AtomicBool::new(false),
            release_size: AtomicUsize::new(1),
            rules,
            name,
            id: TaskId::next(),
            listing: Listing::default(),
        });
        let source = Source {
            stream,
            waker: Waker::from(queue.clone()),
            next: 0,
        };
        queue.state.lock().source = Place::Here(source);
        queue
    }

    /// The memory for one more item.
    pub(super) fn memory(self: &Arc<Self>) -> Running<Fut> {
        let mut state = self.state.lock();
        if let Some(spare) = state.spare.pop() {
            return spare;
        }
        let key = state.entries.len();
        state.entries.push(Entry {
            waiting: None,
            is_woken: false,
            next: 0,
        });
        drop(state);
        let queue = self.clone();
        Running {
            future: Box::pin(None),
            waker: Waker::from(Arc::new(ItemWaker { queue, key })),
            index: 0,
            key,
        }
    }
}

impl<T, Fut> Queue<T, Fut> {
    /// Tells what a worker does next. Its block is empty; it takes `size` new items at most.
    pub(super) fn next(&self, hand: &mut Hand<T, Fut>, size: usize) -> Next<T> {
        let mut state = self.state.lock();
        let unused = state.settle(hand, self.rules);
        let next = state.choose(hand, size, self.rules, &self.shown);
        match next {
            Next::Over => wake_all(state),
            Next::Pull(_, permits) if self.rules.workers > 1 => {
                self.is_pulling.store(true, Ordering::Relaxed);
                let mut shown = self.shown.lock();
                shown.progress += 1;
                if permits > 1 {
                    // The memory that this worker has used before.
                    std::mem::swap(&mut shown.items, &mut hand.block);
                }
                drop(shown);
                drop(state);
            }
            _ => drop(state),
        }
        drop(unused);
        next
    }

    /// Gives a pull the moment that most of them take; `false` if it goes on.
    pub(super) fn spin(&self) -> bool {
        // A model has no time.
        let spins = if cfg!(errgroup_loom) { 0 } else { SPINS };
        (0..spins).any(|_| {
            hint::spin_loop();
            !self.is_pulling.load(Ordering::Relaxed)
        })
    }

    /// Makes a worker idle; `false` if there is something for it meanwhile.
    pub(super) fn idle(&self, hand: &mut Hand<T, Fut>, waker: Waker) -> bool {
        let mut state = self.state.lock();
        let has_none = state.work(self.rules) == 0 && !state.is_over();
        if !has_none || (self.rules.workers > 1 && !self.shown.lock().call_for_next()) {
            drop(state);
            drop(waker);
            return false;
        }
        hand.is_idle = true;
        match hand.id {
            CALLER => state.idle_caller = Some(waker),
            id => state.idle.push((id, waker)),
        }
        true
    }

    /// Shows an item to the others while its worker pulls on. Somebody may have to be called for it.
    #[inline]
    pub(super) fn show(&self, item: (usize, T)) -> Option<Call> {
        let mut shown = self.shown.lock();
        shown.items.push_back(item);
        shown.progress += 1;
        match shown.may_call {
            true => {
                drop(shown);
                self.call_for_shown()
            }
            false => None,
        }
    }

    #[inline(never)]
    fn call_for_shown(&self) -> Option<Call> {
        let mut state = self.state.lock();
        let call = state.call(self.rules);
        if call.is_none() {
            self.shown.lock().may_call = false;
        }
        call
    }

    /// Ends a pull, which leaves some of its permits. What it has shown goes before what is in the worker's block. Returns
    /// `true` if the source has woken although it is not ready, and whom to call for what is left.
    pub(super) fn put_source(
        &self,
        pulled: Pulled<T>,
        permits_left: usize,
        hand: &mut Hand<T, Fut>,
    ) -> (bool, Option<Call>) {
        let mut state = self.state.lock();
        state.used -= permits_left;
        if self.rules.workers > 1 {
            let mut shown = self.shown.lock();
            if !shown.items.is_empty() {
                shown.items.append(&mut hand.block);
                std::mem::swap(&mut shown.items, &mut hand.block);
            }
            drop(shown);
            self.is_pulling.store(false, Ordering::Relaxed);
        }
        state.live += hand.block.len();
        let is_woken = matches!(state.source, Place::Taken { is_woken: true });
        let is_ready = !matches!(pulled, Pulled::NotReady(_));
        state.source = match pulled {
            Pulled::Dry => Place::Over,
            Pulled::NotReady(source) if !is_woken => Place::Waiting(source),
            Pulled::NotReady(source) | Pulled::Enough(source) => Place::Here(source),
        };
        let call = match state.work(self.rules) {
            0 => None,
            _ => state.call(self.rules),
        };
        (is_woken && !is_ready, call)
    }

    /// Puts back the current item, which has to wait, or only for its next poll (`is_ready`). It stays in hand if the
    /// batch is over: then `false`.
    pub(super) fn wait(&self, hand: &mut Hand<T, Fut>, is_ready: bool) -> bool {
        let mut state = self.state.lock();
        let Some(running) = hand.current.take_if(|_| !state.is_closed) else {
            return false;
        };
        let key = running.key;
        let entry = &mut state.entries[key];
        entry.waiting = Some(running);
        entry.is_woken |= is_ready;
        if entry.is_woken {
            state.push_ready(key);
        }
        hand.current = state.spare.pop();
        true
    }

    /// Takes what a worker has in hand (invariant 6).
    pub(super) fn put_back(&self, hand: &mut Hand<T, Fut>) {
        let mut state = self.state.lock();
        let unused = state.settle(hand, self.rules);
        while let Some(item) = hand.block.pop_back() {
            state.unstarted.push_front(item);
        }
        self.wake_idle(state);
        drop(unused);
    }

    /// Gives back the permits of results that were yielded.
    pub(super) fn release(&self, permits: usize) {
        let mut state = self.state.lock();
        state.used -= permits;
        self.wake_idle(state);
    }

    fn wake_item(&self, key: usize) {
        let mut state = self.state.lock();
        // Closed: there are none.
        let Some(entry) = state.entries.get_mut(key) else {
            return;
        };
        if !std::mem::replace(&mut entry.is_woken, true) && entry.waiting.is_some() {
            state.push_ready(key);
            self.wake_idle(state);
        }
    }

    fn wake_source(&self) {
        let mut state = self.state.lock();
        state.source = match std::mem::replace(&mut state.source, Place::Over) {
            Place::Waiting(source) => Place::Here(source),
            Place::Taken { .. } => Place::Taken { is_woken: true },
            place => place,
        };
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
        state.ready = 0;
        let mut unstarted = std::mem::take(&mut state.unstarted);
        unstarted.append(&mut self.shown.lock().items);
        let entries = std::mem::take(&mut state.entries);
        let mut started = std::mem::take(&mut state.spare);
        wake_all(state);
        started.extend(entries.into_iter().filter_map(|entry| entry.waiting));
        (unstarted, started)
    }

    /// Whether every item that was pulled is done, as far as the workers have told.
    pub(super) fn is_done(&self) -> bool {
        self.state.lock().live == 0
    }

    /// Hands out the source if it has not ended. No worker is left.
    pub(super) fn take_source(&self) -> Option<Source<T>> {
        let mut state = self.state.lock();
        state.is_finished = true;
        let source = std::mem::replace(&mut state.source, Place::Over);
        drop(state);
        // Foreign code may keep a waker, and the queue with it, for long.
        self.listing.leave();
        match source {
            Place::Here(source) | Place::Waiting(source) => Some(source),
            Place::Taken { .. } | Place::Over => None,
        }
    }
}

impl<T> Shown<T> {
    /// Has the one who becomes idle called for the next item; `false` if one is there.
    fn call_for_next(&mut self) -> bool {
        self.may_call |= self.items.is_empty();
        self.items.is_empty()
    }
}

impl<T, Fut> State<T, Fut> {
    /// Takes note of what a worker has done, and that it is not idle. Returns a waker to be dropped without the lock.
    fn settle(&mut self, hand: &mut Hand<T, Fut>, rules: Rules) -> Option<Waker> {
        let done = std::mem::take(&mut hand.done);
        self.live -= done;
        self.done += done;
        if rules.permits == Permits::WhenDone {
            self.used -= done;
        }
        match std::mem::take(&mut hand.is_idle) {
            false => None,
            true if hand.id == CALLER => self.idle_caller.take(),
            true => {
                let place = self.idle.iter().position(|(id, _)| *id == hand.id)?;
                Some(self.idle.remove(place).1)
            }
        }
    }

    fn take_idle(&mut self) -> Option<Waker> {
        let idle = self.idle.pop().map(|(_, waker)| waker);
        idle.or_else(|| self.idle_caller.take())
    }

    fn choose(
        &mut self,
        hand: &mut Hand<T, Fut>,
        size: usize,
        rules: Rules,
        shown: &Mutex<Shown<T>>,
    ) -> Next<T> {
        if self.is_over() {
            return Next::Over;
        }
        if self.work(rules) > 1 && !hand.has_called {
            if let Some(call) = self.call(rules) {
                hand.has_called = true;
                return Next::Call(call);
            }
        }
        hand.has_called = false;
        // As many old items as new ones: neither starves.
        let has_new = !self.unstarted.is_empty() || self.can_pull(rules);
        if (hand.polls > 0 || !has_new) && self.take_ready(hand) {
            hand.polls = hand.polls.saturating_sub(1);
            return Next::Poll;
        }
        if !self.unstarted.is_empty() {
            hand.polls = size;
            let size = size.min(self.unstarted.len());
            hand.block.extend(self.unstarted.drain(..size));
            return Next::Start;
        }
        if self.is_pulling() {
            let mut shown = shown.lock();
            if hand.seen.replace(shown.progress) != Some(shown.progress) {
                return Next::Watch;
            }
            if !shown.items.is_empty() {
                hand.polls = size;
                let size = size.min(shown.items.len());
                hand.block.extend(shown.items.drain(..size));
                self.live += size;
                return Next::Start;
            }
        }
        if !self.can_pull(rules) {
            return Next::Idle;
        }
        hand.polls = size;
        let permits = size.min(rules.limit - self.used);
        let taken = Place::Taken { is_woken: false };
        let Place::Here(source) = std::mem::replace(&mut self.source, taken) else {
            unreachable!("errgroup: asked before");
        };
        self.used += permits;
        Next::Pull(source, permits)
    }

    fn push_ready(&mut self, key: usize) {
        match self.ready {
            0 => self.first_ready = key,
            _ => self.entries[self.last_ready].next = key,
        }
        self.last_ready = key;
        self.ready += 1;
    }

    /// Takes the first item that was woken. The memory in hand is for another.
    fn take_ready(&mut self, hand: &mut Hand<T, Fut>) -> bool {
        if self.ready == 0 {
            return false;
        }
        let entry = &mut self.entries[self.first_ready];
        entry.is_woken = false;
        self.ready -= 1;
        self.first_ready = entry.next;
        let spare = std::mem::replace(&mut hand.current, entry.waiting.take());
        self.spare.extend(spare);
        true
    }

    /// Whether no worker will have anything to do any more.
    fn is_over(&self) -> bool {
        self.is_closed || (self.live == 0 && matches!(self.source, Place::Over))
    }

    fn is_pulling(&self) -> bool {
        matches!(self.source, Place::Taken { .. })
    }

    fn can_pull(&self, rules: Rules) -> bool {
        self.used < rules.limit && matches!(self.source, Place::Here(_))
    }

    /// How many workers could do something now.
    fn work(&self, rules: Rules) -> usize {
        let (has_unstarted, can_pull) = (!self.unstarted.is_empty(), self.can_pull(rules));
        self.ready + usize::from(has_unstarted) + usize::from(can_pull)
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
