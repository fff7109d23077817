//! `Queue`: what the workers of a batch share: the source, the permits, the items, and who has nothing to do.
//!
//! An item is _unstarted_ from its pull on, then _running_ while a worker polls it, _waiting_ while nobody has to, and
//! _ready_ once it was woken. A worker takes whatever there is to be done, and is _idle_ when there is nothing.
//!
//! Owned by the batch, its workers, and the wakers of its items and its source. These may outlive the batch in foreign
//! hands, so everything of the user's is taken out at the end, by `close` and `finish`.
//!
//! Invariants:
//!
//! 1. No foreign code runs under the lock. Who polls the source has taken it out, and so has who polls an item.
//! 2. `used <= limit`. A pull takes its permits before it begins, and gives back those for which no item came. An item
//!    gives its permit back when it is done, or when its result has been yielded (`Permits`).
//! 3. While there is work that nobody has in hand (`has_work`), no worker is idle. Whoever makes work asks `call` under
//!    the same lock, and wakes the worker that it takes from the idle ones. A worker becomes idle under the lock, after it
//!    has looked.
//! 4. A wake-up of the source is never lost: it is noted even while the source is taken. Each leads to one poll. After
//!    its end, or a panic, the source is not polled again.
//! 5. A running item that is woken is ready as soon as it is put back. A waker left over from an earlier item of the same
//!    entry costs the present one a poll, and no more.
//! 6. Nothing comes in after `close`: a worker gets back what it would put in.
//!
//! Why are items that one worker has pulled shown to the others while it pulls more? The source may block its thread until
//! an item that it gave out before has run. So another worker watches, and takes them if the pull does not go on.
//!
//! Why one lock, and not a queue a worker? An item that waits takes it three times, some 20 ns each, where a task of its
//! own costs 400. Items that end at once come in blocks. And there is one order, and one place to look into.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Wake, Waker};

use futures::Stream;

use crate::panic::contain;
use crate::sync::{Mutex, MutexGuard};

/// The worker that the batch's caller polls. Others are woken first: nobody knows when the caller comes.
pub(super) const CALLER: usize = 0;

/// The key of the source, among those of the items.
const SOURCE: usize = usize::MAX;

pub(super) struct Queue<T, Fut> {
    state: Mutex<State<T, Fut>>,
    pub(super) rules: Rules,
}

/// What never changes.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    /// The most permits.
    pub(super) limit: usize,
    /// The most workers: the threads of the runtime.
    pub(super) workers: usize,
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
    /// Pulled, in the order of the indexes.
    unstarted: VecDeque<(usize, T)>,
    /// How many items were ever put there.
    shown: usize,
    /// By key.
    entries: Vec<Entry<Fut>>,
    /// The keys of items that were woken, first come first served.
    ready: VecDeque<usize>,
    spare: Vec<Running<Fut>>,
    used: usize,
    /// Items that were pulled and are not known to be done.
    live: usize,
    workers: usize,
    /// The caller comes first, and is taken last.
    idle: Vec<(usize, Waker)>,
    is_closed: bool,
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
    Over(Option<Source<T>>),
}

pub(super) struct Source<T> {
    pub(super) stream: Pin<Box<dyn Stream<Item = T> + Send>>,
    pub(super) waker: Waker,
    /// The index of the next item.
    pub(super) next: usize,
    /// It says that it has no other item. It is polled to see, but nobody is called for it.
    pub(super) is_last: bool,
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
    /// It was woken since it was taken last. If it waits, its key is among the ready.
    is_woken: bool,
}

/// Wakes an item, or the source.
struct QueueWaker<T, Fut> {
    queue: Arc<Queue<T, Fut>>,
    key: usize,
}

/// What a worker has in hand.
pub(super) struct Hand<T, Fut> {
    id: usize,
    /// Items with their indexes, in order, that it is to start.
    pub(super) block: VecDeque<(usize, T)>,
    /// For the items that it starts.
    pub(super) spare: Vec<Running<Fut>>,
    /// Items that are done and not yet told of.
    pub(super) done: usize,
    /// `State::shown` as it was when another worker was seen pulling.
    seen: Option<usize>,
    /// It pulls before it polls another item, so that neither starves.
    prefers_pull: bool,
    /// It has left a waker among the idle ones; somebody may have taken it.
    is_idle: bool,
}

