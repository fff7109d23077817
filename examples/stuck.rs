//! A service whose tasks would not stop, each in a way of its own, and how to see which.
//!
//! `kill -USR1` prints the tree of what is running; `--dot`, `--mermaid` or `--json` prints that instead, to be drawn:
//! `kill -USR1 $(pgrep stuck)` into `dot -Tsvg`. Ctrl-C stops the service with a grace of two seconds, and prints who had to be
//! stopped by force, and why. The exit status is 3 if there was anybody.

use std::process::ExitCode;
use std::time::Duration;

use errgroup::{BoxError, Context, Group, Snapshot, Spawner};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

const GRACE: Duration = Duration::from_secs(2);

const TICK: Duration = Duration::from_millis(100);

#[derive(Clone, Copy)]
enum Format {
    Tree,
    Dot,
    Mermaid,
    Json,
}

fn main() -> Result<ExitCode, BoxError> {
    let format = match std::env::args().nth(1).as_deref() {
        None => Format::Tree,
        Some("--dot") => Format::Dot,
        Some("--mermaid") => Format::Mermaid,
        Some("--json") => Format::Json,
        Some(other) => {
            eprintln!("usage: stuck [--dot | --mermaid | --json], and not {other:?}");
            return Ok(ExitCode::from(2));
        }
    };
    // One thread is blocked for good.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()?;
    let forced = runtime.block_on(serve(format))?;
    // Its drop would wait for the thread that nobody can stop.
    runtime.shutdown_background();
    Ok(ExitCode::from(if forced == 0 { 0 } else { 3 }))
}

/// Runs until a signal, and returns how many tasks had to be stopped by force.
async fn serve(format: Format) -> Result<usize, BoxError> {
    let ctx = Context::background().with_signals()?;
    let service: Group = Group::builder().name("service").build();
    service.task("clean").spawn(tick());
    service.task("deaf").spawn_with(|_ctx| tick());
    service.task("slow").spawn_with(async |ctx| {
        ctx.done().await;
        flush().await
    });
    service.task("in one poll").spawn(async {
        loop {
            std::thread::sleep(TICK);
        }
        #[allow(unreachable_code, reason = "it says what the task would return")]
        Ok(())
    });
    service.task("thread").spawn_blocking(|_ctx| {
        loop {
            std::thread::sleep(TICK);
        }
        #[allow(unreachable_code, reason = "it says what the task would return")]
        Ok(())
    });
    service.task("pool").spawn_with(pool);

    let mut asked = signal(SignalKind::user_defined1())?;
    println!("serving, process {}", std::process::id());
    while ctx.run(asked.recv()).await.is_ok() {
        println!("{}\nend of the dump", draw(&service.snapshot(), format)?);
    }

    println!("stopping: {}", ctx.check().unwrap_err());
    let shutdown = service.stop().grace(GRACE).await;
    for straggler in &shutdown.stragglers {
        println!("by force: {straggler}");
    }
    let forced = shutdown.stragglers.len();
    shutdown.result()?;
    println!("stopped");
    Ok(forced)
}

async fn tick() -> Result<(), BoxError> {
    for _ in 0..u64::MAX {
        sleep(10 * TICK).await;
    }
    Ok(())
}

/// Takes longer than it is given.
async fn flush() -> Result<(), BoxError> {
    for _ in 0..600 {
        sleep(TICK).await;
    }
    Ok(())
}

/// A task that waits for one that is queued behind it.
async fn pool(ctx: Context) -> Result<(), BoxError> {
    let pool = Group::builder().context(&ctx).name("pool").limit(1);
    pool.run(async |pool: Spawner| {
        let inner = pool.clone();
        let parent = pool.task("parent").spawn(async move {
            let child = inner.task("child").spawn(async { Ok(()) });
            child.await?;
            Ok(())
        });
        Ok(parent.await?)
    })
    .await
}

fn draw(tree: &Snapshot, format: Format) -> Result<String, BoxError> {
    Ok(match format {
        Format::Tree => tree.to_string(),
        Format::Dot => tree.to_dot(),
        Format::Mermaid => tree.to_mermaid(),
        Format::Json => serde_json::to_string(tree)?,
    })
}
