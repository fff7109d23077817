//! `Batch`: many items, one function, bounded concurrency, without a task per item.
//!
//! The way of an item: a [`Worker`](worker::Worker) pulls it from the source, runs the function on it, and polls the future. If that has
//! to wait it goes to the [`Queue`], and whichever worker is free polls it again once it was woken. Its result goes to the
//! [`Sink`], its error to the [`Work`], and ends the batch.
//!
//! In `settle`, `first_ok` and `quorum` the error of an item is a result, too: there the sink decides. A stagger is a source
//! that is not ready.
//!
//! The caller's own task is the first worker of `map` and `for_each`: the commonest batch has a few items that wait, and
//! costs no task at all. There is another worker for each further thread of the runtime, as soon as there is work for two:
//! these are tasks of a [`Group`](crate::Group), so that nothing of the batch outlives it. All workers of `map_stream` are
//! tasks: it goes on while its consumer does something else.
//!
//! What a group does for its tasks the [`Run`] does here: the first failure, the end of the context, the drop. A worker's
//! task never fails.
//!
//! Why not a task per item? Spawning one costs ten times what pulling an item does. Why not `buffer_unordered`? It
//! allocates for each item, and one thread does all the work.

mod block;
#[cfg(all(test, errgroup_loom))]
mod loom_models;
mod queue;
mod race;
mod results;
mod run;
mod settle;
mod stagger;
mod worker;

use std::borrow::Cow;
use std::fmt;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, stream};
use tokio::runtime::{Handle, RuntimeFlavor};

pub(crate) use self::queue::Report;
pub use self::queue::SourceState;
use self::queue::{Permits, Queue, Rules};
use self::results::{Collected, Discard, Order, Sink};
use self::run::{Results, Run};
use self::stagger::{Gate, Staggered};
use self::worker::{Job, Work};
use crate::context::Context;
use crate::error::GroupError;

/// Runs one function on every item of an iterator, with at most `limit` at a time.
///
/// See [`Batch`].
///
/// # Panics
///
/// If `limit` is 0.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), errgroup::BoxError> {
/// use errgroup::{BoxError, Context};
///
/// async fn fetch(_ctx: Context, url: &'static str) -> Result<usize, BoxError> {
///     Ok(url.len())
/// }
///
/// let lengths = errgroup::batch(["a", "bb", "ccc"], 8).map(fetch).await?;
/// assert_eq!(lengths, [1, 2, 3]);
/// # Ok(()) }
/// ```
#[track_caller]
pub fn batch<I>(items: I, limit: usize) -> Batch<I::Item>
where
    I: IntoIterator<IntoIter: Send + 'static>,
{
    Batch::new(Box::pin(stream::iter(items)), limit)
}

/// Runs one function on every item of a stream, with at most `limit` at a time.
///
/// The stream is polled only when there is room for its next item. A stream of `Result`s passes them on to the function,
/// where `item?` makes the source's failure the batch's. See [`Batch`].
///
/// # Panics
///
/// If `limit` is 0.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use errgroup::BoxError;
/// use futures::stream;
///
/// let rows = stream::iter([Ok(1), Err("connection lost"), Ok(3)]);
/// let result = errgroup::batch_stream(rows, 2)
///     .for_each(|_ctx, row| async move {
///         let row: u32 = row?;
///         println!("{row}");
///         Ok::<_, BoxError>(())
///     })
///     .await;
/// assert_eq!(result.unwrap_err().to_string(), "connection lost");
/// # }
/// ```
#[track_caller]
pub fn batch_stream<S>(stream: S, limit: usize) -> Batch<S::Item>
where
    S: Stream + Send + 'static,
{
    Batch::new(Box::pin(stream), limit)
}

