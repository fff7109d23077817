//! `ContextError` and `Reason`: why a context has ended. `GroupError`: what a group asks of an error type.

use std::borrow::Cow;
use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::panic::Location;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use crate::destructor::destroy;
use crate::panic::{catch, discard};
use crate::sync::Mutex;
use crate::task::TaskId;

/// Any error that can be sent between threads.
pub type BoxError = Box<dyn Error + Send + Sync + 'static>;

/// Explains why a [`Context`](crate::Context) has ended, or a [`Task`](crate::Task) has no value: what happened, where,
/// and by which task.
///
/// One pointer, cheap to clone: all the contexts that one event has ended share one value, and so
/// `Result<(), ContextError>` is one word.
///
/// `Display` is a single line that a person can act on. [`source`](Error::source) is the cause that was given, if any
/// ([`CancelHandle::cancel_with`](crate::CancelHandle::cancel_with),
/// [`Context::with_timeout_cause`](crate::Context::with_timeout_cause), …); the line contains its text.
///
/// Two are equal if they tell of the same end: what a task passes on equals what its context tells. Two ends alike, such as
/// two calls of `cancel` on one line, are not equal.
///
/// A cause may be a `ContextError` itself, or wrap one, and so on: such a chain may be as long as it likes. `Display` writes
/// the 16 nearest and `…` for the rest; [`source`](Error::source) leads to all of them.
///
/// Compared with Go, this is `ctx.Err()` and `context.Cause(ctx)` in one value, with the place in the source added.
///
/// # Examples
///
/// ```
/// use errgroup::{Context, Reason};
///
/// let (ctx, handle) = Context::background().with_cancel();
/// handle.cancel_with("the user pressed stop");
///
/// let error = ctx.err().expect("ended");
/// assert_eq!(error.reason(), Reason::Cancelled);
/// assert!(error.to_string().starts_with("cancelled: the user pressed stop (at "));
/// ```
#[derive(Clone)]
pub struct ContextError(Arc<End>);

struct End {
    reason: Reason,
    cause: Option<BoxError>,
    location: Option<&'static Location<'static>>,
    task: Option<EndedTask>,
    timeout: Option<Duration>,
    detail: Option<Cow<'static, str>>,
    /// When it was, once somebody was told or wanted to know.
    time: OnceLock<Instant>,
}

impl Drop for End {
    /// The last to know a foreign cause may be anybody: a context's owner, or the thread that ends its parent.
    fn drop(&mut self) {
        if let Some(cause) = self.cause.take() {
            destroy(cause);
        }
    }
}

/// The task that failed, panicked or was aborted.
struct EndedTask {
    /// Its name, else its id as printed.
    label: String,
    is_named: bool,
    text: Text,
    /// The group that it belonged to.
    group: GroupId,
    /// Whether it ended the group's context, too.
    is_end: bool,
}

/// What a task's error or panic said. Empty for a task that was aborted.
enum Text {
    Told(String),
    /// The error of a task that failed when others had failed before: its text is made when its handle asks for it.
    Late {
        text: OnceLock<String>,
        /// Taken by whoever makes the text.
        error: Mutex<Option<Box<dyn fmt::Display + Send>>>,
    },
}

/// Tells the groups of the process apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupId(pub(crate) u64);

/// What is known of a task, to be told in an error.
#[derive(Clone, Copy)]
pub(crate) struct Who<'a> {
    pub(crate) name: Option<&'a str>,
    pub(crate) id: TaskId,
    pub(crate) location: &'static Location<'static>,
    pub(crate) group: GroupId,
}