/// What a worker does next.
pub(super) enum Next<T, Fut> {
    Poll(Running<Fut>),
    /// It starts the items of its block.
    Start,
    /// It pulls, with so many permits.
    Pull(Source<T>, usize),
    /// Another pulls: it looks again after the others had their turn.
    Watch,
    /// It is idle if it has brought a waker, else it is to bring one.
    Idle,
    Over,
}

/// How a pull has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pulled {
    Enough,
    NotReady,
    Dry,
}

/// Who is to look at the work that there is.
#[must_use]
pub(super) enum Call {
    Nobody,
    Wake(Waker),
    WakeAll(Vec<(usize, Waker)>),
    /// A worker that the caller starts, by its id. It is counted already.
    Start(usize),
}

/// What nobody will run.
pub(super) struct Rest<T, Fut> {
    pub(super) unstarted: VecDeque<(usize, T)>,
    pub(super) waiting: Vec<Running<Fut>>,
    pub(super) call: Call,
}

/// How a batch has ended.
pub(super) struct Finish<T> {
    /// Every item that was pulled is done.
    pub(super) is_done: bool,
    /// The source has given its last.
    pub(super) is_dry: bool,
    pub(super) source: Option<Source<T>>,
}

impl<T, Fut> Hand<T, Fut> {
    pub(super) fn new(id: usize) -> Self {
        Self {
            id,
            block: VecDeque::new(),
            spare: Vec::new(),
            done: 0,
            seen: None,
            prefers_pull: false,
            is_idle: false,
        }
    }
}

impl<T: Send + 'static, Fut: Send + 'static> Queue<T, Fut> {
    /// A queue with one worker.
    pub(super) fn new(stream: Pin<Box<dyn Stream<Item = T> + Send>>, rules: Rules) -> Arc<Self> {
        let queue = Arc::new(Self {
            state: Mutex::new(State {
                source: Place::Over(None),
                unstarted: VecDeque::new(),
                shown: 0,
                entries: Vec::new(),
                ready: VecDeque::new(),
                spare: Vec::new(),
                used: 0,
                live: 0,
                workers: 1,
                idle: Vec::new(),
                is_closed: false,
            }),
            rules,
        });
        let source = Source {
            stream,
            waker: queue.waker(SOURCE),
            next: 0,
            is_last: false,
        };
        queue.state.lock().source = Place::Here(source);
        queue
    }

    fn waker(self: &Arc<Self>, key: usize) -> Waker {
        let queue = self.clone();
        Waker::from(Arc::new(QueueWaker { queue, key }))
    }

    /// Makes room for one more started item.
    pub(super) fn entry(self: &Arc<Self>) -> Running<Fut> {
        let mut state = self.state.lock();
        let key = state.entries.len();
        state.entries.push(Entry {
            waiting: None,
            is_woken: false,
        });
        drop(state);
        Running {
            future: Box::pin(None),
            waker: self.waker(key),
            index: 0,
            key,
        }
    }
}

impl<T, Fut> Queue<T, Fut> {
    /// Tells what a worker does next. Its block is empty; it takes `size` new items at most.
    pub(super) fn next(
        &self,
        hand: &mut Hand<T, Fut>,
        size: usize,
        waker: Option<Waker>,
    ) -> (Next<T, Fut>, Call) {
        let mut state = self.state.lock();
        let replaced = state.settle(hand, self.rules);
        let next = state.choose(hand, size, self.rules);
        let mut unused = waker;
        let call = match next {
            Next::Over => Call::WakeAll(std::mem::take(&mut state.idle)),
            Next::Watch => Call::Nobody,
            Next::Idle => {
                if let Some(waker) = unused.take() {
                    state.add_idle(hand, waker);
                }
                Call::Nobody
            }
            Next::Start if !state.unstarted.is_empty() => state.call_someone(self.rules),
            _ => state.call(self.rules),
        };
        drop(state);
        drop((replaced, unused));
        (next, call)
    }

    /// Shows an item to the others while its worker pulls on.
    pub(super) fn show(&self, index: usize, item: T) -> Call {
        let mut state = self.state.lock();
        state.live += 1;
        state.shown += 1;
        state.unstarted.push_back((index, item));
        match state.unstarted.len() {
            1 => state.call_someone(self.rules),
            _ => Call::Nobody,
        }
    }