/// Many items of type `T`, one function, bounded concurrency: the value of [`batch`] and [`batch_stream`].
///
/// | what is wanted | method |
/// |---|---|
/// | all values | [`map`](Batch::map); as they come, [`map_stream`](Batch::map_stream); none, [`for_each`](Batch::for_each) |
/// | … in order of completion | [`unordered`](Batch::unordered), then `map` or `map_stream` |
/// | every item's own result, errors too | [`settle`](Batch::settle) |
/// | the first success | [`first_ok`](Batch::first_ok) |
/// | n successes | [`quorum`](Batch::quorum) |
/// | the next only when one has failed or is slow | [`stagger`](Batch::stagger), before any of them |
///
/// - The first error stops the pull, cuts the rest short and is returned when everything that runs has ended. In `settle`,
///   `first_ok` and `quorum` an error is a result, and stops nobody.
/// - A panic, in the function or in the source, does the same and is resumed in the caller.
/// - When the context ends, by its parent or a deadline, items are dropped at the await they stand at, no other is
///   started, and the result is the [`ContextError`](crate::ContextError), unless all items had been done.
/// - Dropping the future or the stream ends the context and drops the items. Those that another thread is polling at that
///   moment are dropped there.
/// - Destructors of items, results, the source and the function may panic: a panic of an item that was cut short is
///   resumed in the caller like the item's own, the others are contained.
///
/// At no time more than `limit` items are pulled and not done. An item costs no allocation of ours once `limit` of them
/// have had to wait. No lock is held while the source is polled.
///
/// # Where it runs
///
/// All but [`map_stream`](Batch::map_stream) run in the caller's task, like any future, and go on while that polls them. On a multi-thread runtime as many tasks help as there are further threads, as soon as there is work for
/// them: items that keep a thread busy run in parallel, and an item that has waited goes on wherever there is a thread for
/// it. `map_stream` runs in tasks alone, so that it goes on while its consumer does something else.
///
/// As long as items end at once, a few are pulled in one go and run one after the other. An item that blocks its thread
/// holds up the few behind it: items must not block until another has run. A deadline of the context is looked at before
/// each such block, and at once where items wait.
///
/// # Comparison to its peers
///
/// A `JoinSet` with a semaphore costs a task for each item, several times the work. `buffer_unordered` runs all items in
/// one task, and so on one thread, and starts none while its consumer does something else. Neither cancels the rest on
/// the first error before that is looked at. `select_ok` has no limit, no stagger, and of the errors the last alone.
#[must_use = "a batch does nothing until `map`, `for_each` or another of them is called and its result awaited"]
pub struct Batch<T> {
    items: Items<T>,
    limit: usize,
    order: Order,
    /// Where it is staggered.
    gate: Option<Arc<Gate>>,
    parent: Context,
    name: Option<Cow<'static, str>>,
    location: &'static Location<'static>,
}

/// A source.
type Items<T> = Pin<Box<dyn Stream<Item = T> + Send>>;

impl<T> Batch<T> {
    #[track_caller]
    fn new(items: Items<T>, limit: usize) -> Self {
        assert!(
            limit > 0,
            "errgroup: a batch with a limit of 0 would never start an item: give it 1 or more"
        );
        Self {
            items,
            limit,
            order: Order::OfItems,
            gate: None,
            parent: Context::background(),
            name: None,
            location: Location::caller(),
        }
    }

    /// Derives the batch's context from `parent` instead of [`Context::background`].
    pub fn context(mut self, parent: &Context) -> Self {
        self.parent = parent.clone();
        self
    }

    /// Names the batch in reasons, and its tasks.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Gives the results of [`map`](Batch::map), [`map_stream`](Batch::map_stream) and [`settle`](Batch::settle) in the order
    /// in which they come, instead of that of the items.
    ///
    /// An item that takes long then holds up no result of another. `buffer_unordered` is its peer.
    ///
    /// # Examples
    ///
    /// ```
    /// # use {errgroup::BoxError, std::time::Duration, tokio::time::sleep};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), BoxError> {
    /// let done = errgroup::batch([30, 10, 20], 3)
    ///     .unordered()
    ///     .map(|_ctx, millis| async move {
    ///         sleep(Duration::from_millis(millis)).await;
    ///         Ok::<_, BoxError>(millis)
    ///     })
    ///     .await?;
    /// assert_eq!(done, [10, 20, 30]);
    /// # Ok(()) }
    /// ```
    pub fn unordered(mut self) -> Self {
        self.order = Order::OfCompletion;
        self
    }

