//! `Core`: what a group, its tasks and its spawners share.
//!
//! Owned by the `Group`, its `Spawner`s and each live task; and by a callback on the group's own context, a cycle that
//! the end of the context breaks. Every group ends its context, at the latest when it is dropped.

use std::future::Future;
use std::panic::Location;
use std::sync::{Arc, OnceLock};

use futures::FutureExt;
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, unconstrained};
use tokio::time::Instant;

use super::life::{Life, Place};
use super::mark::Policy;
use super::outcome::{Election, EndedBy, Failure, Outcome, Settled};
use super::registry::{Kind, Name, Registry, Stage};
use super::run::{self, Run};
use super::slots::{Hold, Slots};
use crate::context::{Context, Node, Waiter};
use crate::error::{ContextError, GroupError, Reason};
use crate::panic::{Payload, catch};
use crate::task::{Task, TaskError, TaskId};

pub(crate) struct Core<E> {
    pub(crate) context: Context,
    pub(crate) name: Option<Name>,
    pub(crate) registry: Registry<Arc<Self>>,
    pub(crate) slots: Slots,
    pub(crate) outcome: Outcome<E>,
    /// Where the tasks run: given to the builder, else the runtime of the first spawn.
    runtime: OnceLock<Handle>,
}

/// What a spawn says of the task, besides its code.
pub(crate) struct Spec {
    pub(crate) name: Option<Name>,
    pub(crate) location: &'static Location<'static>,
    pub(crate) slot: SlotRequest,
}

/// How a task comes to its slot, if the group has a limit.
pub(crate) enum SlotRequest {
    /// It queues for one.
    Queue,
    /// It takes one that is free now, or is refused.
    Now,
    /// It was given one before.
    Held(Hold),
}

impl<E: GroupError> Core<E> {
    pub(crate) fn new(
        parent: &Context,
        location: &'static Location<'static>,
        name: Option<Name>,
        runtime: Option<Handle>,
    ) -> Arc<Self> {
        let node = Node::derive(parent.node(), 0, location);
        let registry = match &runtime {
            Some(runtime) => Registry::new(Some(runtime)),
            None => Registry::new(Handle::try_current().ok().as_ref()),
        };
        let core = Arc::new(Self {
            context: parent.with_node(node.clone()),
            name,
            registry,
            slots: Slots::new(),
            outcome: Outcome::new(),
            runtime: runtime.map_or_else(OnceLock::new, OnceLock::from),
        });
        let hook = core.clone();
        let hook = Waiter::Hook(Box::new(move |_| hook.registry.raise(Stage::Ended)));
        if node.register(hook).is_err() {
            core.registry.raise(Stage::Ended);
        }
        core
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        self.context
            .node()
            .expect("a group's context is derived, so it has a node")
    }

    #[track_caller]
    fn runtime(&self) -> &Handle {
        if let Some(runtime) = self.runtime.get() {
            return runtime;
        }
        match Handle::try_current() {
            Ok(runtime) => self.runtime.get_or_init(|| runtime),
            Err(_) => panic!(
                "errgroup: a group spawns its tasks on a tokio runtime, and this thread is in none: spawn inside \
                 `block_on` or a task, or give the group a runtime with `Group::builder().runtime(handle)`"
            ),
        }
    }

