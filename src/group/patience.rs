//! `Patience`: reports, once, who keeps a wait from ending although the context ended long ago.
//!
//! Owned by the config of a group that was asked to do this; other groups have none. When the context ends under tasks, a
//! task on the group's runtime sleeps for as long and then looks; a wait that begins later looks itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use super::core::Core;
use super::stop::{Straggler, still_there};
use crate::panic::contain;

pub(crate) type OnStragglers = dyn Fn(&[Straggler]) + Send + Sync;

pub(crate) struct Patience<E> {
    time: Duration,
    report: Box<OnStragglers>,
    core: Weak<Core<E>>,
    /// Sleeps from the end of the context on.
    sleeper: OnceLock<AbortHandle>,
    has_reported: AtomicBool,
}

pub(super) const DEFAULT_PATIENCE: Duration = Duration::from_secs(10);

impl<E> Patience<E> {
    pub(super) fn new(time: Duration, report: Box<OnStragglers>) -> Self {
        Self {
            time,
            report,
            core: Weak::new(),
            sleeper: OnceLock::new(),
            has_reported: AtomicBool::new(false),
        }
    }

    pub(super) fn set_core(&mut self, core: Weak<Core<E>>) {
        self.core = core;
    }
}

impl<E> Drop for Patience<E> {
    fn drop(&mut self) {
        if let Some(sleeper) = self.sleeper.get() {
            sleeper.abort();
        }
    }
}

impl<E: Send + 'static> Core<E> {
    /// The context has ended, and there are tasks.
    pub(super) fn begin_patience(&self) {
        let Some(patience) = self.patience() else {
            return;
        };
        let runtime = self.registry.runtime();
        let Some(runtime) = runtime.or_else(|| Handle::try_current().ok()) else {
            return;
        };
        let (time, core) = (patience.time, patience.core.clone());
        patience.sleeper.get_or_init(|| {
            let sleeper = runtime.spawn(async move {
                sleep(time).await;
                if let Some(core) = core.upgrade() {
                    core.lose_patience();
                }
            });
            sleeper.abort_handle()
        });
    }
}

impl<E> Core<E> {
    /// Reports the tasks if somebody waits for them, and the context ended long enough ago.
    pub(crate) fn lose_patience(&self) {
        let Some(patience) = self.patience() else {
            return;
        };
        let is_over = self
            .registry
            .is_waited_for_since_end(Instant::now(), patience.time);
        // Relaxed: it only has to be one of them.
        if !is_over || patience.has_reported.swap(true, Ordering::Relaxed) {
            return;
        }
        let stragglers = still_there(&self.registry);
        #[cfg(feature = "tracing")]
        crate::trace::stragglers(&self.span, &stragglers);
        contain(|| (patience.report)(&stragglers));
    }
}
