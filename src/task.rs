//! `Task`: the handle of one task of a group; `TaskError`; `TaskId`.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as TaskContext, Poll, ready};

use tokio::task::{JoinError, JoinHandle};

use crate::error::ContextError;

/// Waits for one task of a [`Group`](crate::Group) and yields its value.
///
/// Dropping it detaches nothing: the group still owns the task and [waits](crate::Group::wait) for it. To stop the task
/// call [`abort`](Task::abort).
///
/// Compared with tokio's `JoinHandle`, a failing task's error goes to the group; the handle only says that it failed.
///
/// # Cancel safety
///
/// Dropping a future that polls `&mut Task` loses nothing. Once the task has yielded its output it is not to be polled
/// again.
///
/// # Panics
///
/// If it is polled after it has yielded its output.
#[must_use = "the group waits for the task in any case; `drop` the handle if its value is of no interest"]
pub struct Task<T> {
    id: TaskId,
    state: State<T>,
}

enum State<T> {
    Spawned {
        join: JoinHandle<Result<T, TaskError>>,
        /// The runtime dropped the task in the very call that spawned it.
        was_refused: bool,
    },
    /// It never was: the group had ended. `None` once told.
    Stillborn(Option<TaskError>),
}

/// Says why a [`Task`] has no value.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// It returned an error, which went to the group: [`Group::wait`](crate::Group::wait) returns the first.
    #[error("task failed; its error went to the group")]
    Failed,
    /// It panicked; [`Group::wait`](crate::Group::wait) resumes the first panic.
    #[error("task panicked; its panic is resumed by the group's wait")]
    Panicked,
    /// The end of its group's context cut it short, or it had not started by then.
    #[error("task cut short: {0}")]
    Cancelled(#[source] ContextError),
    /// It was aborted: by [`Task::abort`], by the group's drop, at the end of a grace period, or by a runtime that was
    /// shut down.
    #[error("task aborted")]
    Aborted,
    /// The runtime had been shut down and did not take it.
    #[error("task refused: its runtime has been shut down")]
    Refused,
}

/// Identifies a task among all tasks of all groups in the process. Displays as `#17`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub(crate) u64);

impl TaskId {
    /// Takes the next `count` ids of the process; returns the first.
    pub(crate) fn reserve(count: u64) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // Relaxed: the ids only have to differ.
        Self(NEXT.fetch_add(count, Ordering::Relaxed))
    }

    pub(crate) fn next() -> Self {
        Self::reserve(1)
    }
}

impl<T> Task<T> {
    pub(crate) fn spawned(id: TaskId, join: JoinHandle<Result<T, TaskError>>) -> Self {
        let was_refused = join.is_finished();
        Self {
            id,
            state: State::Spawned { join, was_refused },
        }
    }

    pub(crate) fn stillborn(id: TaskId, error: TaskError) -> Self {
        Self {
            id,
            state: State::Stillborn(Some(error)),
        }
    }

    /// Stops the task: its future is dropped at the await it stands at, and the handle says [`TaskError::Aborted`].
    ///
    /// This is no error of the group. A task that has finished keeps its result. A blocking task that runs already goes
    /// on: a thread cannot be stopped.
    pub fn abort(&self) {
        if let State::Spawned { join, .. } = &self.state {
            join.abort();
        }
    }

    /// Returns `true` once the task has ended and awaiting the handle will not wait.
    pub fn is_finished(&self) -> bool {
        match &self.state {
            State::Spawned { join, .. } => join.is_finished(),
            State::Stillborn(_) => true,
        }
    }

    /// Returns the task's id.
    pub fn id(&self) -> TaskId {
        self.id
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, TaskError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        match &mut self.state {
            State::Spawned { join, was_refused } => {
                let was_refused = *was_refused;
                let joined = ready!(Pin::new(join).poll(cx));
                Poll::Ready(joined.unwrap_or_else(|error| Err(of_join(&error, was_refused))))
            }
            State::Stillborn(error) => match error.take() {
                Some(error) => Poll::Ready(Err(error)),
                None => panic!("errgroup: Task polled after it had yielded its output"),
            },
        }
    }
}

/// What the group itself did not see: tokio dropped the task.
fn of_join(error: &JoinError, was_refused: bool) -> TaskError {
    if error.is_panic() {
        TaskError::Panicked
    } else if was_refused {
        TaskError::Refused
    } else {
        TaskError::Aborted
    }
}

impl<T> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("id", &self.id)
            .field("is_finished", &self.is_finished())
            .finish()
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskId({})", self.0)
    }
}
