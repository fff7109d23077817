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
//! 6. A worker has nothing in hand between two of its polls: who gives way puts everything back (`give_back`). So work
//!    goes on although one of them, the caller, is not polled again.
//! 7. Nothing comes in after `close`: a worker keeps what it would put in.
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
use crate::sync::{AtomicUsize, Mutex, MutexGuard, Ordering};

/// Items that come in blocks of that size end at once.
const LARGE: usize = 16;

/// The id of the worker that the batch's caller polls.
pub(super) const CALLER: usize = 0;

pub(super) struct Queue<T, Fut> {
    state: Mutex<State<T, Fut>>,
    /// How many permits the consumer of a stream gives back at a time. A hint.
    release: AtomicUsize,
    pub(super) rules: Rules,
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
    /// Pulled, in the order of the indexes.
    unstarted: VecDeque<(usize, T)>,
    /// Counts the pulls, and the items that they show: it changes while a pull proceeds.
    progress: usize,
    /// By key.
    entries: Vec<Entry<Fut>>,
    /// The first and the last of the items that were woken; `Entry::next` links them.
    ready: Option<(usize, usize)>,
    spare: Vec<Running<Fut>>,
    used: usize,
    /// Items that were pulled and are not known to be done.
    live: usize,
    workers: usize,
    idle: Idle,
    is_closed: bool,
}

/// The wakers of the workers that are idle.
#[derive(Default)]
pub(super) struct Idle {
    /// It is woken last: nobody knows when the caller comes.
    caller: Option<Waker>,
    /// With their ids.
    tasks: Vec<(usize, Waker)>,
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
    /// The item that was woken after this one.
    next: Option<usize>,
}

struct ItemWaker<T, Fut> {
    queue: Arc<Queue<T, Fut>>,
    key: usize,
}

/// What a worker has in hand.
pub(super) struct Hand<T, Fut> {
    id: usize,
    /// Items with their indexes, in order, that it is to start.
    pub(super) block: VecDeque<(usize, T)>,
    /// The item that it polls. Without a future, the memory for the next that it starts.
    pub(super) current: Option<Running<Fut>>,
    /// Items that are done and not yet told of.
    pub(super) done: usize,
    /// `State::progress` when another worker was last seen pulling.
    seen: Option<usize>,
    /// An item of its block has had to wait.
    pub(super) has_waited: bool,
    /// How many items that were woken it polls before it takes new ones: as many as it took of those.
    polls: usize,
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
    /// Another pulls: it looks again after the others had their turn.
    Watch,
    /// There is nothing: it becomes idle.
    Idle,
    /// Nor will there be: it wakes the idle ones.
    Over(Idle),
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
    /// A worker that the caller starts, by its id. It is counted already.
    Start(usize),
}

/// What nobody will run.
pub(super) struct Rest<T, Fut> {
    pub(super) unstarted: VecDeque<(usize, T)>,
    entries: Vec<Entry<Fut>>,
    #[expect(
        dead_code,
        reason = "there to be dropped without the lock: it refers to the queue"
    )]
    spare: Vec<Running<Fut>>,
    idle: Idle,
}

/// How a batch has ended.
pub(super) struct Finish<T, Fut> {
    /// Every item that was pulled is done.
    pub(super) is_done: bool,
    /// The source has given its last.
    pub(super) is_dry: bool,
    pub(super) source: Option<Source<T>>,
    pub(super) rest: Rest<T, Fut>,
}

impl<T, Fut> Hand<T, Fut> {
    pub(super) fn new(id: usize) -> Self {
        Self {
            id,
            block: VecDeque::new(),
            current: None,
            done: 0,
            seen: None,
            has_waited: false,
            polls: 0,
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
                progress: 0,
                entries: Vec::new(),
                ready: None,
                spare: Vec::new(),
                used: 0,
                live: 0,
                workers: 1,
                idle: Idle::default(),
                is_closed: false,
            }),
            release: AtomicUsize::new(1),
            rules,
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
            next: None,
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
    /// Tells what a worker does next. Its block is empty; `size` says how many new items it takes at most.
    pub(super) fn next(
        &self,
        hand: &mut Hand<T, Fut>,
        size: impl FnOnce() -> usize,
    ) -> (Next<T>, Call) {
        let mut state = self.state.lock();
        let replaced = state.settle(hand, self.rules);
        let has_waited = std::mem::take(&mut hand.has_waited);
        let size = || {
            let size = size();
            let release = if size < LARGE || has_waited {
                1
            } else {
                size / 2
            };
            self.release.store(release, Ordering::Relaxed);
            size
        };
        let next = state.choose(hand, size, self.rules);
        let call = match next {
            Next::Over(_) | Next::Watch | Next::Idle => Call::Nobody,
            Next::Start if !state.unstarted.is_empty() => state.call_someone(self.rules),
            Next::Start | Next::Poll | Next::Pull(..) => state.call(self.rules),
        };
        drop(state);
        drop(replaced);
        (next, call)
    }