    /// Spawns a future, or hands it back if the group takes no task any more, or has no slot for one that will not wait.
    #[track_caller]
    pub(crate) fn spawn<F, T>(
        self: &Arc<Self>,
        spec: Spec,
        policy: Policy,
        future: F,
    ) -> Result<Task<T>, F>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        self.launch(
            spec,
            Kind::Async,
            policy,
            future,
            |future, life, runtime| runtime.spawn(Run::new(life, future)),
        )
    }

    /// Spawns a future that stops itself, made from the context when the task starts.
    #[track_caller]
    pub(crate) fn spawn_with<F, Fut, T>(self: &Arc<Self>, spec: Spec, f: F) -> Result<Task<T>, F>
    where
        F: FnOnce(Context) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        let ctx = self.context.clone();
        self.launch(
            spec,
            Kind::Async,
            Policy::StopsItself,
            f,
            |f, life, runtime| runtime.spawn(Run::new(life, async move { f(ctx).await })),
        )
    }

    #[track_caller]
    pub(crate) fn spawn_blocking<F, T>(self: &Arc<Self>, spec: Spec, f: F) -> Result<Task<T>, F>
    where
        F: FnOnce(Context) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
    {
        self.launch(
            spec,
            Kind::Blocking,
            Policy::StopsItself,
            f,
            |f, life, runtime| run::spawn_blocking(f, life, runtime),
        )
    }

    /// The one way into the group: the task is in the registry before the runtime has it.
    #[track_caller]
    fn launch<I, T>(
        self: &Arc<Self>,
        spec: Spec,
        kind: Kind,
        policy: Policy,
        item: I,
        start: impl FnOnce(I, Life<E>, &Handle) -> JoinHandle<Result<T, TaskError>>,
    ) -> Result<Task<T>, I> {
        let runtime = self.runtime();
        match self.admit(spec, kind, policy) {
            Some(place) => {
                let life = Life::new(place);
                Ok(Task::spawned(life.id(), start(item, life, runtime)))
            }
            None => Err(item),
        }
    }

    pub(crate) fn admit(
        self: &Arc<Self>,
        spec: Spec,
        kind: Kind,
        policy: Policy,
    ) -> Option<Place<E>> {
        // The context first: callbacks on ancestors run before the one that raises the stage.
        let is_open = !self.context.is_done();
        let registered = is_open.then(|| self.registry.insert(self, kind, spec.location));
        let Some(registered) = registered.flatten() else {
            if let SlotRequest::Held(hold) = spec.slot {
                self.slots.release(hold);
            }
            return None;
        };
        let is_limited = registered.is_limited;
        let mut place = Place::new(registered, policy);
        if let Some(name) = spec.name {
            place.set_name(name);
        }
        if kind == Kind::Blocking {
            place.set_since(Instant::now());
        }
        if is_limited {
            match self.hold(spec.slot) {
                Some(hold) => place.set_hold(hold),
                None => {
                    Life::new(place).release();
                    return None;
                }
            }
        }
        Some(place)
    }

    #[cold]
    fn hold(&self, request: SlotRequest) -> Option<Hold> {
        match request {
            SlotRequest::Held(hold @ (Hold::Slot | Hold::Queued(_))) => Some(hold),
            SlotRequest::Held(Hold::Free) | SlotRequest::Queue => Some(self.slots.hold()),
            SlotRequest::Now => self.slots.try_hold(),
        }
    }

    /// A handle for a spawn that was refused, too: what it was given is dropped, cut short by the end of the context.
    pub(crate) fn or_refuse<I, T>(&self, spawned: Result<Task<T>, I>) -> Task<T> {
        let item = match spawned {
            Ok(task) => return task,
            Err(item) => item,
        };
        match catch(|| drop(item)) {
            Ok(()) => self.outcome.record_cut(),
            // The context has ended: there is nothing to end for it.
            Err(payload) => drop(self.outcome.record(Failure::Panic(payload))),
        }
        Task::stillborn(TaskId::next(), TaskError::Cancelled(self.end_error()))
    }

    /// Records an error, then ends the context for it.
    pub(crate) fn failed(
        &self,
        error: E,
        name: Option<&str>,
        id: TaskId,
        location: &'static Location<'static>,
    ) {
        let text = text_of(&error);
        // The outcome first: see `Outcome`, invariant 1.
        if self.outcome.record(Failure::Error(error)) == Election::First {
            self.end(|| ContextError::of_task(Reason::TaskFailed, location, name, id, text));
        }
    }

    /// Records a panic, then ends the context for it.
    pub(crate) fn panicked(
        &self,
        payload: Payload,
        name: Option<&str>,
        id: TaskId,
        location: &'static Location<'static>,
    ) {
        let text = crate::panic::message(&payload).to_owned();
        if self.outcome.record(Failure::Panic(payload)) == Election::First {
            self.end(|| ContextError::of_task(Reason::TaskPanicked, location, name, id, text));
        }
    }

    /// Ends the context on the group's own account.
    pub(crate) fn end(&self, error: impl FnOnce() -> ContextError) {
        if self.node().end(error) {
            self.outcome.record_end(EndedBy::Stop);
        }
    }

    /// Drops every task that can be dropped. The context has ended.
    pub(crate) fn abort(&self) {
        self.registry.raise(Stage::Aborting);
    }

    /// Why the context has ended, for a task that it cut short.
    pub(crate) fn end_error(&self) -> ContextError {
        self.context.err().unwrap_or_else(|| {
            // The stage is raised by the end only.
            unreachable!("errgroup: a task was cut short in a live context")
        })
    }

    /// Takes no task from now on; `false` if one has come meanwhile and has to be waited for.
    pub(crate) fn close(&self, location: &'static Location<'static>) -> bool {
        let finished = || ContextError::at(Reason::GroupFinished, location, None);
        if self.node().end(finished) {
            self.outcome.record_end(EndedBy::Finish);
        }
        // Another thread may have ended the context and be on its way to the callback that does this.
        self.registry.raise(Stage::Ended);
        self.registry.is_idle()
    }

    /// What `wait` returns, once all tasks have ended. Resumes a panic.
    pub(crate) fn settle(&self) -> Result<(), E> {
        match self.outcome.settle() {
            Settled::Failed(failure) => failure.into_result(),
            Settled::Cut => Err(E::from(self.end_error())),
            Settled::Dropped if self.has_lost_runtime() => Err(E::from(lost_runtime())),
            Settled::Dropped | Settled::Complete | Settled::Again => Ok(()),
        }
    }

    /// As `settle`, where the tasks tell whether all was done.
    pub(crate) fn settle_work(&self, is_complete: impl FnOnce() -> bool) -> Result<(), E> {
        match self.outcome.settle() {
            Settled::Failed(failure) => failure.into_result(),
            Settled::Again => Ok(()),
            _ if is_complete() => Ok(()),
            Settled::Dropped if self.has_lost_runtime() => Err(E::from(lost_runtime())),
            _ => Err(E::from(self.end_error())),
        }
    }

    /// What `shutdown` returns: being cut short is no error. Resumes a panic.
    pub(crate) fn settle_stopped(&self) -> Result<(), E> {
        match self.outcome.settle() {
            Settled::Failed(failure) => failure.into_result(),
            Settled::Cut | Settled::Dropped | Settled::Complete | Settled::Again => Ok(()),
        }
    }

    /// Whether the runtime was shut down under the group.
    fn has_lost_runtime(&self) -> bool {
        // There is no asking a `Handle`. A runtime that is gone drops what it is given in the very call.
        self.runtime.get().is_some_and(|runtime| {
            let probe = runtime.spawn(async {});
            let joined = probe
                .is_finished()
                .then(|| unconstrained(probe).now_or_never());
            matches!(joined, Some(Some(Err(_))))
        })
    }
}

fn lost_runtime() -> ContextError {
    ContextError::detailed(
        Reason::Cancelled,
        "the group's runtime was shut down before its tasks had ended",
    )
}

/// The text of a foreign error, whose `Display` may panic.
fn text_of<E: std::fmt::Display>(error: &E) -> String {
    catch(|| error.to_string()).unwrap_or_else(|payload| {
        crate::panic::discard(payload);
        "an error whose text panics".to_owned()
    })
}

/// Whether `error` is nothing but the context's end, passed on: `ctx.check()?`.
///
/// An error type is opaque, but it has a `From<ContextError>` and a text, and those have to agree.
pub(crate) fn passes_on<E: GroupError>(error: &E, end: &ContextError) -> bool {
    catch(|| E::from(end.clone()).to_string() == error.to_string()).unwrap_or_else(|payload| {
        crate::panic::discard(payload);
        false
    })
}
