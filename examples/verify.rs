//! Checks files against a list of SHA-256 sums, in parallel, as `sha256sum -c` does:
//!
//! ```sh
//! cargo run --release --example checksum -- src > SUMS
//! cargo run --release --example verify --features signal -- --jobs 4 SUMS
//! ```
//!
//! It shows a batch at work: one function, [`check`], on every sum of the list, on `--jobs` threads, with the results in
//! the order of the list as they come. A file that has changed is a result like any other. The one error is the end of
//! the context, which Ctrl-C brings about: all workers stop within a chunk, although none of them ever yields, for the
//! context has a thread of its own that waits for signals.
//!
//! The list is what `checksum` and `sha256sum` print. Empty lines and comments (`#`) are passed over. A line that is no
//! sum is reported by its number and the rest is checked, as with `sha256sum -c --strict --warn`. `-` in the list is a
//! file of that name.
//!
//! | exit status | |
//! |---|---|
//! | 0 | all files are as in the list, or the reader of the results went away |
//! | 1 | a file is not, a line is no sum, there is none at all, or the results cannot be written |
//! | 2 | bad arguments |
//! | 130 | Ctrl-C or SIGTERM |

#[path = "common/args.rs"]
mod args;
#[path = "common/list.rs"]
mod list;
#[path = "common/sha256.rs"]
mod sha256;

use std::ffi::OsString;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;

use clap::Parser;
use errgroup::{BoxError, Context, ContextError, Reason};
use futures::TryStreamExt;
use tokio::runtime;

use self::list::Sum;

/// As many threads as tokio itself would let block at a time.
const MOST_THREADS: usize = 512;

/// How many sums may be ahead of what is printed. A worker blocks its thread, so it is the threads that bound how many are
/// checked at once; with a window no larger than that, each thread would wait for each line to be printed.
const AHEAD: usize = 64;

/// Checks files against a list of SHA-256 checksums, as sha256sum --check does
#[derive(Parser)]
#[command(name = "verify")]
struct Args {
    /// What checksum or sha256sum has printed; - is standard input
    #[arg(value_name = "LIST", default_value = "-")]
    list: PathBuf,
    /// Check at most N files at a time
    #[arg(long, value_name = "N", default_value_t = args::processors())]
    jobs: NonZeroUsize,
}

enum Verdict {
    Same,
    Changed,
    Unreadable(io::Error),
}

fn main() -> ExitCode {
    match run(&args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&error);
            match error.downcast_ref().map(ContextError::reason) {
                Some(Reason::Signal) => ExitCode::from(130),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// Whether all is well.
fn run(args: &Args) -> Result<bool, BoxError> {
    // Nobody catches signals yet: while the program waits for its list, Ctrl-C kills it.
    let list = read(&args.list).map_err(|error| format!("{:?}: {error}", args.list))?;
    let (sums, bad_lines) = list::parse(&list);
    for number in &bad_lines {
        say(format_args!("line {number} of the list is no SHA-256 sum"));
    }
    if sums.is_empty() {
        return Err("no sum in the list".into());
    }
    // A worker blocks the thread that it runs on. There is nothing else to be done on them.
    let threads = args.jobs.get().min(MOST_THREADS);
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .build()?;
    let failed = runtime.block_on(check_all(sums))?;
    Ok(failed == 0 && bad_lines.is_empty())
}

fn read(list: &Path) -> io::Result<Vec<u8>> {
    if list != Path::new("-") {
        return fs::read(list);
    }
    let mut lines = Vec::new();
    io::stdin().read_to_end(&mut lines)?;
    Ok(lines)
}

/// Prints what becomes of each file; returns how many failed.
async fn check_all(sums: Vec<Sum>) -> Result<usize, BoxError> {
    let ctx = Context::background().with_signals()?;
    let (files, mut failed) = (sums.len(), 0);
    let batch = errgroup::batch(sums, AHEAD).context(&ctx).name("verify");
    let mut results = pin!(batch.map_stream(check));
    while let Some((name, verdict)) = results.try_next().await? {
        failed += usize::from(!matches!(verdict, Verdict::Same));
        match print(&name, &verdict) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
            printed => printed.map_err(|error| format!("standard output: {error}"))?,
        }
    }
    if failed > 0 {
        say(format_args!("{failed} of {files} files failed"));
    }
    Ok(failed)
}

/// One item.
async fn check(ctx: Context, sum: Sum) -> Result<(OsString, Verdict), ContextError> {
    let digest = File::open(&sum.name).and_then(|file| sha256::digest(&ctx, file));
    let verdict = match digest.map(|digest| format!("{digest:x}")) {
        Ok(hex) if sum.hex.eq_ignore_ascii_case(hex.as_bytes()) => Verdict::Same,
        Ok(_) => Verdict::Changed,
        Err(error) => match error.downcast() {
            Ok(end) => return Err(end),
            Err(reason) => Verdict::Unreadable(reason),
        },
    };
    Ok((sum.name, verdict))
}

fn print(name: &OsString, verdict: &Verdict) -> io::Result<()> {
    let mut line = printed(name.as_encoded_bytes());
    line.extend_from_slice(match verdict {
        Verdict::Same => b": OK\n",
        Verdict::Changed => b": FAILED\n",
        Verdict::Unreadable(reason) => {
            say(format_args!("{name:?}: {reason}"));
            b": FAILED open or read\n"
        }
    });
    io::stdout().write_all(&line)
}

/// Unlike in a list, a name is escaped here only if it would take two lines.
fn printed(name: &[u8]) -> Vec<u8> {
    match name.contains(&b'\n') {
        true => [b"\\", &*sha256::escape(name)].concat(),
        false => name.to_vec(),
    }
}

fn say(message: impl Display) {
    // Unlike `eprintln!`, this does not panic when nobody listens any more.
    drop(writeln!(io::stderr(), "verify: {message}"));
}