    /// Makes a worker idle; `false` if there is something for it meanwhile.
    pub(super) fn idle(&self, hand: &mut Hand<T, Fut>, waker: Waker) -> bool {
        let mut state = self.state.lock();
        let has_work = state.has_work(self.rules) || !state.unstarted.is_empty();
        if has_work || state.is_closed || state.is_over() {
            drop(state);
            drop(waker);
            return false;
        }
        hand.is_idle = true;
        if hand.id == CALLER {
            state.idle.caller = Some(waker);
        } else {
            state.idle.tasks.push((hand.id, waker));
        }
        true
    }

    /// Shows an item to the others while its worker pulls on.
    pub(super) fn show(&self, index: usize, item: T) -> Call {
        let mut state = self.state.lock();
        state.live += 1;
        state.progress += 1;
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

    /// Takes everything out of a worker's hand (invariant 6).
    pub(super) fn give_back(&self, hand: &mut Hand<T, Fut>) -> Call {
        let mut state = self.state.lock();
        let replaced = state.settle(hand, self.rules);
        if !state.is_closed {
            while let Some(item) = hand.block.pop_back() {
                state.unstarted.push_front(item);
            }
            state.give_back_current(hand);
        }
        let call = match state.unstarted.is_empty() {
            true => state.call(self.rules),
            false => state.call_someone(self.rules),
        };
        drop(state);
        drop(replaced);
        call
    }
    /// Tells how many permits to gather before they are given back.
    ///
    /// Where items end at once a worker has the room filled again before the consumer comes back: then half a block at a
    /// time spares both of them most wake-ups. Else each permit starts an item, and none is kept back.
    pub(super) fn release_size(&self) -> usize {
        self.release.load(Ordering::Relaxed)
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
        let taken = Place::Taken { is_woken: true };
        state.source = match std::mem::replace(&mut state.source, taken) {
            Place::Waiting(source) => Place::Here(source),
            place @ (Place::Here(_) | Place::Over(_)) => place,
            Place::Taken { .. } => return,
        };
        self.wake_idle(state);
    }

    fn wake_idle(&self, mut state: MutexGuard<'_, State<T, Fut>>) {
        let idle = match state.has_work(self.rules) {
            true => state.idle.take_one(),
            false => None,
        };
        drop(state);
        if let Some(waker) = idle {
            contain(|| waker.wake());
        }
    }

    /// Ends the work, done or not: nothing starts from now on. Hands out all items, and the memory for them.
    pub(super) fn close(&self) -> Rest<T, Fut> {
        self.state.lock().close()
    }

    /// Whether every item that was pulled is done, as far as the workers have told.
    pub(super) fn is_done(&self) -> bool {
        self.state.lock().live == 0
    }

    /// Closes, and hands out the source, which no worker has any more.
    pub(super) fn finish(&self) -> Finish<T, Fut> {
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
            rest: state.close(),
        }
    }
}

impl<T, Fut> State<T, Fut> {
    /// Takes note of what a worker has done, and that it is not idle. Returns a waker to be dropped without the lock.
    fn settle(&mut self, hand: &mut Hand<T, Fut>, rules: Rules) -> Option<Waker> {
        let done = std::mem::take(&mut hand.done);
        self.live -= done;
        if rules.permits == Permits::WhenDone {
            self.used -= done;
        }
        match std::mem::take(&mut hand.is_idle) {
            true => self.idle.remove(hand.id),
            false => None,
        }
    }

    fn choose(
        &mut self,
        hand: &mut Hand<T, Fut>,
        size: impl FnOnce() -> usize,
        rules: Rules,
    ) -> Next<T> {
        if self.is_closed || self.is_over() {
            return Next::Over(std::mem::take(&mut self.idle));
        }
        // So neither starves.
        let may_poll = hand.polls > 0 || !self.can_pull(rules);
        if may_poll && self.take_ready(hand) {
            hand.polls = hand.polls.saturating_sub(1);
            return Next::Poll;
        }
        if matches!(self.source, Place::Taken { .. })
            && hand.seen.replace(self.progress) != Some(self.progress)
        {
            return Next::Watch;
        }
        if !self.unstarted.is_empty() {
            hand.polls = size();
            let size = hand.polls.min(self.unstarted.len());
            hand.block.extend(self.unstarted.drain(..size));
            return Next::Start;
        }
        match self.take_source(rules) {
            Some(source) => {
                hand.polls = size();
                let permits = hand.polls.min(rules.limit - self.used);
                self.used += permits;
                Next::Pull(source, permits)
            }
            None => Next::Idle,
        }
    }

