//! `Deadline`: when a node ends at the latest, who sees that it has passed, and who tells. It belongs to no runtime.
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
//! 4. Asking is pure: who asks and sees the deadline passed sets `OVERDUE`, on the node that set the deadline and then on
//!    this one. With that the end is decided, and has its error; the waiters stay registered until somebody tells them,
//!    who sets `ENDED`. So whatever asks may stand under locks of its own, and nobody sees the node live again.

use std::panic::Location;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::clock::{self, later, now};
use super::kind::Kind;
use super::node::Node;
use super::state::State;
use super::timers::{Due, Timers};
use crate::error::{BoxError, ContextError};
use crate::sync::{AtomicBool, Mutex, OnceLock, Ordering};

pub(crate) struct Deadline {
    at: Instant,
    has_passed: AtomicBool,
    /// The node that set it. Nobody's if that was born ended.
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
    /// Most deadlines are waited for on one runtime. Empty only while `others` is.
    first: Option<Entry>,
    others: Vec<Entry>,
}

struct Entry {
    timers: Arc<Timers>,
    number: u64,
}

/// A deadline to be set: when, and what to say then.
pub(super) struct Setting {
    pub(super) now: Instant,
    pub(super) at: Instant,
    pub(super) timeout: Option<Duration>,
    pub(super) cause: Option<BoxError>,
    pub(super) location: &'static Location<'static>,
}

impl Setting {
    #[inline]
    pub(super) fn at(at: Instant, location: &'static Location<'static>) -> Self {
        Self {
            now: now(),
            at,
            timeout: None,
            cause: None,
            location,
        }
    }

    #[inline]
    pub(super) fn after(timeout: Duration, location: &'static Location<'static>) -> Self {
        let now = now();
        Self {
            now,
            at: later(now, timeout),
            timeout: Some(timeout),
            cause: None,
            location,
        }
    }

    #[inline]
    pub(super) fn because(self, cause: impl Into<BoxError>) -> Self {
        Self {
            cause: Some(cause.into()),
            ..self
        }
    }

    #[inline]
    fn into_deadline(self, node: Weak<Node>) -> Deadline {
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
            node,
            error: self.cause.map_or_else(OnceLock::new, with_cause),
            timeout,
            location,
            timers: Mutex::default(),
        }
    }
}

impl Node {
    /// Derives a child that ends at this deadline, too, which no ancestor's precedes.
    #[inline]
    pub(super) fn derive_deadline(parent: Option<&Arc<Node>>, setting: Setting) -> Arc<Node> {
        if setting.now >= setting.at || parent.is_some_and(Node::is_done) {
            return Self::born_late(parent, setting);
        }
        let location = setting.location;
        Self::linked(parent, |node| {
            let deadline = Arc::new(setting.into_deadline(node.clone()));
            Self::new(
                State::guarded(),
                parent,
                Some(deadline),
                Kind::PLAIN,
                location,
            )
        })
    }

    #[cold]
    fn born_late(parent: Option<&Arc<Node>>, setting: Setting) -> Arc<Node> {
        let location = setting.location;
        let deadline = setting.into_deadline(Weak::new());
        let error = parent.and_then(Node::err);
        let error = error.unwrap_or_else(|| deadline.error().clone());
        Self::ended(error, parent, 0, Some(Arc::new(deadline)), location)
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline.as_ref().map(|deadline| deadline.at())
    }

    /// The deadline that the node, which is where it was made, has set itself, and whose timers it stops.
    pub(super) fn own_deadline(&self) -> Option<&Arc<Deadline>> {
        let is_own = |deadline: &&Arc<Deadline>| std::ptr::eq(deadline.node.as_ptr(), self);
        self.deadline.as_ref().filter(is_own)
    }

    /// Somebody waits for the node from now on: on this thread's runtime, or outside of any. Without a deadline there is
    /// nothing to do; otherwise a timer is armed, which may end the node at once.
    ///
    /// # Panics
    ///
    /// Below a deadline, in a runtime without a timer, by tokio; then nothing has been registered.
    #[inline]
    pub(crate) fn see_to_timer(&self) {
        if let Some(deadline) = &self.deadline {
            deadline.arm();
        }
    }

    /// Whether the deadline of a node that has not ended has passed. Records it, and tells nobody (invariant 4).
    #[inline(never)]
    pub(super) fn is_overdue(self: &Arc<Self>) -> bool {
        if self.state.is_overdue() {
            return true;
        }
        match &self.deadline {
            Some(deadline) if deadline.has_passed() => {
                self.record(deadline);
                true
            }
            _ => false,
        }
    }

    /// Decides the end: first that of the node which set the deadline, then this one's, whose reason is that one's.
    #[cold]
    fn record(self: &Arc<Self>, deadline: &Deadline) {
        let error = match deadline.node.upgrade() {
            Some(owner) => {
                owner.set_overdue(deadline.error().clone());
                owner.end_error().clone()
            }
            None => deadline.error().clone(),
        };
        self.set_overdue(error);
    }

    /// Does nothing to a node whose end is decided.
    fn set_overdue(&self, error: ContextError) {
        self.listeners.set_overdue(&self.state, || {
            // Empty, since it is filled with the end.
            let _ = self.error.set(error);
        });
    }

