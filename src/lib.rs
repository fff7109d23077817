//! Structured concurrency on tokio: spawn fallible tasks into a group; the first error cancels the siblings, and the
//! values, or that error, come back when all of them have ended.
//!
//! ```
//! use errgroup::{BoxError, Context, Group};
//!
//! # async fn user(id: u64) -> Result<String, BoxError> {
//! #     if id == 0 { return Err("no user 0".into()) }
//! #     Ok(format!("user {id}"))
//! # }
//! # async fn orders(id: u64) -> Result<Vec<u64>, BoxError> { Ok(vec![id; 3]) }
//! async fn page(ctx: &Context, id: u64) -> Result<(String, usize), BoxError> {
//!     Group::run(ctx, async |group| {
//!         let user = group.spawn(user(id));
//!         let orders = group.spawn(orders(id));
//!         Ok((user.await?, orders.await?.len()))
//!     })
//!     .await
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
//! let ctx = Context::background();
//! assert_eq!(page(&ctx, 7).await?, ("user 7".to_owned(), 3));
//! assert_eq!(page(&ctx, 0).await.unwrap_err().to_string(), "no user 0");
//! # Ok(()) }
//! ```
//!
//! | type | what it is |
//! |---|---|
//! | [`Context`] | who may still work, until when, with which values; read only, cheap to clone |
//! | [`CancelHandle`] | the right to end one context; dropping the last one ends it |
//! | [`StopHandle`] | the right to stop one in two steps: finish what you have, then end |
//! | [`Group`] | the owner of a derived context and of the tasks spawned into it |
//! | [`Task`] | one task's handle: its value, its abort |
//! | [`scope`](scope()) | tasks that borrow from the caller, polled in the caller's task |
//! | [`batch`] | one function on many items, a few at a time, without a task for each: all values, the first, n of m |
//! | [`Supervisor`] | keeps a few services running, and stops them in order |
//! | [`WaitGroup`] | waits until all its [`WaitGroupToken`]s are dropped, and stops nobody |
//!
//! A context ends once and stays ended; what derives from it ends with it. Its [`ContextError`] says why, where and by
//! which task.
//!
//! [`Group::run`] is for a function that starts tasks and needs what they come to. Its body runs in the caller's task and
//! may borrow from it. An owner that lives longer, or that stops its tasks, has a [`Group`] of its own:
//!
//! ```
//! # use {errgroup::*, std::time::Duration, tokio::time::sleep};
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), BoxError> {
//! let mut group: Group = Group::new();
//! let answer = group.spawn(async { Ok(6 * 7) });
//! let sibling = group.spawn(async { Ok(sleep(Duration::from_secs(60)).await) });
//! group.task("port").spawn(async { Ok("8o".parse::<u16>()?) });
//!
//! assert_eq!(group.wait().await.unwrap_err().to_string(), "invalid digit found in string");
//! assert_eq!(answer.await?, 42);
//! let why = sibling.await.unwrap_err().to_string();
//! assert!(why.starts_with(r#"cancelled: task "port" failed: invalid digit found in string (spawned at "#));
//! # Ok(()) }
//! ```
//!
//! # Who owns, who cancels, who waits
//!
//! - **A group owns its tasks.** Dropping a [`Task`] detaches nothing: `group.spawn(work());` is enough where nobody needs
//!   the value. Dropping the group ends its context and aborts its tasks without waiting for them, so an early `?` in the
//!   owner stops all that it started.
//! - **Only owners cancel:** whoever holds a [`CancelHandle`], the group or a [`Task`]. A [`Context`] or a [`Spawner`],
//!   which tasks hand on, carries no such right. A task ends its group by failing.
//! - **`wait` and `run` return when every task has ended**: its future and captures dropped, its closure returned. They
//!   return the first error, with its type, or resume the first panic. If the parent's end or a deadline cut a task short,
//!   that is an error, too; after [`cancel`](Group::cancel) it is none.
//! - **A handle says why there is no value**: its task's own failure, as text, or the end that cut it short. `?` passes it
//!   on into every error type that a group takes, and passing it on is no failure of its own.
//! - **Dropped or cooperative.** [`spawn(future)`](Group::spawn): the end drops the future at the await it stands at.
//!   [`spawn_with(|ctx| …)`](Group::spawn_with) and [`spawn_blocking`](Group::spawn_blocking): the task watches `ctx`,
//!   and runs until it returns or is aborted. Nobody can stop code that neither comes to an await nor looks at `ctx`.
//!
//! # Recipes
//!
//! **A limit.** [`spawn`](Group::spawn) queues what is above it, without bound; [`slot`](Group::slot) waits for room, and
//! is an error once the context has ended.
//! ```
//! # use errgroup::*; async fn fetch(page: u32) -> Result<u32, BoxError> { Ok(page) }
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> { let ctx = Context::background();
//! let pool = Group::builder().context(&ctx).limit(8);
//! pool.run(async |group| {
//!     for page in 0..100 {
//!         group.slot().await?.spawn(fetch(page));
//!     }
//!     Ok(())
//! })
//! .await
//! # }
//! ```
//! Outside of `run`, `?` would drop the group, with its error and its tasks: there leave the loop, then wait, as in
//! `while let Ok(slot) = group.slot().await { slot.spawn(…); }`.
//!
//! **One function on many items** is a [`batch`], and its method says what is wanted of them:
//! - all values, and the first error stops the rest: [`map`](Batch::map); one by one, [`map_stream`](Batch::map_stream);
//! - in order of completion: [`unordered`](Batch::unordered) before either;
//! - every error, too, and none stops anybody: [`settle`](Batch::settle);
//! - the first success: [`first_ok`](Batch::first_ok); hedged, [`stagger`](Batch::stagger) before it;
//! - n of m: [`quorum`](Batch::quorum).
//! ```
//! # use errgroup::*; async fn get(_ctx: Context, url: &str) -> Result<usize, BoxError> { if url == "c" { Err("gone")? }; Ok(url.len()) }
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> { let ctx = Context::background();
//! let urls = || batch(["a", "bb", "c"], 8).context(&ctx); // at most 8 at once
//! assert_eq!(urls().map(get).await.unwrap_err().to_string(), "gone");
//! assert!(urls().settle(get).await?[2].is_err());
//! assert_eq!(urls().first_ok(get).await?, 1);
//! assert_eq!(urls().quorum(2, get).await?, [1, 2]);
//! # Ok(()) }
//! ```
//!
//! **To borrow.** The tasks of a [`scope`](scope()) borrow from what stands outside of it, as threads do in
//! [`std::thread::scope`]: concurrent, not parallel, on any executor. [`scope_local`] takes tasks that are not `Send`.
//! ```
//! # use errgroup::*; async fn fill(part: &mut [u8], with: u8) -> Result<(), BoxError> { part.fill(with); Ok(()) }
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> { let ctx = Context::background();
//! let mut buffer = [0; 8];
//! let (left, right) = buffer.split_at_mut(4);
//! scope(&ctx, async |scope| {
//!     scope.spawn(fill(left, 1));
//!     scope.spawn(fill(right, 2));
//!     Ok(())
//! })
//! .await?;
//! assert_eq!(buffer, [1, 1, 1, 1, 2, 2, 2, 2]);
//! # Ok(()) }
//! ```
//!
//! **Tasks that are not `Send`** stay on their thread: [`spawn_local`](Group::spawn_local), on a `LocalSet` or a
//! `LocalRuntime`.
//!
//! **Every error of different tasks.** A group keeps as many as it is [told to](GroupBuilder::keep_failures), and
//! [`wait_outcome`](Group::wait_outcome) has them, with their types, and how many tasks ended in which way.
//!
//! **Who is still running?** [`Context::tree`], [`Group::snapshot`] and [`dump_all`] draw it, at any time.
//!
//! **A server.** In an isolated group a failure or a panic is its task's alone.
//! ```
//! # use errgroup::*; async fn serve(n: u32) -> Result<u32, BoxError> { if n == 1 { panic!("a bug") }; Ok(n) }
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> { let stop = Context::background();
//! let mut connections: Group = Group::builder()
//!     .context(&stop)
//!     .limit(1000)
//!     .isolated()
//!     .on_failure(|failure| eprintln!("{failure}")) // the connection's name, and its error or panic
//!     .build();
//! for n in 0..3 {
//!     connections.task(format!("connection {n}")).spawn_with(move |_ctx| serve(n));
//! }
//! connections.wait().await?;
//! assert_eq!(connections.suppressed(), 1);
//! # Ok(()) }
//! ```
//!
//! **A deadline, and cleaning up after it.** What has to run after the end runs in [`cleanup`](Context::cleanup), which ends
//! five seconds later, or as long as [you say](GroupBuilder::cleanup).
//! ```
//! # use {errgroup::*, std::{future::pending, time::Duration}}; async fn flush() {}
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! let ctx = Context::background().with_timeout(Duration::from_secs(2));
//! let mut group: Group = Group::with_context(&ctx);
//! group.spawn(pending::<Result<(), _>>()); // cut short
//! group.spawn_with(async |ctx| {
//!     ctx.done().await;
//!     Ok(ctx.cleanup().run(flush()).await?)
//! });
//! let error = group.wait().await.unwrap_err();
//! assert!(error.downcast_ref().is_some_and(ContextError::is_deadline_exceeded));
//! # }
//! ```
//!
//! **One task and not its siblings.** [`Task::abort`], or an [`AbortHandle`], stops it, and is no failure. Or give it a
//! child context. That context's end is no end of the group's: passed on with `?` it would be a failure of the task.
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
//! **Stopping, and nested groups.** Spawn the owner of an inner group with `spawn_with`, so that it comes to its own end. The
//! inner failure reaches the outer group as that task's error.
//! ```
//! # use {errgroup::*, std::{future::pending, time::Duration}}; async fn signal() {}
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), BoxError> {
//! let ctx = Context::background().with_cancel_on(signal()); // such as `tokio::signal::ctrl_c()`
//! let group: Group = Group::with_context(&ctx);
//! group.task("requests").spawn_with(async |ctx| {
//!     let requests = Group::with_context(&ctx);
//!     requests.spawn(pending::<Result<(), _>>());
//!     requests.await
//! });
//! group.context().done().await; // the signal, or a failure
//! let shutdown = group.stop().grace(Duration::from_secs(5)).await;
//! shutdown.stragglers.iter().for_each(|straggler| eprintln!("{straggler}"));
//! shutdown.result() // a failure; being cut short by the stop is none
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
//! The [`guide`] has more: which tool to pick, short programs, servers, how to stop, and the traps. The programs in
//! `examples/` are answers to be copied.
//!
//! # The error type
//!
//! A group takes any `E` that is [`From<ContextError>`](GroupError), and finds out which: from the futures of functions
//! that are spawned, or from what the function returns that ends in `run(…).await` or `group.await`. Only where every task
//! is an inline block, and the result goes into a `?` or a `match`, nothing tells it, and the compiler asks (E0283):
//!
//! ```compile_fail
//! # use errgroup::*; async fn double(ctx: &Context) -> Result<u32, BoxError> {
//! let six = Group::run(ctx, async |group| {
//!     let six = group.spawn(async { Ok("6".parse::<u32>()?) });
//!     Ok(six.await?)
//! })
//! .await?; // into an error that could be made of many
//! Ok(2 * six)
//! # }
//! ```
//!
//! The cure is to name it: `Spawner` and `Group`, written as types, mean `BoxError`.
//!
//! ```
//! # use errgroup::*; type MyError = BoxError; async fn double(ctx: &Context) -> Result<u32, BoxError> {
//! let six = Group::run(ctx, async |group: Spawner| {
//!     let six = group.spawn(async { Ok("6".parse::<u32>()?) });
//!     Ok(six.await?)
//! });
//! let seven = Group::<MyError>::run(ctx, async |group| Ok(group.spawn(async { Ok(7) }).await?));
//! let group: Group = Group::with_context(ctx);
//! # drop(group);
//! Ok(six.await? * seven.await?)
//! # }
//! ```
//!
//! A task with another error converts it: `group.spawn(async { Ok(read(path).await?) })`.
//!
//! # Comparison
//!
//! tokio's `JoinSet` hands out every result and leaves it to you to stop the rest. tokio-util's `TaskTracker` counts
//! tasks and leaves both errors and stopping to you; `CancellationToken` knows neither a reason nor a deadline.
//!
//! # Coming from tokio
//!
//! | `JoinSet` | here |
//! |---|---|
//! | `new` | [`Group::new`], [`Group::with_context`]; [`Group::run`] for the set, its results and its end in one |
//! | `spawn`, `spawn_blocking` | the same; a blocking closure is given the context |
//! | `spawn_on`, `spawn_blocking_on` | [`GroupBuilder::runtime`], for all tasks |
//! | `spawn_local`, `spawn_local_on` | [`spawn_local`](Group::spawn_local), on the current set; `…_on`: within `LocalSet::enter` |
//! | `build_task` | [`group.task("name")`](Group::task) |
//! | `join_next`, `try_join_next`, `poll_join_next`, `…_with_id` | the first error is found by `wait`. Values: keep the [`Task`]s; in order of completion `tasks.next()` of a `FuturesUnordered` of them |
//! | `join_all` | `for task in tasks { values.push(task.await?) }`, in [`Group::run`] |
//! | `abort_all` | [`cancel`](Group::cancel), which drops what was `spawn`ed and tells the others; nothing starts after it |
//! | `shutdown` | `group.stop().grace(Duration::ZERO).await`; with [a grace](Stop::grace), those who need one have it |
//! | `detach_all` | nothing detaches: what may live longer is spawned by the [`Spawner`] of a group that does |
//! | `len`, `is_empty` | the same, of those that have not ended |
//! | its drop | the same: it aborts, and does not wait |
//! | `AbortHandle` | [`AbortHandle`], by [`Task::abort_handle`]; [`Task::abort`] |
//! | `JoinError`: `is_cancelled`, `is_panic`, `into_panic`, `id` | [`ContextError`]: its [`reason`](ContextError::reason) and [`task`](ContextError::task). The panic itself is resumed by `wait`, or shown to [`on_failure`](GroupBuilder::on_failure) |
//!
//! | `TaskTracker` | here |
//! |---|---|
//! | `spawn…`, `wait` | [`Group::spawn`], [`Group::wait`], which stops nobody either, unless a task fails |
//! | `close`, `reopen`, `is_closed` | nothing: `wait` is over when no task is left. What is spawned after it is refused |
//! | `track_future`, `token` | a [`WaitGroup::token`] that the future owns; [`WaitGroup::wait`] |
//! | `len`, `is_empty` | the same, on both |
//!
//! | `CancellationToken` | here |
//! |---|---|
//! | `new` | `let (ctx, handle) = `[`Context::background()`](Context::background)`.`[`with_cancel()`](Context::with_cancel) |
//! | `clone` | `ctx.clone()`, which cannot cancel; `handle.clone()`, which can |
//! | `child_token` | [`ctx.with_cancel()`](Context::with_cancel), [`ctx.with_timeout(…)`](Context::with_timeout), a group |
//! | `cancel` | [`handle.cancel()`](CancelHandle::cancel), [`handle.cancel_with(cause)`](CancelHandle::cancel_with) |
//! | `is_cancelled` | [`is_done`](Context::is_done), [`err`](Context::err), [`ctx.check()?`](Context::check) |
//! | `cancelled`, `cancelled_owned` | [`done`](Context::done), [`done_owned`](Context::done_owned), which yield the reason |
//! | `run_until_cancelled`, `…_owned` | [`ctx.run(future)`](Context::run): the reason instead of `None` |
//! | `drop_guard`, `drop_guard_ref`, `DropGuard` | the [`CancelHandle`] itself: its last drop cancels |
//! | `DropGuard::disarm` | [`CancelHandle::detach`] |
//! | a token of somebody else's | [`ctx.with_cancel_on(token.cancelled_owned())`](Context::with_cancel_on); the other way, [`ctx.on_done(move \|_\| token.cancel())`](Context::on_done) |
//!
//! ```
//! # use {errgroup::*, futures::{FutureExt, StreamExt, stream::FuturesUnordered}, std::time::Duration, tokio::time::sleep};
//! async fn after(millis: u64) -> Result<u64, BoxError> {
//!     sleep(Duration::from_millis(millis)).await;
//!     Ok(millis)
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), BoxError> {
//! let (ctx, handle) = Context::background().with_cancel(); // `CancellationToken::new`, and its `drop_guard`
//! let group = Group::with_context(&ctx);
//! let mut tasks: FuturesUnordered<_> = [30, 10, 20].map(|n| group.spawn(after(n))).into_iter().collect();
//!
//! assert!(tasks.next().now_or_never().is_none()); // `try_join_next`
//! let mut done = Vec::new();
//! while let Some(millis) = tasks.next().await { // `join_next`
//!     done.push(millis?);
//! }
//! assert_eq!(done, [10, 20, 30]);
//!
//! let late = group.spawn(after(1000));
//! drop(handle);
//! assert_eq!(late.await.unwrap_err().reason(), Reason::HandleDropped);
//! group.stop().grace(Duration::ZERO).await.result() // `shutdown`
//! # }
//! ```
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
//! | `Go`, which blocks at the limit; `TryGo`, `SetLimit` | [`spawn`](Group::spawn), which queues, or `group.slot().await?.spawn(…)`, which waits; [`try_spawn`](Group::try_spawn), [`set_limit`](Group::set_limit) |
//! | variables that goroutines write to | the value of a [`Task`]; [`Group::run`] returns what its body makes of them |
//! | `sync.WaitGroup`: `Add(1)`, `Done`, `Go`, `Wait` | [`WaitGroup::token`], its drop, a `tokio::spawn` that owns one, [`WaitGroup::wait`] |
//! | `signal.NotifyContext(ctx, os.Interrupt)` | `ctx.with_signals()?`, which ends with SIGTERM, too, and gives the second signal back; the feature `signal` |
//!
//! # Questions
//!
//! - *Ended at once?* `let (ctx, _) = …` drops the [`CancelHandle`]; `let (ctx, _handle) = …` keeps it.
//! - *Type annotations needed?* See [the error type](#the-error-type). Name the value of a task that returns none, too:
//!   `Err::<(), _>(…)`, or `group.spawn::<_, ()>(…)` for an endless loop.
//! - *A future that borrows `ctx`?* `group.spawn_with(async |ctx| work(&ctx).await)`: the async closure keeps it.
//! - *Spawning inside a task?* `let inner = group.clone()` in [`run`](Group::run), [`group.spawner()`](Group::spawner) of a
//!   group of your own, and `async move`.
//! - *`wait` is an error after `cancel`?* A cooperative task added text to the context's error. Pass it on unchanged.
//! - *Why does `wait` resume a panic, which Go's `errgroup` decided against?* There the owner would learn of it late, and only
//!   if it waits; here the panic ends the context at once, and a panic that nobody resumes is a bug that nobody sees. Where it
//!   should stop nobody, the group is [isolated](GroupBuilder::isolated).
#![forbid(unsafe_code)]

mod batch;
mod context;
mod destructor;
mod error;
mod failures;
mod group;
mod ordered_slab;
mod panic;
mod scope;
#[cfg(feature = "signal")]
mod signal;
mod slab;
mod snapshot;
mod supervisor;
mod sync;
mod task;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "tracing")]
mod trace;
mod wait_group;

pub use batch::{Batch, SourceState, batch, batch_stream};
pub use context::{CancelHandle, Context, Done, DoneOwned, OnDone, StopHandle};
pub use error::{BoxError, ContextError, GroupError, Reason};
pub use failures::{Failed, Failures};
pub use group::{
    Diagnosis, Failure, Group, GroupBuilder, Outcome, Shutdown, Slot, Spawner, Stop, Straggler,
    TaskBuilder, Wait, WaitOutcome, WaitOwned,
};
pub use scope::{LocalScope, Scope, ScopeTaskBuilder, scope, scope_local};
#[cfg(feature = "signal")]
pub use signal::Signals;
pub use snapshot::{
    BatchSnapshot, ContextSnapshot, EndSnapshot, EndedTasks, GroupSnapshot, Item, Place,
    ScopeSnapshot, Snapshot, TaskKind, TaskSnapshot, TaskState, What, dump_all,
};
pub use supervisor::{
    AutoShutdown, Backoff, BackoffDelays, Child, ChildFailure, ChildFailureKind, ChildState,
    ChildStatus, CommandError, Ready, Restart, Strategy, Supervisor, SupervisorBuilder,
    SupervisorError, SupervisorErrorKind, SupervisorEvent, SupervisorEventKind, SupervisorHandle,
};
pub use task::{AbortHandle, Task, TaskId};
/// The short name, which says less of whose it is.
#[doc(hidden)]
pub use wait_group::WaitGroupToken as Token;
pub use wait_group::{WaitGroup, WaitGroupToken};

#[cfg(any(doc, doctest))]
#[doc = include_str!("../docs/guide.md")]
pub mod guide {}

/// Runs the examples of the README as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeDoctests;
