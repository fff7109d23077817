//! `Task`: the handle of one task of a group; `AbortHandle`; `TaskId`.
//!
//! What a task leaves for its handle is its [`Output`]; a blocking task, which no runtime can be told to drop, leaves it in
//! a cell of its own, and so does a task of a scope ([`ResultCell`]).

mod cell;

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::panic::{Location, RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context as TaskContext, Poll, ready};

use tokio::task::{JoinError, JoinHandle};

pub(crate) use self::cell::ResultCell;

use crate::error::{ContextError, GroupId, Reason, Who};

/// Waits for one task of a [`Group`](crate::Group) or a [`scope`](crate::scope()) and yields its value.
///
/// Dropping it detaches nothing: the group still owns the task and [waits](crate::Group::wait) for it. So a task whose value
/// is of no interest is spawned with `group.spawn(…);`. To stop a task call [`abort`](Task::abort).
///
/// # Errors
///
/// Awaiting it says why there is no value, in a [`ContextError`]:
///
/// - the task failed or panicked: [`Reason::TaskFailed`] or [`Reason::TaskPanicked`], with the task's name or id, the place
///   where it was spawned, and the error's text. The error itself belongs to the group, whose
///   [`wait`](crate::Group::wait) returns the first; a task whose error somebody needs with its type returns
///   `Ok(Result)`. If the failure ended the group's context, this is that very end;
/// - the end of the context cut it short, or it had not started by then: that end;
/// - it was aborted: [`Reason::TaskAborted`]; its runtime was shut down: [`Reason::RuntimeGone`].
///
/// `?` passes it on into every error type that a group takes, and a task of the group that does so has not failed itself.
///
/// # Comparison to `JoinHandle`
///
/// tokio's yields a `JoinError` that tells a panic from an abort, and dropping it detaches the task.
///
/// # Cancel safety
///
/// Dropping a future that polls `&mut Task` loses nothing.
///
/// # Panics
///
/// If it is polled after it has yielded its output.
pub struct Task<T>(State<T>);

enum State<T> {
    Async(AsyncTask<T>),
    Blocking(BlockingTask<T>),
    Scoped(ScopedTask<T>),
    /// It failed, and the text of its error is being made.
    Telling(TaskId, ContextError),
    /// It never was: the group had ended. `None` once told.
    Refused(TaskId, Option<ContextError>),
}

struct AsyncTask<T> {
    // Before `join`, which drops a value that nobody fetches.
    watch: Option<Watch>,
    join: JoinHandle<Output<T>>,
    /// The runtime dropped the task in the very call that spawned it.
    was_refused: bool,
    /// Set by whoever aborts the task. Made when first needed.
    was_aborted: OnceLock<Arc<AtomicBool>>,
    who: Owned,
}

struct BlockingTask<T> {
    id: TaskId,
    cell: Arc<dyn Cell<T>>,
}

/// Why not behind `Cell<T>`, too? `dyn Cell<T>` would ask for a `T` that borrows nothing.
struct ScopedTask<T> {
    id: TaskId,
    cell: Arc<ResultCell<T>>,
}

/// Stops one task: the value of [`Task::abort_handle`].
///
/// Cheap to clone; it keeps neither the task nor its value.
#[derive(Clone)]
pub struct AbortHandle {
    id: TaskId,
    target: Target,
}

#[derive(Clone)]
enum Target {
    Async(tokio::task::AbortHandle, Arc<AtomicBool>),
    Cell(Arc<dyn Abort>),
    Gone,
}

/// Identifies a task among all tasks of all groups in the process. Displays as `#17`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub(crate) u64);

impl TaskId {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // Relaxed: the ids only have to differ.
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// What a task leaves in its runtime.
// An enum, since it is as large as its largest variant, and has to be small beside a small future: tokio keeps both in the
// same place.
pub(crate) enum Output<T> {
    Value(T),
    /// A value that has a destructor. The receipt is dropped after it.
    Delivered {
        value: T,
        _receipt: Receipt,
    },
    NoValue(ContextError),
}

/// As [`Who`], for keeps.
#[derive(Clone)]
pub(crate) struct Owned {
    pub(crate) name: Option<Arc<Cow<'static, str>>>,
    pub(crate) id: TaskId,
    pub(crate) location: &'static Location<'static>,
    pub(crate) group: GroupId,
}

/// The group of a task whose value has a destructor; see `group::registry`.
pub(crate) trait Home: Send + Sync {
    /// The handle is about to be dropped.
    fn detach(&self, key: u32, id: TaskId);

