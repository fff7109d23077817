//! Downloads one file from several mirrors, hedged, and checks its SHA-256:
//!
//! ```sh
//! cargo run -p errgroup-services --bin mirrors
//! cargo run -p errgroup-services --bin mirrors -- --sha256 9f86… --output file.bin http://one.example/file http://two.example/file
//! ```
//!
//! It asks the first mirror. The next is asked when one has failed, or after `--stagger-ms`; a wrong sum is a failure, too. The
//! first whole and right file wins: it is moved to its place, the other downloads are cut, and what they had written is
//! removed. Without URLs it starts three mirrors of its own on the loopback interface: one is silent, one slow, one good.
//!
//! It shows [`stagger`](errgroup::Batch::stagger) and [`first_ok`](errgroup::Batch::first_ok), and that clean-up is a destructor's
//! work: an [`Attempt`](download::Attempt) that is dropped removes its part, whether it failed, lost, or was stopped by a signal.
//!
//! On a terminal there is a bar for each download. The exit status is 1 if there is no file, and every failure is listed then.

mod download;
mod own;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use errgroup::{BoxError, Context, batch};

use crate::download::{Job, download};

/// Downloads a file from the first of several mirrors that has it
#[derive(Parser)]
struct Args {
    /// Where the file goes
    #[arg(long, value_name = "FILE", default_value = "mirrored")]
    output: PathBuf,
    /// What the file's SHA-256 has to be
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,
    /// Ask the next mirror after this time
    #[arg(long, value_name = "MS", default_value = "300")]
    stagger_ms: u64,
    /// Give up after this time
    #[arg(long, value_name = "MS", default_value = "60000")]
    timeout_ms: u64,
    /// Where the file is to be had; without, three mirrors of its own are asked
    #[arg(value_name = "URL")]
    urls: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mirrors: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(mut args: Args) -> Result<(), BoxError> {
    let ctx = Context::background()
        .with_signals()?
        .with_timeout(Duration::from_millis(args.timeout_ms));
    if args.urls.is_empty() {
        args.urls = own::start().await?;
        args.sha256 = Some(own::sha256());
    }
    let job = Arc::new(Job::new(args.output.clone(), args.sha256));
    let begin = Instant::now();
    let urls = args.urls.into_iter().enumerate();
    let mirrors = batch(urls, 3)
        .name("mirrors")
        .context(&ctx)
        .stagger(Duration::from_millis(args.stagger_ms));
    let asked = job.clone();
    let won = mirrors.first_ok(move |_ctx, (n, url)| download(asked.clone(), n, url));
    let won = won.await?;
    let millis = begin.elapsed().as_millis();
    println!("won: {}, {} bytes in {millis} ms", won.url, won.received);
    won.keep(&args.output)?;
    let (file, left) = (args.output.display(), job.left());
    println!("saved: {file}; not downloaded: {left} bytes of the others");
    Ok(())
}