/// Names the kind of event that ended a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Reason {
    /// A [`CancelHandle`](crate::CancelHandle) was used, or the future given to
    /// [`with_cancel_on`](crate::Context::with_cancel_on) completed.
    Cancelled,
    /// The last [`CancelHandle`](crate::CancelHandle), or [`StopHandle`](crate::StopHandle), was dropped.
    /// `let (ctx, _) = …` does so at once.
    HandleDropped,
    /// The deadline passed.
    DeadlineExceeded,
    /// A task of the group returned an error.
    TaskFailed,
    /// A task of the group panicked.
    TaskPanicked,
    /// The group's owner called [`Group::cancel`](crate::Group::cancel).
    GroupCancelled,
    /// The group's owner has waited for it: all its tasks have ended.
    GroupFinished,
    /// The group was dropped before it was waited for.
    GroupDropped,
    /// The group's owner called [`Group::shutdown`](crate::Group::shutdown).
    Shutdown,
    /// The process received a signal.
    Signal,
    /// Stopping has begun: the end of a [`stopping`](crate::Context::stopping) context, by
    /// [`StopHandle::stop`](crate::StopHandle::stop), a signal with a drain or
    /// [`Group::stop`](crate::Group::stop) with a drain. What takes on nothing new has this reason; the work goes on.
    Stopping,
    /// The drain was over: what had begun to stop had not ended by then.
    Stopped,
    /// The task was aborted, by its handle or after a grace period. Told by its handle only: it ends no context.
    TaskAborted,
    /// The runtime was shut down before the group's tasks had ended, or did not take a task any more. It ends no context.
    RuntimeGone,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Cancelled => "cancelled",
            Reason::HandleDropped => "cancelled: the last CancelHandle was dropped",
            Reason::DeadlineExceeded => "deadline exceeded",
            Reason::TaskFailed => "cancelled: a task failed",
            Reason::TaskPanicked => "cancelled: a task panicked",
            Reason::GroupCancelled => "cancelled: the group was cancelled",
            Reason::GroupFinished => "the group has finished",
            Reason::GroupDropped => "cancelled: the group was dropped",
            Reason::Shutdown => "cancelled: the group was shut down",
            Reason::Signal => "cancelled: a signal was received",
            Reason::Stopping => "stopping",
            Reason::Stopped => "stopped",
            Reason::TaskAborted => "a task was aborted",
            Reason::RuntimeGone => "the runtime was shut down",
        })
    }
}

impl End {
    fn new(reason: Reason, location: Option<&'static Location<'static>>) -> Self {
        Self {
            reason,
            cause: None,
            location,
            task: None,
            timeout: None,
            detail: None,
            time: OnceLock::new(),
        }
    }
}

impl ContextError {
    /// An end by the owner: `Cancelled`, `HandleDropped`, `GroupCancelled`, `GroupDropped`, `Shutdown`, …
    pub(crate) fn at(
        reason: Reason,
        location: &'static Location<'static>,
        cause: Option<BoxError>,
    ) -> Self {
        let mut end = End::new(reason, Some(location));
        end.cause = cause;
        Self(Arc::new(end))
    }

    /// The beginning of a stop (`Stopping`), or the end when its drain is over.
    pub(crate) fn stop(
        reason: Reason,
        drain: Option<Duration>,
        location: Option<&'static Location<'static>>,
        cause: Option<BoxError>,
    ) -> Self {
        let mut end = End::new(reason, location);
        end.cause = cause;
        end.detail = drain.map(|drain| format!("the drain of {drain:?} is over").into());
        Self(Arc::new(end))
    }

    /// The end by the last `StopHandle`, dropped before any stop.
    pub(crate) fn unstopped(location: &'static Location<'static>) -> Self {
        let mut end = End::new(Reason::HandleDropped, Some(location));
        end.detail = Some("a StopHandle".into());
        Self(Arc::new(end))
    }

    pub(crate) fn deadline(
        timeout: Option<Duration>,
        location: &'static Location<'static>,
        cause: Option<BoxError>,
    ) -> Self {
        let mut end = End::new(Reason::DeadlineExceeded, Some(location));
        end.cause = cause;
        end.timeout = timeout;
        Self(Arc::new(end))
    }

    /// The end that a task's failure or panic is for its whole group.
    pub(crate) fn end_by_task(reason: Reason, who: Who<'_>, text: String) -> Self {
        Self::task_ended(reason, who, Text::Told(text), true)
    }

    /// Why a single task has no value.
    pub(crate) fn of_task(reason: Reason, who: Who<'_>, text: String) -> Self {
        Self::task_ended(reason, who, Text::Told(text), false)
    }

    /// As `of_task`, for an error whose text nobody may ever ask for. Nobody outside sees it before `tell`.
    pub(crate) fn late(who: Who<'_>, error: Box<dyn fmt::Display + Send>) -> Self {
        let text = Text::Late {
            text: OnceLock::new(),
            error: Mutex::new(Some(error)),
        };
        Self::task_ended(Reason::TaskFailed, who, text, false)
    }

    /// Makes the text if that is still to be done, and drops the error; `false` while somebody else does.
    #[must_use]
    pub(crate) fn tell(&self) -> bool {
        let Some(EndedTask {
            text: Text::Late { text, error },
            ..
        }) = &self.0.task
        else {
            return true;
        };
        // With no lock held: it is foreign code.
        let taken = error.lock().take();
        if let Some(error) = taken {
            let told = text_of(&error);
            discard(error);
            let _ = text.set(told);
        }
        text.get().is_some()
    }

