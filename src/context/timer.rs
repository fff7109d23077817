//! `Timers`: who tells of the deadlines that somebody waits for. There is one for each runtime that is waited on, and one
//! for the process, which serves whoever waits outside of any runtime.
//!
//! A runtime's are driven by one timer of tokio's, set to the earliest deadline. Its waker is the `Timers` itself, so
//! nodes end on the thread that drives the runtime's time, which holds no lock of tokio's while it wakes. The process's are
//! driven by a thread, started when the first needs it.
//!
//! A sentinel task on each of these runtimes, which never completes, tells by its destructor that the runtime goes:
//! tokio drops its tasks before it stops its timer. The deadlines then go over to the process's timers. When the driver
//! rings and nobody waits any more, the timers close and the sentinel is aborted; who waits next starts anew.
//!
//! Invariants:
//!
//! 1. An entry of an open `Timers` is told at its time: the driver rings then or earlier, and sets itself again.
//! 2. `armed` is when the driver will ring, `None` if nobody has set it since it last did. It rings at the earliest entry
//!    or before: an entry that is removed leaves the driver as it is.
//! 3. tokio's timer is only touched while the `Timers` is open, under its lock. Closing takes the lock, and what follows
//!    in tokio comes after it. So no timer is registered with a runtime that has shut down, which would panic.
//! 4. A closed `Timers` has no entry and no handle of its runtime, and gets none.
//!
//! Lock order: a deadline's `timers`, then a `Timers`'s `state`, then tokio's own. The list of the runtimes comes before
//! `state`, too. Nodes end with none of them held.
//!
//! Why not a sleep of tokio's for each deadline? It would hold the runtime, whose file descriptors go with it, and each
//! would have to be found and dropped when the runtime goes, which takes this list anyway. Setting the sleep again costs
//! a new one instead of a `reset`: that may wake at once, under our lock.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::thread::{self, Thread};

use tokio::runtime::{EnterGuard, Handle, Id};
use tokio::task::AbortHandle;
use tokio::task::coop::{Unconstrained, unconstrained};
use tokio::time::{Instant, Sleep, sleep_until};

use super::node::Node;
use crate::panic::contain;
use crate::sync::{AtomicBool, Mutex, Ordering};

pub(super) struct Timers {
    /// `None` for the process's.
    runtime: Option<Id>,
    /// Set under the lock, and final. Whoever needs to be certain looks at it there.
    is_closed: AtomicBool,
    state: Mutex<State>,
}

struct State {
    /// By time, and by number among those of one time. The nodes own their deadlines.
    entries: BTreeMap<(Instant, u64), Weak<Node>>,
    next_number: u64,
    armed: Option<Instant>,
    driver: Driver,
}

enum Driver {
    Runtime {
        handle: Handle,
        /// Does not count against the budget of the task that happens to set it: polled without budget, it would not
        /// register with the runtime.
        sleep: Pin<Box<Unconstrained<Sleep>>>,
        /// `None` until it is spawned.
        sentinel: Option<AbortHandle>,
    },
    /// `None` until it is started, and if that failed.
    Thread(Option<Thread>),
    Nobody,
}

/// A deadline's place among the timers.
#[must_use]
pub(super) struct Inserted {
    pub(super) number: u64,
    /// Somebody's time has come: call `ring`, with no lock held.
    pub(super) is_due: bool,
}

/// What setting a driver came to.
enum Set {
    WillRing,
    IsOver,
    /// There is no thread to be had.
    Failed,
}

impl Timers {
    fn new(runtime: Option<Id>, driver: Driver) -> Arc<Self> {
        Arc::new(Self {
            runtime,
            is_closed: AtomicBool::new(false),
            state: Mutex::new(State {
                entries: BTreeMap::new(),
                next_number: 0,
                armed: None,
                driver,
            }),
        })
    }

    /// Whose timers they are.
    pub(super) fn runtime(&self) -> Option<Id> {
        self.runtime
    }

    /// Adds a deadline; `None` if the timers are closed.
    pub(super) fn insert(self: &Arc<Self>, at: Instant, node: Weak<Node>) -> Option<Inserted> {
        let mut state = self.state.lock();
        if self.is_closed() {
            return None;
        }
        let number = state.next_number;
        state.next_number += 1;
        state.entries.insert((at, number), node);
        let is_due = state.arm(self, at);
        Some(Inserted { number, is_due })
    }

    pub(super) fn remove(&self, at: Instant, number: u64) {
        // A node that has been dropped leaves its memory here: it is freed with no lock held.
        let node = self.state.lock().entries.remove(&(at, number));
        drop(node);
    }

