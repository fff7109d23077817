//! `Staggered`: a source that gives out its next item when one has failed, or a delay has passed. `Gate`: what it shares
//! with the sink, which is told of the failures.
//!
//! To the queue it is a source that is not ready until then, and wakes. So a batch without a stagger knows nothing of it.
//!
//! Invariants:
//!
//! 1. Each failure lets one item start, and one that nobody was there to use is kept.
//! 2. While the source waits at the gate its waker lies there, stored in the same lock as the look for a failure: no
//!    failure comes between. The timer has a waker of its own.
//!
//! The delay is a deadline of this crate's, not a sleep of tokio's: it goes on wherever the batch is polled, and a runtime
//! that is gone does not make it panic.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker, ready};
use std::time::Duration;

use futures::{FutureExt, Stream};

use super::Items;
use crate::context::{Context, DoneOwned};
use crate::panic::{contain, discard};
use crate::sync::Mutex;

pub(super) struct Gate {
    pub(super) delay: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Those for which nothing has started yet.
    failures: usize,
    source: Option<Waker>,
}

pub(super) struct Staggered<T> {
    items: Items<T>,
    /// The next item, pulled while it waits at the gate: so the end of the items is known as soon as it has come, and not a
    /// delay later.
    next: Option<T>,
    gate: Arc<Gate>,
    /// Ends when the delay has passed since the last start; `None` before the first.
    timer: Option<DoneOwned>,
}

impl Gate {
    pub(super) fn new(delay: Duration) -> Arc<Self> {
        Arc::new(Self {
            delay,
            state: Mutex::default(),
        })
    }

    /// Lets an item start for each of these failures.
    pub(super) fn open(&self, failures: usize) {
        if failures == 0 {
            return;
        }
        let mut state = self.state.lock();
        state.failures += failures;
        let source = state.source.take();
        drop(state);
        if let Some(source) = source {
            contain(|| source.wake());
        }
    }

    /// Ready if there is a failure to be used; else the next one wakes.
    fn poll_failure(&self, cx: &TaskContext<'_>) -> Poll<()> {
        let waker = cx.waker().clone();
        let mut state = self.state.lock();
        let (polled, unused) = match state.failures {
            0 => (Poll::Pending, state.source.replace(waker)),
            _ => (Poll::Ready(()), Some(waker)),
        };
        drop(state);
        drop(unused);
        polled
    }

    /// An item starts.
    fn use_failure(&self) {
        let mut state = self.state.lock();
        state.failures = state.failures.saturating_sub(1);
    }
}

impl<T> Staggered<T> {
    pub(super) fn new(items: Items<T>, gate: Arc<Gate>) -> Self {
        Self {
            items,
            next: None,
            gate,
            timer: None,
        }
    }

    fn poll_gate(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
        let Some(timer) = &mut self.timer else {
            return Poll::Ready(());
        };
        if self.gate.poll_failure(cx).is_ready() {
            return Poll::Ready(());
        }
        timer.poll_unpin(cx).map(drop)
    }

    fn started(&mut self) {
        self.gate.use_failure();
        let next = Context::background().with_timeout(self.gate.delay);
        self.timer = Some(next.done_owned());
    }
}

impl<T> Unpin for Staggered<T> {}

impl<T> Stream for Staggered<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<T>> {
        if self.next.is_none() {
            self.next = ready!(self.items.as_mut().poll_next(cx));
        }
        if self.next.is_some() {
            ready!(self.poll_gate(cx));
            self.started();
        }
        Poll::Ready(self.next.take())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let next = usize::from(self.next.is_some());
        let (least, most) = self.items.size_hint();
        let most = most.and_then(|most| most.checked_add(next));
        (least.saturating_add(next), most)
    }
}

impl<T> Drop for Staggered<T> {
    /// Both it and the items may panic in their destructors.
    fn drop(&mut self) {
        discard(self.next.take());
    }
}

#[cfg(all(test, errgroup_loom))]
mod models {
    use std::future::poll_fn;

    use loom::thread;

    use super::*;
    use crate::sync::model::block_on;

    /// Failures on two threads while the source comes to the gate: each is found, at once or by its wake.
    #[test]
    fn items_fail_while_the_source_comes_to_the_gate_then_it_is_let_through_for_each() {
        loom::model(|| {
            let gate = Gate::new(Duration::MAX);
            let items = [gate.clone(), gate.clone()];
            let items = items.map(|gate| thread::spawn(move || gate.open(1)));
            for _ in 0..2 {
                block_on(poll_fn(|cx| gate.poll_failure(cx)));
                gate.use_failure();
            }
            for item in items {
                item.join().unwrap();
            }
            assert_eq!(gate.state.lock().failures, 0);
        });
    }
}
