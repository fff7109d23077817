//! `Deadline`: when a node ends at the latest, and the methods of `Context` that set it. It belongs to no runtime.
//!
//! Owned by its node and by the nodes below, which share it to know their own time.
//!
//! Until somebody waits nobody needs a timer: whoever asks is told by the clock. Who waits first on a runtime, for the
//! node or for one below, registers the deadline with that runtime's `Timers`, or with the process's outside of any. So a
//! deadline that nobody waits for costs no timer, and one that is waited for on two runtimes is told in time by either.
//!
//! Invariants:
//!
//! 1. `timers` has one entry at most for each `Timers`, and after `stop` none, for good. An end stops the deadline after
//!    it has set `ENDED`. Who waits below may come to arm it meanwhile: the end is on its way to him.
//! 2. `has_passed` never goes back. Clocks differ beside a paused one: what one of them has seen holds for all.
//! 3. The error is made once, by the first to ask, or at derivation if it has a cause.

use std::panic::Location;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::{Handle, Id};
use tokio::time::Instant;

use super::Context;
use super::node::Node;
use super::timer::{Timers, is_clock_paused, now};
use crate::error::{BoxError, ContextError};
use crate::sync::{AtomicBool, Mutex, OnceLock, Ordering};

pub(crate) struct Deadline {
    at: Instant,
    has_passed: AtomicBool,
    node: Weak<Node>,
    error: OnceLock<ContextError>,
    timeout: Option<Duration>,
    location: &'static Location<'static>,
    /// Where it is registered.
    timers: Mutex<Registered>,
}

#[derive(Default)]
struct Registered {
    is_stopped: bool,
    /// The last task that has waited, on a runtime where the deadline is registered.
    task: Option<tokio::task::Id>,
    /// Most deadlines are waited for on one runtime.
    first: Option<Entry>,
    others: Vec<Entry>,
}

struct Entry {
    timers: Arc<Timers>,
    number: u64,
}

/// So long after. A future so far that the clock overflows is thirty years away, as in tokio.
pub(crate) fn later(now: Instant, time: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
    now.checked_add(time).unwrap_or(now + FAR)
}

/// A node that derives from none and ends at this time.
pub(super) fn node_ending_at(at: Instant, location: &'static Location<'static>) -> Arc<Node> {
    let setting = Setting {
        now: now(),
        at,
        timeout: None,
        cause: None,
        location,
    };
    setting.derive(None)
}

/// A deadline to be set: when, and what to say then.
struct Setting {
    now: Instant,
    at: Instant,
    timeout: Option<Duration>,
    cause: Option<BoxError>,
    location: &'static Location<'static>,
}

impl Context {
    /// Derives a context that ends when `timeout` has passed.
    ///
    /// It belongs to no runtime and needs none: it can be derived, asked and waited for anywhere. No task waits for it.
    /// Who waits on a runtime has a timer there, whichever runtime that is, and whether or not others go away; tokio's
    /// paused clock works. Who waits outside of any, such as a callback registered in plain code, is told by a thread of
    /// the process, started when it is first needed. [`is_done`](Context::is_done) asks the clock itself, and needs no
    /// timer. tokio's timers have a resolution of one millisecond.
    ///
    /// A timeout of zero is over at once; one that the clock cannot represent is thirty years. If an ancestor's deadline
    /// is earlier, that one holds, and the result ends with the ancestor, by its reason.
    ///
    /// # Panics
    ///
    /// Never itself. Waiting for it in a runtime without [`enable_time`](tokio::runtime::Builder::enable_time) does, at the
    /// first poll, as everything that waits for a time.
    #[track_caller]
    #[must_use = "only the returned context ends at the deadline, this one does not"]
    pub fn with_timeout(&self, timeout: Duration) -> Context {
        self.with_setting(Setting::after(timeout, None))
    }

    /// Derives a context that ends at `deadline`. A deadline in the past is over at once.
    ///
    /// Otherwise as [`with_timeout`](Context::with_timeout).
    #[track_caller]
    #[must_use = "only the returned context ends at the deadline, this one does not"]
    pub fn with_deadline(&self, deadline: Instant) -> Context {
        self.with_setting(Setting::at(deadline, None))
    }

