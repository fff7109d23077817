//! The one switch between std and loom.
//!
//! Everything whose interleavings are model-checked takes its locks and atomics from here. `Arc` stays std's in both
//! worlds: loom's has no `Weak`, and reference counts carry no protocol of ours. `Mutex::lock` hands out the guard
//! directly: no foreign code ever runs under a lock of this crate, so a poisoned one still guards a whole value.

#[cfg(not(all(test, errgroup_loom)))]
pub(crate) use std::sync::{
    MutexGuard, OnceLock,
    atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering},
};

#[cfg(all(test, errgroup_loom))]
pub(crate) use loom::sync::{
    MutexGuard,
    atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering},
};

use std::sync::TryLockError;

#[cfg(not(all(test, errgroup_loom)))]
use std::sync::Mutex as Inner;

#[cfg(all(test, errgroup_loom))]
use loom::sync::Mutex as Inner;

/// A cell of one pointer, set once.
#[cfg(not(all(test, errgroup_loom)))]
pub(crate) use once_cell::race::OnceBox;

/// A mutex that ignores poison.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(Inner<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Inner::new(value))
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0
            .get_mut()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// `None` if somebody else holds the lock.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// std's cell with a flag that loom sees: the value itself is written once, before the flag.
#[cfg(all(test, errgroup_loom))]
#[derive(Debug)]
pub(crate) struct OnceLock<T> {
    value: std::sync::OnceLock<T>,
    is_set: AtomicBool,
    /// Held by whoever writes: who finds the value written finds it after that, as loom sees it, too.
    writer: Mutex<()>,
}

#[cfg(all(test, errgroup_loom))]
impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        Self {
            value: std::sync::OnceLock::new(),
            is_set: AtomicBool::new(false),
            writer: Mutex::default(),
        }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        if !self.is_set.load(Ordering::Acquire) {
            return None;
        }
        self.value.get()
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        let _writer = self.writer.lock();
        self.value.set(value)?;
        self.is_set.store(true, Ordering::Release);
        Ok(())
    }

    /// Unlike std's, it may call `value` although another thread is first.
    pub(crate) fn get_or_init(&self, value: impl FnOnce() -> T) -> &T {
        if self.get().is_none() {
            drop(self.set(value()));
        }
        self.get().expect("it is set")
    }
}

#[cfg(all(test, errgroup_loom))]
impl<T> From<T> for OnceLock<T> {
    fn from(value: T) -> Self {
        Self {
            value: value.into(),
            is_set: AtomicBool::new(true),
            writer: Mutex::default(),
        }
    }
}

#[cfg(all(test, errgroup_loom))]
pub(crate) struct OnceBox<T>(OnceLock<Box<T>>);

#[cfg(all(test, errgroup_loom))]
impl<T> Default for OnceBox<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

#[cfg(all(test, errgroup_loom))]
impl<T> OnceBox<T> {
    pub(crate) fn get(&self) -> Option<&T> {
        self.0.get().map(|value| &**value)
    }

    pub(crate) fn get_or_init(&self, value: impl FnOnce() -> Box<T>) -> &T {
        self.0.get_or_init(value)
    }
}

/// What the models share.
#[cfg(all(test, errgroup_loom))]
pub(crate) mod model {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::{Context, Poll, Wake, Waker};

    /// Remembers one notification, as a parked thread does.
    struct Signal(loom::sync::Notify);

    impl Wake for Signal {
        fn wake(self: Arc<Self>) {
            self.0.notify();
        }
    }

    /// Runs a future on the model's thread. A lost wake-up is a deadlock, which loom reports.
    pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
        let signal = Arc::new(Signal(loom::sync::Notify::new()));
        let waker = Waker::from(signal.clone());
        let mut cx = Context::from_waker(&waker);
        let mut future = pin!(future);
        loop {
            match future.as_mut().poll(&mut cx) {
                Poll::Ready(output) => return output,
                Poll::Pending => signal.0.wait(),
            }
        }
    }

    /// Polls a future once, with a waker that nobody listens to.
    pub(crate) fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
        std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
    }
}
