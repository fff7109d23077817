//! A daemon as people run them: parts that start in order, are restarted when they fail, and stop in order.
//!
//! ```sh
//! cargo run -p errgroup-services --bin daemon -- --port 8080 --database notes.db
//! curl -d 'buy milk' http://127.0.0.1:8080/notes
//! curl http://127.0.0.1:8080/debug/supervisor
//! ```
//!
//! | child | what it does | started | stopped |
//! |---|---|---|---|
//! | `writer` | writes notes to SQLite, and acknowledges them | first | last: what was accepted is written |
//! | `workers` | a pool that takes notes from a channel | | when none is left |
//! | `upstream` | a supervisor of its own, of the `poller` of an upstream that may be away, under backoff | | |
//! | `hangup` | restarts the poller, with new settings, at SIGHUP | | |
//! | `http` | `POST /notes`, `GET /healthz`, `GET /debug/supervisor`, `GET /debug/tasks`; a task a connection | last | first: nothing new is accepted |
//!
//! A note is answered with 201 when it is in the database. `/healthz` is 200 while all children are up, and 503 from the stop
//! on: for `--linger-ms`, but not beyond the drain, before the port is closed, so that a load balancer sees it.
//!
//! SIGTERM and Ctrl-C stop it in order; a second one kills it. A connection that has not been answered when the drain is over is
//! cut, and named. With `--buggy`, the note `poison` makes a worker panic: more than `--intensity` of these within `--period-ms`,
//! and the supervisor gives up. The note `stuck` keeps a worker for ever, whatever it is told, and the note `jam` keeps the
//! thread that writes: that is left behind.
//!
//! | exit status | |
//! |---|---|
//! | 0 | it was stopped, and stopped in time |
//! | 1 | its supervisor gave up: standard error says why, and names who did not stop in time |
//! | 2 | it was stopped, and a child did not stop in time, or left something behind: standard error names it |

mod http;
mod poller;
mod pool;
mod writer;

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use clap::Parser;
use errgroup::{
    Backoff, BoxError, Child, Context, Ready, Straggler, Supervisor, SupervisorHandle, dump_all,
};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::pool::Pool;
use crate::writer::Writer;

/// Keeps notes
#[derive(Parser)]
pub struct Args {
    /// 0 takes any that is free
    #[arg(long, default_value_t = 0)]
    port: u16,
    #[arg(long, value_name = "FILE")]
    database: PathBuf,
    /// What the poller asks
    #[arg(long, value_name = "ADDRESS")]
    upstream: Option<String>,
    /// A file with the milliseconds between two questions of the poller; read at each of its starts
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    #[arg(long, default_value_t = 4)]
    workers: usize,
    /// Let a worker take so long over a note
    #[arg(long, value_name = "MS", default_value = "0", value_parser = milliseconds)]
    work_ms: Duration,
    /// Let a worker panic at the note "poison" and stick to the note "stuck", and the writer's thread to the note "jam"
    #[arg(long)]
    buggy: bool,
    /// How many restarts are allowed within the period
    #[arg(long, default_value_t = 5)]
    intensity: usize,
    #[arg(long, value_name = "MS", default_value = "10000", value_parser = milliseconds)]
    period_ms: Duration,
    /// How long `/healthz` says that it is stopping before the port is closed
    #[arg(long, value_name = "MS", default_value = "0", value_parser = milliseconds)]
    linger_ms: Duration,
    /// How long each child may take to finish what it has
    #[arg(long, value_name = "MS", default_value = "5000", value_parser = milliseconds)]
    drain_ms: Duration,
    /// How long each child may take to stop after that
    #[arg(long, value_name = "MS", default_value = "5000", value_parser = milliseconds)]
    grace_ms: Duration,
}

fn milliseconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    Ok(Duration::from_millis(text.parse()?))
}

/// What the children share. It outlives their restarts.
pub struct Daemon {
    pub args: Args,
    pub writer: Writer,
    pub pool: Pool,
    /// `None` once `http` has stopped.
    pub listener: Mutex<Option<TcpListener>>,
    /// Of the daemon's own supervisor, once that is built.
    pub supervisor: OnceLock<SupervisorHandle>,
    /// Of the poller's, which is made anew when it is restarted.
    pub upstream: Mutex<Option<SupervisorHandle>>,
}

