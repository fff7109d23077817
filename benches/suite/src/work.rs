//! What is measured: the same work, written for each contender as its users would.
//!
//! Every function does `n` operations and returns how long the measured part took. What a contender has to set up and to
//! drop lies inside that part, unless the function says otherwise, and then it does so for all.

pub mod batch;
pub mod context;
pub mod failure;
pub mod siblings;
pub mod spawn;
pub mod threads;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Counts down to zero and then lets one waiter go: what bare `tokio::spawn` needs in order to be waited for.
pub struct Latch {
    left: AtomicUsize,
    zero: Notify,
}

impl Latch {
    pub fn new(count: usize) -> Arc<Self> {
        Arc::new(Self {
            left: AtomicUsize::new(count),
            zero: Notify::new(),
        })
    }

    pub fn count_down(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.zero.notify_one();
        }
    }

    pub async fn wait(&self) {
        if self.left.load(Ordering::Acquire) > 0 {
            self.zero.notified().await;
        }
    }
}

/// How long `f` takes, the drop of what it returns included.
fn timed<R>(f: impl FnOnce() -> R) -> Duration {
    let start = Instant::now();
    drop(f());
    start.elapsed()
}
