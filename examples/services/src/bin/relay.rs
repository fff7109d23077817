//! A TCP proxy on loopback, with a limit on its connections:
//!
//! ```sh
//! cargo run -p errgroup-services --bin relay -- --port 7000 --to 127.0.0.1:8080
//! ```
//!
//! It shows two groups, one inside the other:
//!
//! - The connections are the tasks of a group with a limit. The relay waits for a [`slot`](Group::slot) before it
//!   accepts, so that clients above the limit wait in the kernel's queue, and cost the relay nothing. The group is
//!   [isolated](errgroup::GroupBuilder::isolated): a connection that breaks or panics is logged, and stops no other. Try it
//!   with `--poison boom`.
//! - Each connection owns a group of three tasks: one for each direction, and one that watches for idleness. None of
//!   them succeeds. Each ends with an [`End`], the first of which is why the connection ends, and the group stops the
//!   other two. A side that closes in order is an end, but no failure of the connection.
//!
//! The first end closes both directions. So a half-close is an end, too: when one side has sent its last byte, all that
//! it sent is passed on, and both sides are closed. What the other had yet to say is lost. (A relay for protocols that
//! answer after a half-close would shut down the other side's writing instead, and go on until both have ended.)
//!
//! On SIGTERM or Ctrl-C the relay stops accepting. Its connections have `--grace-ms` to end by themselves; those that
//! have not are aborted, and named. A second signal kills it.

use std::convert::Infallible;
use std::fmt::{self, Display};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use errgroup::{BoxError, Context, ContextError, Group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;

/// What one direction of a connection holds at most.
const BUFFER: usize = 16 * 1024;

/// How long to wait when no connection could be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// Relays TCP connections on loopback
#[derive(Parser)]
struct Args {
    /// 0 takes any that is free
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Where connections are relayed to
    #[arg(long, value_name = "ADDRESS", value_parser = loopback)]
    to: SocketAddr,
    /// Relay at most N connections at a time
    #[arg(long, value_name = "N", default_value = "64")]
    limit: NonZeroUsize,
    /// Close a connection on which nothing has moved for so long
    #[arg(long, value_name = "MS", default_value = "60000", value_parser = milliseconds)]
    idle_ms: Duration,
    /// How long connections have to end after SIGTERM
    #[arg(long, value_name = "MS", default_value = "5000", value_parser = milliseconds)]
    grace_ms: Duration,
    /// Have a bug: panic when a connection passes on what has this text in it
    #[arg(long, value_name = "TEXT")]
    poison: Option<String>,
}

fn milliseconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    Ok(Duration::from_millis(text.parse()?))
}

fn loopback(text: &str) -> Result<SocketAddr, BoxError> {
    let address: SocketAddr = text.parse()?;
    if !address.ip().is_loopback() {
        return Err("not on loopback".into());
    }
    Ok(address)
}

/// Why a connection has ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the {0} closed it")]
    Closed(Side),
    #[error("the {0}: {1}")]
    Broken(Side, io::Error),
    #[error("nothing moved for {0:?}")]
    Idle(Duration),
    #[error(transparent)]
    Stopped(#[from] ContextError),
}

#[derive(Clone, Copy, Debug)]
enum Side {
    Client,
    Server,
}

type Connections = Group<End>;

/// What connections are told.
struct Rules {
    to: SocketAddr,
    idle: Duration,
    poison: Option<Vec<u8>>,
}

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let args = Args::parse();
    let stop = Context::background().with_signals()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port)).await?;
    println!("listening on {}", listener.local_addr()?);

    let rules = Arc::new(Rules {
        to: args.to,
        idle: args.idle_ms,
        poison: args.poison.map(String::into_bytes),
    });
    let connections = Group::builder()
        .context(&stop)
        .limit(args.limit.get())
        .isolated()
        .on_failure(|failure| log(failure))
        .build();
    accept(listener, &connections, &rules).await;
    let shutdown = connections.stop().grace(args.grace_ms).await;
    for straggler in &shutdown.stragglers {
        println!("{straggler}");
    }
    println!("stopped");
    let was_clean = shutdown.stragglers.is_empty();
    shutdown.result()?; // what connections came to has been logged
    Ok(ExitCode::from(u8::from(!was_clean)))
}

