//! Helpers of the tests of groups: both runtimes, polling by hand, futures and destructors that do what a test says.

use std::any::Any;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use errgroup::{BoxError, Context, ContextError, Group, GroupError, Reason, Slot, Task};
use futures::FutureExt;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::support::Counter;

/// What a task returns that has no value.
pub(crate) type Unit<E = BoxError> = Result<(), E>;

/// More than any test takes. On a paused clock it passes as soon as nothing can go on.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the body of a test on a current-thread runtime with a paused clock, and on a multi-thread runtime.
macro_rules! on_both_runtimes {
    ($($(#[$doc:meta])* async fn $name:ident() $body:block)+) => {$(
        mod $name {
            use super::*;
            $(#[$doc])*
            async fn body() $body
            #[test]
            fn current_thread() {
                $crate::group_support::on_current_thread(body());
            }
            #[test]
            fn multi_thread() {
                $crate::group_support::on_multi_thread(body());
            }
        }
    )+};
}

pub(crate) fn current_thread() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().start_paused(true).build().unwrap()
}

pub(crate) fn multi_thread() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

/// A runtime with one thread for blocking tasks.
pub(crate) fn one_blocking_thread() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .unwrap()
}

pub(crate) fn on_current_thread<T>(body: impl Future<Output = T>) -> T {
    current_thread().block_on(patiently(body))
}

pub(crate) fn on_multi_thread<T>(body: impl Future<Output = T>) -> T {
    // A test that hangs fails after its time, and this has told before who is still there.
    #[cfg(feature = "testing")]
    let _watchdog = errgroup::testing::Watchdog::new(PATIENCE / 2);
    multi_thread().block_on(patiently(body))
}

/// Turns a test that hangs into one that fails.
pub(crate) async fn patiently<T>(body: impl Future<Output = T>) -> T {
    let in_time = tokio::time::timeout(PATIENCE, body).await;
    in_time.expect("the test hangs")
}

/// Lets every task of a current-thread runtime run until it has to wait.
pub(crate) async fn idle() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

/// Waits, on any runtime, for what another task or thread is about to do.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

pub(crate) fn limited<E: GroupError>(limit: usize) -> Group<E> {
    Group::builder().limit(limit).build()
}

/// The slot that is free now.
pub(crate) fn slot<E: GroupError>(group: &Group<E>) -> Slot<'_, E> {
    let granted = group.slot().now_or_never().expect("there is room");
    granted.expect("the context is live")
}

pub(crate) async fn fail(text: &'static str) -> Unit {
    Err(text.into())
}

pub(crate) async fn pend() -> Unit {
    std::future::pending().await
}

/// A task that stops itself, in order, when it is told to.
pub(crate) async fn obey(ctx: Context) -> Unit {
    ctx.done().await;
    Ok(())
}

/// A task that stops itself by passing on why.
pub(crate) async fn pass_on(ctx: Context) -> Unit {
    ctx.done().await;
    Ok(ctx.check()?)
}

/// A task that never stops itself.
pub(crate) async fn ignore(_ctx: Context) -> Unit {
    pend().await
}

/// Wakes itself for ever.
pub(crate) async fn spin() -> Unit {
    turns(usize::MAX).await;
    Ok(())
}

