//! A pool: jobs from a channel, four at a time. Stopped, it finishes the jobs in hand and starts no other, and the jobs
//! that were not started are handed back: every job is accounted for.
//!
//! ```sh
//! cargo run --example worker_pool --features signal
//! ```
//!
//! Stop it with Ctrl-C. The other end of a pool is that there are no more jobs: with `--close` the channel is closed,
//! and the pool ends when it is empty. A number as the last argument says how many jobs there are.
//!
//! The pool is a group with a limit, and its body a loop that waits for a slot, then for a job. The body borrows the
//! channel. When [`run`](errgroup::GroupBuilder::run) returns, every task has ended, and what is left in the channel is what
//! was not begun.
//!
//! The signal begins a stop, with a drain. The body takes jobs until then, and comes to its end: so a stop is no error. The
//! jobs in hand go on below the same context, which ends when the drain is over: a job that hangs cannot hold up the stop
//! for ever, and would be an error.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use errgroup::{BoxError, Context, Group, Signals, Spawner};
use tokio::sync::mpsc;
use tokio::time::sleep;

const WORKERS: usize = 4;

/// How long the jobs in hand have.
const DRAIN: Duration = Duration::from_secs(10);

struct Job(u32);

type Jobs = mpsc::UnboundedReceiver<Job>;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut args = std::env::args().skip(1).peekable();
    let close = args.next_if(|arg| arg == "--close").is_some();
    let count = args.next().map_or(Ok(100), |arg| arg.parse())?;

    let (sender, mut jobs) = mpsc::unbounded_channel();
    for id in 1..=count {
        sender.send(Job(id))?;
    }
    let sender = (!close).then_some(sender); // without one the channel is closed

    let signals = Signals::new().drain(DRAIN);
    let ctx = signals.derive(&Context::background())?;
    let done = Arc::new(AtomicU32::new(0));
    work_off(&ctx, &mut jobs, &done).await?;
    match ctx.stopping().cause() {
        Some(why) => println!("stopped: {why}"),
        None => println!("stopped: there are no more jobs"),
    }
    drop(sender);
    let mut handed_back = Vec::new();
    while let Some(job) = jobs.recv().await {
        handed_back.push(job);
    }
    println!(
        "jobs: {count}, done: {}, handed back: {}",
        done.load(Ordering::Relaxed),
        handed_back.len()
    );
    Ok(())
}

/// Does jobs until there are no more, stopping begins, or one has failed.
async fn work_off(ctx: &Context, jobs: &mut Jobs, done: &Arc<AtomicU32>) -> Result<(), BoxError> {
    let stopping = ctx.stopping();
    let body = async |group: Spawner| {
        loop {
            let slot = group.slot().await?;
            match stopping.run(jobs.recv()).await {
                Ok(Some(job)) => slot.spawn(work(job, done.clone())),
                Ok(None) | Err(_) => return Ok(()),
            };
        }
    };
    Group::builder().context(ctx).limit(WORKERS).run(body).await
}

async fn work(Job(id): Job, count: Arc<AtomicU32>) -> Result<(), BoxError> {
    println!("job {id}: begun");
    sleep(Duration::from_millis(50)).await;
    println!("job {id}: done");
    count.fetch_add(1, Ordering::Relaxed);
    Ok(())
}
