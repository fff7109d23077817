//! `scope`: tasks that borrow, in the caller's task.
//!
//! The way of a task: `spawn` puts it into the [`Queue`], as a [`Child`], and hands out its handle; the scope's future, a
//! [`Run`], takes it from there, polls it, and drops it when the context ends. What it comes to is told to the `Core` of a group
//! that has no tasks of its own: failures, ends and outcome are a group's.
//!
//! Why not the group's own registry? It wakes the tasks of a runtime one by one at the end; here one future is woken, and has
//! all of them in its hands.

mod body;
mod child;
#[cfg(all(test, errgroup_loom))]
mod loom_models;
mod queue;
mod run;

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::panic::{Location, RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::sync::Arc;

use self::child::{Child, Spec};
use self::queue::Queue;
use self::run::Run;
use crate::context::Context;
use crate::error::{BoxError, GroupError};
use crate::group::{Core, Name, name};
use crate::panic::catch;
use crate::task::{ResultCell, Task, TaskId};

/// What the future of a scope and its handles share.
struct Shared<C, E> {
    core: Arc<Core<E>>,
    queue: Queue<C>,
}

type SendChild<'env> = Pin<Box<dyn Future<Output = ()> + Send + 'env>>;
type LocalChild<'env> = Pin<Box<dyn Future<Output = ()> + 'env>>;

/// Runs `body` with a scope, whose tasks may borrow from what stands outside of the call, and returns its value when all of them
/// have ended, or the first error.
///
/// The async [`std::thread::scope`]: two tasks may work on the two halves of a slice. Body and tasks run in the caller's task,
/// in turns: concurrent, not parallel. They need no runtime, and run on any executor; what they await may. The future is `Send`
/// if the body is, so that it may be spawned itself where it borrows nothing. [`scope_local`] takes tasks that are not `Send`.
///
/// Otherwise it is as [`Group::run`](crate::Group::run):
///
/// - the first error, of a task or of the body, ends the scope's context, which derives from `parent`, and is returned, with its
///   type. `task.await?` passes on what is no failure of its own;
/// - when the context ends, by a failure, by `parent` or by its deadline, tasks and body are dropped at the await they stand
///   at; nothing starts after that;
/// - it returns when all have ended: futures and captures dropped. After the body's `Ok` the tasks are waited for; those that
///   nobody should wait for are [aborted](Task::abort);
/// - the context is checked before each poll, and a task that is always ready has no more than its turn.
///
/// What a group does on a runtime has no place here: a blocking task needs a thread, and what a thread borrows is for
/// [`std::thread::scope`]; a task that stops itself (`spawn_with`), in its own time, would keep the caller's frame from going;
/// and for a limit the tasks borrow a semaphore. Nothing makes up for a task that blocks: all the others wait for it.
///
/// As with [`Group::run`](crate::Group::run), if nothing tells the error type, say `async |scope: Scope|`, which means
/// [`BoxError`].
///
/// # Errors
///
/// The first error of a task or of the body. Without one, the [`ContextError`](crate::ContextError) if the parent's end or a
/// deadline cut short a task or the body, or kept one from starting.
///
/// # Panics
///
/// Resumes the first panic of a task or of the body when all have ended.
///
/// # Cancel safety
///
/// Dropping the future ends the context ([`Reason::GroupDropped`](crate::Reason::GroupDropped)) and drops body and tasks, in
/// this call. Forgetting it leaks them, and what they borrow stays borrowed.
///
/// # Comparison to its peers
///
/// A `FuturesUnordered` has no panics, no end and no handles; `join!` takes a fixed number. Crates that scope tasks on a runtime
/// have to block, or are unsound when their future is forgotten.
///
/// # Examples
///
/// ```
/// use errgroup::{BoxError, Context, Scope, scope};
///
/// # fn main() -> Result<(), BoxError> { futures::executor::block_on(async {
/// let mut numbers = [4, 3, 2, 1];
/// let (left, right) = numbers.split_at_mut(2);
/// scope(&Context::background(), async |scope: Scope| {
///     scope.spawn(async { Ok(left.sort()) });
///     scope.spawn(async { Ok(right.sort()) });
///     Ok(())
/// })
/// .await?;
/// assert_eq!(numbers, [3, 4, 1, 2]);
/// # Ok(()) }) }
/// ```
#[track_caller]
pub fn scope<'env, T, E, F, Fut>(
    parent: &Context,
    body: F,
) -> impl Future<Output = Result<T, E>> + use<'env, T, E, F, Fut>
where
    F: FnOnce(Scope<'env, E>) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    E: GroupError,
{
    Run::new(parent, body, Scope::new, Location::caller())
}

/// As [`scope`], for tasks that are not `Send`. Neither is its future.
///
/// # Examples
///
/// ```
/// use errgroup::{BoxError, Context, LocalScope, scope_local};
/// use std::cell::Cell;
///
/// # fn main() -> Result<(), BoxError> { futures::executor::block_on(async {
/// let sum = Cell::new(0);
/// scope_local(&Context::background(), async |scope: LocalScope| {
///     for number in [1, 2, 3] {
///         let sum = &sum;
///         scope.spawn(async move { Ok(sum.set(sum.get() + number)) });
///     }
///     Ok(())
/// })
/// .await?;
/// assert_eq!(sum.get(), 6);
/// # Ok(()) }) }
/// ```
#[track_caller]
pub fn scope_local<'env, T, E, F, Fut>(
    parent: &Context,
    body: F,
) -> impl Future<Output = Result<T, E>> + use<'env, T, E, F, Fut>
where
    F: FnOnce(LocalScope<'env, E>) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    E: GroupError,
{
    Run::new(parent, body, LocalScope::new, Location::caller())
}

/// Spawns tasks that borrow for `'env`: what [`scope`] gives its body.
///
/// Cheap to clone, so that tasks can take it along. What it spawns inside a task is counted before that one ends. It
/// carries no right to cancel. It may be kept until what the tasks borrow goes; after its scope, what it is given is dropped
/// unpolled, and the handle says why.
pub struct Scope<'env, E = BoxError> {
    shared: Arc<Shared<SendChild<'env>, E>>,
}

