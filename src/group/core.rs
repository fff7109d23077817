//! `Core`: what a group, its tasks and its spawners share.
//!
//! Owned by the `Group`, its `Spawner`s and each live task. The node of its context knows it weakly, and tells it when
//! the context has ended. Every group ends its context, at the latest when it is dropped.
//!
//! Each part keeps its own invariants under its own lock: the context's node, the [`Registry`], the [`FailureLog`]. No thread
//! holds two of these locks.
//!
//! Whoever ends the context raises the registry's stage after that, and whoever relies on the stage (`close`, `stop`,
//! the group's drop) raises it itself: another thread may have ended the context, and still be on its way here.

use std::any::Any;
use std::panic::{Location, RefUnwindSafe};
use std::sync::{Arc, Weak};

use futures::FutureExt;
use tokio::runtime::Handle;
use tokio::task::unconstrained;
use tokio::time::Instant;

use super::entry::{Name, Stage};
use super::failure::{EndedBy, Failure, FailureLog};
use super::fate::Fate;
use super::patience::Patience;
use super::registry::Registry;
use super::watch::{Report, ScopeTasks};
use crate::context::{Context, Grace, Node, Owner, Steps};
use crate::error::{ContextError, GroupId};
use crate::panic::contain;
use crate::sync::OnceBox;
use crate::task::{Home, Owned, TaskId};

pub(crate) struct Core<E> {
    pub(crate) context: Context,
    pub(crate) id: GroupId,
    pub(crate) registry: Registry,
    pub(crate) failures: FailureLog<E>,
    config: Option<Box<Config<E>>>,
    /// The text of `E::from` the context's end; `None` in it if that does not show the end's own. Made when an error
    /// first has to be compared with it.
    pub(super) end_text: OnceBox<Option<Box<str>>>,
    /// Zeros, unless it is a scope's.
    pub(crate) scope: ScopeTasks,
    #[cfg(feature = "tracing")]
    pub(crate) span: tracing::Span,
}

/// What is said of a group before it starts.
pub(crate) struct Config<E> {
    pub(crate) name: Option<Name>,
    pub(crate) is_isolated: bool,
    pub(crate) on_failure: Option<Box<OnFailure<E>>>,
    pub(crate) patience: Option<Box<Patience>>,
    /// How many failures are kept beside the first.
    pub(crate) keep_failures: u32,
    /// Where the group stands, if its context is cut off from that: see `Group::hosted`.
    pub(crate) host: Option<Arc<Node>>,
}

pub(crate) type OnFailure<E> = dyn Fn(&Failure<E>) + Send + Sync;

impl<E> Default for Config<E> {
    fn default() -> Self {
        Self {
            name: None,
            is_isolated: false,
            on_failure: None,
            patience: None,
            keep_failures: 0,
            host: None,
        }
    }
}

impl<E> Config<E> {
    #[cfg(feature = "tracing")]
    fn name(&self) -> Option<&str> {
        self.name.as_ref().map(|name| name.as_ref().as_ref())
    }

    fn is_default(&self) -> bool {
        self.name.is_none()
            && !self.is_isolated
            && self.on_failure.is_none()
            && self.patience.is_none()
            && self.host.is_none()
    }

    /// The first of an isolated group is none that `wait` returns, and is kept nevertheless.
    fn kept(&self) -> u32 {
        self.keep_failures.saturating_add(self.is_isolated.into())
    }
}

impl<E> Core<E> {
    pub(crate) fn new(
        parent: &Context,
        location: &'static Location<'static>,
        config: Config<E>,
        runtime: Option<Handle>,
    ) -> Arc<Self>
    where
        E: Send + 'static,
    {
        let core = Arc::new_cyclic(|core: &Weak<Self>| {
            let node = Node::derive_owned(parent.node(), core.clone(), location);
            let id = GroupId(TaskId::next().0);
            Self {
                context: parent.with_node(node),
                id,
                registry: Registry::new(runtime),
                #[cfg(feature = "tracing")]
                span: crate::trace::group(config.name(), id.0, location),
                failures: FailureLog::new(config.kept()),
                config: (!config.is_default()).then(|| Box::new(config)),
                end_text: OnceBox::default(),
                scope: ScopeTasks::default(),
            }
        });
        if !core.node().is_found_from_above() {
            core.registry.enter_directory(core.node());
        }
        // An end that came before the group could be told.
        if core.node().has_ended() {
            core.registry.raise(Stage::Ended);
        }
        core
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        self.context
            .node()
            .expect("errgroup: a group's context is derived, so it has a node")
    }

    /// What is known of a task that never came to be one.
    pub(crate) fn anonymous(&self, location: &'static Location<'static>) -> Owned {
        Owned {
            name: None,
            id: TaskId::next(),
            location,
            group: self.id,
        }
    }

    pub(crate) fn name(&self) -> Option<&Name> {
        self.config.as_ref()?.name.as_ref()
    }

    pub(crate) fn host(&self) -> Option<&Arc<Node>> {
        self.config.as_ref()?.host.as_ref()
    }

    pub(crate) fn is_isolated(&self) -> bool {
        self.config
            .as_ref()
            .is_some_and(|config| config.is_isolated)
    }

    pub(super) fn on_failure(&self) -> Option<&OnFailure<E>> {
        self.config.as_ref()?.on_failure.as_deref()
    }

