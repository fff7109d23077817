//! What the tasks and items of all contenders do.

use std::array;
use std::future::pending;
use std::hint::black_box;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use errgroup::BoxError;
use tokio::sync::oneshot;
use tokio::task::yield_now;

/// A long time off: no timer of these runs out.
pub const HOUR: Duration = Duration::from_secs(3600);

/// What a task or an item does.
pub trait Work: Send + 'static {
    fn run(index: usize) -> impl Future<Output = ()> + Send + 'static;
}

/// Ends at once.
pub struct AtOnce;

/// Gives its thread back `N` times: the cheapest wait there is, and so the one beside which a contender's own cost weighs
/// most.
pub struct Yields<const N: usize>;

/// Each tenth yields once, the others end at once.
pub struct TenthYields;

impl Work for AtOnce {
    async fn run(_: usize) {}
}

impl<const N: usize> Work for Yields<N> {
    async fn run(_: usize) {
        for _ in 0..N {
            yield_now().await;
        }
    }
}

impl Work for TenthYields {
    async fn run(index: usize) {
        if index.is_multiple_of(10) {
            yield_now().await;
        }
    }
}

/// A task: the same future for all.
pub async fn job<W: Work>() -> Result<(), BoxError> {
    W::run(0).await;
    Ok(())
}

/// An item of a batch.
pub async fn item<W: Work>(index: usize) -> Result<usize, BoxError> {
    W::run(index).await;
    Ok(black_box(index))
}

pub async fn item_done<W: Work>(index: usize) -> Result<(), BoxError> {
    item::<W>(index).await.map(drop)
}

pub async fn waits() -> Result<(), BoxError> {
    pending().await
}

/// Waits, or yields once.
pub async fn waits_if(waits: bool) -> Result<(), BoxError> {
    if waits {
        pending::<()>().await;
    }
    job::<Yields<1>>().await
}

pub async fn waits_for(reply: oneshot::Receiver<()>) -> Result<(), BoxError> {
    Ok(reply.await?)
}

/// Says that it has been polled, and waits.
pub async fn sibling() -> Result<(), BoxError> {
    Siblings::started();
    pending().await
}

/// An error's text of 10 KiB.
pub fn long_text() -> String {
    "x".repeat(10 << 10)
}

/// Polls a future once, which stays pending, and drops it.
pub fn poll_and_drop(future: impl Future) {
    let mut cx = Context::from_waker(Waker::noop());
    assert!(pin!(future).poll(&mut cx).is_pending());
}

/// How long `f` takes, the drop of what it returns included.
pub fn timed<R>(f: impl FnOnce() -> R) -> Duration {
    let start = Instant::now();
    drop(f());
    start.elapsed()
}

/// The senders of `N` replies.
pub struct Replies<const N: usize>([oneshot::Sender<()>; N]);

impl<const N: usize> Replies<N> {
    /// Hands out the receivers.
    pub fn new(mut spawn: impl FnMut(oneshot::Receiver<()>)) -> Self {
        Self(array::from_fn(|_| {
            let (sender, receiver) = oneshot::channel();
            spawn(receiver);
            sender
        }))
    }

    /// Replies when all who received a receiver have come to wait.
    pub async fn send(self) {
        yield_now().await;
        for sender in self.0 {
            sender.send(()).expect("its task waits");
        }
    }
}

/// Tasks that say that they have been polled. A static counter, so that it costs them an instruction; only one operation
/// runs at a time.
pub struct Siblings(());

static STARTED: AtomicUsize = AtomicUsize::new(0);

impl Siblings {
    #[expect(clippy::new_without_default, reason = "it resets the counter")]
    pub fn new() -> Self {
        STARTED.store(0, Ordering::Relaxed);
        Self(())
    }

    pub fn started() {
        STARTED.fetch_add(1, Ordering::Relaxed);
    }

    pub async fn have_started(self, n: usize) {
        while STARTED.load(Ordering::Relaxed) < n {
            yield_now().await;
        }
        // The last ones are on their way from the counter to their wait.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