    /// Ends the nodes whose time has come, and sets the driver for the next. Returns when it will ring.
    pub(super) fn ring(self: &Arc<Self>) -> Option<Instant> {
        let mut due = Vec::new();
        let mut state = self.state.lock();
        state.armed = None;
        let now = state.driver.now();
        while let Some((&(at, _), _)) = state.entries.first_key_value() {
            if now < at && !state.arm(self, at) {
                break;
            }
            due.extend(state.entries.pop_first());
        }
        let armed = state.armed;
        let sentinel = match state.entries.is_empty() {
            true => self.retire(&mut state),
            false => None,
        };
        drop(state);
        if let Some(sentinel) = sentinel {
            // Its destructor does the rest.
            sentinel.abort();
        }
        for (_, node) in due {
            contain(|| {
                if let Some(node) = node.upgrade() {
                    node.expire();
                }
            });
        }
        armed
    }

    /// The runtime goes: its deadlines go over to the process's timers.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        self.set_closed();
        let entries = std::mem::take(&mut state.entries);
        let driver = std::mem::replace(&mut state.driver, Driver::Nobody);
        drop(state);
        drop(driver);
        for node in entries.into_values() {
            contain(|| {
                if let Some(node) = node.upgrade() {
                    node.move_timer(self);
                }
            });
        }
    }

    /// Closes the timers of a runtime that nobody waits for; the sentinel is to be aborted with no lock held.
    fn retire(&self, state: &mut State) -> Option<AbortHandle> {
        let Driver::Runtime { sentinel, .. } = &mut state.driver else {
            return None;
        };
        let sentinel = sentinel.take()?;
        self.set_closed();
        Some(sentinel)
    }

    // Relaxed: the lock orders what matters.
    fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    fn set_closed(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }
}

impl State {
    /// Has the driver ring at this time or earlier; `true` if the time is over.
    fn arm(&mut self, timers: &Arc<Timers>, at: Instant) -> bool {
        if self.armed.is_some_and(|armed| armed <= at) {
            return false;
        }
        let set = self.driver.set(timers, at);
        self.armed = matches!(set, Set::WillRing).then_some(at);
        matches!(set, Set::IsOver)
    }
}

impl Driver {
    fn set(&mut self, timers: &Arc<Timers>, at: Instant) -> Set {
        match self {
            Self::Runtime { handle, sleep, .. } => {
                let _entered = handle.enter();
                let waker = Waker::from(timers.clone());
                sleep.set(unconstrained(sleep_until(at)));
                match sleep.as_mut().poll(&mut TaskContext::from_waker(&waker)) {
                    Poll::Pending => Set::WillRing,
                    Poll::Ready(()) => Set::IsOver,
                }
            }
            Self::Thread(Some(thread)) => {
                if thread.id() != thread::current().id() {
                    thread.unpark();
                }
                Set::WillRing
            }
            // Tried again by the next who waits.
            Self::Thread(thread) => match start_thread(timers.clone()) {
                Ok(started) => {
                    *thread = Some(started);
                    Set::WillRing
                }
                Err(_) => Set::Failed,
            },
            Self::Nobody => Set::Failed,
        }
    }

    /// The time by the driver's clock, which may be paused.
    fn now(&self) -> Instant {
        match self {
            Self::Runtime { handle, .. } => {
                let _entered = handle.enter();
                Instant::now()
            }
            Self::Thread(_) | Self::Nobody => Instant::from_std(std::time::Instant::now()),
        }
    }
}

impl Wake for Timers {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

// ---- the process's

fn start_thread(timers: Arc<Timers>) -> std::io::Result<Thread> {
    let thread = thread::Builder::new().name("errgroup-timer".to_owned());
    let handle = thread.spawn(move || {
        loop {
            match timers.ring() {
                Some(at) => {
                    let now = std::time::Instant::now();
                    thread::park_timeout(at.into_std().saturating_duration_since(now));
                }
                None => thread::park(),
            }
        }
    })?;
    Ok(handle.thread().clone())
}

#[cfg(not(all(test, errgroup_loom)))]
static PROCESS: std::sync::OnceLock<Arc<Timers>> = std::sync::OnceLock::new();

#[cfg(all(test, errgroup_loom))]
loom::lazy_static! {
    static ref PROCESS: Arc<Timers> = Timers::new(None, Driver::Nobody);
}

impl Timers {
    /// The timers of whoever waits outside of any runtime.
    pub(super) fn of_process() -> &'static Arc<Timers> {
        #[cfg(not(all(test, errgroup_loom)))]
        return PROCESS.get_or_init(|| Timers::new(None, Driver::Thread(None)));
        #[cfg(all(test, errgroup_loom))]
        return &PROCESS;
    }
}

