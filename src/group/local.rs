//! `Local`: a task that need not be `Send`, and stays on the thread where it was spawned.
//!
//! It runs as any other, in a [`Run`]. But it has another runtime below it: a `LocalSet` may go away, and its tasks with it,
//! while the group's runtime goes on. So what tells an abort from a loss here is whether somebody has aborted the task.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as TaskContext, Poll};

use pin_project_lite::pin_project;
use tokio::task::JoinHandle;

use super::console::spawn_local;
use super::entry::Name;
use super::fate::Fate;
use super::guard::TaskGuard;
use super::run::Run;
use crate::error::GroupError;
use crate::task::Output;

pin_project! {
    pub(super) struct Local<F, E>
    where
        E: GroupError,
    {
        #[pin]
        run: Run<F, E>,
        was_aborted: Arc<AtomicBool>,
        // Whether it has come out of `spawn_local`.
        is_spawned: Rc<Cell<bool>>,
    }

    impl<F, E> PinnedDrop for Local<F, E>
    where
        E: GroupError,
    {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            // Relaxed: the abort has happened before the task was dropped for it.
            let was_aborted = this.was_aborted.load(Ordering::Relaxed);
            let fate = match was_aborted {
                true => Fate::Aborted,
                false if !this.is_spawned.get() && std::thread::panicking() => Fate::Uncounted,
                false => Fate::Lost,
            };
            this.run.drop_unfinished(Some(fate));
        }
    }
}

/// Spawns a task on the current `LocalSet` or `LocalRuntime`; `was_aborted` is set by whoever aborts it.
///
/// # Panics
///
/// Outside of both. The task has left the group by then.
#[track_caller]
pub(super) fn spawn<F, T, E>(
    guard: TaskGuard<E>,
    future: F,
    was_aborted: Arc<AtomicBool>,
    name: Option<&Name>,
) -> JoinHandle<Output<T>>
where
    F: Future<Output = Result<T, E>> + 'static,
    T: 'static,
    E: GroupError,
{
    let is_spawned = Rc::new(Cell::new(false));
    let local = Local {
        run: Run::new(guard, future),
        was_aborted,
        is_spawned: is_spawned.clone(),
    };
    let join = spawn_local(name, local);
    is_spawned.set(true);
    join
}

impl<F, T, E> Future for Local<F, E>
where
    F: Future<Output = Result<T, E>>,
    E: GroupError,
{
    type Output = Output<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        self.project().run.poll(cx)
    }
}
