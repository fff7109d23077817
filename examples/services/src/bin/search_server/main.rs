//! A search service over HTTP, on loopback, whose every request is a group:
//!
//! ```sh
//! cargo run -p errgroup-services --bin search_server -- --port 8080
//! curl -H 'x-timeout-ms: 500' 'http://127.0.0.1:8080/search?q=rust'
//! ```
//!
//! It shows how far one context reaches. A request asks three backends at once, and its context ends when
//!
//! - the client goes away: the connection drops the handler, and with it the request's [`Group`](errgroup::Group);
//! - its deadline passes: `x-timeout-ms`, of which the server grants `--max-timeout-ms` at most;
//! - a backend fails: the others stop;
//! - the server shuts down, and the grace is over.
//!
//! Each of these stops the backends' work at the await it stands at. `GET /debug/tasks` counts what is alive;
//! with `?as=tree`, or `json`, it says who that is and what they are doing, and with `?as=page` draws it in a browser.
//!
//! The connections are the tasks of an [isolated](errgroup::GroupBuilder::isolated) group: one that breaks, or whose
//! handler panics, is logged and closed, and the server serves on. Try it with `--buggy archive`.
//!
//! On SIGTERM or Ctrl-C the server stops accepting and finishes what it has accepted, for `--grace-ms` at most. Then
//! the requests that are left get 503, and the connections that are left even so are aborted, and named. A second
//! signal kills it.
//!
//! To hyper, a client has gone when it has closed its writing side, be it the half of it; and it does not look while
//! there are bytes of a next request to read, so that a client which pipelines is noticed late.
//!
//! | status | |
//! |---|---|
//! | 200 | what the backends found, as JSON |
//! | 400 | a query or a timeout that is none |
//! | 499 | in the log only: the client had gone |
//! | 502 | a backend failed |
//! | 503 | the server is shutting down |
//! | 504 | the deadline passed |
//!
//! A request in which something panics has no status: its connection is closed, and the log says why.

mod backend;
mod request;
mod server;

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use errgroup::{BoxError, Context, Signals};
use tokio::net::TcpListener;

use crate::server::Server;

/// Serves searches over HTTP on loopback
#[derive(Parser)]
struct Args {
    /// 0 takes any that is free
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// What one step of a backend takes; they need 1, 3 and 10 steps
    #[arg(long, value_name = "MS", default_value = "10", value_parser = milliseconds)]
    step_ms: Duration,
    /// Let this backend fail at once: titles, pages or archive
    #[arg(long, value_name = "BACKEND")]
    broken: Option<String>,
    /// Let this backend panic at once
    #[arg(long, value_name = "BACKEND")]
    buggy: Option<String>,
    /// The longest that a request may take
    #[arg(long, value_name = "MS", default_value = "10000", value_parser = milliseconds)]
    max_timeout_ms: Duration,
    /// How long accepted requests have to finish after SIGTERM
    #[arg(long, value_name = "MS", default_value = "5000", value_parser = milliseconds)]
    grace_ms: Duration,
}

fn milliseconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    Ok(Duration::from_millis(text.parse()?))
}

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let args = Args::parse();
    let signals = Signals::new().drain(args.grace_ms);
    let ctx = signals.derive(&Context::background())?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port)).await?;
    println!("listening on http://{}", listener.local_addr()?);

    let backends = backend::all(args.step_ms, args.broken.as_deref(), args.buggy.as_deref());
    let run = Server::run(listener, backends, args.max_timeout_ms, &ctx, args.grace_ms);
    let summary = run.await;
    println!("{summary}");
    Ok(ExitCode::from(u8::from(!summary.aborted.is_empty())))
}