    /// When the end was: now, for the first to ask.
    pub(crate) fn time(&self, now: impl FnOnce() -> Instant) -> Instant {
        *self.0.time.get_or_init(now)
    }

    /// When the end was, if somebody has taken the time.
    pub(crate) fn time_taken(&self) -> Option<Instant> {
        self.0.time.get().copied()
    }

    /// Whether nobody else has this error.
    pub(crate) fn is_unshared(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    fn task_ended(reason: Reason, who: Who<'_>, text: Text, is_end: bool) -> Self {
        let mut end = End::new(reason, Some(who.location));
        end.task = Some(EndedTask {
            label: who.name.map_or_else(|| who.id.to_string(), str::to_owned),
            is_named: who.name.is_some(),
            text,
            group: who.group,
            is_end,
        });
        Self(Arc::new(end))
    }

    /// An end that nobody in the program asked for, told in words.
    pub(crate) fn detailed(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        let mut end = End::new(reason, None);
        end.detail = Some(detail.into());
        Self(Arc::new(end))
    }

    /// Returns the kind of event that ended the context.
    pub fn reason(&self) -> Reason {
        self.0.reason
    }

    /// Returns `true` if a deadline ended the context.
    pub fn is_deadline_exceeded(&self) -> bool {
        self.0.reason == Reason::DeadlineExceeded
    }

    /// Returns where the event stands in the source: the cancelling call, the derivation that set the deadline or whose
    /// handle was dropped, the spawn of the task that failed or panicked. `None` where no call of the program did it.
    pub fn location(&self) -> Option<&'static Location<'static>> {
        self.0.location
    }

    /// Returns the name of the task that failed, panicked or was aborted, or its [`TaskId`](crate::TaskId) as printed (`#17`) if it
    /// has no name. `None` for every other reason.
    pub fn task(&self) -> Option<&str> {
        self.0.task.as_ref().map(|task| task.label.as_str())
    }

    /// Returns the cause that was given, if it is a `T`.
    pub fn downcast_ref<T: Error + 'static>(&self) -> Option<&T> {
        self.0.cause.as_deref()?.downcast_ref()
    }

    /// Whether it is the very same end.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether a task of this group failed or panicked.
    pub(crate) fn is_failure_in(&self, group: GroupId) -> bool {
        matches!(self.0.reason, Reason::TaskFailed | Reason::TaskPanicked)
            && self.0.task.as_ref().is_some_and(|task| task.group == group)
    }

    /// The cause that was given, else the error itself.
    pub(crate) fn cause(&self) -> &(dyn Error + Send + Sync + 'static) {
        self.0.cause.as_deref().unwrap_or(self)
    }
}

impl fmt::Display for ContextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = &*self.0;
        if let Some(task) = &end.task {
            return task.fmt(end, f);
        }
        if end.reason == Reason::GroupFinished {
            return write!(f, "{}: all its tasks have ended", end.reason);
        }
        if let (Reason::HandleDropped, Some(_), Some(location)) =
            (end.reason, &end.detail, end.location)
        {
            return write!(
                f,
                "cancelled: the last StopHandle was dropped before it was used (context derived at {location}); keep it: \
                 `let (ctx, _) = ...` drops it at once"
            );
        }
        write!(f, "{}", end.reason)?;
        if let Some(detail) = &end.detail {
            write!(f, ": {detail}")?;
        }
        if let Some(cause) = &end.cause {
            fmt_cause(cause, f)?;
        }
        let Some(location) = end.location else {
            return Ok(());
        };
        match (end.reason, end.timeout) {
            (Reason::DeadlineExceeded, Some(timeout)) => {
                write!(f, " ({timeout:?}, set at {location})")
            }
            (Reason::DeadlineExceeded, None) => write!(f, " (set at {location})"),
            (Reason::HandleDropped, _) => write!(
                f,
                " (context derived at {location}); keep the handle, or detach() it: `let (ctx, _) = ...` drops it at once"
            ),
            _ => write!(f, " (at {location})"),
        }
    }
}

