//! Happy eyeballs (RFC 8305): connects to the first of several addresses that answers, without waiting long for the others.
//!
//! ```sh
//! cargo run --example happy_eyeballs
//! cargo run --example happy_eyeballs -- localhost:8080
//! ```
//!
//! An attempt starts when the one before has failed, or has not come to anything for 250 ms (`--stagger MILLISECONDS`). The first
//! connection wins, and the others are closed. If there is none within `--timeout MILLISECONDS` (10,000), or all have failed, every
//! failure is listed and the exit status is 1.
//!
//! Arguments are addresses; a name may have several, of which IPv6 and IPv4 are tried in turn. The words `deaf`, `refuses` and
//! `answers` stand for sockets of its own on the loopback interface, and are what it tries if it is given nothing.
//!
//! All of it is [`Batch::stagger`](errgroup::Batch::stagger) and [`first_ok`](errgroup::Batch::first_ok).

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use errgroup::{BoxError, Context, batch};
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};

/// RFC 8305, section 5: the recommended "Connection Attempt Delay".
const STAGGER: Duration = Duration::from_millis(250);

const TIMEOUT: Duration = Duration::from_secs(10);

struct Args {
    stagger: Duration,
    timeout: Duration,
    targets: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("no connection: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), BoxError> {
    let args = parse(std::env::args().skip(1))?;
    let mut sockets = Loopback::default();
    let mut addresses = Vec::new();
    for target in &args.targets {
        addresses.extend(sockets.resolve(target).await?);
    }
    let ctx = Context::background().with_timeout(args.timeout);
    let begin = Instant::now();
    let (stream, address) = connect(&ctx, addresses, args.stagger).await?;
    let millis = begin.elapsed().as_millis();
    println!("connected to {address} after {millis} ms");
    drop(stream);
    Ok(())
}

/// Connects to the first that answers.
async fn connect(
    ctx: &Context,
    addresses: Vec<SocketAddr>,
    stagger: Duration,
) -> Result<(TcpStream, SocketAddr), BoxError> {
    let limit = addresses.len().max(1);
    let attempts = batch(interleave(addresses), limit)
        .context(ctx)
        .stagger(stagger);
    Ok(attempts.first_ok(attempt).await?)
}

async fn attempt(_ctx: Context, address: SocketAddr) -> Result<(TcpStream, SocketAddr), BoxError> {
    let mut attempt = Attempt {
        address,
        begin: Instant::now(),
        is_over: false,
    };
    println!("trying {address}");
    let connected = TcpStream::connect(address).await;
    attempt.is_over = true;
    match connected {
        Ok(stream) => Ok((stream, address)),
        Err(error) => {
            println!("failed: {address}: {error}");
            Err(format!("{address}: {error}").into())
        }
    }
}

/// Tells when an attempt is cut short. Its socket is closed by then: it goes with the future, of which this is a part.
struct Attempt {
    address: SocketAddr,
    begin: Instant,
    is_over: bool,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.is_over {
            let millis = self.begin.elapsed().as_millis();
            println!(
                "closed: {}, which had not answered for {millis} ms",
                self.address
            );
        }
    }
}

/// RFC 8305, section 4: the families take turns, and that of the first address begins.
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first = addresses.first().map(SocketAddr::is_ipv6);
    let (one, other): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| Some(address.is_ipv6()) == first);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut turns = Vec::new();
    loop {
        let pair = [one.next(), other.next()];
        if pair == [None, None] {
            return turns;
        }
        turns.extend(pair.into_iter().flatten());
    }
}

// ---- arguments

fn parse(mut args: impl Iterator<Item = String>) -> Result<Args, BoxError> {
    let mut parsed = Args {
        stagger: STAGGER,
        timeout: TIMEOUT,
        targets: Vec::new(),
    };
    while let Some(arg) = args.next() {
        match &*arg {
            "--stagger" => parsed.stagger = millis(args.next())?,
            "--timeout" => parsed.timeout = millis(args.next())?,
            _ => parsed.targets.push(arg),
        }
    }
    if parsed.targets.is_empty() {
        parsed.targets = ["deaf", "refuses", "answers"].map(str::to_owned).into();
    }
    Ok(parsed)
}

fn millis(arg: Option<String>) -> Result<Duration, BoxError> {
    let millis = arg.ok_or("a number of milliseconds is missing")?.parse()?;
    Ok(Duration::from_millis(millis))
}

// ---- sockets of its own

/// They live as long as the program.
#[derive(Default)]
struct Loopback {
    listeners: Vec<TcpListener>,
    clients: Vec<TcpStream>,
    bound: Vec<TcpSocket>,
}

impl Loopback {
    async fn resolve(&mut self, target: &str) -> io::Result<Vec<SocketAddr>> {
        let address = match target {
            "answers" => self.listen(1024).await?,
            "deaf" => self.deaf().await?,
            "refuses" => self.refuses()?,
            name => return Ok(lookup_host(name).await?.collect()),
        };
        println!("{address} {target}");
        Ok(vec![address])
    }

    async fn listen(&mut self, backlog: u32) -> io::Result<SocketAddr> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(([127, 0, 0, 1], 0).into())?;
        let listener = socket.listen(backlog)?;
        let address = listener.local_addr()?;
        self.listeners.push(listener);
        Ok(address)
    }

    /// Nobody takes connections, and there is room for one, which is taken: what comes later is not answered.
    async fn deaf(&mut self) -> io::Result<SocketAddr> {
        let address = self.listen(0).await?;
        let connect = TcpStream::connect(address);
        self.clients.push(connect.await?);
        Ok(address)
    }

    /// Nobody listens, and nobody else can take the address.
    fn refuses(&mut self) -> io::Result<SocketAddr> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(([127, 0, 0, 1], 0).into())?;
        let address = socket.local_addr()?;
        self.bound.push(socket);
        Ok(address)
    }
}
