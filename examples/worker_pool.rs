//! A pool of workers that drain a channel of jobs. Stopped, they finish the jobs in hand and start no other, and the jobs
//! that were not started are handed back: every job is accounted for.
//!
//! ```sh
//! cargo run --example worker_pool --features signal
//! ```
//!
//! Stop it with Ctrl-C. The other end of a pool is that there are no more jobs: with `--close` the channel is closed,
//! and the workers go when it is empty. A number as the last argument says how many jobs there are.
//!
//! [`Group::wait`] returns when each worker has ended *and all that it held is dropped*. That is why the owner can then
//! take the channel out of its `Arc`.

use std::sync::Arc;
use std::time::Duration;

use errgroup::{BoxError, Context, Group, Task};
use tokio::sync::{Mutex, mpsc};
use tokio::time::sleep;

const WORKERS: usize = 4;

struct Job(u32);

type Jobs = Arc<Mutex<mpsc::UnboundedReceiver<Job>>>;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut args = std::env::args().skip(1).peekable();
    let close = args.next_if(|arg| arg == "--close").is_some();
    let count = args.next().map_or(Ok(100), |arg| arg.parse())?;

    let (sender, jobs) = mpsc::unbounded_channel();
    for id in 1..=count {
        sender.send(Job(id))?;
    }
    let sender = (!close).then_some(sender); // without one the channel is closed

    let ctx = Context::background().with_signals()?;
    let mut group: Group = Group::with_context(&ctx);
    let jobs: Jobs = Arc::new(Mutex::new(jobs));
    let worker = |n| {
        let jobs = jobs.clone();
        let task = group.task(format!("worker {n}"));
        task.spawn_with(move |ctx| work(ctx, jobs))
    };
    let workers: Vec<Task<u32>> = (1..=WORKERS).map(worker).collect();

    group.wait().await?;
    println!("stopped: {}", group.context().done().await);
    drop(sender);
    let mut done = 0;
    for worker in workers {
        done += worker.await?;
    }
    let mut jobs = Arc::into_inner(jobs).ok_or("a worker has not ended")?;
    let mut handed_back = Vec::new();
    while let Some(job) = jobs.get_mut().recv().await {
        handed_back.push(job);
    }
    println!(
        "jobs: {count}, done: {done}, handed back: {}",
        handed_back.len()
    );
    Ok(())
}

/// Does jobs until the context ends or there are no more; returns how many it has done.
async fn work(ctx: Context, jobs: Jobs) -> Result<u32, BoxError> {
    let mut done = 0;
    // Both awaits are cancel safe: a job that was not returned is still in the channel.
    let next = async || jobs.lock().await.recv().await;
    while let Ok(Some(Job(id))) = ctx.run(next()).await {
        println!("job {id}: begun");
        sleep(Duration::from_millis(50)).await;
        println!("job {id}: done");
        done += 1;
    }
    Ok(done)
}
