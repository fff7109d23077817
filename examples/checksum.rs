//! SHA-256 of every regular file under the paths given, in parallel, as `sha256sum` prints them, sorted by path:
//!
//! ```sh
//! cargo run --release --example checksum -- --jobs 4 src tests > SUMS
//! sha256sum --check SUMS
//! ```
//!
//! It shows a [`Group`] at work:
//!
//! - The walk is the body of [`Group::run`], and each file a task. `--jobs` is the limit, which the body itself does not
//!   count against. The walk waits for a [`slot`](Group::slot) before it looks for the next file, so that it runs no
//!   further ahead than the hashing can follow, however large the tree is.
//! - A file that cannot be read fails its task, and so ends the group: its siblings stop within a chunk, the walk
//!   stops at the next entry, and `run` returns that first error when all have ended.
//! - Ctrl-C and `--timeout` end the context that the group derives from. There is nothing more to do for either.
//!
//! The list is printed whole or not at all: a list that lacks files would pass `sha256sum --check` like a good one.
//! Only `--keep-going` prints one without the files and directories that could not be read, each of them reported.
//!
//! Paths are printed as `find PATH -type f` prints them (`./a` for the default, the current directory), sorted by
//! their bytes, once for each argument that leads to them. A link is followed if it is an argument, never if it is
//! found; fifos, sockets and devices are passed over if found, an error if they are an argument.
//!
//! | exit status | |
//! |---|---|
//! | 0 | all files were hashed, or the reader of the list went away |
//! | 1 | something could not be read, or the list not be written |
//! | 2 | bad arguments |
//! | 124 | the deadline passed, as `timeout` has it |
//! | 130 | Ctrl-C |

#[path = "common/args.rs"]
mod args;
#[path = "common/sha256.rs"]
mod sha256;

use std::error::Error as _;
use std::ffi::OsString;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use clap::Parser;
use errgroup::{BoxError, Context, ContextError, Group, Spawner};
use indicatif::{ProgressBar, ProgressStyle};
use sha2::Sha256;
use sha2::digest::Output;
use tokio::task::block_in_place;
use walkdir::{DirEntry, WalkDir};

/// Prints the SHA-256 checksums of all regular files under the paths, sorted by path, as sha256sum does
#[derive(Parser)]
#[command(name = "checksum")]
struct Args {
    /// Files and directories
    #[arg(value_name = "PATH", default_value = ".")]
    paths: Vec<PathBuf>,
    /// Hash at most N files at a time
    #[arg(long, value_name = "N", default_value_t = args::processors())]
    jobs: NonZeroUsize,
    /// Report what cannot be read, and go on with the rest
    #[arg(long)]
    keep_going: bool,
    /// Stop after this time, fractions allowed; 0 stops before the first file
    #[arg(long, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true)]
    timeout: Option<Duration>,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{path:?}: {reason}")]
    Unreadable { path: PathBuf, reason: io::Error },
    #[error("standard output: {0}")]
    Unwritable(io::Error),
    #[error(transparent)]
    Stopped(#[from] ContextError),
}

#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
struct Interrupted;

#[tokio::main]
async fn main() -> ExitCode {
    let args: Args = args::parse();
    let ctx = context(args.timeout);
    let run = Arc::new(Run::new(args.keep_going));
    let hashed = hash_all(&ctx, &args, &run).await;
    run.bar.finish_and_clear();
    match hashed.and_then(|()| run.print()) {
        Ok(()) if run.has_failed.load(Ordering::Relaxed) => ExitCode::FAILURE,
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => run.fail(&error),
    }
}

fn seconds(text: &str) -> Result<Duration, BoxError> {
    Ok(Duration::try_from_secs_f64(text.parse()?)?)
}

/// The context of the whole run, which Ctrl-C ends, and the timeout.
fn context(timeout: Option<Duration>) -> Context {
    let ctx = Context::background().with_cancel_on_cause(async {
        match tokio::signal::ctrl_c().await {
            Ok(()) => BoxError::from(Interrupted),
            Err(error) => error.into(),
        }
    });
    match timeout {
        Some(timeout) => ctx.with_timeout_cause(timeout, format!("timed out after {timeout:?}")),
        None => ctx,
    }
}

/// Hashes all the files, and returns when every task has ended.
async fn hash_all(ctx: &Context, args: &Args, run: &Arc<Run>) -> Result<(), Error> {
    let group = Group::builder().context(ctx).limit(args.jobs.get());
    group
        .run(async |group| walk(group, &args.paths, run).await)
        .await
}

/// Spawns a task for each file.
async fn walk(group: Spawner<Error>, paths: &[PathBuf], run: &Arc<Run>) -> Result<(), Error> {
    let mut entries = paths.iter().flat_map(WalkDir::new);
    let mut slot = group.slot().await?;
    // There is no other way to list a directory than one that blocks.
    while let Some(entry) = block_in_place(|| entries.next()) {
        group.context().check()?;
        // What the walk cannot read is left to a task too, so that there is one place for errors.
        if let Some(path) = regular_file(entry).transpose() {
            let run = Arc::clone(run);
            slot.spawn_blocking(move |ctx| run.checksum(&ctx, path));
            slot = group.slot().await?;
        }
    }
    Ok(())
}

/// The path of a file to hash; `None` for directories and what is passed over.
fn regular_file(entry: walkdir::Result<DirEntry>) -> Result<Option<PathBuf>, Error> {
    let entry = entry?;
    match entry.depth() {
        0 => argument(entry.into_path()),
        _ => Ok(entry.file_type().is_file().then(|| entry.into_path())),
    }
}

fn argument(path: PathBuf) -> Result<Option<PathBuf>, Error> {
    // Unlike the entry, this is about the target if the path is a link.
    let reason = match fs::metadata(&path) {
        Ok(target) if target.is_dir() => return Ok(None),
        Ok(target) if target.is_file() => return Ok(Some(path)),
        Ok(_) => io::Error::other("neither a regular file nor a directory"),
        Err(reason) => reason,
    };
    Err(Error::read(path, reason))
}

/// What the tasks share.
struct Run {
    keep_going: bool,
    has_failed: AtomicBool,
    sums: Mutex<Vec<Sum>>,
    /// Counts bytes; indicatif hides it unless standard error is a terminal.
    bar: ProgressBar,
}

impl Run {
    fn new(keep_going: bool) -> Self {
        let style =
            ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {bytes_per_sec}")
                .expect("the template is valid");
        Self {
            keep_going,
            has_failed: AtomicBool::new(false),
            sums: Mutex::default(),
            bar: ProgressBar::new(0).with_style(style),
        }
    }

