//! Structured concurrency on tokio: spawn fallible tasks into a [`Group`]; the first error cancels the siblings, and
//! [`wait`](Group::wait) returns that error when all of them have ended.
//!
//! | type | what it is |
//! |---|---|
//! | [`Context`] | who may still work, until when, with which values; read only, cheap to clone |
//! | [`CancelHandle`] | the right to end one context; dropping the last one ends it |
//! | [`Group`] | the owner of a derived context and of the tasks spawned into it |
//! | [`Task`] | one task's handle: its value, its abort |
//! | [`batch`] | one function on many items, a few at a time, without a task for each |
//! | [`WaitGroup`] | waits until all its [`Token`]s are dropped, and stops nobody |
//!
//! A context ends once and stays ended; what derives from it ends with it. Its [`ContextError`] says why, where and by
//! which task.
//!
//! ```
//! # use {errgroup::*, std::time::Duration, tokio::time::sleep};
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), BoxError> {
//! let mut group: Group = Group::new(); // the annotation names the error type: `BoxError`
//! let answer = group.spawn(async { Ok(6 * 7) });
//! let sibling = group.spawn(async { Ok(sleep(Duration::from_secs(60)).await) });
//! drop(group.task("port").spawn(async { Ok("8o".parse::<u16>()?) }));
//!
//! assert_eq!(group.wait().await.unwrap_err().to_string(), "invalid digit found in string");
//! assert_eq!(answer.await?, 42);
//! let why = sibling.await.unwrap_err().to_string();
//! assert!(why.starts_with("task cut short: cancelled: task \"port\" failed: invalid digit found in string"));
//! # Ok(()) }
//! ```
//!
//! # Who owns, who cancels, who waits
//!
//! - **A group owns its tasks.** Dropping a [`Task`] detaches nothing. Dropping the group ends its context and aborts
//!   its tasks without waiting for them, so an early `?` in the owner stops all that it started.
//! - **Only owners cancel:** whoever holds a [`CancelHandle`], the group or a [`Task`]. A [`Context`] or a [`Spawner`],
//!   which tasks hand on, carries no such right. A task ends its group by failing.
//! - **`wait` returns when every task has ended**: its future and captures dropped, its closure returned. It returns the
//!   first error, or resumes the first panic. If the parent's end or a deadline cut a task short, that is an error, too;
//!   after [`cancel`](Group::cancel) it is none.
//! - **Dropped or cooperative.** [`spawn(future)`](Group::spawn): the end drops the future at the await it stands at.
//!   [`spawn_with(|ctx| …)`](Group::spawn_with) and [`spawn_blocking`](Group::spawn_blocking): the task watches `ctx`,
//!   and runs until it returns or is aborted. Nobody can stop code that neither comes to an await nor looks at `ctx`.
//!
//! # Recipes
//!
//! **A limit.** [`spawn`](Group::spawn) queues what is above it, without bound; [`slot`](Group::slot) waits for room.
//! ```
//! # use {errgroup::*, std::num::NonZeroUsize};
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
//! let mut group: Group = Group::builder().limit(NonZeroUsize::new(8).expect("not zero")).build();
//! for page in 0..100 {
//!     drop(group.slot().await.spawn(async move { Ok(println!("{page}")) }));
//! }
//! group.wait().await
//! # }
//! ```
//!
//! **A deadline, and cleaning up after it.** What has to run after the end derives from
//! [`without_cancel`](Context::without_cancel), with a deadline of its own.
//! ```
//! # use {errgroup::*, std::{future::pending, time::Duration}}; async fn flush() {}
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! let ctx = Context::background().with_timeout(Duration::from_secs(2));
//! let mut group: Group = Group::with_context(&ctx);
//! drop(group.spawn(pending::<Result<(), _>>())); // cut short
//! drop(group.spawn_with(|ctx| async move {
//!     ctx.done().await;
//!     let cleanup = ctx.without_cancel().with_timeout(Duration::from_secs(5));
//!     Ok(cleanup.run(flush()).await?)
//! }));
//! let error = group.wait().await.unwrap_err();
//! assert!(error.downcast_ref().is_some_and(ContextError::is_deadline_exceeded));
//! # }
//! ```
//!
//! **One task and not its siblings.** Give it a child context. That context's end is no end of the group's: passed on
//! with `?` it would be a failure of the task, and end the group. ([`Task::abort`] needs no context, and is no failure.)
//! ```
//! # use {errgroup::*, std::future::pending};
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> { let group: Group = Group::new();
//! let (ctx, handle) = group.context().with_cancel();
//! let feed = group.spawn(async move { Ok(ctx.run(pending::<()>()).await.ok()) }); // `None`: it was cut short
//! handle.cancel();
//! assert_eq!(feed.await?, None);
//! assert!(!group.context().is_done());
//! # Ok(()) }
//! ```
//!
//! **Shutdown and nested groups.** Spawn the owner of an inner group with `spawn_with`, so that the outer `wait` covers
//! the inner tasks. The inner failure reaches the outer group as that task's error.
//! ```
//! # use {errgroup::*, std::{future::pending, time::Duration}}; async fn signal() {}
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), BoxError> {
//! let ctx = Context::background().with_cancel_on(signal()); // such as `tokio::signal::ctrl_c()`
//! let group: Group = Group::with_context(&ctx);
//! drop(group.task("requests").spawn_with(|ctx| async move {
//!     let requests = Group::with_context(&ctx);
//!     drop(requests.spawn(pending::<Result<(), _>>()));
//!     requests.await
//! }));
//! group.context().done().await; // the signal, or a failure
//! let shutdown = group.shutdown(Duration::from_secs(5)).await;
//! shutdown.stragglers.iter().for_each(|straggler| eprintln!("{straggler}"));
//! shutdown.result
//! # }
//! ```
//!
//! **The root in the middle of a flow** cuts it in two. No end, deadline or value from above gets below it: the tasks
//! leak out of their caller's cancellation, and a caller that waits for them waits on. Derive from the context you were
//! given; [`Context::todo`] marks where you were given none yet.
//! ```
//! # use errgroup::*; let (ctx, handle) = Context::background().with_cancel();
//! let lost: Group = Group::new(); // derives from `Context::background()`
//! let kept: Group = Group::with_context(&ctx);
//! handle.cancel();
//! assert!(kept.context().is_done() && !lost.context().is_done());
//! ```
//!
//! The [`guide`] has more: which tool to pick, and the traps. The programs in `examples/` are answers to be copied.
//!
//! # Comparison
//!
//! tokio's `JoinSet` hands out every result and leaves it to you to stop the rest. tokio-util's `TaskTracker` counts
//! tasks and leaves both errors and stopping to you; `CancellationToken` knows neither a reason nor a deadline.
//!
//! # Coming from Go
//!
//! | Go | here |
//! |---|---|
//! | `Background`, `TODO` | [`Context::background`], [`Context::todo`] |
//! | `WithCancel`, `WithCancelCause` | [`with_cancel`](Context::with_cancel) |
//! | `CancelFunc`, `CancelCauseFunc` | [`CancelHandle::cancel`], [`cancel_with`](CancelHandle::cancel_with); `defer cancel()` is its drop |
//! | `WithTimeout`, `WithDeadline`, `…Cause` | the same in snake case, without a handle: dropping the context frees the timer |
//! | `WithValue`, `Value` | [`with_value`](Context::with_value), [`value`](Context::value); the key is the type |
//! | `WithoutCancel`, `AfterFunc` | [`without_cancel`](Context::without_cancel), [`on_done`](Context::on_done), which runs on the ending thread |
//! | `Done`, `Deadline` | [`done`](Context::done), in threads [`done_blocking`](Context::done_blocking); [`deadline`](Context::deadline) |
//! | `Err`, `Cause`; `Canceled`, `DeadlineExceeded` | [`err`](Context::err) or [`ctx.check()?`](Context::check), [`cause`](Context::cause); [`Reason`], which tells more apart |
//! | `errgroup.WithContext(ctx)`, `Wait` | [`Group::with_context(&ctx)`](Group::with_context), [`wait`](Group::wait) or `group.await` |
//! | `errgroup.Group{}`, which cancels nobody | make the error part of the value: `group.spawn(async { Ok(work().await) })` |
//! | `Go`, which blocks at the limit; `TryGo`, `SetLimit` | [`spawn`](Group::spawn), which queues, or `group.slot().await.spawn(…)`, which waits; [`try_spawn`](Group::try_spawn), [`set_limit`](Group::set_limit) |
//! | `sync.WaitGroup`: `Add(1)`, `Done`, `Go`, `Wait` | [`WaitGroup::token`], its drop, a `tokio::spawn` that owns one, [`WaitGroup::wait`] |
//! | `signal.NotifyContext(ctx, os.Interrupt)` | `ctx.with_signals()?`, which ends with SIGTERM, too, and gives the second signal back; the feature `signal` |
//!
//! # Questions
//!
//! - *Ended at once?* `let (ctx, _) = …` drops the [`CancelHandle`]; `let (ctx, _handle) = …` keeps it.
//! - *Type annotations needed?* Name the group's error: `let group: Group = …` means `Group<BoxError>`. Name the value
//!   of a task that returns none: `Err::<(), _>(…)`, or `group.spawn::<_, ()>(…)` for an endless loop.
//! - *Another error type?* `group.spawn(async { Ok(load().await?) })` converts it; see [`GroupError`] for your own.
//! - *`wait` is an error after `cancel`?* A cooperative task added text to the context's error. Pass it on unchanged.
#![forbid(unsafe_code)]

mod batch;
mod context;
mod destructor;
mod error;
mod group;
mod ordered_slab;
mod panic;
#[cfg(feature = "signal")]
mod signal;
mod sync;
mod task;
mod wait_group;

pub use batch::{Batch, batch, batch_stream};
pub use context::{CancelHandle, Context, Done, DoneOwned, OnDone};
pub use error::{BoxError, ContextError, GroupError, Reason};
pub use group::{
    Failure, Group, GroupBuilder, Shutdown, Slot, Spawner, Stop, Straggler, TaskBuilder, Wait,
    WaitOwned,
};
#[cfg(feature = "signal")]
pub use signal::Signals;
pub use task::{AbortHandle, Task, TaskId};
pub use wait_group::{Token, WaitGroup};

#[cfg(any(doc, doctest))]
#[doc = include_str!("../docs/guide.md")]
pub mod guide {}

/// Runs the examples of the README as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeDoctests;
