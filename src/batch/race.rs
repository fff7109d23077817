//! `first_ok` and `quorum`: batches that are over when enough items have succeeded, or cannot any more.
//!
//! A [`Race`] is given each result as soon as it is there. What decides it ends the batch's context, like a failure in other
//! batches, and so cuts the rest short.
//!
//! Invariants:
//!
//! 1. `values.len() <= needed`. What comes later is dropped where it comes, before its worker ends.
//! 2. A race is decided once there are as many values as needed, or the items that have not failed are too few. Neither
//!    ceases to be so.

use std::future::{Future, poll_fn};
use std::sync::Arc;

use futures::FutureExt;

use super::queue::Permits;
use super::results::{Sink, Verdict};
use super::run::Run;
use super::settle::settled;
use super::stagger::Gate;
use super::worker::{Job, Work};
use super::{Batch, runtime};
use crate::context::Context;
use crate::error::ContextError;
use crate::failures::{Failed, Failures, Shortage};
use crate::panic::discard;
use crate::sync::Mutex;

impl<T: Send + 'static> Batch<T> {
    /// Runs `f` on the items until one has succeeded, and returns its value.
    ///
    /// The first success in time counts, whichever item it is of. The rest is cut short then: dropped at the await it stands
    /// at, before this returns, and so are the values of those who succeeded later. With a [`stagger`](Batch::stagger) the
    /// others start only if the first is slow or has failed.
    ///
    /// Each failure is kept: a source that never ends, and whose items all fail, takes memory for each.
    ///
    /// `futures::future::select_ok` is its peer. It starts all at once, polls every future whenever one was woken, and keeps
    /// the last error only.
    ///
    /// # Errors
    ///
    /// [`Failures`], once every item has failed. It is empty if there were no items, and says so. If the context's end cut the
    /// race short, that is [`Failures::ended`], beside the failures before it.
    ///
    /// # Panics
    ///
    /// Resumes a panic of `f` or of the source, which stops the rest, and one of an item's destructor although another has
    /// succeeded. Outside a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the race: items are dropped at the await they stand at.
    ///
    /// # Examples
    ///
    /// ```
    /// # use {std::time::Duration, tokio::time::sleep};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), errgroup::BoxError> {
    /// let fastest = errgroup::batch([30, 10, 20], 3)
    ///     .first_ok(|_ctx, millis| async move {
    ///         sleep(Duration::from_millis(millis)).await;
    ///         if millis == 10 { Err("refused") } else { Ok(millis) }
    ///     })
    ///     .await?;
    /// assert_eq!(fastest, 20);
    /// # Ok(()) }
    /// ```
    pub fn first_ok<F, Fut, R, E>(self, f: F) -> impl Future<Output = Result<R, Failures<E>>> + Send
    where
        F: Fn(Context, T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
        R: Send + 'static,
        E: Send + 'static,
    {
        let first = |values: Vec<R>| values.into_iter().next();
        let first = move |values| first(values).expect("errgroup: a quorum of one has one");
        self.quorum(1, f).map(move |values| values.map(first))
    }

    /// Runs `f` on the items until `n` have succeeded, and returns their values in the order in which they came.
    ///
    /// The rest is cut short then, as by [`first_ok`](Batch::first_ok). It fails as soon as `n` successes cannot be reached:
    /// when too many items have failed, or before any has started if the source says that it has too few. A quorum of 0 is
    /// reached at once, and no item is pulled.
    ///
    /// How many items there are is known from the source's `size_hint`, and at its end.
    ///
    /// # Errors
    ///
    /// [`Failures`], which says how many successes there were if they were too few. If the context's end cut the race short,
    /// that is [`Failures::ended`].
    ///
    /// # Panics
    ///
    /// Resumes a panic of `f` or of the source, which stops the rest, and one of an item's destructor although `n` others have
    /// succeeded. Outside a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the race: items are dropped at the await they stand at, and the values so far are lost.
    ///
    /// # Examples
    ///
    /// ```
    /// # use {std::time::Duration, tokio::time::sleep};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), errgroup::BoxError> {
    /// async fn write(_ctx: errgroup::Context, replica: u64) -> Result<u64, &'static str> {
    ///     sleep(Duration::from_millis(10 * replica)).await;
    ///     if replica == 2 { Err("disk full") } else { Ok(replica) }
    /// }
    ///
    /// assert_eq!(errgroup::batch([3, 2, 1], 3).quorum(2, write).await?, [1, 3]);
    ///
    /// let failures = errgroup::batch([3, 2, 1], 3).quorum(3, write).await.unwrap_err();
    /// assert!(failures.to_string().starts_with("1 of the 3 successes needed\nitem 1 failed: disk full"));
    /// # Ok(()) }
    /// ```
    #[expect(clippy::manual_async_fn, reason = "the signature promises `Send`")]
    pub fn quorum<F, Fut, R, E>(
        self,
        n: usize,
        f: F,
    ) -> impl Future<Output = Result<Vec<R>, Failures<E>>> + Send
    where
        F: Fn(Context, T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
        R: Send + 'static,
        E: Send + 'static,
    {
        async move {
            if n == 0 {
                discard(self);
                discard(f);
                return Ok(Vec::new());
            }
            let runtime = runtime();
            let race = Race::new(n, self.gate.clone());
            let work = self.work(settled(f), race, Permits::WhenDone, &runtime);
            let mut run = Run::inline(work, runtime);
            let end = poll_fn(|cx| run.poll(cx)).await;
            outcome(&run.work, end.err())
        }
    }
}

struct Race<R, E> {
    needed: usize,
    state: Mutex<State<R, E>>,
    gate: Option<Arc<Gate>>,
}

struct State<R, E> {
    values: Vec<R>,
    failures: Vec<(usize, E)>,
    /// How many items there are at most, if anybody knows.
    items: Option<usize>,
}

impl<R, E> Race<R, E> {
    fn new(needed: usize, gate: Option<Arc<Gate>>) -> Self {
        let state = State {
            values: Vec::new(),
            failures: Vec::new(),
            items: None,
        };
        Self {
            needed,
            state: Mutex::new(state),
            gate,
        }
    }
}

impl<R: Send + 'static, E: Send + 'static> Sink<Result<R, E>> for Race<R, E> {
    const IS_RACE: bool = true;

    fn put(&self, results: &mut Vec<(usize, Result<R, E>)>) -> Verdict {
        let mut state = self.state.lock();
        let failures_before = state.failures.len();
        let mut late = Vec::new();
        for (index, result) in results.drain(..) {
            late.extend(state.add(index, result, self.needed));
        }
        let failures = state.failures.len() - failures_before;
        let verdict = state.verdict(self.needed);
        drop(state);
        late.into_iter().for_each(discard);
        if let (Verdict::GoOn, Some(gate)) = (verdict, &self.gate) {
            gate.open(failures);
        }
        verdict
    }

    fn count_items(&self, most: usize) -> Verdict {
        let mut state = self.state.lock();
        state.items = Some(most);
        state.verdict(self.needed)
    }
}

impl<R, E> State<R, E> {
    /// Hands back a result that comes too late to count.
    fn add(&mut self, index: usize, result: Result<R, E>, needed: usize) -> Option<Result<R, E>> {
        let is_reached = self.values.len() == needed;
        match result {
            Ok(value) if !is_reached => self.values.push(value),
            Err(error) if !is_reached => self.failures.push((index, error)),
            late => return Some(late),
        }
        None
    }

    fn verdict(&self, needed: usize) -> Verdict {
        let failures = self.failures.len();
        let is_out_of_reach = |items: usize| items.saturating_sub(failures) < needed;
        match self.values.len() == needed || self.items.is_some_and(is_out_of_reach) {
            true => Verdict::Decided,
            false => Verdict::GoOn,
        }
    }
}

impl<R, E> Drop for State<R, E> {
    fn drop(&mut self) {
        self.values.drain(..).for_each(discard);
        self.failures.drain(..).for_each(discard);
    }
}

/// What a race came to, once all its workers have ended. `end` is how its context ended, if not all items were done.
fn outcome<J, R, E>(work: &Work<J>, end: Option<ContextError>) -> Result<Vec<R>, Failures<E>>
where
    J: Job<Sink = Race<R, E>>,
{
    let needed = work.sink.needed;
    let mut state = work.sink.state.lock();
    let verdict = state.verdict(needed);
    let values = std::mem::take(&mut state.values);
    let failures = std::mem::take(&mut state.failures);
    let items = state.items;
    drop(state);
    if values.len() == needed {
        failures.into_iter().for_each(discard);
        return Ok(values);
    }
    let shortage = Shortage {
        needed,
        succeeded: values.len(),
        items,
    };
    values.into_iter().for_each(discard);
    let name = work.queue.name.clone().map(Arc::new);
    let failed = |(index, error)| Failed::item(index, name.clone(), work.location, error);
    let failures = failures.into_iter().map(failed).collect();
    // A race that was decided has ended its context itself.
    let end = end.filter(|_| verdict == Verdict::GoOn);
    Err(Failures::new(failures).short_of(shortage).ended_by(end))
}