    /// Starts the next item only when one has failed, or `delay` has passed since the start before.
    ///
    /// The first starts at once. Each failure lets one item start, whenever that comes; a success lets none start. There are
    /// still never more than the limit at once, and an item whose time has come while there was no room starts as soon as
    /// there is. A delay of zero is none.
    ///
    /// With [`first_ok`](Batch::first_ok) this is a hedged request, or happy eyeballs (RFC 8305): a spare attempt when the one
    /// before is slow. With [`settle`](Batch::settle) and [`quorum`](Batch::quorum) it is the same; with the others, where the
    /// first failure ends the batch, a pace: one start per `delay`.
    ///
    /// `tower::hedge` is its peer for a request that is sent once more; here there may be any number of attempts, and a failure
    /// starts the next one at once.
    ///
    /// # Panics
    ///
    /// This does not. The batch does where the delay has to be waited for on a runtime without
    /// [`enable_time`](tokio::runtime::Builder::enable_time), with tokio's words.
    ///
    /// # Examples
    ///
    /// ```
    /// # use {std::time::Duration, tokio::time::{Instant, sleep}};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), errgroup::BoxError> {
    /// let begin = Instant::now();
    /// // The first hangs, the second starts after 250 ms and fails, and so the third starts at once.
    /// let winner = errgroup::batch(["deaf", "refuses", "answers"], 3)
    ///     .stagger(Duration::from_millis(250))
    ///     .first_ok(|_ctx, host| async move {
    ///         match host {
    ///             "deaf" => std::future::pending().await,
    ///             "refuses" => Err("connection refused"),
    ///             _ => Ok(host),
    ///         }
    ///     })
    ///     .await?;
    /// assert_eq!((winner, begin.elapsed()), ("answers", Duration::from_millis(250)));
    /// # Ok(()) }
    /// ```
    pub fn stagger(mut self, delay: Duration) -> Self {
        self.gate = (!delay.is_zero()).then(|| Gate::new(delay));
        self
    }
}