    fn push_ready(&mut self, key: usize) {
        self.ready = match self.ready {
            None => Some((key, key)),
            Some((first, last)) => {
                self.entries[last].next = Some(key);
                Some((first, key))
            }
        };
    }

    /// Takes the first item that was woken. The memory in hand is for another.
    fn take_ready(&mut self, hand: &mut Hand<T, Fut>) -> bool {
        let Some((first, last)) = self.ready else {
            return false;
        };
        let entry = &mut self.entries[first];
        entry.is_woken = false;
        self.ready = entry.next.take().map(|next| (next, last));
        let spare = std::mem::replace(&mut hand.current, entry.waiting.take());
        self.spare.extend(spare);
        true
    }

    /// Makes the current item ready again, if it was started.
    fn give_back_current(&mut self, hand: &mut Hand<T, Fut>) {
        let started = |running: &mut Running<Fut>| running.future.is_some();
        if let Some(running) = hand.current.take_if(started) {
            let key = running.key;
            let entry = &mut self.entries[key];
            entry.waiting = Some(running);
            entry.is_woken = true;
            self.push_ready(key);
        }
    }

    fn close(&mut self) -> Rest<T, Fut> {
        self.is_closed = true;
        self.ready = None;
        Rest {
            unstarted: std::mem::take(&mut self.unstarted),
            entries: std::mem::take(&mut self.entries),
            spare: std::mem::take(&mut self.spare),
            idle: std::mem::take(&mut self.idle),
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
        self.progress += 1;
        let taken = Place::Taken { is_woken: false };
        match std::mem::replace(&mut self.source, taken) {
            Place::Here(source) => Some(source),
            _ => unreachable!("errgroup: asked before"),
        }
    }

    /// Whether there is work that nobody has in hand. Unstarted items are in a puller's, who has called for a watcher.
    fn has_work(&self, rules: Rules) -> bool {
        let is_pulling = matches!(self.source, Place::Taken { .. });
        self.ready.is_some() || self.can_pull(rules) || !(self.unstarted.is_empty() || is_pulling)
    }

    /// Sees to invariant 3.
    #[inline]
    fn call(&mut self, rules: Rules) -> Call {
        match self.has_work(rules) {
            true => self.call_someone(rules),
            false => Call::Nobody,
        }
    }

    fn call_someone(&mut self, rules: Rules) -> Call {
        if let Some(waker) = self.idle.take_one() {
            return Call::Wake(waker);
        }
        if self.is_closed || self.workers >= rules.workers {
            return Call::Nobody;
        }
        self.workers += 1;
        Call::Start(self.workers)
    }
}

impl<T, Fut> Rest<T, Fut> {
    /// The items that were started, one by one.
    pub(super) fn started(&mut self) -> impl Iterator<Item = Running<Fut>> {
        let entries = self.entries.drain(..);
        entries.filter_map(|entry| entry.waiting)
    }

    /// Wakes all who would wait for more.
    pub(super) fn wake_all(self) {
        self.idle.wake_all();
    }
}

impl Idle {
    fn take_one(&mut self) -> Option<Waker> {
        match self.tasks.pop() {
            Some((_, waker)) => Some(waker),
            None => self.caller.take(),
        }
    }

    fn remove(&mut self, id: usize) -> Option<Waker> {
        if id == CALLER {
            return self.caller.take();
        }
        let place = self.tasks.iter().position(|(task, _)| *task == id)?;
        Some(self.tasks.remove(place).1)
    }

    pub(super) fn wake_all(mut self) {
        while let Some(waker) = self.take_one() {
            contain(|| waker.wake());
        }
    }
}

impl Call {
    /// Wakes whom it names. Workers are started elsewhere.
    #[inline]
    pub(super) fn wake(self) {
        match self {
            Call::Nobody | Call::Start(_) => {}
            Call::Wake(waker) => contain(|| waker.wake()),
        }
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

/// The source's waker.
impl<T: Send + 'static, Fut: Send + 'static> Wake for Queue<T, Fut> {
    fn wake(self: Arc<Self>) {
        self.wake_source();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_source();
    }
}
