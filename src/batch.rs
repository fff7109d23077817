//! `Batch`: many items, one function, bounded concurrency, without a task per item.
//!
//! A batch is a [`Group`] of lanes. A lane is a task that pulls a few items from the source and runs the function on one
//! after the other. There is one for each thread, as long as items end at once, and another for each item that has to
//! wait, up to the limit. A lane without work ends. So errors, panics, deadlines and drop are the group's.
//!
//! Who knows what: the [`Source`] knows how many lanes there are, and sees to it that somebody takes the next item. The
//! [`Lane`] knows its items. The [`Sink`] knows the results.
//!
//! What the group cannot know is whether all items were done: a lane that the end of the context finds without an item
//! is none that was cut short. So the lanes say when they lose an item, and the batch judges for itself.
//!
//! Why not a task per item? Spawning one costs ten times what pulling an item does. Why not `buffer_unordered` in the
//! caller's task? Then one thread does all the work.

mod items;
mod lane;
mod lanes;
#[cfg(all(test, errgroup_loom))]
mod loom_models;
mod ordered;
mod pace;
mod parked;
mod sink;
mod source;

use std::borrow::Cow;
use std::fmt;
use std::future::{Future, IntoFuture, poll_fn};
use std::num::NonZeroUsize;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use futures::{Stream, stream};
use tokio::runtime::{Handle, RuntimeFlavor};

use self::lane::Lane;
use self::ordered::Ordered;
use self::sink::{Collect, Discard, Sink, Window};
use self::source::{Rules, Source};
use crate::context::Context;
use crate::error::GroupError;
use crate::group::{Group, SlotRequest, Spawner, Spec, WaitOwned};
use crate::panic::Contained;