    /// Derives a context that ends when `timeout` has passed, with a cause of its own.
    ///
    /// The cause is kept unless an ancestor's strictly earlier deadline is what ends the context. Otherwise as
    /// [`with_timeout`](Context::with_timeout).
    #[track_caller]
    #[must_use = "only the returned context ends at the deadline, this one does not"]
    pub fn with_timeout_cause(&self, timeout: Duration, cause: impl Into<BoxError>) -> Context {
        self.with_setting(Setting::after(timeout, Some(cause.into())))
    }

    /// Derives a context that ends at `deadline`, with a cause of its own.
    ///
    /// Otherwise as [`with_timeout_cause`](Context::with_timeout_cause).
    #[track_caller]
    #[must_use = "only the returned context ends at the deadline, this one does not"]
    pub fn with_deadline_cause(&self, deadline: Instant, cause: impl Into<BoxError>) -> Context {
        self.with_setting(Setting::at(deadline, Some(cause.into())))
    }

    #[track_caller]
    fn with_setting(&self, setting: Setting) -> Context {
        if self.deadline().is_some_and(|earlier| earlier < setting.at) {
            return self.clone();
        }
        self.with_node(setting.derive(self.node()))
    }

    /// Returns when the context will end at the latest: the earliest deadline of its own and its ancestors'.
    pub fn deadline(&self) -> Option<Instant> {
        self.node()?.deadline()
    }

    /// Returns the time left to the deadline, zero when it has passed; `None` without a deadline.
    ///
    /// By the clock of the runtime at hand, which may be paused, else by the system's. It wakes nobody.
    pub fn remaining(&self) -> Option<Duration> {
        Some(self.deadline()?.saturating_duration_since(now()))
    }
}

impl Setting {
    #[track_caller]
    fn at(at: Instant, cause: Option<BoxError>) -> Self {
        Self {
            now: now(),
            at,
            timeout: None,
            cause,
            location: Location::caller(),
        }
    }

    #[track_caller]
    fn after(timeout: Duration, cause: Option<BoxError>) -> Self {
        let now = now();
        Self {
            now,
            at: later(now, timeout),
            timeout: Some(timeout),
            cause,
            location: Location::caller(),
        }
    }

    /// Derives a node that ends at this deadline, which no ancestor's precedes.
    fn derive(self, parent: Option<&Arc<Node>>) -> Arc<Node> {
        let Self {
            now, at, location, ..
        } = self;
        let deadline = self.into_deadline();
        let parents = parent.and_then(Node::err);
        if let Some(error) = parents.or_else(|| (now >= at).then(|| deadline.error().clone())) {
            return Node::ended(error, parent, 0, Some(Arc::new(deadline)), location);
        }
        Node::derive_deadline(parent, location, |node| Deadline { node, ..deadline })
    }

    fn into_deadline(self) -> Deadline {
        let Self {
            at,
            timeout,
            location,
            ..
        } = self;
        let with_cause = |cause| ContextError::deadline(timeout, location, Some(cause)).into();
        Deadline {
            at,
            has_passed: AtomicBool::new(false),
            node: Weak::new(),
            error: self.cause.map_or_else(OnceLock::new, with_cause),
            timeout,
            location,
            timers: Mutex::default(),
        }
    }
}

impl Deadline {
    /// Somebody waits from now on, for the node or for one below, on this thread's runtime or outside of any. This may
    /// end them.
    ///
    /// # Panics
    ///
    /// In a runtime without a timer, by tokio; then nothing has been registered.
    pub(super) fn arm(&self) {
        // A task stays on its runtime, and is cheaper to find.
        let task = tokio::task::try_id();
        if self.timers.lock().is_settled_for(task) {
            return;
        }
        let runtime = Handle::try_current().ok();
        let id = runtime.as_ref().map(Handle::id);
        if self.timers.lock().is_settled(id, task) {
            return;
        }
        // Timers that close meanwhile do so for want of entries, or with their runtime: then there are none the next time.
        while let Some(timers) = runtime.as_ref().and_then(Timers::of_runtime) {
            if self.register(&timers) {
                return;
            }
        }
        // Those are never closed.
        self.register(Timers::of_process());
    }

