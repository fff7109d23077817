//! `Run`: a future that the end of a context drops.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use pin_project_lite::pin_project;

use super::Context;
use super::done::Done;
use crate::error::ContextError;

pin_project! {
    /// The future of `Context::run`.
    ///
    /// Why not an async block? It would hold the future twice, as a captured variable and as what it awaits, and eight
    /// layers of it 256 times.
    pub(super) struct Run<'a, F> {
        done: Done<'a>,
        // `None` once it is over: dropped then, not with this.
        #[pin]
        future: Option<F>,
    }
}

impl<'a, F> Run<'a, F> {
    pub(super) fn new(ctx: &'a Context, future: F) -> Self {
        Self {
            done: ctx.done(),
            future: Some(future),
        }
    }
}

impl<F: Future> Future for Run<'_, F> {
    type Output = Result<F::Output, ContextError>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let polled = match this.done.ended() {
            Some(error) => Poll::Ready(Err(error)),
            None => match this.future.as_mut().as_pin_mut() {
                Some(future) => future.poll(cx).map(Ok),
                None => {
                    panic!("errgroup: the future of `Context::run` was polled after it was ready")
                }
            },
        };
        let polled = match polled {
            // Only a future that has to wait costs a registration.
            Poll::Pending => Pin::new(this.done).poll(cx).map(Err),
            ready => ready,
        };
        if polled.is_ready() {
            this.future.set(None);
        }
        polled
    }
}