    #[inline]
    fn patience(&self) -> Option<&Patience> {
        self.config.as_ref()?.patience.as_deref()
    }

    /// Reports the tasks if somebody waits for them, and the context ended long enough ago.
    #[inline]
    pub(super) fn lose_patience(&self) {
        if let Some(patience) = self.patience() {
            self.report_stragglers(patience, false);
        }
    }

    fn report_stragglers(&self, patience: &Patience, is_reminded: bool) {
        if let Some(stragglers) = patience.overdue(&self.registry, is_reminded) {
            #[cfg(feature = "tracing")]
            crate::trace::stragglers(&self.span, &stragglers);
            patience.report(&stragglers);
        }
    }

    /// Somebody waits for the context's end from now on, on this thread's runtime.
    #[inline]
    pub(crate) fn see_to_timer(&self) {
        self.node().see_to_timer();
    }

    /// Ends the context on the group's own account; returns whether that is what ended it.
    pub(crate) fn end(&self, by: EndedBy, error: impl FnOnce() -> ContextError) -> bool {
        let is_ours = self.node().end(error);
        if is_ours {
            self.failures.record_end(by);
        }
        self.stop_admission();
        is_ours
    }

    /// Takes no task from now on. The context has ended, perhaps by a thread that is still on its way to do this.
    fn stop_admission(&self) {
        if self.registry.stage() == Stage::Open {
            self.registry.raise(Stage::Ended);
        }
    }

    /// Drops every task that can be dropped, and ends what they clean up in. The context has ended.
    pub(crate) fn abort(&self, error: impl FnOnce() -> ContextError) {
        self.registry.raise(Stage::Aborting);
        if let Some(steps) = self.registry.made_steps() {
            steps.end_cleanup(&error());
        }
    }

    /// The tasks have as long to stop as the owner grants them.
    pub(crate) fn begin_grace(&self) {
        self.registry.set_grace(true);
    }

    /// No task is left for which that matters.
    pub(crate) fn end_grace(&self, error: impl FnOnce() -> ContextError) {
        self.registry.set_grace(false);
        if let Some(steps) = self.registry.made_steps() {
            steps.end_cleanup(&error());
        }
    }

    /// Takes no task from now on; `false` if one has come meanwhile and has to be waited for.
    pub(crate) fn close(&self) -> bool {
        if self.node().finish() {
            self.failures.record_end(EndedBy::Finish);
        }
        self.stop_admission();
        self.registry.is_empty()
    }

    /// Why the context has ended, for a task that it cut short.
    pub(crate) fn end_error(&self) -> ContextError {
        self.context.err().unwrap_or_else(|| {
            // The stage is raised by the end only.
            unreachable!("errgroup: a task was cut short in a live context")
        })
    }

    /// What became of a task that its runtime dropped: aborted through its handle, or gone with the runtime.
    pub(crate) fn fate_of_dropped(&self) -> Fate {
        let has_lost_runtime = || self.registry.runtime().as_ref().is_some_and(is_gone);
        match self.registry.lacks().was_lost || has_lost_runtime() {
            true => Fate::Lost,
            false => Fate::Aborted,
        }
    }
}

/// Whether a runtime is being shut down, or gone.
pub(crate) fn is_gone(runtime: &Handle) -> bool {
    // There is no asking a `Handle`. A runtime that is going drops what it is given in the very call.
    let probe = runtime.spawn(async {});
    probe.is_finished() && matches!(unconstrained(probe).now_or_never(), Some(Err(_)))
}

// What it shows of itself changes in one step, and foreign code runs with no lock held.
impl<E> RefUnwindSafe for Core<E> {}

impl<E: Send + 'static> Owner for Core<E> {
    fn enter_directory(&self) {
        if !Owner::is_empty(self) {
            self.registry.enter_directory(self.node());
        }
    }

    fn context_ended(&self) {
        #[cfg(feature = "tracing")]
        crate::trace::ended(&self.span, &self.end_error());
        if self.registry.raise(Stage::Ended) {
            self.node().take_time();
            // A task may have come since `enter_directory`.
            self.registry.enter_directory(self.node());
            if let Some(patience) = self.patience() {
                // Others are still to be told.
                contain(|| patience.begin(self.node(), self.registry.runtime()));
            }
        }
    }

    fn remind(&self) {
        if let Some(patience) = self.patience() {
            self.report_stragglers(patience, true);
        }
    }

    fn grace(&self) -> Grace {
        self.registry.grace()
    }

    fn host(&self) -> Option<Arc<Node>> {
        Core::host(self).cloned()
    }

    fn steps(&self) -> Option<Arc<Steps>> {
        self.registry.steps()
    }

    fn id(&self) -> u64 {
        self.id.0
    }

    fn is_empty(&self) -> bool {
        self.registry.is_empty() && self.scope.live() == 0
    }

    fn members(&self) -> Option<&dyn Any> {
        Some(&self.registry)
    }

    fn report(&self, now: Instant) -> Box<dyn Any> {
        Box::new(Report {
            id: self.id.0,
            name: self.name().cloned(),
            is_isolated: self.is_isolated(),
            scope: self.scope.counts(),
            members: self.registry.watch(now),
        })
    }
}

impl<E: Send + 'static> Home for Core<E> {
    fn detach(&self, key: u32, id: TaskId) {
        self.registry.detach(key, id);
    }

    fn remove_delivered(&self, key: u32) {
        self.registry.remove_delivered(key);
    }
}