    /// Ends a pull that had `permits` and came to `count` items. Those that were shown and not taken go to the block,
    /// before those that are there. Returns `true` if the source has woken although it is not ready.
    pub(super) fn put_source(
        &self,
        source: Source<T>,
        pulled: Pulled,
        hand: &mut Hand<T, Fut>,
        permits: usize,
        count: usize,
    ) -> (bool, Call) {
        let mut state = self.state.lock();
        state.used -= permits - count;
        state.live += hand.block.len();
        while let Some(item) = state.unstarted.pop_back() {
            hand.block.push_front(item);
        }
        let is_woken = matches!(state.source, Place::Taken { is_woken: true });
        state.source = match pulled {
            Pulled::Dry => Place::Over(Some(source)),
            Pulled::NotReady if !is_woken => Place::Waiting(source),
            Pulled::NotReady | Pulled::Enough => Place::Here(source),
        };
        let call = state.call(self.rules);
        (is_woken && pulled == Pulled::NotReady, call)
    }

    /// Puts back an item that has to wait; returns it if the batch is over.
    pub(super) fn wait(
        &self,
        running: Running<Fut>,
        hand: &mut Hand<T, Fut>,
    ) -> Option<Running<Fut>> {
        let mut state = self.state.lock();
        if state.is_closed {
            return Some(running);
        }
        let key = running.key;
        let entry = &mut state.entries[key];
        entry.waiting = Some(running);
        if entry.is_woken {
            state.ready.push_back(key);
        }
        if hand.spare.is_empty() {
            hand.spare.extend(state.spare.pop());
        }
        None
    }

    /// Takes note of what a worker has done.
    pub(super) fn report(&self, hand: &mut Hand<T, Fut>) -> Call {
        let mut state = self.state.lock();
        let replaced = state.settle(hand, self.rules);
        let call = state.call(self.rules);
        drop(state);
        drop(replaced);
        call
    }

    /// Gives back the permits of results that were yielded.
    pub(super) fn release(&self, permits: usize) {
        let mut state = self.state.lock();
        state.used -= permits;
        self.wake_idle(state);
    }

    fn wake(&self, key: usize) {
        let mut state = self.state.lock();
        if state.note_wake(key) {
            self.wake_idle(state);
        }
    }

    fn wake_idle(&self, mut state: MutexGuard<'_, State<T, Fut>>) {
        let idle = match state.has_work(self.rules) {
            true => state.idle.pop(),
            false => None,
        };
        drop(state);
        if let Some((_, waker)) = idle {
            contain(|| waker.wake());
        }
    }

    /// Ends the work, done or not. Nothing starts from now on.
    pub(super) fn close(&self) -> Rest<T, Fut> {
        let mut state = self.state.lock();
        state.is_closed = true;
        state.ready.clear();
        let entries = std::mem::take(&mut state.entries);
        let mut waiting = std::mem::take(&mut state.spare);
        let unstarted = std::mem::take(&mut state.unstarted);
        let call = Call::WakeAll(std::mem::take(&mut state.idle));
        drop(state);
        waiting.extend(entries.into_iter().filter_map(|entry| entry.waiting));
        Rest {
            unstarted,
            waiting,
            call,
        }
    }

    /// Whether every item that was pulled is done, as far as the workers have told.
    pub(super) fn is_done(&self) -> bool {
        self.state.lock().live == 0
    }

    /// Hands out the source. No worker has it, or will ask for it.
    pub(super) fn finish(&self) -> Finish<T> {
        let mut state = self.state.lock();
        let (is_dry, source) = match std::mem::replace(&mut state.source, Place::Over(None)) {
            Place::Here(source) | Place::Waiting(source) => (false, Some(source)),
            Place::Taken { .. } => (false, None),
            Place::Over(source) => (true, source),
        };
        Finish {
            is_done: state.live == 0,
            is_dry,
            source,
        }
    }
}

impl<T, Fut> State<T, Fut> {
    /// Takes note of what a worker has done, and that it is not idle. Returns a waker to be dropped without the lock.
    fn settle(&mut self, hand: &mut Hand<T, Fut>, rules: Rules) -> Option<(usize, Waker)> {
        let done = std::mem::take(&mut hand.done);
        self.live -= done;
        if rules.permits == Permits::WhenDone {
            self.used -= done;
        }
        if self.is_closed {
            // What came in now would keep the queue alive.
        } else if hand.spare.len() > 1 {
            self.spare.extend(hand.spare.drain(1..));
        } else if hand.spare.is_empty() {
            hand.spare.extend(self.spare.pop());
        }
        if !std::mem::take(&mut hand.is_idle) {
            return None;
        }
        let place = self.idle.iter().position(|(id, _)| *id == hand.id)?;
        Some(self.idle.remove(place))
    }

