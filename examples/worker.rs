//! A periodic worker: it does a round every 100 ms until its owner has seen enough.
//!
//! ```sh
//! cargo run --example worker
//! ```
//!
//! The worker is given a [`Context`]. That tells it when to stop and why, and does not let it stop anybody. The right to
//! cancel is the `handle`, which stays with the owner. Cancelling is a signal: the owner then waits until the worker has
//! come to its end, and gets what it returns.

use std::time::Duration;

use errgroup::{BoxError, Context};
use tokio::time::{interval, sleep};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (ctx, handle) = Context::background().with_cancel();
    let worker = tokio::spawn(work(ctx));

    sleep(Duration::from_secs(1)).await; // what the owner does meanwhile
    handle.cancel_with("the owner has seen enough");

    let rounds = worker.await?;
    println!("owner: the worker has stopped after round {rounds}");
    Ok(())
}

/// Works until the context ends; returns how many rounds it has done.
async fn work(ctx: Context) -> u32 {
    let mut tick = interval(Duration::from_millis(100));
    let mut rounds = 0;
    loop {
        tokio::select! {
            biased; // the end goes first, if a tick is due as well
            why = ctx.done() => {
                println!("worker: stopping: {why}");
                return rounds;
            }
            _ = tick.tick() => {
                rounds += 1;
                println!("worker: round {rounds}");
            }
        }
    }
}