fn main() -> Result<ExitCode, BoxError> {
    let runtime = Runtime::new()?;
    let code = runtime.block_on(serve());
    // A thread that is stuck, which has been named by now, would keep the process.
    runtime.shutdown_background();
    code
}

async fn serve() -> Result<ExitCode, BoxError> {
    let args = Args::parse();
    let ctx = Context::background().with_signals()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port))?;
    listener.set_nonblocking(true)?;
    println!("listening on http://{}", listener.local_addr()?);
    let daemon = Arc::new(Daemon {
        writer: Writer::new(),
        pool: Pool::new(),
        listener: Mutex::new(Some(listener)),
        supervisor: OnceLock::new(),
        upstream: Mutex::new(None),
        args,
    });

    let supervisor = supervise(&ctx, &daemon);
    let handle = supervisor.handle();
    daemon.supervisor.get_or_init(|| handle.clone());
    match supervisor.run().await {
        Err(error) => {
            eprintln!("error: {error}");
            report(error.stragglers());
            Ok(ExitCode::from(1))
        }
        Ok(()) => {
            let is_clean = report(&handle.stragglers());
            println!("stopped");
            Ok(ExitCode::from(if is_clean { 0 } else { 2 }))
        }
    }
}

/// Names who did not stop in time, and what is left behind. Returns `true` if that is nobody, and nothing.
fn report(stragglers: &[Straggler]) -> bool {
    for straggler in stragglers {
        eprintln!("{straggler}");
    }
    let left = dump_all();
    let is_alone = left.tasks().next().is_none();
    if !is_alone {
        eprintln!("left behind:\n{left}");
    }
    stragglers.is_empty() && is_alone
}

fn supervise(ctx: &Context, daemon: &Arc<Daemon>) -> Supervisor {
    let args = &daemon.args;
    let patient = |child: Child| child.drain(args.drain_ms).grace(args.grace_ms);
    let [writer, pool, upstream, hangup, http] = std::array::from_fn(|_| daemon.clone());
    Supervisor::builder()
        .context(ctx)
        .name("daemon")
        .intensity(args.intensity, args.period_ms)
        .on_event(|event| eprintln!("{event}"))
        .build()
        .child(patient(Child::with_ready("writer", move |ctx, ready| {
            writer::run(ctx, ready, writer.clone())
        })))
        .child(patient(Child::new("workers", move |ctx| {
            pool::run(ctx, pool.clone())
        })))
        .child(Child::supervisor("upstream", move |_ctx| poll(&upstream)))
        .child(Child::with_ready("hangup", move |ctx, ready| {
            hang_up(ctx, ready, hangup.clone())
        }))
        .child(patient(Child::with_ready("http", move |ctx, ready| {
            http::run(ctx, ready, http.clone())
        })))
}

/// An upstream may be away for hours, which is no reason to give up.
fn poll(daemon: &Arc<Daemon>) -> Supervisor {
    let backoff = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(20))
        .with_max_delay(Duration::from_secs(5))
        .with_jitter()
        .without_max_times();
    let backoff = Backoff::from_fn(move || backoff.build());
    let poller = daemon.clone();
    let supervisor = Supervisor::builder()
        .name("upstream")
        .intensity(usize::MAX, Duration::MAX)
        .on_event(|event| eprintln!("{event}"))
        .build()
        .child(Child::new("poller", move |ctx| poller::run(ctx, poller.clone())).backoff(backoff));
    *daemon.upstream.lock().unwrap() = Some(supervisor.handle());
    supervisor
}

/// Restarts the poller at each SIGHUP.
async fn hang_up(ctx: Context, ready: Ready, daemon: Arc<Daemon>) -> Result<(), BoxError> {
    // Until then the signal kills.
    let mut hangups = signal(SignalKind::hangup())?;
    ready.notify();
    loop {
        ctx.run(hangups.recv()).await?;
        let upstream = daemon.upstream.lock().unwrap().clone();
        let Some(upstream) = upstream else { continue };
        if let Err(error) = ctx.run(upstream.restart("poller")).await? {
            eprintln!("the poller was not restarted: {error}");
        }
    }
}
