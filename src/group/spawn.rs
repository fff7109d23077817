//! The ways to spawn, once: what `Group`, `Spawner`, `Slot` and `TaskBuilder` offer is made here of a [`Request`].
//!
//! The task is in the registry before the runtime has it. Whatever can be done without knowing the future's type is in
//! `admit`.

use std::borrow::Cow;
use std::future::Future;
use std::mem::needs_drop;
use std::panic::Location;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::lazy;
use tokio::runtime::Handle;

use super::blocking::Job;
use super::console;
use super::core::Core;
use super::entry::{Kind, Name, SlotRequest};
use super::guard::TaskGuard;
use super::local;
use super::registry::Spec;
use super::run::Run;
use super::slot::Slot;
use crate::context::Context;
use crate::error::GroupError;
use crate::panic::catch;
use crate::task::{Owned, Task, TaskId, Watch};

/// A task that is to be spawned: all that is said of it but its code.
pub(crate) struct Request<'a, E> {
    core: &'a Arc<Core<E>>,
    spec: Spec,
    /// Room that was waited for.
    slot: Option<Slot<'a, E>>,
}

/// A task that the group has taken.
struct Admitted<E> {
    guard: TaskGuard<E>,
    id: TaskId,
    runtime: Handle,
}

impl<'a, E> Request<'a, E> {
    #[track_caller]
    #[inline]
    pub(crate) fn new(core: &'a Arc<Core<E>>, name: Option<Name>) -> Self {
        Self {
            core,
            spec: Spec {
                name,
                location: Location::caller(),
                slot: SlotRequest::Queue,
            },
            slot: None,
        }
    }

    pub(crate) fn with_slot(mut self, slot: Option<Slot<'a, E>>) -> Self {
        self.slot = slot;
        self
    }

    pub(crate) fn with_spec(core: &'a Arc<Core<E>>, spec: Spec) -> Self {
        Self {
            core,
            spec,
            slot: None,
        }
    }
}