/// Writes a cause, unless it lies too deep in a chain of them. Who wraps an end in an error of his own leads back here
/// through code that we do not see, so the depth is counted for the thread.
fn fmt_cause(cause: &BoxError, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    const MAX_DEPTH: usize = 16;
    thread_local! {
        static DEPTH: Cell<usize> = const { Cell::new(0) };
    }
    /// Goes back although the cause's `Display` may panic.
    struct Deeper(usize);
    impl Drop for Deeper {
        fn drop(&mut self) {
            DEPTH.set(self.0);
        }
    }
    let depth = DEPTH.get();
    if depth == MAX_DEPTH {
        return f.write_str(": …");
    }
    let _deeper = Deeper(depth);
    DEPTH.set(depth + 1);
    write!(f, ": {cause}")
}

impl EndedTask {
    fn fmt(&self, end: &End, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = if self.is_named { "\"" } else { "" };
        let verb = match end.reason {
            Reason::TaskPanicked => "panicked",
            Reason::TaskAborted => "was aborted",
            Reason::RuntimeGone => "was dropped by its runtime, which was shut down",
            _ => "failed",
        };
        let cancelled = if self.is_end { "cancelled: " } else { "" };
        let (label, text) = (&self.label, self.text.as_str());
        write!(f, "{cancelled}task {quote}{label}{quote} {verb}")?;
        if !text.is_empty() {
            write!(f, ": {text}")?;
        }
        match end.location {
            Some(location) => write!(f, " (spawned at {location})"),
            None => Ok(()),
        }
    }
}

impl Text {
    fn as_str(&self) -> &str {
        match self {
            Text::Told(text) => text,
            Text::Late { text, .. } => text.get().map_or("", String::as_str),
        }
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        if let Text::Late { error, .. } = self {
            discard(error.get_mut().take());
        }
    }
}

/// The text of a foreign error, whose `Display` may panic.
pub(crate) fn text_of<E: fmt::Display + ?Sized>(error: &E) -> String {
    catch(|| error.to_string()).unwrap_or_else(|payload| {
        discard(payload);
        "an error whose text panics".to_owned()
    })
}

impl fmt::Debug for ContextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContextError")
            .field("reason", &self.0.reason)
            .field("text", &format_args!("{self}"))
            .finish()
    }
}

impl PartialEq for ContextError {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ContextError {}

impl Error for ContextError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.cause.as_deref().map(|cause| cause as _)
    }
}

// `dyn Error` keeps the automatic impls away; the value never changes, so a panic cannot leave it half-made.
impl std::panic::UnwindSafe for ContextError {}
impl std::panic::RefUnwindSafe for ContextError {}

/// `TimedOut` for a deadline, else `Other`; the [`ContextError`] is the io error's inner error.
impl From<ContextError> for std::io::Error {
    fn from(error: ContextError) -> Self {
        let kind = match error.reason() {
            Reason::DeadlineExceeded => std::io::ErrorKind::TimedOut,
            _ => std::io::ErrorKind::Other,
        };
        std::io::Error::new(kind, error)
    }
}

/// Names what a [`Group`](crate::Group) asks of its error type; implemented for every type that has it.
///
/// - `From<ContextError>`: a task that the context cuts short has to fail with something;
/// - `Display`: the reason given to the siblings carries the error's text;
/// - `Send + 'static`: the error travels from the task to the group.
///
/// [`BoxError`], `anyhow::Error` and `std::io::Error` have all of it. For a type of your own, one line of `thiserror` is
/// enough:
///
/// ```
/// #[derive(Debug, thiserror::Error)]
/// enum SyncError {
///     #[error(transparent)]
///     Io(#[from] std::io::Error),
///     #[error(transparent)]
///     Context(#[from] errgroup::ContextError),
/// }
///
/// let group: errgroup::Group<SyncError> = errgroup::Group::new();
/// # drop(group);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error type of a `Group`",
    label = "not a `GroupError`",
    note = "a group's error must be `From<errgroup::ContextError> + Display + Send + 'static`",
    note = "for a type of your own add `impl From<errgroup::ContextError> for {Self}`, or with thiserror a variant \
            `#[error(transparent)] Context(#[from] errgroup::ContextError)`: a task cut short has to fail with something",
    note = "for a type of another crate use `errgroup::BoxError` or `anyhow::Error` and convert in the task: \
            `async {{ Ok(work().await?) }}`"
)]
pub trait GroupError: From<ContextError> + fmt::Display + Send + 'static {}

#[diagnostic::do_not_recommend]
impl<E: From<ContextError> + fmt::Display + Send + 'static> GroupError for E {}
