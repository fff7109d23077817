//! What the tasks of all contenders do.

use std::array;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};

use errgroup::BoxError;
use tokio::sync::oneshot;
use tokio::task::yield_now;

/// Gives its thread back once: the cheapest wait there is, and so the one beside which a group's own cost weighs most.
pub async fn yields_once() -> Result<(), BoxError> {
    yield_now().await;
    Ok(())
}

pub async fn waits() -> Result<(), BoxError> {
    pending().await
}

/// Waits, or yields once.
pub async fn waits_if(waits: bool) -> Result<(), BoxError> {
    if waits {
        pending::<()>().await;
    }
    yields_once().await
}

pub async fn waits_for(reply: oneshot::Receiver<()>) -> Result<(), BoxError> {
    Ok(reply.await?)
}

/// An error's text of 10 KiB.
pub fn long_text() -> String {
    "x".repeat(10 << 10)
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

    /// Replies when all who spawned have come to wait.
    pub async fn send(self) {
        yield_now().await;
        for sender in self.0 {
            sender.send(()).expect("its task waits");
        }
    }
}

/// Tasks that say that they have been polled. A static counter, so that it costs them an instruction.
pub struct Siblings(());

static STARTED: AtomicUsize = AtomicUsize::new(0);

impl Siblings {
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
    }
}
