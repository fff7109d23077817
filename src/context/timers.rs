//! `Timers`: who tells of the deadlines that somebody waits for. There is one for each runtime that is waited on
//! (`runtime.rs`), and one for the process, which serves whoever waits outside of any runtime (`process.rs`). Here is what
//! both do; they differ in the driver, which rings when it is time.
//!
//! Invariants:
//!
//! 1. An entry of an open `Timers` is told at its time: the driver rings then or earlier, and sets itself again.
//! 2. `armed` is when the driver will ring, `None` if nobody has set it since it last did. It rings at the earliest entry
//!    or before: an entry that is removed leaves the driver as it is.
//! 3. A closed `Timers` has no entry, and gets none; nor has it a driver once its sentinel has gone. Closing takes the lock. That of the process is never closed.
//!
//! Lock order: a deadline's `timers`, then a `Timers`'s `state`, then tokio's own. The list of the runtimes comes before
//! `state`, too. Nobody is told with any of them held.

mod process;
mod runtime;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use tokio::runtime::Id;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::panic::contain;
use crate::sync::{AtomicBool, Mutex, Ordering};

/// Who is told at a time.
pub(super) trait Due: Send + Sync {
    /// The time has come.
    fn ring(self: Arc<Self>);

    /// These timers go, with their runtime, and have given the entry up.
    fn move_from(&self, closed: &Timers);
}

pub(super) struct Timers {
    /// `None` for the process's.
    runtime: Option<Id>,
    /// Set under the lock, and final. Whoever needs to be certain looks at it there.
    is_closed: AtomicBool,
    state: Mutex<State>,
}

struct State {
    /// By time, and by number among those of one time.
    entries: BTreeMap<(Instant, u64), Weak<dyn Due>>,
    next_number: u64,
    armed: Option<Instant>,
    driver: Driver,
}

enum Driver {
    Runtime(runtime::Driver),
    /// A model has no threads but its own.
    #[cfg_attr(all(test, errgroup_loom), expect(dead_code))]
    Process(process::Driver),
    Nobody,
}

/// An entry's place among the timers.
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
    /// There is nobody to be had.
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

    /// Adds somebody; `None` if the timers are closed.
    pub(super) fn insert(self: &Arc<Self>, at: Instant, due: Weak<dyn Due>) -> Option<Inserted> {
        let mut state = self.state.lock();
        if self.is_closed() {
            return None;
        }
        let number = state.next_number;
        state.next_number += 1;
        state.entries.insert((at, number), due);
        let is_due = state.arm(self, at);
        Some(Inserted { number, is_due })
    }

    pub(super) fn remove(&self, at: Instant, number: u64) {
        // Who has been dropped leaves its memory here: it is freed with no lock held.
        let due = self.state.lock().entries.remove(&(at, number));
        drop(due);
    }

    /// Tells those whose time has come, and sets the driver for the next. Returns when it will ring.
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
        tell(due.into_iter().map(|(_, due)| due), Due::ring);
        armed
    }

    /// Whose they are; `None`: the process's.
    pub(super) fn runtime(&self) -> Option<Id> {
        self.runtime
    }

    /// The runtime goes: whoever is here goes elsewhere.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        self.set_closed();
        let entries = std::mem::take(&mut state.entries);
        let driver = std::mem::replace(&mut state.driver, Driver::Nobody);
        drop(state);
        drop(driver);
        tell(entries.into_values(), |due| due.move_from(self));
    }

    /// Closes the timers of a runtime that nobody waits for; the sentinel is to be aborted with no lock held.
    fn retire(&self, state: &mut State) -> Option<AbortHandle> {
        let Driver::Runtime(driver) = &mut state.driver else {
            return None;
        };
        let sentinel = driver.sentinel.take()?;
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

fn tell(all: impl Iterator<Item = Weak<dyn Due>>, tell: impl Fn(Arc<dyn Due>)) {
    for due in all {
        contain(|| {
            if let Some(due) = due.upgrade() {
                tell(due);
            }
        });
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
            Self::Runtime(driver) => driver.set(timers, at),
            Self::Process(driver) => driver.set(timers),
            Self::Nobody => Set::Failed,
        }
    }

    /// The time by the driver's clock, which may be paused.
    fn now(&self) -> Instant {
        match self {
            Self::Runtime(driver) => driver.now(),
            Self::Process(_) | Self::Nobody => Instant::from_std(std::time::Instant::now()),
        }
    }
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
