//! `Patience`: reports, once, who keeps a wait from ending although the context ended long ago.
//!
//! Owned by the config of a group that was asked to do this; other groups have none. When the context ends under tasks, a
//! timer is set, and a task on the group's runtime looks when the time has passed; a wait that begins later looks itself.
//!
//! Why not a sleep of tokio's? It panics on a runtime without time. Why does the timer not look itself? It would run the user's
//! callback on the thread that all deadlines of the process wait for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::core::Core;
use super::stop::{Straggler, still_there};
use crate::context::Reminder;
use crate::panic::contain;

pub(crate) type OnStragglers = dyn Fn(&[Straggler]) + Send + Sync;

pub(crate) struct Patience<E> {
    time: Duration,
    report: Box<OnStragglers>,
    core: Weak<Core<E>>,
    /// Set from the end of the context on; `None` in it if the time was over at once.
    reminder: OnceLock<Option<Reminder>>,
    has_reported: AtomicBool,
}

pub(super) const DEFAULT_PATIENCE: Duration = Duration::from_secs(10);

impl<E> Patience<E> {
    pub(super) fn new(time: Duration, report: Box<OnStragglers>) -> Self {
        Self {
            time,
            report,
            core: Weak::new(),
            reminder: OnceLock::new(),
            has_reported: AtomicBool::new(false),
        }
    }

    pub(super) fn set_core(&mut self, core: Weak<Core<E>>) {
        self.core = core;
    }
}

impl<E: Send + 'static> Core<E> {
    /// The context has ended, and there are tasks.
    pub(super) fn begin_patience(&self) {
        let Some(patience) = self.patience() else {
            return;
        };
        if patience.reminder.get().is_some() {
            return;
        }
        // The group's, if it has tasks there; else, since it may wait for those of guests, this thread's.
        let runtime = self.registry.runtime();
        let Some(runtime) = runtime.or_else(|| Handle::try_current().ok()) else {
            return;
        };
        let (core, home) = (patience.core.clone(), runtime.clone());
        let location = self.node().location();
        let reminder = Reminder::set(patience.time, &runtime, location, move || {
            if let Some(core) = core.upgrade() {
                home.spawn(async move { core.report_stragglers(Duration::ZERO) });
            }
        });
        // Unset before, or by another thread a moment ago.
        let _ = patience.reminder.set(reminder);
    }
}

impl<E> Core<E> {
    /// Reports the tasks if somebody waits for them, and the context ended long enough ago.
    pub(crate) fn lose_patience(&self) {
        if let Some(patience) = self.patience() {
            self.report_stragglers(patience.time);
        }
    }

    /// As `lose_patience`, if it ended at least so long ago. (Who was reminded does not ask: clocks differ beside a paused one.)
    fn report_stragglers(&self, ended_ago: Duration) {
        let Some(patience) = self.patience() else {
            return;
        };
        let is_over = self
            .registry
            .is_waited_for_since_end(Instant::now(), ended_ago);
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
