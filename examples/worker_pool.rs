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
//! The pool is a group with a limit, and its body a loop that waits for a slot *before* it takes a job: so none is taken
//! that nobody can start. The body only borrows the channel. When [`run`](errgroup::GroupBuilder::run) returns, every task
//! has ended, and what is left in the channel is what was not begun.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use errgroup::{BoxError, Context, ContextError, Group, Reason};
use tokio::sync::mpsc;
use tokio::time::sleep;

const WORKERS: usize = 4;

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

    let ctx = Context::background().with_signals()?;
    let done = Arc::new(AtomicU32::new(0));
    match work_off(&ctx, &mut jobs, &done).await {
        Ok(()) => println!("stopped: there are no more jobs"),
        // Asked for, and so no failure of the program.
        Err(error) if is_signal(&error) => println!("stopped: {error}"),
        Err(error) => return Err(error),
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

/// Does jobs until there are no more, one has failed, or the context ends.
async fn work_off(ctx: &Context, jobs: &mut Jobs, done: &Arc<AtomicU32>) -> Result<(), BoxError> {
    let group = Group::builder().context(ctx).limit(WORKERS);
    group
        .run(async |group| {
            loop {
                let slot = group.slot().await?;
                let Some(job) = jobs.recv().await else {
                    return Ok(());
                };
                let done = done.clone();
                // Begun, a job is finished: `spawn` would drop it in the middle.
                slot.spawn_with(move |_| work(job, done));
            }
        })
        .await
}

async fn work(Job(id): Job, count: Arc<AtomicU32>) -> Result<(), BoxError> {
    println!("job {id}: begun");
    sleep(Duration::from_millis(50)).await;
    println!("job {id}: done");
    count.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

fn is_signal(error: &BoxError) -> bool {
    let end = error.downcast_ref::<ContextError>();
    end.is_some_and(|end| end.reason() == Reason::Signal)
}