/// Is ready after `n` polls, and wakes itself for each.
pub(crate) async fn turns(mut n: usize) {
    poll_fn(|cx| match n {
        0 => Poll::Ready(()),
        _ => {
            n -= 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

pub(crate) async fn takes_turns(n: usize) -> Unit {
    turns(n).await;
    Ok(())
}

/// Panics without the hook's report.
pub(crate) fn quiet_panic(text: &'static str) -> ! {
    resume_unwind(Box::new(text))
}

pub(crate) async fn panics(text: &'static str) -> Unit {
    quiet_panic(text)
}

/// The payload of the panic that a future ends with.
pub(crate) async fn payload_of<F: Future>(future: F) -> Box<dyn Any + Send> {
    match AssertUnwindSafe(future).catch_unwind().await {
        Ok(_) => panic!("it did not panic"),
        Err(payload) => payload,
    }
}

/// The text of the panic that a future ends with.
pub(crate) async fn panic_of<F: Future>(future: F) -> &'static str {
    let payload = payload_of(future).await;
    payload.downcast_ref::<&'static str>().expect("a literal")
}

/// Why a task has no value.
pub(crate) async fn why<T>(task: Task<T>) -> ContextError {
    match task.await {
        Err(why) => why,
        Ok(_) => panic!("it has a value"),
    }
}

/// Why a task has no value that failed, panicked, was aborted or lost its runtime: its handle names the task itself.
pub(crate) async fn own_end<T>(task: Task<T>) -> Reason {
    let id = task.id().to_string();
    let why = why(task).await;
    assert_eq!(why.task(), Some(&*id), "{why}");
    why.reason()
}

/// The end of the context that cut a task short.
pub(crate) async fn cancelled<T>(task: Task<T>) -> ContextError {
    let id = task.id().to_string();
    let why = why(task).await;
    assert_ne!(why.task(), Some(&*id), "{why}");
    why
}

/// Whether a group that was dropped got hold of a task between two polls, or before the first, makes no difference here.
pub(crate) async fn stopped_by_drop<T>(task: Task<T>) {
    let reason = why(task).await.reason();
    let is_stopped = matches!(reason, Reason::TaskAborted | Reason::GroupDropped);
    assert!(is_stopped, "{reason:?}");
}

/// Runs a closure when it is dropped.
pub(crate) struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> OnDrop<F> {
    pub(crate) fn new(f: F) -> Self {
        Self(Some(f))
    }
}

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if let Some(f) = self.0.take() {
            f();
        }
    }
}

/// A future that waits for ever, and panics when it is dropped.
pub(crate) fn pend_then_panic_in_drop(
    text: &'static str,
) -> impl Future<Output = Unit> + Send + 'static {
    holding(OnDrop::new(move || quiet_panic(text)), pend())
}

/// A future that owns `value` until it is dropped itself: polled or not, completed or not.
pub(crate) fn holding<V, F>(value: V, future: F) -> impl Future<Output = F::Output>
where
    F: Future,
{
    let mut future = Box::pin(future);
    poll_fn(move |cx| {
        let _value = &value;
        future.as_mut().poll(cx)
    })
}

/// A waker, and how often it was woken.
pub(crate) fn counting() -> (Arc<Counter>, Waker) {
    let counter = Counter::new();
    (counter.clone(), counter.into())
}

pub(crate) fn poll_with<F: Future + ?Sized>(future: Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
    future.poll(&mut TaskContext::from_waker(waker))
}

/// Polls once, with a waker that wakes nobody.
pub(crate) fn poll<F: Future + Unpin + ?Sized>(future: &mut F) -> Poll<F::Output> {
    poll_with(Pin::new(future), Waker::noop())
}

/// Where a task is: how many are there now, and how many there were at most.
#[derive(Default)]
pub(crate) struct Gauge {
    now: AtomicUsize,
    peak: AtomicUsize,
}

impl Gauge {
    pub(crate) fn enter(self: &Arc<Self>) -> impl Drop + Send + use<> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak.fetch_max(now, Ordering::SeqCst);
        let gauge = self.clone();
        OnDrop::new(move || {
            gauge.now.fetch_sub(1, Ordering::SeqCst);
        })
    }

    pub(crate) fn now(&self) -> usize {
        self.now.load(Ordering::SeqCst)
    }

    pub(crate) fn peak(&self) -> usize {
        self.peak.load(Ordering::SeqCst)
    }
}

/// An error that tells its origin, and what happened to it.
pub(crate) enum Trouble {
    Own(&'static str),
    Ended(ContextError),
    /// Panics when it is printed.
    Unprintable,
    /// Panics when it is dropped.
    Undroppable(#[expect(dead_code, reason = "it is there to be dropped")] OnDrop<fn()>),
}

impl Trouble {
    pub(crate) fn undroppable() -> Self {
        Trouble::Undroppable(OnDrop::new(|| quiet_panic("dropped")))
    }
}

impl From<ContextError> for Trouble {
    fn from(error: ContextError) -> Self {
        Trouble::Ended(error)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Own(text) => f.write_str(text),
            Trouble::Ended(error) => write!(f, "{error}"),
            Trouble::Unprintable => quiet_panic("printed"),
            Trouble::Undroppable(_) => f.write_str("undroppable"),
        }
    }
}

impl fmt::Debug for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trouble")
    }
}

/// Starts a task that stops itself when the context ends, and fails with an error of its own: "could not flush".
pub(crate) async fn start_failing_at_the_end(group: &Group) {
    let (started, start) = oneshot::channel();
    group.spawn_with(async |ctx| {
        started.send(()).unwrap();
        ctx.done().await;
        fail("could not flush").await
    });
    start.await.unwrap();
}
