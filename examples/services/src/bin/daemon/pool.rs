//! The workers: a pool on a channel.

use std::sync::Arc;
use std::time::Duration;

use errgroup::{BoxError, Context, Group};
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::Daemon;
use crate::writer::Write;

/// A note as it came, and who waits for its number.
pub struct Job {
    pub text: String,
    pub done: oneshot::Sender<i64>,
}

/// The channel to the workers, which outlives them.
pub struct Pool {
    pub outbox: mpsc::Sender<Job>,
    inbox: Mutex<mpsc::Receiver<Job>>,
}

impl Pool {
    pub fn new() -> Self {
        let (outbox, inbox) = mpsc::channel(64);
        Self {
            outbox,
            inbox: Mutex::new(inbox),
        }
    }
}

pub async fn run(ctx: Context, daemon: Arc<Daemon>) -> Result<(), BoxError> {
    let mut group: Group = Group::builder().context(&ctx).name("workers").build();
    for n in 0..daemon.args.workers {
        let daemon = daemon.clone();
        let worker = group.task(format!("worker {n}"));
        worker.spawn_with(move |ctx| work(ctx, daemon));
    }
    group.wait().await
}

/// Works until it is to stop and nothing is left: `http`, which could send more, has ended by then.
async fn work(ctx: Context, daemon: Arc<Daemon>) -> Result<(), BoxError> {
    let stopping = ctx.stopping();
    loop {
        let next = async { daemon.pool.inbox.lock().await.recv().await };
        let job = match stopping.run(next).await {
            Ok(Some(job)) => job,
            Ok(None) => return Ok(()),
            Err(_) => {
                let mut inbox = daemon.pool.inbox.lock().await;
                // A sibling has panicked, or the drain is over: what is left is for those that are started next.
                ctx.check()?;
                match inbox.try_recv() {
                    Ok(job) => job,
                    Err(_) => return Ok(()),
                }
            }
        };
        finish(&ctx, &daemon, job).await?;
    }
}

async fn finish(ctx: &Context, daemon: &Daemon, job: Job) -> Result<(), BoxError> {
    match job.text.as_str() {
        "poison" if daemon.args.buggy => panic!("a worker has a bug"),
        "stuck" if daemon.args.buggy => {
            println!("a worker is stuck");
            std::future::pending().await
        }
        _ => {}
    }
    if daemon.args.work_ms > Duration::ZERO {
        ctx.sleep(daemon.args.work_ms).await?;
    }
    let (written, is_written) = oneshot::channel();
    let write = Write {
        text: job.text,
        written,
    };
    ctx.run(daemon.writer.outbox.send(write)).await??;
    // An error is the writer's failure, of which it has told itself.
    if let Ok(id) = ctx.run(is_written).await? {
        let _ = job.done.send(id);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::sync::Mutex;

    use clap::Parser;

    use super::*;
    use crate::Args;
    use crate::writer::Writer;

    fn daemon() -> Arc<Daemon> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        Arc::new(Daemon {
            args: Args::parse_from(["daemon", "--database", "unused"]),
            writer: Writer::new(),
            pool: Pool::new(),
            listener: Mutex::new(Some(listener)),
            supervisor: Default::default(),
            upstream: Default::default(),
        })
    }

    #[tokio::test]
    async fn sibling_has_panicked_then_a_worker_leaves_what_is_queued_to_those_after_it() {
        let daemon = daemon();
        let (ctx, end) = Context::background().with_cancel();
        let (done, mut is_done) = oneshot::channel();
        let text = "queued".to_owned();
        daemon.pool.outbox.send(Job { text, done }).await.unwrap();
        end.cancel();
        work(ctx, daemon.clone()).await.unwrap_err();
        assert_eq!(
            is_done.try_recv(),
            Err(oneshot::error::TryRecvError::Empty),
            "whoever asked still waits"
        );
        let mut inbox = daemon.pool.inbox.try_lock().unwrap();
        assert_eq!(inbox.try_recv().unwrap().text, "queued");
    }
}