    /// One task.
    fn checksum(&self, ctx: &Context, path: Result<PathBuf, Error>) -> Result<(), Error> {
        match path.and_then(|path| self.hash(ctx, path)) {
            Ok(sum) => self.sums().push(sum),
            Err(error @ Error::Unreadable { .. }) if self.keep_going => {
                self.has_failed.store(true, Ordering::Relaxed);
                self.say(error);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn hash(&self, ctx: &Context, path: PathBuf) -> Result<Sum, Error> {
        match digest(ctx, &path, &self.bar) {
            Ok(digest) => Ok(Sum {
                name: path.into_os_string(),
                digest,
            }),
            Err(reason) => Err(Error::read(path, reason)),
        }
    }

    fn print(&self) -> Result<(), Error> {
        let mut sums = self.sums();
        sums.sort_unstable();
        match write_all(&sums) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error::Unwritable(error)),
            _ => Ok(()),
        }
    }

    /// Says why the program ends early; returns the status to end with.
    fn fail(&self, error: &Error) -> ExitCode {
        let Error::Stopped(end) = error else {
            self.say(error);
            return ExitCode::FAILURE;
        };
        let why = end
            .source()
            .map_or_else(|| end.to_string(), ToString::to_string);
        self.say(format_args!("{why}, files done: {}", self.sums().len()));
        match end.downcast_ref() {
            Some(Interrupted) => ExitCode::from(130),
            None if end.is_deadline_exceeded() => ExitCode::from(124),
            None => ExitCode::FAILURE,
        }
    }

    fn say(&self, message: impl Display) {
        // Unlike `eprintln!`, this does not panic when nobody listens any more.
        let print = || drop(writeln!(io::stderr(), "checksum: {message}"));
        self.bar.suspend(print);
    }

    fn sums(&self) -> MutexGuard<'_, Vec<Sum>> {
        self.sums.lock().expect("nothing panics under the lock")
    }
}

fn digest(ctx: &Context, path: &Path, bar: &ProgressBar) -> io::Result<Output<Sha256>> {
    let file = File::open(path)?;
    bar.inc_length(file.metadata()?.len());
    sha256::digest(ctx, bar.wrap_read(file))
}

/// One line of the output. Lines are in the order of the names' bytes, which `PathBuf` does not have.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Sum {
    name: OsString,
    digest: Output<Sha256>,
}

impl Sum {
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let name = self.name.as_encoded_bytes();
        let escaped = sha256::escape(name);
        if escaped != name {
            out.write_all(b"\\")?;
        }
        write!(out, "{:x}  ", self.digest)?;
        out.write_all(&escaped)?;
        out.write_all(b"\n")
    }
}

fn write_all(sums: &[Sum]) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    for sum in sums {
        sum.write(&mut out)?;
    }
    out.flush()
}

impl Error {
    /// What ended the reading of a path: the context, whose error is in `reason` then, or the path itself.
    fn read(path: PathBuf, reason: io::Error) -> Self {
        match reason.downcast() {
            Ok(end) => Self::Stopped(end),
            Err(reason) => Self::Unreadable { path, reason },
        }
    }
}

impl From<walkdir::Error> for Error {
    fn from(error: walkdir::Error) -> Self {
        let path = error.path().map(Path::to_owned).unwrap_or_default();
        // Only a loop is no I/O error, and there is none where links are not followed.
        let reason = error.into_io_error();
        Self::read(path, reason.unwrap_or_else(|| ErrorKind::Other.into()))
    }
}