    /// As `arm`; in a runtime without a timer the process's tells, although this panics.
    pub(super) fn arm_for_certain(&self) {
        struct Otherwise<'a>(&'a Deadline);
        impl Drop for Otherwise<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    self.0.register(Timers::of_process());
                }
            }
        }
        let _otherwise = Otherwise(self);
        self.arm();
    }

    /// As `arm`, during an end, where nobody is to blame if the runtime has no timer: only a paused clock needs its own.
    pub(super) fn arm_in_passing(&self) {
        match is_clock_paused() {
            true => self.arm(),
            false => {
                self.register(Timers::of_process());
            }
        }
    }

    /// `false` if the timers are closed.
    fn register(&self, timers: &Arc<Timers>) -> bool {
        let mut registered = self.timers.lock();
        if registered.is_stopped || registered.is_with(timers) {
            return true;
        }
        let Some(inserted) = timers.insert(self.at, self.node.clone()) else {
            return false;
        };
        registered.add(Entry {
            timers: timers.clone(),
            number: inserted.number,
        });
        drop(registered);
        if inserted.is_due {
            timers.ring();
        }
        true
    }

    /// A runtime goes, and its timers have given the deadline up.
    pub(super) fn move_from(&self, closed: &Timers) {
        self.timers.lock().remove(closed);
        self.register(Timers::of_process());
    }

    /// Frees the timers, for good.
    pub(super) fn stop(&self) {
        let mut registered = self.timers.lock();
        registered.is_stopped = true;
        let (first, others) = registered.take();
        drop(registered);
        for Entry { timers, number } in first.into_iter().chain(others) {
            timers.remove(self.at, number);
        }
    }

    pub(super) fn at(&self) -> Instant {
        self.at
    }

    /// Whether the time is over. Whoever sees it so sees to it that everybody does.
    #[inline]
    pub(super) fn has_passed(&self) -> bool {
        // Relaxed: the flag stands for itself.
        if self.has_passed.load(Ordering::Relaxed) {
            return true;
        }
        let has_passed = now() >= self.at;
        if has_passed {
            self.set_passed();
        }
        has_passed
    }

    pub(super) fn set_passed(&self) {
        self.has_passed.store(true, Ordering::Relaxed);
    }

    pub(super) fn node(&self) -> Option<Arc<Node>> {
        self.node.upgrade()
    }

    /// The error of a context that this deadline ends.
    pub(super) fn error(&self) -> &ContextError {
        let plain = || ContextError::deadline(self.timeout, self.location, None);
        self.error.get_or_init(plain)
    }
}

impl Registered {
    /// Whether there is nothing to do for who waits there.
    fn is_settled(&mut self, runtime: Option<Id>, task: Option<tokio::task::Id>) -> bool {
        let mut entries = self.first.iter().chain(&self.others);
        let is_registered = entries.any(|entry| entry.timers.runtime() == runtime);
        if is_registered {
            self.task = task;
        }
        self.is_stopped || is_registered
    }

    /// As `is_settled`, for a task that has waited before.
    fn is_settled_for(&self, task: Option<tokio::task::Id>) -> bool {
        self.is_stopped || (task.is_some() && self.task == task)
    }

    fn is_with(&self, timers: &Timers) -> bool {
        let mut entries = self.first.iter().chain(&self.others);
        entries.any(|entry| std::ptr::eq(&*entry.timers, timers))
    }

    fn add(&mut self, entry: Entry) {
        match self.first {
            None => self.first = Some(entry),
            Some(_) => self.others.push(entry),
        }
    }

    fn remove(&mut self, timers: &Timers) {
        let is_other = |entry: &Entry| !std::ptr::eq(&*entry.timers, timers);
        self.first = self.first.take().filter(is_other);
        self.others.retain(is_other);
    }

    fn take(&mut self) -> (Option<Entry>, Vec<Entry>) {
        (self.first.take(), std::mem::take(&mut self.others))
    }
}

#[cfg(all(test, errgroup_loom))]
mod loom_models;
#[cfg(all(test, not(errgroup_loom)))]
mod tests;
