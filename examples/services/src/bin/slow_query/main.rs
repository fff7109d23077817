//! A database query that takes many minutes, and is cancelled in the database when its context ends:
//!
//! ```sh
//! cargo run -p errgroup-services --bin slow_query -- --timeout 2
//! DATABASE_URL=postgres://postgres@localhost/postgres cargo run -p errgroup-services --bin slow_query -- --timeout 2
//! ```
//!
//! It shows that to stop waiting is not to stop the work. Who only drops the future, or leaves the thread, has a
//! database that goes on computing for nobody. So the end of the context is passed on, to
//!
//! - SQLite, inside this process, by its interrupt handle, on the end of the context: see `sqlite.rs`;
//! - PostgreSQL, if `DATABASE_URL` names one, by its cancel request: see `postgres.rs`.
//!
//! The timeout ends the context, or SIGTERM, or Ctrl-C.
//!
//! | exit status | |
//! |---|---|
//! | 0 | the query was faster |
//! | 1 | it failed |
//! | 124 | the timeout passed, and the query was cancelled |
//! | 130 | a signal came, and the query was cancelled |

mod postgres;
mod sqlite;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;
use std::{env, iter};

use clap::Parser;
use errgroup::{BoxError, Context, ContextError, Reason};

/// Runs a slow query, and cancels it in the database
#[derive(Parser)]
struct Args {
    /// Cancel the query after this time, fractions allowed
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    timeout: Duration,
}

fn seconds(text: &str) -> Result<Duration, BoxError> {
    Ok(Duration::try_from_secs_f64(text.parse()?)?)
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(answer) => {
            println!("the answer is {answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("slow_query: {error}{}", causes(&*error));
            ExitCode::from(error.downcast_ref().map_or(1, status))
        }
    }
}

async fn run(args: Args) -> Result<i64, BoxError> {
    let ctx = Context::background()
        .with_signals()?
        .with_timeout(args.timeout);
    match env::var("DATABASE_URL") {
        Ok(url) => postgres::run(&ctx, &url).await,
        Err(_) => sqlite::run(&ctx).await,
    }
}

fn status(end: &ContextError) -> u8 {
    match end.reason() {
        Reason::DeadlineExceeded => 124,
        Reason::Signal => 130,
        _ => 1,
    }
}

fn causes(error: &dyn Error) -> String {
    let causes = iter::successors(error.source(), |cause| (*cause).source());
    causes.map(|cause| format!(": {cause}")).collect()
}
