//! `Run`: a batch from its first poll to its outcome. `Results`: the stream of `map_stream`.

use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context as TaskContext, Poll, ready};

use tokio::runtime::Handle;

use super::queue::{CALLER, Source};
use super::results::Collected;
use super::worker::{Failure, Job, Work, Worker};
use crate::context::DoneOwned;
use std::future::Future;

use crate::error::{ContextError, GroupError, Reason};
use crate::group::{Group, Spawner, WaitOwned, is_gone};
use crate::panic::{catch, discard};

/// Owned by the caller's future or stream.
pub(super) struct Run<J: Job> {
    pub(super) work: Arc<Work<J>>,
    /// The worker that the caller polls, until it is over.
    worker: Option<Worker<J>>,
    /// Wakes the caller at the end of the context, if anybody else can end it.
    done: Option<DoneOwned>,
    tasks: Tasks<J::Error>,
    /// The error of a batch that was cut short by its runtime.
    lost: Option<J::Error>,
    /// Where the caller's worker was first polled.
    home: Option<Handle>,
    is_finished: bool,
}

/// The workers that are tasks.
enum Tasks<E: GroupError> {
    None,
    Live(WaitOwned<E>),
}

impl<E: GroupError> Tasks<E> {
    fn start<J: Job<Error = E>>(&mut self, work: &Arc<Work<J>>, id: usize) {
        if let Tasks::None = self {
            let group = Group::at(
                work.location,
                &work.ctx,
                work.queue.name.clone().map(Arc::new),
                None,
            );
            // Unset before: the group is made once.
            let _ = work.spawner.set(group.spawner());
            *self = Tasks::Live(group.into_future());
        }
        let spawner: Option<&Spawner<E>> = work.spawner.get();
        Worker::spawn(work, id, spawner.expect("errgroup: set above"));
    }
}

impl<J: Job> Run<J> {
    /// A run whose first worker is polled by the caller, on the runtime at hand.
    pub(super) fn inline(work: Arc<Work<J>>, home: Handle) -> Self {
        let worker = Worker::new(work.clone(), CALLER);
        Self::new(work, Some(worker), Some(home))
    }

    /// A run whose workers are all tasks: it goes on while the caller does something else.
    pub(super) fn spawned(work: Arc<Work<J>>) -> Self {
        let mut run = Self::new(work, None, None);
        run.tasks.start(&run.work, CALLER + 1);
        run
    }

    fn new(work: Arc<Work<J>>, worker: Option<Worker<J>>, home: Option<Handle>) -> Self {
        Self {
            done: work.is_child.then(|| work.ctx.done_owned()),
            work,
            worker,
            tasks: Tasks::None,
            lost: None,
            home,
            is_finished: false,
        }
    }

    /// Runs the batch to its end, and returns its outcome. Resumes a panic.
    pub(super) fn poll(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), J::Error>> {
        if let Some(worker) = &mut self.worker {
            let polled = worker.poll_work(&mut |work, id| self.tasks.start(work, id), cx);
            // Somebody else than an item has woken the caller.
            let is_idle = polled.is_pending() && worker.is_idle();
            if is_idle && self.home.as_ref().is_some_and(has_left) {
                self.lost = Some(E::<J>::from(lost_runtime()));
            } else if polled.is_pending() {
                let done = self.done.as_mut();
                if done.is_none_or(|done| Pin::new(done).poll(cx).is_pending()) {
                    return Poll::Pending;
                }
            }
            // Before the batch ends its context: that would wake the caller.
            self.done = None;
            self.worker = None;
        }
        if let Tasks::Live(wait) = &mut self.tasks {
            let work = &self.work;
            let ended = ready!(wait.poll_work(|| work.has_failed() || work.queue.is_done(), cx));
            self.lost = self.lost.take().or(ended.err());
            self.tasks = Tasks::None;
        }
        Poll::Ready(self.finish())
    }

    /// All workers have ended.
    fn finish(&mut self) -> Result<(), J::Error> {
        self.is_finished = true;
        let work = &self.work;
        let end = work.ctx.err();
        let source = work.queue.take_source();
        let is_dry = source.as_ref().is_none_or(|source| self.says_dry(source));
        let is_complete = work.queue.is_done() && is_dry;
        discard(source);
        work.close();
        // Relaxed: read by the last owner's drop.
        work.is_finished.store(true, Ordering::Relaxed);
        work.node().finish();
        match work.take_failure() {
            Some(Failure::Panic(payload)) => resume_unwind(payload),
            Some(Failure::Error(error)) => return Err(error),
            None if is_complete => return Ok(()),
            None => {}
        }
        let ended = || E::<J>::from(end.expect("errgroup: a batch that was cut short has ended"));
        Err(self.lost.take().unwrap_or_else(ended))
    }

    /// Whether the source says that it has no other item.
    fn says_dry(&self, source: &Source<J::Item>) -> bool {
        match catch(|| source.stream.size_hint().1) {
            Ok(most) => most == Some(0),
            Err(payload) => {
                self.work.panicked(payload);
                false
            }
        }
    }
}

/// Whether the batch has left its runtime, and that is gone: what its items wait for may never come.
fn has_left(home: &Handle) -> bool {
    let is_home = Handle::try_current().is_ok_and(|here| here.id() == home.id());
    !is_home && is_gone(home)
}

fn lost_runtime() -> ContextError {
    ContextError::detailed(
        Reason::RuntimeGone,
        "before the items of the batch had ended",
    )
}

type E<J> = <J as Job>::Error;

impl<J: Job> Drop for Run<J> {
    fn drop(&mut self) {
        discard(self.lost.take());
        if self.is_finished {
            return;
        }
        let location = self.work.location;
        let dropped = || ContextError::at(Reason::GroupDropped, location, None);
        self.work.node().end(dropped);
        self.worker = None;
        self.tasks = Tasks::None;
        self.work.close();
    }
}

/// Yields the results in their order, then the error.
pub(super) struct Results<J: Job> {
    run: Run<J>,
    /// Taken from the sink and not yielded: they keep their permits.
    taken: VecDeque<J::Value>,
    /// Yielded, and their permits not given back.
    yielded: usize,
    error: Option<J::Error>,
}

impl<J: Job<Sink = Collected<<J as Job>::Value>>> Results<J> {
    pub(super) fn new(run: Run<J>) -> Self {
        Self {
            run,
            taken: VecDeque::new(),
            yielded: 0,
            error: None,
        }
    }

    pub(super) fn poll_next(
        &mut self,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<J::Value, J::Error>>> {
        if self.taken.is_empty() && !self.run.is_finished {
            let taken = self.run.work.sink.poll_take(&mut self.taken, cx);
            if taken.is_pending() {
                self.error = ready!(self.run.poll(cx)).err();
            }
        }
        if self.taken.is_empty() {
            self.run.work.sink.take(&mut self.taken);
        }
        let work = &self.run.work;
        match self.taken.pop_front() {
            Some(value) => {
                self.yielded += 1;
                if self.taken.is_empty()
                    || self.yielded >= work.queue.release_size.load(Ordering::Relaxed)
                {
                    work.queue.release(std::mem::take(&mut self.yielded));
                }
                Poll::Ready(Some(Ok(value)))
            }
            None => {
                // What is not in order has nobody to take it.
                work.sink.clear();
                Poll::Ready(self.error.take().map(Err))
            }
        }
    }
}

impl<J: Job> Drop for Results<J> {
    fn drop(&mut self) {
        self.taken.drain(..).for_each(discard);
        discard(self.error.take());
    }
}
