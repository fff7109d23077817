//! A runtime's timers: they are driven by one timer of tokio's, set to the earliest entry. Its waker is the `Timers` itself,
//! so nodes end on the thread that drives the runtime's time, which holds no lock of tokio's while it wakes.
//!
//! A sentinel task on each of these runtimes, which never completes, tells by its destructor that the runtime goes:
//! tokio drops its tasks before it stops its timer. The entries then go over to the process's timers. When the driver
//! rings and nobody waits any more, the timers close and the sentinel is aborted; who waits next starts anew.
//!
//! Invariant: tokio's timer is only touched while the `Timers` is open, under its lock. Closing takes the lock, and what
//! follows in tokio comes after it. So no timer is registered with a runtime that has shut down, which would panic. A
//! closed `Timers` has no handle of its runtime, once the sentinel has gone.
//!
//! Why not a sleep of tokio's for each deadline? It would hold the runtime, whose file descriptors go with it, and each
//! would have to be found and dropped when the runtime goes, which takes this list anyway. Setting the sleep again costs
//! a new one instead of a `reset`: that may wake at once, under our lock.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as TaskContext, Poll, Wake, Waker};

use tokio::runtime::{Handle, Id};
use tokio::task::AbortHandle;
use tokio::task::coop::{Unconstrained, unconstrained};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Set, Timers};

pub(super) struct Driver {
    handle: Handle,
    /// Does not count against the budget of the task that happens to set it: polled without budget, it would not
    /// register with the runtime.
    sleep: Pin<Box<Unconstrained<Sleep>>>,
    /// `None` until it is spawned, and once it is to be aborted.
    pub(super) sentinel: Option<AbortHandle>,
}

/// The open timers. No protocol is modelled here: std's lock.
static RUNTIMES: Mutex<Vec<Arc<Timers>>> = Mutex::new(Vec::new());

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
    pub(in super::super) fn of_runtime(handle: &Handle) -> Option<Arc<Timers>> {
        let id = handle.id();
        let last = LAST.try_with(|last| {
            let last = last.borrow();
            last.as_ref().filter(|last| last.is_open_in(id)).cloned()
        });
        if let Ok(Some(timers)) = last {
            return Some(timers);
        }
        let timers = Self::find(id).or_else(|| Self::start(handle))?;
        // Without a cache it works as well, in the destructors of thread-locals.
        let _ = LAST.try_with(|last| last.replace(Some(timers.clone())));
        Some(timers)
    }

    fn is_open_in(&self, id: Id) -> bool {
        self.runtime == Some(id) && !self.is_closed()
    }

    fn find(id: Id) -> Option<Arc<Timers>> {
        find_open(&lock_runtimes(), id).cloned()
    }

    fn start(handle: &Handle) -> Option<Arc<Timers>> {
        // First of all, since it panics in a runtime without a timer.
        let sleep = Box::pin(unconstrained(sleep_until(Instant::now())));
        let driver = Driver {
            handle: handle.clone(),
            sleep,
            sentinel: None,
        };
        let timers = Self::new(Some(handle.id()), super::Driver::Runtime(driver));
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
        if let super::Driver::Runtime(driver) = &mut self.state.lock().driver {
            driver.sentinel = Some(task);
        }
    }
}

fn find_open(runtimes: &[Arc<Timers>], id: Id) -> Option<&Arc<Timers>> {
    runtimes.iter().find(|timers| timers.is_open_in(id))
}

fn lock_runtimes() -> MutexGuard<'static, Vec<Arc<Timers>>> {
    RUNTIMES.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Driver {
    pub(super) fn set(&mut self, timers: &Arc<Timers>, at: Instant) -> Set {
        let _entered = self.handle.enter();
        let waker = Waker::from(timers.clone());
        self.sleep.set(unconstrained(sleep_until(at)));
        match self
            .sleep
            .as_mut()
            .poll(&mut TaskContext::from_waker(&waker))
        {
            Poll::Pending => Set::WillRing,
            Poll::Ready(()) => Set::IsOver,
        }
    }

    pub(super) fn now(&self) -> Instant {
        let _entered = self.handle.enter();
        Instant::now()
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