    /// The value has gone to the handle, or is dropped.
    fn remove_delivered(&self, key: u32);
}

/// Lies in a handle until it has fetched its value: dropped before, it tells the group.
pub(crate) struct Watch {
    /// `None` once it has nothing to tell.
    pub(crate) home: Option<Arc<dyn Home>>,
    pub(crate) key: u32,
    pub(crate) id: TaskId,
}

/// Lies beside a value until it is fetched or dropped, and tells the group then.
pub(crate) struct Receipt {
    pub(crate) home: Arc<dyn Home>,
    pub(crate) key: u32,
}

/// A blocking task, as its handle knows it.
pub(crate) trait Cell<T>: Abort {
    fn poll(&self, cx: &TaskContext<'_>) -> Poll<Result<T, ContextError>>;

    /// Nobody will fetch the value.
    fn detach(&self);

    fn as_abort(self: Arc<Self>) -> Arc<dyn Abort>;
}

pub(crate) trait Abort: Send + Sync {
    fn abort(&self);

    fn is_finished(&self) -> bool;
}

impl<T> Task<T> {
    pub(crate) fn spawned(who: Owned, join: JoinHandle<Output<T>>, watch: Option<Watch>) -> Self {
        Self(State::Async(AsyncTask {
            watch,
            was_refused: join.is_finished(),
            join,
            was_aborted: OnceLock::new(),
            who,
        }))
    }

    /// Whoever aborts it sets this flag.
    pub(crate) fn with_abort_flag(self, was_aborted: Arc<AtomicBool>) -> Self {
        if let State::Async(task) = &self.0 {
            // It is new.
            let _ = task.was_aborted.set(was_aborted);
        }
        self
    }

    pub(crate) fn blocking(id: TaskId, cell: Arc<dyn Cell<T>>) -> Self {
        Self(State::Blocking(BlockingTask { id, cell }))
    }

    pub(crate) fn scoped(id: TaskId, cell: Arc<ResultCell<T>>) -> Self {
        Self(State::Scoped(ScopedTask { id, cell }))
    }

    pub(crate) fn refused(id: TaskId, why: ContextError) -> Self {
        Self(State::Refused(id, Some(why)))
    }

    /// Stops the task: its future is dropped at the await it stands at, and the handle says [`Reason::TaskAborted`].
    ///
    /// This is no error of the group. A task that has finished keeps its result. A blocking task that has no thread yet is
    /// dropped in this call; one that runs goes on and keeps its result: a thread cannot be stopped.
    pub fn abort(&self) {
        match &self.0 {
            State::Async(task) => {
                task.was_aborted().store(true, Ordering::Relaxed);
                task.join.abort();
            }
            State::Blocking(task) => task.cell.abort(),
            State::Scoped(task) => task.cell.abort(),
            State::Telling(..) | State::Refused(..) => {}
        }
    }

    /// Returns a handle that stops the task and does not wait for it, as tokio's `JoinHandle::abort_handle`.
    pub fn abort_handle(&self) -> AbortHandle {
        let target = match &self.0 {
            State::Async(task) => {
                Target::Async(task.join.abort_handle(), task.was_aborted().clone())
            }
            State::Blocking(task) => Target::Cell(task.cell.clone().as_abort()),
            State::Scoped(task) => Target::Cell(task.cell.abort_switch()),
            State::Telling(..) | State::Refused(..) => Target::Gone,
        };
        AbortHandle {
            id: self.id(),
            target,
        }
    }

    /// Returns `true` once the task has ended and awaiting the handle will not wait.
    pub fn is_finished(&self) -> bool {
        match &self.0 {
            State::Async(task) => task.join.is_finished(),
            State::Blocking(task) => task.cell.is_finished(),
            State::Scoped(task) => task.cell.is_finished(),
            State::Telling(..) | State::Refused(..) => true,
        }
    }

