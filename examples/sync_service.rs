//! A service that syncs batch after batch until SIGINT or SIGTERM, and then finishes the batch in hand.
//!
//! ```sh
//! cargo run --example sync_service --features signal
//! ```
//!
//! Stop it with Ctrl-C. It gets a grace of two seconds; a second Ctrl-C kills it at once. With a number of records for a
//! batch as its argument, `3600` for example, it cannot finish in time: then it is aborted, and the loss is named.
//!
//! `spawn_with` makes the difference: such a task is told to stop and does so where it is safe, between two batches.
//! A future given to `spawn` would be dropped in the middle of one.

use std::time::Duration;

use errgroup::{BoxError, Context, Group};
use tokio::time::sleep;

const GRACE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(100);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let records = std::env::args().nth(1).map_or(Ok(10), |arg| arg.parse())?;

    let ctx = Context::background().with_signals()?;
    let group: Group = Group::with_context(&ctx);
    let sync = group.task("sync");
    sync.spawn_with(move |ctx| sync_batches(ctx, records));

    let why = group.context().done().await; // the signal, or a failure
    println!("stopping: {why}");
    let shutdown = group.stop().grace(GRACE).await;
    if let Some(task) = shutdown.stragglers.first() {
        return Err(format!("a batch was cut after {GRACE:?}: {task}").into());
    }
    shutdown.result()?;
    println!("stopped: no batch was cut");
    Ok(())
}

/// Looks at the context between two batches, never in one.
async fn sync_batches(ctx: Context, records: u32) -> Result<(), BoxError> {
    for batch in 1.. {
        println!("batch {batch}: begun");
        sync(records).await?;
        println!("batch {batch}: finished");
        if ctx.sleep(PAUSE).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Stands for what takes its time, and must not be cut in two.
async fn sync(records: u32) -> Result<(), BoxError> {
    for _ in 0..records {
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
