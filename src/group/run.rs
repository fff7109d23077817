//! `Run`: one task's life, in order: check, poll, catch, record, release.
//!
//! A `Run` is polled by tokio alone, which gives a task one waker for life; so a waker left with the registry stays
//! good until the group takes it.
//!
//! The race with the end of the context: the task checks the context, polls its future, and leaves its waker if that
//! has to wait. The end is set before the registry's stage is raised and the wakers are taken. So either the task
//! learns of the end when it leaves its waker, in `may_wait`, or its waker is taken and woken.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use pin_project_lite::pin_project;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::life::{Life, Order};
use crate::context::Context;
use crate::error::GroupError;
use crate::panic::{Payload, catch, poll_catching};
use crate::task::TaskError;

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
            // `None` while the future is being dropped, which is before the life lets `wait` go on.
            life: Option<Life<E>>,
        },
        Over,
    }

    impl<F, E> PinnedDrop for Run<F, E>
    where
        E: GroupError,
    {
        fn drop(mut this: Pin<&mut Self>) {
            if let RunProjection::Live { life: Some(_), .. } = this.as_mut().project() {
                this.cut();
            }
        }
    }
}

impl<F, E: GroupError> Run<F, E> {
    pub(crate) fn new(life: Life<E>, future: F) -> Self {
        Self::Live {
            future,
            life: Some(life),
        }
    }

    fn parts(self: Pin<&mut Self>) -> (Pin<&mut F>, &mut Option<Life<E>>) {
        match self.project() {
            RunProjection::Live { future, life } => (future, life),
            RunProjection::Over => panic!("errgroup: a task is not polled after its end"),
        }
    }

    /// Drops the future and hands out the life, and how the drop went.
    #[inline]
    fn end(mut self: Pin<&mut Self>) -> (Life<E>, Result<(), Payload>) {
        let life = self.as_mut().parts().1.take();
        let dropped = catch(|| self.set(Self::Over));
        (life.expect("errgroup: a task ends once"), dropped)
    }

    /// Dropped by tokio, before its end: aborted through its handle, or gone with its runtime.
    #[cold]
    fn cut(self: Pin<&mut Self>) {
        if let (mut life, Err(payload)) = self.end() {
            life.panicked_in_drop(payload);
        }
    }
}

impl<F, T, E> Future for Run<F, E>
where
    F: Future<Output = Result<T, E>>,
    E: GroupError,
{
    type Output = Result<T, TaskError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        loop {
            let (future, life) = self.as_mut().parts();
            let life = life.as_mut().expect("errgroup: a task ends once");
            let order = match life.is_queued() {
                true => ready!(life.poll_start(cx)),
                false => life.order(),
            };
            if life.is_stopped_by(order) {
                let (mut life, dropped) = self.end();
                return Poll::Ready(Err(life.stop(order, dropped)));
            }
            if let Poll::Ready(result) = poll_catching(future, cx) {
                let (mut life, dropped) = self.end();
                return Poll::Ready(life.settle(result, dropped));
            }
            life.start();
            if life.may_wait(cx) {
                return Poll::Pending;
            }
        }
    }
}

/// A closure and its place in the group.
struct Job<F, E: GroupError> {
    /// `None` once it has been taken to be run.
    f: Option<F>,
    life: Life<E>,
}

impl<F, E: GroupError> Drop for Job<F, E> {
    fn drop(&mut self) {
        // Dropped by tokio, before it ran. The closure goes before `life` lets `wait` go on.
        let f = self.f.take();
        if let Err(payload) = catch(|| drop(f)) {
            self.life.panicked_in_drop(payload);
        }
    }
}

/// Starts a blocking task, or a task that waits for its slot first: a queued one must not occupy a thread.
pub(super) fn spawn_blocking<F, T, E>(
    f: F,
    life: Life<E>,
    runtime: &Handle,
) -> JoinHandle<Result<T, TaskError>>
where
    F: FnOnce(Context) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: GroupError,
{
    let is_queued = life.is_queued();
    let job = Job { f: Some(f), life };
    if !is_queued {
        return runtime.spawn_blocking(|| job.run());
    }
    let handle = runtime.clone();
    runtime.spawn(async move {
        let mut job = job;
        if poll_fn(|cx| job.life.poll_start(cx)).await != Order::Go {
            return job.skip();
        }
        let mut running = AbortOnDrop(handle.spawn_blocking(|| job.run()));
        match (&mut running.0).await {
            Ok(result) => result,
            // The life has recorded it.
            Err(error) if error.is_panic() => Err(TaskError::Panicked),
            Err(_) => Err(TaskError::Aborted),
        }
    })
}

impl<F, E: GroupError> Job<F, E> {
    fn run<T>(mut self) -> Result<T, TaskError>
    where
        F: FnOnce(Context) -> Result<T, E>,
    {
        if self.life.order() != Order::Go {
            return self.skip();
        }
        let ctx = self.life.context().clone();
        let f = self.f.take().expect("errgroup: a job runs once");
        // The call consumes the closure: what it captured is dropped with it, panic or not.
        let result = catch(|| f(ctx));
        self.life.settle(result, Ok(()))
    }

    fn skip<T>(mut self) -> Result<T, TaskError> {
        let f = self.f.take();
        let dropped = catch(|| drop(f));
        Err(self.life.stop(Order::Stop, dropped))
    }
}

/// Keeps a blocking task from starting when the task that waits for it is aborted.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
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
