//! `settle`: a batch in which a failure stops nobody, because it is a result like any other.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use pin_project_lite::pin_project;

use super::queue::Permits;
use super::results::{Collected, Sink, Verdict};
use super::run::Run;
use super::stagger::Gate;
use super::{Batch, runtime};
use crate::context::Context;
use crate::error::ContextError;

impl<T: Send + 'static> Batch<T> {
    /// Runs `f` on every item and returns every item's own result, in the order of the items.
    ///
    /// A failure stops nobody: it is in the list. Use it where each answer is of interest, errors included; where the first
    /// error should stop the rest there is [`map`](Batch::map). After [`unordered`](Batch::unordered) the results stand in
    /// the order of completion.
    ///
    /// Unlike `futures::future::join_all` it bounds how many run at once, runs them on all threads, and has a deadline.
    ///
    /// # Errors
    ///
    /// The context's end, if that cut the batch short; the results so far are lost.
    ///
    /// # Panics
    ///
    /// Resumes a panic of `f` or of the source, which stops the rest. Outside a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the batch; the results so far are lost.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), errgroup::BoxError> {
    /// let parsed = errgroup::batch(["1", "x", "3"], 8)
    ///     .settle(|_ctx, text: &str| async move { text.parse::<u32>() })
    ///     .await?;
    /// assert_eq!(parsed[0], Ok(1));
    /// assert!(parsed[1].is_err());
    /// assert_eq!(parsed[2], Ok(3));
    /// # Ok(()) }
    /// ```
    #[expect(clippy::manual_async_fn, reason = "the signature promises `Send`")]
    pub fn settle<F, Fut, R, E>(
        self,
        f: F,
    ) -> impl Future<Output = Result<Vec<Result<R, E>>, ContextError>> + Send
    where
        F: Fn(Context, T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
        R: Send + 'static,
        E: Send + 'static,
    {
        async move {
            let runtime = runtime();
            let sink = Settle {
                results: Collected::new(self.order),
                gate: self.gate.clone(),
            };
            let work = self.work(settled(f), sink, Permits::WhenDone, &runtime);
            let mut run = Run::inline(work, runtime);
            poll_fn(|cx| run.poll(cx)).await?;
            Ok(run.work.sink.results.take_all())
        }
    }
}

/// A function of items whose failures are results.
pub(super) fn settled<T, F, Fut>(
    f: F,
) -> impl Fn(Context, T) -> Settled<Fut> + Send + Sync + 'static
where
    F: Fn(Context, T) -> Fut + Send + Sync + 'static,
{
    move |ctx, item| Settled {
        future: f(ctx, item),
    }
}

pin_project! {
    /// The future of an item whose failure is a result.
    ///
    /// Why not `FutureExt::map`? It drops the future while it has the result on its stack: two destructors that panic would
    /// abort the process.
    pub(super) struct Settled<Fut> {
        #[pin]
        future: Fut,
    }
}

impl<Fut: Future> Future for Settled<Fut> {
    type Output = Result<Fut::Output, ContextError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        self.project().future.poll(cx).map(Ok)
    }
}

struct Settle<R, E> {
    results: Collected<Result<R, E>>,
    gate: Option<Arc<Gate>>,
}

impl<R: Send + 'static, E: Send + 'static> Sink<Result<R, E>> for Settle<R, E> {
    fn put(&self, results: &mut Vec<(usize, Result<R, E>)>) -> Verdict {
        let failed = results.iter().filter(|(_, result)| result.is_err());
        let failures = failed.count();
        let verdict = self.results.put(results);
        if let Some(gate) = &self.gate {
            gate.open(failures);
        }
        verdict
    }
}