impl<E: GroupError> Request<'_, E> {
    #[track_caller]
    #[inline]
    pub(crate) fn spawn<F, T>(self, future: F) -> Task<T>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        self.spawn_kind(Kind::Dropped, future)
    }

    #[track_caller]
    #[inline]
    pub(crate) fn spawn_with<F, Fut, T>(self, f: F) -> Task<T>
    where
        F: FnOnce(Context) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        let ctx = self.core.context.clone();
        // The closure is called in the task, so that its panic is the task's. An async block would keep room for both, the
        // closure and the future that it makes.
        self.spawn_kind(Kind::Cooperative, lazy(move |_| f(ctx)).flatten())
    }

    #[track_caller]
    pub(crate) fn spawn_local<F, T>(self, future: F) -> Task<T>
    where
        F: Future<Output = Result<T, E>> + 'static,
        T: 'static,
    {
        let (core, mut who) = (self.core, self.who());
        let Some((guard, id, _)) = self.admit_anywhere(Kind::Local) else {
            return refuse(core, who, future);
        };
        who.id = id;
        let watch = watch::<T, E>(core, &guard, id);
        #[cfg(feature = "tracing")]
        let future = crate::trace::future(&core.span, &who, future);
        let was_aborted = Arc::default();
        let name = who.name.as_ref();
        let join = local::spawn(guard, future, Arc::clone(&was_aborted), name);
        Task::spawned(who, join, watch).with_abort_flag(was_aborted)
    }

    #[track_caller]
    pub(crate) fn spawn_kind<F, T>(self, kind: Kind, future: F) -> Task<T>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        let (core, who) = (self.core, self.who());
        match self.launch(kind, future) {
            Ok(task) => task,
            Err(future) => refuse(core, who, future),
        }
    }

    #[track_caller]
    pub(crate) fn try_spawn<F, T>(mut self, future: F) -> Result<Task<T>, F>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        self.spec.slot = SlotRequest::Now;
        self.launch(Kind::Dropped, future)
    }

    #[track_caller]
    pub(crate) fn spawn_blocking<F, T>(self, f: F) -> Task<T>
    where
        F: FnOnce(Context) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
    {
        let (core, who) = (self.core, self.who());
        let Some(Admitted { guard, id, runtime }) = self.admit(Kind::Blocking) else {
            return refuse(core, who, f);
        };
        #[cfg(feature = "tracing")]
        let f = crate::trace::closure(&core.span, &Owned { id, ..who }, f);
        Task::blocking(id, Job::start(f, guard, runtime))
    }

    #[track_caller]
    #[inline]
    fn launch<F, T>(self, kind: Kind, future: F) -> Result<Task<T>, F>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
    {
        let mut who = self.who();
        let core = self.core;
        let Some(Admitted { guard, id, runtime }) = self.admit(kind) else {
            return Err(future);
        };
        who.id = id;
        let watch = watch::<T, E>(core, &guard, id);
        #[cfg(feature = "tracing")]
        let future = crate::trace::future(&core.span, &who, future);
        let join = console::spawn(&runtime, who.name.as_ref(), Run::new(guard, future));
        Ok(Task::spawned(who, join, watch))
    }

    /// What the handle knows of the task. The id is given by the registry.
    #[inline]
    fn who(&self) -> Owned {
        Owned {
            name: self.spec.name.clone(),
            id: TaskId(0),
            location: self.spec.location,
            group: self.core.id,
        }
    }

    /// Takes the task into the group; `None` if it is refused.
    ///
    /// # Panics
    ///
    /// Outside a runtime, if the group has none yet.
    #[track_caller]
    fn admit(self, kind: Kind) -> Option<Admitted<E>> {
        let (guard, id, runtime) = self.admit_anywhere(kind)?;
        let Some(runtime) = runtime else {
            guard.withdraw();
            panic!(
                "errgroup: a group spawns its tasks on a tokio runtime, and this thread is in none: spawn inside \
                 `block_on` or a task, or give the group a runtime with `Group::builder().runtime(handle)`"
            );
        };
        Some(Admitted { guard, id, runtime })
    }

    fn admit_anywhere(self, kind: Kind) -> Option<(TaskGuard<E>, TaskId, Option<Handle>)> {
        let Self {
            core,
            mut spec,
            slot,
        } = self;
        if let Some(slot) = slot {
            spec.slot = slot.into_request(spec.slot);
        }
        admit(core, kind, spec, || Handle::try_current().ok())
    }
}

/// For the handle of a task whose value has a destructor.
#[inline]
fn watch<T, E: Send + 'static>(
    core: &Arc<Core<E>>,
    guard: &TaskGuard<E>,
    id: TaskId,
) -> Option<Watch> {
    needs_drop::<T>().then(|| Watch {
        home: Some(core.clone()),
        key: guard.key(),
        id,
    })
}

/// As `Request::admit`, for what may do without a runtime.
pub(super) fn admit<E>(
    core: &Arc<Core<E>>,
    kind: Kind,
    spec: Spec,
    current: impl FnOnce() -> Option<Handle>,
) -> Option<(TaskGuard<E>, TaskId, Option<Handle>)> {
    // The context first: the stage is raised after its end.
    if core.context.is_done() {
        if spec.slot == SlotRequest::Held {
            core.registry.release_slot();
        }
        return None;
    }
    let added = core.registry.add(kind, spec, current)?;
    let guard = TaskGuard::new(core.clone(), added.key, kind, added.is_queued);
    Some((guard, added.id, added.runtime))
}

/// A handle for a spawn that was refused, too: what it was given is dropped, cut short by the end of the context.
#[cold]
fn refuse<I, T, E: GroupError>(core: &Arc<Core<E>>, mut who: Owned, item: I) -> Task<T> {
    let id = TaskId::next();
    who.id = id;
    let dropped = catch(|| drop(item));
    Task::refused(id, core.refused(who, dropped))
}

pub(crate) fn name(name: impl Into<Cow<'static, str>>) -> Option<Name> {
    Some(Arc::new(name.into()))
}
