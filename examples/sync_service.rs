//! A service that syncs batch after batch until SIGINT or SIGTERM, and then finishes the batch in hand.
//!
//! ```sh
//! cargo run --example sync_service --features signal
//! ```
//!
//! Stop it with Ctrl-C. It has two seconds to finish; a second Ctrl-C kills it at once. With a number of records for a
//! batch as its argument, `3600` for example, it cannot finish in time: then it is aborted, and the loss is named.
//!
//! The signal begins a stop, with a drain: the service begins no batch after it, and nothing is cut before the drain is
//! over. So a batch may be a future like any other, and hand `ctx` to whatever takes one.

use std::time::Duration;

use errgroup::{BoxError, Context, Group, Signals};
use tokio::time::sleep;

const DRAIN: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(100);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let records = std::env::args().nth(1).map_or(Ok(10), |arg| arg.parse())?;

    let signals = Signals::new().drain(DRAIN);
    let ctx = signals.derive(&Context::background())?;
    let group: Group = Group::with_context(&ctx);
    let sync = group.task("sync");
    sync.spawn_with(move |ctx| sync_batches(ctx, records));

    let why = group.context().stopping_done().await; // the signal, or a failure
    println!("{why}");
    let shutdown = group.stop().drain(DRAIN).grace(Duration::ZERO).await;
    if let Some(task) = shutdown.stragglers.first() {
        return Err(format!("a batch was cut after {DRAIN:?}: {task}").into());
    }
    shutdown.result()?;
    println!("stopped: no batch was cut");
    Ok(())
}

/// Looks whether it is to stop between two batches, never in one.
async fn sync_batches(ctx: Context, records: u32) -> Result<(), BoxError> {
    let stopping = ctx.stopping();
    for batch in 1.. {
        println!("batch {batch}: begun");
        sync(records).await?;
        println!("batch {batch}: finished");
        if stopping.sleep(PAUSE).await.is_err() {
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