    fn choose(&mut self, hand: &mut Hand<T, Fut>, size: usize, rules: Rules) -> Next<T, Fut> {
        if self.is_closed || self.is_over() {
            return Next::Over;
        }
        let can_pull = self.can_pull(rules);
        if !(hand.prefers_pull && can_pull) {
            if let Some(running) = self.take_ready() {
                hand.prefers_pull = true;
                return Next::Poll(running);
            }
        }
        if !self.unstarted.is_empty() {
            let is_pulling = matches!(self.source, Place::Taken { .. });
            if is_pulling && hand.seen.replace(self.shown) != Some(self.shown) {
                return Next::Watch;
            }
            let size = size.min(self.unstarted.len());
            hand.block.extend(self.unstarted.drain(..size));
            return Next::Start;
        }
        match self.take_source(rules) {
            Some(source) => {
                hand.prefers_pull = false;
                let permits = size.min(rules.limit - self.used);
                self.used += permits;
                Next::Pull(source, permits)
            }
            None => Next::Idle,
        }
    }

    fn is_over(&self) -> bool {
        self.live == 0 && matches!(self.source, Place::Over(_))
    }

    fn can_pull(&self, rules: Rules) -> bool {
        self.used < rules.limit && matches!(self.source, Place::Here(_))
    }

    fn take_source(&mut self, rules: Rules) -> Option<Source<T>> {
        if !self.can_pull(rules) {
            return None;
        }
        let taken = Place::Taken { is_woken: false };
        match std::mem::replace(&mut self.source, taken) {
            Place::Here(source) => Some(source),
            _ => unreachable!("errgroup: asked before"),
        }
    }

    fn take_ready(&mut self) -> Option<Running<Fut>> {
        let key = self.ready.pop_front()?;
        let entry = &mut self.entries[key];
        entry.is_woken = false;
        entry.waiting.take()
    }

    fn add_idle(&mut self, hand: &mut Hand<T, Fut>, waker: Waker) {
        hand.is_idle = true;
        let place = if hand.id == CALLER { 0 } else { self.idle.len() };
        self.idle.insert(place, (hand.id, waker));
    }

    /// Notes a wake-up; `true` if it has made work.
    fn note_wake(&mut self, key: usize) -> bool {
        if key == SOURCE {
            return self.note_source_wake();
        }
        // Closed: there are none.
        let Some(entry) = self.entries.get_mut(key) else {
            return false;
        };
        if std::mem::replace(&mut entry.is_woken, true) || entry.waiting.is_none() {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    fn note_source_wake(&mut self) -> bool {
        self.source = match std::mem::replace(&mut self.source, Place::Over(None)) {
            Place::Waiting(source) => {
                self.source = Place::Here(source);
                return true;
            }
            Place::Taken { .. } => Place::Taken { is_woken: true },
            place => place,
        };
        false
    }

    /// Whether there is work that nobody has in hand. Unstarted items are in a puller's, who has called for a watcher.
    fn has_work(&self, rules: Rules) -> bool {
        let is_pulling = matches!(self.source, Place::Taken { .. });
        !self.ready.is_empty() || self.can_pull(rules) || !(self.unstarted.is_empty() || is_pulling)
    }

    /// Sees to invariant 3.
    fn call(&mut self, rules: Rules) -> Call {
        if !self.has_work(rules) {
            return Call::Nobody;
        }
        let is_last = matches!(&self.source, Place::Here(source) if source.is_last);
        if is_last && self.ready.is_empty() && self.idle.is_empty() {
            return Call::Nobody;
        }
        self.call_someone(rules)
    }

    fn call_someone(&mut self, rules: Rules) -> Call {
        if let Some((_, waker)) = self.idle.pop() {
            return Call::Wake(waker);
        }
        if self.is_closed || self.workers >= rules.workers {
            return Call::Nobody;
        }
        self.workers += 1;
        Call::Start(self.workers)
    }
}

impl<T: Send + 'static, Fut: Send + 'static> Wake for QueueWaker<T, Fut> {
    fn wake(self: Arc<Self>) {
        self.queue.wake(self.key);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.queue.wake(self.key);
    }
}