impl<T: Send + 'static> Batch<T> {
    /// Runs `f` on every item and returns the results in the order of the items, or of completion after
    /// [`unordered`](Batch::unordered).
    ///
    /// # Errors
    ///
    /// The first error, or the context's end if that cut the batch short.
    ///
    /// # Panics
    ///
    /// Resumes a panic of `f` or of the source. Outside a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the batch; the results so far are lost.
    #[expect(clippy::manual_async_fn, reason = "the signature promises `Send`")]
    pub fn map<F, Fut, R, E>(self, f: F) -> impl Future<Output = Result<Vec<R>, E>> + Send
    where
        F: Fn(Context, T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
        R: Send + 'static,
        E: GroupError,
    {
        async move {
            let runtime = runtime();
            let sink = Collected::new(self.order);
            let work = self.work(f, sink, Permits::WhenDone, &runtime);
            let mut run = Run::inline(work, runtime);
            poll_fn(|cx| run.poll(cx)).await?;
            Ok(run.work.sink.take_all())
        }
    }

    /// Runs `f` on every item.
    ///
    /// # Errors
    ///
    /// The first error, or the context's end if that cut the batch short.
    ///
    /// # Panics
    ///
    /// Resumes a panic of `f` or of the source. Outside a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the batch: items are dropped at the await they stand at.
    #[expect(clippy::manual_async_fn, reason = "the signature promises `Send`")]
    pub fn for_each<F, Fut, E>(self, f: F) -> impl Future<Output = Result<(), E>> + Send
    where
        F: Fn(Context, T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: GroupError,
    {
        async move {
            let runtime = runtime();
            let work = self.work(f, Discard, Permits::WhenDone, &runtime);
            let mut run = Run::inline(work, runtime);
            poll_fn(|cx| run.poll(cx)).await
        }
    }

    /// Runs `f` on the items and yields the results in the order of the items, or, after [`unordered`](Batch::unordered), each as
    /// it comes.
    ///
    /// At most `limit` items are ahead of what has been yielded: a consumer that stops polling stops the source, too. The
    /// batch starts with the first poll. After an error the stream ends.
    ///
    /// # Errors
    ///
    /// The last item is the first error, or the context's end if that cut the batch short.
    ///
    /// # Panics
    ///
    /// Polling it resumes a panic of `f` or of the source, and panics outside a tokio runtime.
    pub fn map_stream<F, Fut, R, E>(self, f: F) -> impl Stream<Item = Result<R, E>> + Send
    where
        F: Fn(Context, T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
        R: Send + 'static,
        E: GroupError,
    {
        let mut batch = Some((self, f));
        let mut results = None;
        stream::poll_fn(move |cx| {
            if let Some((batch, f)) = batch.take() {
                let sink = Collected::new(batch.order);
                let work = batch.work(f, sink, Permits::WhenYielded, &runtime());
                results = Some(Results::new(Run::spawned(work)));
            }
            let results = results.as_mut();
            results.map_or(std::task::Poll::Ready(None), |results| {
                results.poll_next(cx)
            })
        })
    }

    fn work<F, Fut, R, E, K>(
        self,
        f: F,
        sink: K,
        permits: Permits,
        runtime: &Handle,
    ) -> Arc<Work<Function<T, F, Fut, K>>>
    where
        F: Fn(Context, T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
        R: Send + 'static,
        E: GroupError,
        K: Sink<R>,
    {
        let threads = threads(runtime);
        let rules = Rules {
            limit: self.limit,
            workers: threads.min(self.limit),
            is_single_threaded: threads == 1,
            permits,
        };
        let items = match self.gate {
            Some(gate) => Box::pin(Staggered::new(self.items, gate)),
            None => self.items,
        };
        Work::new(
            Queue::new(items, rules, self.name),
            Function(f, PhantomData),
            sink,
            &self.parent,
            self.location,
        )
    }
}

fn runtime() -> Handle {
    let Ok(runtime) = Handle::try_current() else {
        panic!(
            "errgroup: a batch runs on a tokio runtime, and this thread is in none: await it inside `block_on` or a task"
        );
    };
    runtime
}

/// How many threads can run workers.
fn threads(runtime: &Handle) -> usize {
    match runtime.runtime_flavor() {
        RuntimeFlavor::CurrentThread => 1,
        _ => runtime.metrics().num_workers(),
    }
}

/// The user's function as a [`Job`].
struct Function<T, F, Fut, K>(F, PhantomData<fn(T, K) -> Fut>);

impl<T, F, Fut, R, E, K> Job for Function<T, F, Fut, K>
where
    T: Send + 'static,
    F: Fn(Context, T) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, E>> + Send + 'static,
    R: Send + 'static,
    E: GroupError,
    K: Sink<R>,
{
    type Item = T;
    type Future = Fut;
    type Value = R;
    type Error = E;
    type Sink = K;

    fn start(&self, ctx: Context, item: T) -> Fut {
        (self.0)(ctx, item)
    }
}

impl<T> fmt::Debug for Batch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("name", &self.name)
            .field("limit", &self.limit)
            .field("order", &self.order)
            .field("stagger", &self.gate.as_ref().map(|gate| gate.delay))
            .field("parent", &self.parent)
            .finish_non_exhaustive()
    }
}