/// Runs one function on every item of an iterator, with at most `limit` at a time.
///
/// See [`Batch`].
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), errgroup::BoxError> {
/// use std::num::NonZeroUsize;
/// use errgroup::{BoxError, Context};
///
/// async fn fetch(_ctx: Context, url: &'static str) -> Result<usize, BoxError> {
///     Ok(url.len())
/// }
///
/// let limit = NonZeroUsize::new(8).expect("not zero");
/// let lengths = errgroup::batch(["a", "bb", "ccc"], limit).map(fetch).await?;
/// assert_eq!(lengths, [1, 2, 3]);
/// # Ok(()) }
/// ```
#[track_caller]
pub fn batch<I: IntoIterator>(items: I, limit: NonZeroUsize) -> Batch<stream::Iter<I::IntoIter>> {
    Batch::new(stream::iter(items), limit)
}

/// Runs one function on every item of a stream, with at most `limit` at a time.
///
/// The stream is polled only when there is room for its next item, as many times in a row as there is room and lanes
/// have use for. A stream of `Result`s passes them on to the function,
/// where `item?` makes the source's failure the batch's. See [`Batch`].
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use std::num::NonZeroUsize;
/// use errgroup::BoxError;
/// use futures::stream;
///
/// let rows = stream::iter([Ok(1), Err("connection lost"), Ok(3)]);
/// let limit = NonZeroUsize::new(2).expect("not zero");
/// let result = errgroup::batch_stream(rows, limit)
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
pub fn batch_stream<S: Stream>(stream: S, limit: NonZeroUsize) -> Batch<Pin<Box<S>>> {
    Batch::new(Box::pin(stream), limit)
}

/// Many items, one function, bounded concurrency: the value of [`batch`] and [`batch_stream`].
///
/// A few lanes pull from the source, and items of unequal length keep all of them busy until it is dry. They are tasks of
/// a [`Group`] and share its guarantees:
///
/// - The first error stops the pull, cuts the rest short and is returned when all lanes have ended.
/// - A panic, in the function or in the source, does the same and is resumed in the caller.
/// - When the context ends, by its parent or a deadline, items are dropped at the await they stand at, no other is
///   started, and the result is the [`ContextError`](crate::ContextError), unless all items had been done.
/// - Dropping the future or the stream ends the context and aborts the lanes.
///
/// An item costs no allocation of ours, and a limit above the number of items starts no idle lanes. The source is polled
/// by one lane at a time; one that blocks holds the others up.
///
/// At no time more than `limit` items are pulled and not done. As long as items end at once, a lane pulls several in one
/// go and runs them one after the other on its thread; as soon as one has to wait, the others are free for the next lane.
/// So waiting costs them nothing, while an item that blocks its thread holds up the few behind it: items must not block
/// until another has run. A context with a deadline is asked for the time before each item, and they are pulled one by
/// one. Each lane gives its items a context of its own below the batch's.
///
/// # Comparison to its peers
///
/// A semaphore and a task per item costs an allocation and several times the work for each. `buffer_unordered` runs all
/// items in one task, and so on one thread. Neither cancels the rest on the first error before that is looked at.
#[must_use = "a batch does nothing until `map`, `for_each` or `map_stream`, and their result is awaited"]
pub struct Batch<S> {
    stream: S,
    limit: NonZeroUsize,
    parent: Context,
    name: Option<Cow<'static, str>>,
    location: &'static Location<'static>,
}

/// What the lanes share.
struct Work<S: Stream, F, K> {
    source: Source<S>,
    f: F,
    sink: K,
    /// An item was pulled and not done.
    has_lost_item: AtomicBool,
    name: Option<Cow<'static, str>>,
    location: &'static Location<'static>,
}

impl<S> Batch<S> {
    #[track_caller]
    fn new(stream: S, limit: NonZeroUsize) -> Self {
        Self {
            stream,
            limit,
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

    /// Names the batch, and its lanes in reasons.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = Some(name.into());
        self
    }
}

impl<S> Batch<S>
where
    S: Stream<Item: Send + 'static> + Unpin + Send + 'static,
{
    /// Runs `f` on every item and returns the results in the order of the items.
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
    pub async fn map<F, Fut, T, E>(self, f: F) -> Result<Vec<T>, E>
    where
        F: Fn(Context, S::Item) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: GroupError,
    {
        let Started { work, mut wait, .. } = self.start(f, Collect::default());
        poll_fn(|cx| wait.poll_work(|| work.is_complete(), cx)).await?;
        Ok(work.sink.collect())
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
    pub async fn for_each<F, Fut, E>(self, f: F) -> Result<(), E>
    where
        F: Fn(Context, S::Item) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: GroupError,
    {
        let Started { work, mut wait, .. } = self.start(f, Discard);
        poll_fn(|cx| wait.poll_work(|| work.is_complete(), cx)).await
    }

    /// Runs `f` on the items and yields the results in the order of the items, as they come.
    ///
    /// At most `limit` items are ahead of what has been yielded: a consumer that stops polling stops the source, too. For
    /// items that end quickly a limit well above the number of threads spares a wake-up for each of them. The
    /// batch starts with the first poll. After an error the stream ends.
    ///
    /// # Errors
    ///
    /// The last item is the first error, or the context's end if that cut the batch short.
    ///
    /// # Panics
    ///
    /// Polling it resumes a panic of `f` or of the source, and panics outside a tokio runtime.
    pub fn map_stream<F, Fut, T, E>(self, f: F) -> impl Stream<Item = Result<T, E>> + Send
    where
        F: Fn(Context, S::Item) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: GroupError,
    {
        let mut batch = Some((self, f));
        let mut ordered = None;
        stream::poll_fn(move |cx| {
            if let Some((batch, f)) = batch.take() {
                let Started {
                    work,
                    spawner,
                    wait,
                } = batch.start(f, Window::default());
                ordered = Some(Ordered::new(work, spawner, wait));
            }
            match &mut ordered {
                Some(ordered) => ordered.poll_next(cx),
                None => Poll::Ready(None),
            }
        })
    }

    /// Starts the first lane in a group of its own.
    fn start<F, Fut, T, E, K>(self, f: F, sink: K) -> Started<S, F, K, E>
    where
        F: Fn(Context, S::Item) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: GroupError,
        K: Sink<T>,
    {
        let rules = Rules {
            limit: self.limit,
            workers: workers(),
            room: K::ROOM,
        };
        let work = Arc::new(Contained::new(Work {
            source: Source::new(self.stream, 1, rules),
            f,
            sink,
            has_lost_item: AtomicBool::new(false),
            name: self.name.clone(),
            location: self.location,
        }));
        let group = Group::at(self.location, &self.parent, self.name.map(Arc::new), None);
        let spawner = group.spawner();
        Lane::start(work.clone(), &spawner);
        Started {
            work,
            spawner,
            wait: group.into_future(),
        }
    }
}

type Shared<S, F, K> = Arc<Contained<Work<S, F, K>>>;

struct Started<S: Stream, F, K, E: GroupError> {
    work: Shared<S, F, K>,
    spawner: Spawner<E>,
    wait: WaitOwned<E>,
}

/// How many lanes can run at once.
fn workers() -> usize {
    match Handle::try_current() {
        Ok(runtime) if runtime.runtime_flavor() != RuntimeFlavor::CurrentThread => {
            runtime.metrics().num_workers()
        }
        _ => 1,
    }
}

impl<S: Stream, F, K> Work<S, F, K> {
    /// Whether every item was done. The lanes have ended.
    fn is_complete(&self) -> bool {
        // Acquire: pairs with `lose_item`.
        !self.has_lost_item.load(Ordering::Acquire) && self.source.is_dry()
    }

    fn lose_item(&self) {
        self.has_lost_item.store(true, Ordering::Release);
    }

    fn spec(&self) -> Spec {
        Spec {
            name: self.name.clone().map(Arc::new),
            location: self.location,
            slot: SlotRequest::Queue,
        }
    }
}

impl<S> fmt::Debug for Batch<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("name", &self.name)
            .field("limit", &self.limit)
            .field("parent", &self.parent)
            .finish_non_exhaustive()
    }
}