    /// Returns the task's id.
    pub fn id(&self) -> TaskId {
        match &self.0 {
            State::Async(task) => task.who.id,
            State::Blocking(task) => task.id,
            State::Scoped(task) => task.id,
            State::Telling(id, _) | State::Refused(id, _) => *id,
        }
    }
}

impl<T> AsyncTask<T> {
    fn was_aborted(&self) -> &Arc<AtomicBool> {
        self.was_aborted.get_or_init(Arc::default)
    }

    fn poll(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<T, ContextError>> {
        let joined = ready!(Pin::new(&mut self.join).poll(cx));
        if let Some(watch) = self.watch.take() {
            watch.disarm();
        }
        Poll::Ready(match joined {
            Ok(output) => output.into_result(),
            Err(error) => Err(self.dropped(&error)),
        })
    }

    /// What the group itself did not see: tokio dropped the task.
    fn dropped(&self, error: &JoinError) -> ContextError {
        // Relaxed: the abort has happened before the task was dropped for it.
        let was_aborted = self
            .was_aborted
            .get()
            .is_some_and(|was| was.load(Ordering::Relaxed));
        let (reason, text) = match error.is_panic() {
            true => (Reason::TaskPanicked, "its destructor panicked"),
            false if was_aborted && !self.was_refused => (Reason::TaskAborted, ""),
            false => (Reason::RuntimeGone, ""),
        };
        ContextError::of_task(reason, self.who.borrow(), text.to_owned())
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, ContextError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let id = self.id();
        let state = &mut self.0;
        let result = match state {
            State::Async(task) => ready!(task.poll(cx)),
            State::Blocking(task) => ready!(task.cell.poll(cx)),
            State::Scoped(task) => ready!(task.cell.poll(cx)),
            State::Telling(_, why) => Err(why.clone()),
            State::Refused(_, why) => match why.take() {
                Some(why) => Err(why),
                None => panic!("errgroup: Task polled after it had yielded its output"),
            },
        };
        if let Err(why) = &result {
            if !why.tell() {
                // The group's wait is about to have it.
                *state = State::Telling(id, why.clone());
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            *state = State::Refused(id, None);
        }
        Poll::Ready(result)
    }
}

impl<T> Drop for BlockingTask<T> {
    fn drop(&mut self) {
        self.cell.detach();
    }
}

impl<T> Drop for ScopedTask<T> {
    fn drop(&mut self) {
        self.cell.detach();
    }
}

impl AbortHandle {
    /// Stops the task, as [`Task::abort`].
    pub fn abort(&self) {
        match &self.target {
            Target::Async(join, was_aborted) => {
                was_aborted.store(true, Ordering::Relaxed);
                join.abort();
            }
            Target::Cell(cell) => cell.abort(),
            Target::Gone => {}
        }
    }

    /// Returns `true` once the task has ended.
    pub fn is_finished(&self) -> bool {
        match &self.target {
            Target::Async(join, _) => join.is_finished(),
            Target::Cell(cell) => cell.is_finished(),
            Target::Gone => true,
        }
    }

    /// Returns the task's id.
    pub fn id(&self) -> TaskId {
        self.id
    }
}

impl<T> Output<T> {
    pub(crate) fn into_result(self) -> Result<T, ContextError> {
        match self {
            Output::Value(value) | Output::Delivered { value, .. } => Ok(value),
            Output::NoValue(why) => Err(why),
        }
    }
}

impl Owned {
    pub(crate) fn borrow(&self) -> Who<'_> {
        Who {
            name: self.name.as_ref().map(|name| name.as_ref().as_ref()),
            id: self.id,
            location: self.location,
            group: self.group,
        }
    }
}

impl Watch {
    /// The value was fetched, or will never be.
    fn disarm(mut self) {
        self.home = None;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(home) = &self.home {
            home.detach(self.key, self.id);
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.home.remove_delivered(self.key);
    }
}

impl<T> UnwindSafe for Task<T> {}
impl<T> RefUnwindSafe for Task<T> {}
impl UnwindSafe for AbortHandle {}
impl RefUnwindSafe for AbortHandle {}

impl<T> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("id", &self.id())
            .field("is_finished", &self.is_finished())
            .finish()
    }
}

impl fmt::Debug for AbortHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AbortHandle")
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