/// Spawns tasks that borrow for `'env` and need not be `Send`: what [`scope_local`] gives its body. Otherwise as [`Scope`].
pub struct LocalScope<'env, E = BoxError> {
    shared: Arc<Shared<LocalChild<'env>, E>>,
}

/// Names a task before it is spawned: the value of [`Scope::task`] and [`LocalScope::task`].
///
/// The name stands in the reason given to the others if the task fails.
#[must_use = "a task builder does nothing until its spawn method is called"]
pub struct ScopeTaskBuilder<'a, S> {
    scope: &'a S,
    name: Option<Name>,
}

impl<C, E> Shared<C, E> {
    fn new(core: Arc<Core<E>>) -> Self {
        Self {
            core,
            queue: Queue::new(),
        }
    }
}

impl<C, E: GroupError> Shared<C, E> {
    #[track_caller]
    fn spawn<F, T>(
        &self,
        future: F,
        name: Option<Name>,
        erase: impl FnOnce(Pin<Box<Child<F, T, E>>>) -> C,
    ) -> Task<T>
    where
        F: Future<Output = Result<T, E>>,
    {
        let spec = Spec {
            name,
            id: TaskId::next(),
            location: Location::caller(),
        };
        let (core, id) = (&self.core, spec.id);
        if core.context.is_done() {
            let dropped = catch(|| drop(future));
            return Task::refused(id, core.refused(spec.who(core), dropped));
        }
        let cell = Arc::new(ResultCell::new());
        let child = Box::pin(Child::new(future, cell.clone(), core.clone(), spec));
        // The scope was over a moment ago: dropping the child tells its handle.
        drop(self.queue.push(erase(child)));
        Task::scoped(id, cell)
    }
}

/// What both kinds of scope offer, with one contract.
macro_rules! scope_methods {
    ($scope:ident, $child:ident, [$($send:tt)*]) => {
        impl<'env, E> $scope<'env, E> {
            fn new(shared: Arc<Shared<$child<'env>, E>>) -> Self {
                Self { shared }
            }

            /// Returns the scope's context, which ends with the first failure, with the scope's parent, and at the latest when
            /// all tasks have ended.
            pub fn context(&self) -> &Context {
                &self.shared.core.context
            }

            /// Names a task before it is spawned: `scope.task("left").spawn(…)`.
            pub fn task(&self, task_name: impl Into<Cow<'static, str>>) -> ScopeTaskBuilder<'_, Self> {
                ScopeTaskBuilder {
                    scope: self,
                    name: name(task_name),
                }
            }
        }

        impl<'env, E: GroupError> $scope<'env, E> {
            /// Spawns a future, which may borrow what lives as long as `'env`. It is first polled when those that
            /// were there before it have to wait.
            ///
            /// When the context ends it is dropped at the await it stands at. After that what is given here is dropped
            /// unpolled, and the handle says why the scope has ended.
            #[track_caller]
            pub fn spawn<F, T>(&self, future: F) -> Task<T>
            where
                F: Future<Output = Result<T, E>> $($send)* + 'env,
                T: 'env $($send)*,
            {
                self.shared.spawn(future, None, |child| child)
            }
        }

        impl<'env, E: GroupError> ScopeTaskBuilder<'_, $scope<'env, E>> {
            /// Spawns the future under this name, as the scope's own `spawn`.
            #[track_caller]
            pub fn spawn<F, T>(self, future: F) -> Task<T>
            where
                F: Future<Output = Result<T, E>> $($send)* + 'env,
                T: 'env $($send)*,
            {
                self.scope.shared.spawn(future, self.name, |child| child)
            }
        }

        impl<E> Clone for $scope<'_, E> {
            fn clone(&self) -> Self {
                Self {
                    shared: self.shared.clone(),
                }
            }
        }

        // What it shows of itself changes in one step, and foreign code runs with no lock held.
        impl<E> UnwindSafe for $scope<'_, E> {}
        impl<E> RefUnwindSafe for $scope<'_, E> {}

        impl<E> fmt::Debug for $scope<'_, E> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($scope))
                    .field("context", self.context())
                    .finish_non_exhaustive()
            }
        }
    };
}

scope_methods!(Scope, SendChild, [+ Send]);
scope_methods!(LocalScope, LocalChild, []);

impl<S> fmt::Debug for ScopeTaskBuilder<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopeTaskBuilder")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