// ---- a runtime's

/// The open timers. No protocol is modelled here: std's lock.
static RUNTIMES: std::sync::Mutex<Vec<Arc<Timers>>> = std::sync::Mutex::new(Vec::new());

thread_local! {
    /// Those found last, most often the only ones that this thread has to do with. They may be closed.
    static LAST: RefCell<Option<Arc<Timers>>> = const { RefCell::new(None) };
}

impl Timers {
    /// The timers of the runtime at hand; `None` if it is going away.
    ///
    /// # Panics
    ///
    /// In a runtime without a timer, by tokio.
    pub(super) fn of_runtime(handle: &Handle) -> Option<Arc<Timers>> {
        let id = handle.id();
        let last = LAST.try_with(|last| last.borrow().clone());
        let is_good = |last: &Arc<Timers>| last.is_of(id) && !last.is_closed();
        if let Some(timers) = last.ok().flatten().filter(is_good) {
            return Some(timers);
        }
        let timers = Self::find(id).or_else(|| Self::start(handle))?;
        // Without a cache it works as well, in the destructors of thread-locals.
        let _ = LAST.try_with(|last| last.replace(Some(timers.clone())));
        Some(timers)
    }

    fn is_of(&self, id: Id) -> bool {
        self.runtime == Some(id)
    }

    fn find(id: Id) -> Option<Arc<Timers>> {
        find_open(&lock_runtimes(), id).cloned()
    }

    fn start(handle: &Handle) -> Option<Arc<Timers>> {
        // First of all, since it panics in a runtime without a timer.
        let sleep = Box::pin(unconstrained(sleep_until(Instant::now())));
        let driver = Driver::Runtime {
            handle: handle.clone(),
            sleep,
            sentinel: None,
        };
        let timers = Self::new(Some(handle.id()), driver);
        // Before others can find the timers. In a runtime that is shutting down this drops it at once.
        let sentinel = handle.spawn(Sentinel(timers.clone())).abort_handle();
        timers.watch(sentinel.clone());
        let mut runtimes = lock_runtimes();
        if let Some(other) = find_open(&runtimes, handle.id()).cloned() {
            drop(runtimes);
            sentinel.abort();
            return Some(other);
        }
        // The sentinel closes first and removes after that, so here it is seen, or removes what is pushed.
        if timers.is_closed() {
            return None;
        }
        runtimes.push(timers.clone());
        Some(timers)
    }

    /// Keeps the sentinel, unless it has gone already.
    fn watch(&self, task: AbortHandle) {
        if let Driver::Runtime { sentinel, .. } = &mut self.state.lock().driver {
            *sentinel = Some(task);
        }
    }
}

fn find_open(runtimes: &[Arc<Timers>], id: Id) -> Option<&Arc<Timers>> {
    let is_good = |timers: &&Arc<Timers>| timers.is_of(id) && !timers.is_closed();
    runtimes.iter().find(is_good)
}

fn lock_runtimes() -> std::sync::MutexGuard<'static, Vec<Arc<Timers>>> {
    RUNTIMES
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Lives as long as its runtime.
struct Sentinel(Arc<Timers>);

impl Future for Sentinel {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<()> {
        Poll::Pending
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        self.0.close();
        lock_runtimes().retain(|timers| !Arc::ptr_eq(timers, &self.0));
    }
}

/// The time by the clock at hand: the runtime's, which may be paused, else the system's.
#[inline]
pub(crate) fn now() -> Instant {
    if tokio::task::try_id().is_none() && has_lost_its_locals() {
        // tokio would look for the clock there, and panic.
        return Instant::from_std(std::time::Instant::now());
    }
    Instant::now()
}

/// Enters a runtime, unless there is no place to note that.
pub(super) fn enter(runtime: &Handle) -> Option<EnterGuard<'_>> {
    (!has_lost_its_locals()).then(|| runtime.enter())
}

/// Whether this is the destructor of a thread-local, after that of tokio's own.
fn has_lost_its_locals() -> bool {
    matches!(Handle::try_current(), Err(error) if error.is_thread_local_destroyed())
}

/// Whether the clock at hand is another than the system's: a paused one.
pub(super) fn is_clock_paused() -> bool {
    let before = std::time::Instant::now();
    let here = now().into_std();
    let after = std::time::Instant::now();
    here < before || here > after
}

#[cfg(all(test, errgroup_loom))]
impl Timers {
    /// Timers that nobody drives: the models ring themselves.
    pub(super) fn of_nobody() -> Arc<Timers> {
        Self::new(None, Driver::Nobody)
    }

    pub(super) fn len(&self) -> usize {
        self.state.lock().entries.len()
    }
}