/// Accepts until the signal.
async fn accept(listener: TcpListener, connections: &Connections, rules: &Arc<Rules>) {
    let ctx = connections.context();
    while let Ok(slot) = connections.slot().await {
        match ctx.run(listener.accept()).await {
            Ok(Ok((client, peer))) => {
                let rules = rules.clone();
                let task = slot.task(format!("connection from {peer}"));
                task.spawn_with(move |ctx| connection(ctx, client, peer, rules));
            }
            // Out of file descriptors, most likely: it gets better when a connection ends.
            Ok(Err(_)) => drop(ctx.sleep(PAUSE).await),
            Err(_) => return,
        }
    }
}

/// One task. Its end is a failure, unless a side has closed in order.
async fn connection(
    ctx: Context,
    client: TcpStream,
    peer: SocketAddr,
    rules: Arc<Rules>,
) -> Result<(), End> {
    match relay(&ctx, client, &rules).await {
        end @ End::Closed(_) => log(format_args!("{peer}: {end}")),
        failure => return Err(failure),
    }
    Ok(())
}

/// Relays one connection until its first end.
async fn relay(ctx: &Context, client: TcpStream, rules: &Arc<Rules>) -> End {
    let idle = rules.idle;
    let server = match timeout(idle, TcpStream::connect(rules.to)).await {
        Ok(Ok(server)) => server,
        Ok(Err(error)) => return End::Broken(Side::Server, error),
        Err(_) => return End::Idle(idle),
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let moved = Arc::new(Notify::new());

    // The relay's stop does not end a connection: it has the grace, until it is aborted.
    let group = Group::with_context(&ctx.cleanup());
    let copy = |side, from, to| copy(side, from, to, moved.clone(), rules.clone());
    group.spawn(copy(Side::Client, from_client, to_server));
    group.spawn(copy(Side::Server, from_server, to_client));
    group.spawn(watch(moved.clone(), idle));
    group.await.expect_err("no task returns but an end")
}

/// One direction: passes on what `side` sends.
async fn copy(
    side: Side,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    moved: Arc<Notify>,
    rules: Arc<Rules>,
) -> Result<Infallible, End> {
    let end = copy_all(side, &mut from, &mut to, &moved, &rules).await;
    // The group closes the sockets when it knows of this end. Dropped, this half would be shut down before, and what the
    // other side answers to that could pass for the first end.
    to.forget();
    end
}

async fn copy_all(
    side: Side,
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    moved: &Notify,
    rules: &Rules,
) -> Result<Infallible, End> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await;
        let n = read.map_err(|error| End::Broken(side, error))?;
        if n == 0 {
            return Err(End::Closed(side));
        }
        assert!(!rules.has_poison(&buffer[..n]), "the {side} sent poison");
        let written = to.write_all(&buffer[..n]).await;
        written.map_err(|error| End::Broken(side.other(), error))?;
        moved.notify_one();
    }
}

/// Ends when neither direction has moved anything for as long as `idle`.
async fn watch(moved: Arc<Notify>, idle: Duration) -> Result<Infallible, End> {
    while timeout(idle, moved.notified()).await.is_ok() {}
    Err(End::Idle(idle))
}

impl Rules {
    fn has_poison(&self, bytes: &[u8]) -> bool {
        let poison = self.poison.as_deref().filter(|poison| !poison.is_empty());
        poison.is_some_and(|poison| bytes.windows(poison.len()).any(|part| part == poison))
    }
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

impl Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Server => "server",
        })
    }
}

fn log(line: impl Display) {
    // In one piece, so that no panic's report comes in between. Unlike `eprintln!`, this does not panic when nobody reads
    // the log.
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}