    #[inline(never)]
    pub(super) fn expire_if_overdue(self: &Arc<Self>) -> bool {
        let is_overdue = self.is_overdue();
        if is_overdue {
            self.expire();
        }
        is_overdue
    }

    /// Ends the node that set the deadline, which has passed, and with it this one; tells whoever waits.
    #[cold]
    pub(super) fn expire(self: &Arc<Self>) {
        let Some(deadline) = &self.deadline else {
            return;
        };
        deadline.set_passed();
        let error = match deadline.node.upgrade() {
            Some(owner) => {
                owner.end_late(deadline.error());
                owner.end_error().clone()
            }
            None => deadline.error().clone(),
        };
        // Another thread may be on its way down from the owner, or from above it.
        if !self.has_ended() {
            self.end_late(&error);
        }
    }
}

impl Due for Node {
    fn ring(self: Arc<Self>) {
        self.expire();
    }

    fn move_from(&self, closed: &Timers) {
        if let Some(deadline) = self.own_deadline() {
            deadline.move_from(closed);
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
        // Not the task: it may be on another runtime, within `enter` or `block_on`, than it was.
        let runtime = Handle::try_current().ok();
        if self.timers.lock().is_settled(runtime.as_ref()) {
            return;
        }
        // Timers that close meanwhile do so for want of entries, or with their runtime: then there are none the next time.
        while let Some(timers) = runtime.as_ref().and_then(Timers::of_runtime) {
            if self.register(timers) {
                return;
            }
        }
        self.register_with_process();
    }

    /// As `arm`; in a runtime without a timer the process's tells, although this panics.
    pub(super) fn arm_for_certain(&self) {
        struct Otherwise<'a>(Option<&'a Deadline>);
        impl Drop for Otherwise<'_> {
            fn drop(&mut self) {
                if let Some(deadline) = self.0 {
                    deadline.register_with_process();
                }
            }
        }
        let mut otherwise = Otherwise(Some(self));
        self.arm();
        otherwise.0 = None;
    }

    /// As `arm`, during an end, where nobody is to blame if the runtime has no timer: only a paused clock needs its own.
    pub(super) fn arm_in_passing(&self) {
        match clock::is_paused() {
            true => self.arm_for_certain(),
            false => self.register_with_process(),
        }
    }

    /// That is never closed.
    fn register_with_process(&self) {
        self.register(Timers::of_process().clone());
    }

    /// Registers with these timers; `false` if they are closed.
    fn register(&self, timers: Arc<Timers>) -> bool {
        let mut registered = self.timers.lock();
        if registered.is_stopped || registered.is_with(&timers) {
            return true;
        }
        let Some(inserted) = timers.insert(self.at, self.node.clone()) else {
            return false;
        };
        let due = inserted.is_due.then(|| timers.clone());
        registered.add(Entry {
            timers,
            number: inserted.number,
        });
        drop(registered);
        if let Some(timers) = due {
            timers.ring();
        }
        true
    }

    /// A runtime goes, and its timers have given the deadline up.
    fn move_from(&self, closed: &Timers) {
        self.timers.lock().remove(closed);
        self.register_with_process();
    }

    /// Frees the timers, for good.
    pub(super) fn stop(&self) {
        let mut registered = self.timers.lock();
        registered.is_stopped = true;
        let Some(first) = registered.first.take() else {
            return;
        };
        let others = std::mem::take(&mut registered.others);
        drop(registered);
        for Entry { timers, number } in std::iter::once(first).chain(others) {
            timers.remove(self.at, number);
        }
    }

    /// As `stop`, if the node that set it is being dropped: whoever is below it has been before. That need not lie where it
    /// was, so `own_deadline` would not tell.
    pub(super) fn stop_without_node(&self) {
        if self.node.strong_count() == 0 {
            self.stop();
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

    fn set_passed(&self) {
        self.has_passed.store(true, Ordering::Relaxed);
    }

    /// The error of a context that this deadline ends.
    pub(super) fn error(&self) -> &ContextError {
        let plain = || ContextError::deadline(self.timeout, self.location, None);
        self.error.get_or_init(plain)
    }
}

impl Registered {
    /// Whether there is nothing to do for who waits on this runtime, or outside of any.
    fn is_settled(&self, runtime: Option<&Handle>) -> bool {
        let runtime = runtime.map(Handle::id);
        self.is_stopped || self.timers().any(|timers| timers.runtime() == runtime)
    }

    fn is_with(&self, timers: &Timers) -> bool {
        self.timers().any(|other| std::ptr::eq(&**other, timers))
    }

    fn timers(&self) -> impl Iterator<Item = &Arc<Timers>> {
        let entries = self.first.iter().chain(&self.others);
        entries.map(|entry| &entry.timers)
    }

    fn add(&mut self, entry: Entry) {
        match self.first {
            None => self.first = Some(entry),
            Some(_) => self.others.push(entry),
        }
    }

    fn remove(&mut self, timers: &Timers) {
        let is_other = |entry: &Entry| !std::ptr::eq(&*entry.timers, timers);
        self.others.retain(is_other);
        self.first = self.first.take().filter(is_other);
        self.first = self.first.take().or_else(|| self.others.pop());
    }
}

#[cfg(all(test, errgroup_loom))]
mod loom_models;
#[cfg(all(test, not(errgroup_loom)))]
mod tests;
