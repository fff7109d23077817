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
use std::fmt;
use std::panic::{Location, RefUnwindSafe};
use std::sync::{Arc, Weak};

use futures::FutureExt;
use tokio::runtime::Handle;
use tokio::task::unconstrained;
use tokio::time::Instant;

use super::failure::{Election, EndedBy, Failure, FailureKind, FailureLog, Verdict, What};
use super::outcome::{Conclusion, Outcome};
use super::patience::Patience;
use super::registry::{Fate, Name, Registry, Stage};
use super::watch::ScopeTasks;
use crate::context::{Context, Grace, Node, Owner, Steps};
use crate::error::{BoxError, ContextError, GroupError, GroupId, Reason, text_of};
use crate::panic::{Payload, catch, contain, discard, message};
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
    end_text: OnceBox<Option<Box<str>>>,
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
    pub(crate) patience: Option<Box<Patience<E>>>,
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
        mut config: Config<E>,
        runtime: Option<Handle>,
    ) -> Arc<Self>
    where
        E: Send + 'static,
    {
        let core = Arc::new_cyclic(|core: &Weak<Self>| {
            let node = Node::derive_owned(parent.node(), core.clone(), location);
            let id = GroupId(TaskId::next().0);
            if let Some(patience) = &mut config.patience {
                patience.set_core(core.clone());
            }
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

    fn on_failure(&self) -> Option<&OnFailure<E>> {
        self.config.as_ref()?.on_failure.as_deref()
    }

    #[inline]
    pub(super) fn patience(&self) -> Option<&Patience<E>> {
        self.config.as_ref()?.patience.as_deref()
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
        match self.registry.lacks().was_lost || self.has_lost_runtime() {
            true => Fate::Lost,
            false => Fate::Aborted,
        }
    }

    /// Whether the group's runtime is being shut down.
    fn has_lost_runtime(&self) -> bool {
        // There is no asking a `Handle`. A runtime that is going drops what it is given in the very call.
        self.registry.runtime().is_some_and(|runtime| {
            let probe = runtime.spawn(async {});
            let joined = probe
                .is_finished()
                .then(|| unconstrained(probe).now_or_never());
            matches!(joined, Some(Some(Err(_))))
        })
    }
}

impl<E: GroupError> Core<E> {
    /// Records a task's error, unless it only passes on another's, and ends the context for it. Returns what the task's
    /// handle says, and the task's fate.
    pub(crate) fn failed(&self, error: E, who: impl FnOnce() -> Owned) -> (ContextError, Fate) {
        match self.passed_on(&error) {
            Some(why) => {
                discard(error);
                // In an isolated group, what is passed on of another's failure is no end.
                let is_end = self.context.err().is_some_and(|end| end.is(&why));
                let fate = if is_end {
                    Fate::CutShort
                } else {
                    Fate::PassedOn
                };
                (why, fate)
            }
            None => {
                let election = self.elect(FailureKind::Error);
                (self.failed_itself(error, who(), election), Fate::Failed)
            }
        }
    }

    /// As `failed`, for the body of `Group::run`: in an isolated group, too, its failure is the group's. Gives back an error
    /// that is no failure of its own although the context was live, and ends that.
    pub(crate) fn body_failed(&self, error: E, who: Owned) -> Option<E> {
        match self.passed_on(&error) {
            Some(_) if self.context.is_done() => {
                discard(error);
                self.registry.record(Fate::CutShort);
                None
            }
            Some(why) => {
                self.end(EndedBy::Failure, || why);
                Some(error)
            }
            None => {
                let election = self.failures.elect(FailureKind::Error);
                self.failed_itself(error, who, election);
                None
            }
        }
    }

    fn failed_itself(&self, error: E, who: Owned, election: Election) -> ContextError {
        let why = match election {
            Election::First => Some(self.end_by(Reason::TaskFailed, &who, text_of(&error))),
            Election::Kept => {
                let text = text_of(&error);
                Some(ContextError::of_task(
                    Reason::TaskFailed,
                    who.borrow(),
                    text,
                ))
            }
            Election::Later => None,
        };
        let failure = self.report(&who, What::Error(error));
        match (why, failure.what) {
            (Some(why), what) => {
                self.store(Failure { what, ..failure }, election);
                why
            }
            (None, What::Error(error)) => {
                let late = ContextError::late(who.borrow(), Box::new(error));
                self.failures.keep_late(late.clone());
                late
            }
            (None, What::Panic(_)) => unreachable!("errgroup: it is an error"),
        }
    }

    fn store(&self, failure: Failure<E>, election: Election) {
        match election {
            Election::First => self.failures.store(failure),
            Election::Kept => self.failures.keep(failure),
            Election::Later => discard(failure),
        }
    }

    /// As `failed`, for a panic of the task or of its destructors.
    pub(crate) fn panicked(&self, payload: Payload, who: Owned) -> ContextError {
        let election = self.elect(FailureKind::Panic);
        self.panicked_itself(payload, who, election)
    }

    pub(crate) fn body_panicked(&self, payload: Payload, who: Owned) {
        let election = self.failures.elect(FailureKind::Panic);
        self.panicked_itself(payload, who, election);
    }

    fn panicked_itself(&self, payload: Payload, who: Owned, election: Election) -> ContextError {
        let text = message(&payload).to_owned();
        let why = match election {
            Election::First => self.end_by(Reason::TaskPanicked, &who, text),
            Election::Kept | Election::Later => {
                ContextError::of_task(Reason::TaskPanicked, who.borrow(), text)
            }
        };
        let failure = self.report(&who, What::Panic(payload));
        self.store(failure, election);
        why
    }

    fn elect(&self, kind: FailureKind) -> Election {
        match self.is_isolated() {
            true => self.failures.suppress(),
            false => self.failures.elect(kind),
        }
    }

    /// Ends the context for a task's failure. Returns what the task's handle says: that end, if it was the first.
    fn end_by(&self, reason: Reason, who: &Owned, text: String) -> ContextError {
        if self.context.is_done() {
            return ContextError::of_task(reason, who.borrow(), text);
        }
        let end = ContextError::end_by_task(reason, who.borrow(), text);
        self.end(EndedBy::Failure, || end.clone());
        end
    }

    fn report(&self, who: &Owned, what: What<E>) -> Failure<E> {
        let failure = Failure {
            name: who.name.clone(),
            id: who.id,
            location: who.location,
            elapsed: self.registry.start.elapsed(),
            what,
        };
        #[cfg(feature = "tracing")]
        crate::trace::failed(&self.span, &failure);
        if let Some(on_failure) = self.on_failure() {
            contain(|| on_failure(&failure));
        }
        failure
    }

    /// What a refused spawn's handle says. What it was given has been dropped: `dropped` is how that went.
    #[cold]
    pub(crate) fn refused(&self, who: Owned, dropped: Result<(), Payload>) -> ContextError {
        match dropped {
            Ok(()) => {
                self.registry.record_refused(Fate::NeverStarted);
                self.end_error()
            }
            Err(payload) => {
                let why = self.panicked(payload, who);
                self.registry.record_refused(Fate::Panicked);
                why
            }
        }
    }

    /// Returns what `error` passes on, if it is no failure of its own: the end of the context (`ctx.check()?`), or the
    /// failure of a task of this group (`task.await?`).
    ///
    /// Where the type shows it, it is the very same end or failure. Where it does not, the texts have to agree, and that of
    /// the end has to be visible in its conversion: a type that hides it says the same of other things.
    fn passed_on(&self, error: &E) -> Option<ContextError> {
        if let Some(inner) = context_error_in(error) {
            let end = self.node().error_ref();
            let is_end = end.is_some_and(|end| end.is(inner));
            // Stopping, too, is a step of the end: who passes it on has nothing left to do.
            let is_stopping = inner.reason() == Reason::Stopping;
            let is_passed_on = is_end || is_stopping || inner.is_failure_in(self.id);
            return is_passed_on.then(|| inner.clone());
        }
        let end = self.context.err()?;
        let text = self.end_text.get();
        let text = match text {
            Some(text) => text,
            None => {
                // Not within the cell: it is foreign code, and may come here again.
                let text = text_of_end::<E>(&end);
                self.end_text.get_or_init(|| Box::new(text))
            }
        };
        is_text_of(text.as_deref()?, error).then_some(end)
    }

    /// What `wait` returns, once all tasks have ended. Resumes a panic.
    pub(crate) fn settle(&self) -> Result<(), E> {
        let verdict = self.failures.settle().into_verdict();
        self.conclude(verdict).into_result()
    }

    /// As `settle`, all there is to know.
    pub(crate) fn settle_outcome(&self) -> Outcome<E> {
        let (verdict, kept) = self.failures.settle().into_parts();
        self.outcome(self.conclude(verdict), kept)
    }

    fn outcome(&self, conclusion: Conclusion<E>, kept: Vec<Failure<E>>) -> Outcome<E> {
        Outcome {
            conclusion,
            kept,
            suppressed: self.failures.suppressed(),
            counts: self.registry.counts(),
        }
    }

    /// As `settle_outcome`, of an owner who has stopped the tasks: being cut short is no error.
    pub(crate) fn settle_stopped(&self) -> Outcome<E> {
        let (verdict, kept) = self.failures.settle().into_parts();
        let conclusion = match verdict {
            Verdict::Failed(failure) => Conclusion::Failed(failure),
            Verdict::Unfailed(_) | Verdict::Again(_) => Conclusion::Clean,
        };
        self.outcome(conclusion, kept)
    }

    /// That something was refused is told once: by this, or by the next if this one is clean.
    fn conclude(&self, verdict: Verdict<E>) -> Conclusion<E> {
        let lacks = self.registry.lacks();
        let conclusion = match verdict {
            Verdict::Failed(failure) => Conclusion::Failed(failure),
            Verdict::Unfailed(None) if lacks.was_cut => Conclusion::Ended(self.end_error()),
            Verdict::Unfailed(None | Some(EndedBy::Finish)) if lacks.was_lost => {
                Conclusion::Ended(lost_runtime())
            }
            Verdict::Again(None | Some(EndedBy::Failure | EndedBy::Finish))
                if lacks.has_refused =>
            {
                Conclusion::Ended(self.end_error())
            }
            Verdict::Unfailed(_) | Verdict::Again(_) => return Conclusion::Clean,
        };
        self.registry.forget_refused();
        conclusion
    }

    /// As `settle`, where the tasks tell whether all was done.
    pub(crate) fn settle_work(&self, is_complete: impl FnOnce() -> bool) -> Result<(), E> {
        match self.failures.settle().into_verdict() {
            Verdict::Failed(failure) => failure.into_result(),
            Verdict::Again(_) => Ok(()),
            Verdict::Unfailed(_) if is_complete() => Ok(()),
            Verdict::Unfailed(_) if self.registry.lacks().was_lost => Err(E::from(lost_runtime())),
            Verdict::Unfailed(_) => Err(E::from(self.end_error())),
        }
    }
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
            // Others are still to be told.
            contain(|| self.begin_patience());
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
        Box::new(self.make_report(now))
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

fn lost_runtime() -> ContextError {
    ContextError::detailed(
        Reason::RuntimeGone,
        "before the tasks of the group had ended",
    )
}

/// The `ContextError` that an error is, or holds, where that can be told by the type.
fn context_error_in<E: 'static>(error: &E) -> Option<&ContextError> {
    let error: &dyn Any = error;
    if let Some(error) = error.downcast_ref::<ContextError>() {
        return Some(error);
    }
    if let Some(error) = error.downcast_ref::<std::io::Error>() {
        return error.get_ref()?.downcast_ref();
    }
    let error = error.downcast_ref::<BoxError>()?;
    if let Some(error) = error.downcast_ref::<ContextError>() {
        return Some(error);
    }
    error
        .downcast_ref::<std::io::Error>()?
        .get_ref()?
        .downcast_ref()
}

/// Whether an error says no more than that this end came.
pub(crate) fn passes_on<E: GroupError>(error: &E, end: &ContextError) -> bool {
    match context_error_in(error) {
        Some(inner) => inner.is(end),
        None => text_of_end::<E>(end).is_some_and(|text| is_text_of(&text, error)),
    }
}

/// The text of an error made from the end; `None` if it does not show that of the end.
fn text_of_end<E: GroupError>(end: &ContextError) -> Option<Box<str>> {
    let text = catch(|| E::from(end.clone()).to_string())
        .map_err(discard)
        .ok()?;
    text.contains(&end.to_string())
        .then(|| text.into_boxed_str())
}

/// Compares an error's text as it is written, and stops at the first difference.
fn is_text_of<E: fmt::Display>(text: &str, error: &E) -> bool {
    struct Rest<'a>(&'a str);
    impl fmt::Write for Rest<'_> {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            self.0 = self.0.strip_prefix(part).ok_or(fmt::Error)?;
            Ok(())
        }
    }
    let mut rest = Rest(text);
    let written = catch(|| fmt::write(&mut rest, format_args!("{error}")));
    matches!(written, Ok(Ok(()))) && rest.0.is_empty()
}
