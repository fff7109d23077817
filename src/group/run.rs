//! `Run`: one task's life, in order: check, poll, catch, record, release.
//!
//! A `Run` is polled by tokio alone, which gives a task one waker for life; so a waker left with the registry stays
//! good until the group takes it.
//!
//! The race with the end of the context: the task checks the context, polls its future, and leaves its waker if that
//! has to wait. The end is set before the registry's stage is raised and the wakers are taken. So either the task
//! learns of the end when it leaves its waker, in `may_wait`, or its waker is taken and woken.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use pin_project_lite::pin_project;

use super::fate::Fate;
use super::guard::TaskGuard;
use crate::error::GroupError;
use crate::panic::{Payload, catch, poll_catching};
use crate::task::Output;

pin_project! {
    // An enum, since `Over` costs no memory beside the two fields, as an `Option` of the future would.
    #[project = RunProjection]
    pub(crate) enum Run<F, E>
    where
        E: GroupError,
    {
        Live {
            #[pin]
            future: F,
            // `None` while the future is being dropped, which is before the guard lets `wait` go on.
            guard: Option<TaskGuard<E>>,
        },
        Over,
    }

    impl<F, E> PinnedDrop for Run<F, E>
    where
        E: GroupError,
    {
        fn drop(this: Pin<&mut Self>) {
            this.drop_unfinished(None);
        }
    }
}

impl<F, E: GroupError> Run<F, E> {
    #[inline]
    pub(crate) fn new(guard: TaskGuard<E>, future: F) -> Self {
        Self::Live {
            future,
            guard: Some(guard),
        }
    }

    #[inline]
    fn parts(self: Pin<&mut Self>) -> (Pin<&mut F>, &mut Option<TaskGuard<E>>) {
        match self.project() {
            RunProjection::Live { future, guard } => (future, guard),
            RunProjection::Over => panic!("errgroup: a task is not polled after its end"),
        }
    }

    /// Drops the future and hands out the guard, and how the drop went.
    #[inline]
    fn end(mut self: Pin<&mut Self>) -> (TaskGuard<E>, Result<(), Payload>) {
        let guard = self.as_mut().parts().1.take();
        let dropped = catch(|| self.set(Self::Over));
        (guard.expect("errgroup: a task ends once"), dropped)
    }

    /// If it has not ended, it is dropped by tokio: aborted through its handle, or gone with its runtime. Which it is may
    /// be known.
    #[inline]
    pub(super) fn drop_unfinished(mut self: Pin<&mut Self>, fate: Option<Fate>) {
        if let RunProjection::Live { guard: Some(_), .. } = self.as_mut().project() {
            self.drop_live(fate);
        }
    }

    #[cold]
    fn drop_live(self: Pin<&mut Self>, fate: Option<Fate>) {
        let (guard, dropped) = self.end();
        guard.dropped_by_runtime(dropped, fate);
    }
}

impl<F, T, E> Future for Run<F, E>
where
    F: Future<Output = Result<T, E>>,
    E: GroupError,
{
    type Output = Output<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        loop {
            let (future, guard) = self.as_mut().parts();
            let guard = guard.as_mut().expect("errgroup: a task ends once");
            let order = match guard.is_queued() {
                true => ready!(guard.poll_start(cx)),
                false => guard.order(),
            };
            if guard.is_stopped_by(order) {
                let (guard, dropped) = self.end();
                return Poll::Ready(Output::NoValue(guard.stop(order, dropped)));
            }
            let polls = guard.polls();
            polls.step();
            if let Poll::Ready(result) = poll_catching(future, cx) {
                let (guard, dropped) = self.end();
                return Poll::Ready(guard.complete(result, dropped));
            }
            polls.step();
            guard.set_started();
            if guard.may_wait(cx) {
                return Poll::Pending;
            }
        }
    }
}

#[cfg(all(test, not(errgroup_loom)))]
mod tests {
    use std::mem::size_of;

    use super::Run;
    use crate::error::BoxError;

    #[test]
    fn task_is_two_words_larger_than_its_future() {
        type Future = [usize; 16];
        type Task = Run<Future, BoxError>;
        assert_eq!(size_of::<Task>(), size_of::<Future>() + 16);
        // tokio tells by values that a task cannot have whether it runs, has a result, or had it.
        assert_eq!(size_of::<Option<Result<Task, usize>>>(), size_of::<Task>());
    }
}
