//! Counts words: several files are read at once, each into its slice of one buffer, and counted where they lie.
//!
//! ```sh
//! cargo run --example borrow -- README.md docs/guide.md
//! ```
//!
//! Every byte is there once. A task of a [`scope`] writes to its own slice, which a spawned one could not: it would have to own
//! the memory, or to share it behind an `Arc` and a lock. What it returns, a count for each word, borrows the words from the
//! buffer. The first file that cannot be read stops the others.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;

use errgroup::{BoxError, Context, scope};
use tokio::fs::{self, File};
use tokio::io::AsyncReadExt;

/// How many of the most frequent words are shown.
const SHOWN: usize = 5;

type Counts<'a> = HashMap<&'a str, usize>;

#[tokio::main]
async fn main() -> ExitCode {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    match count_files(&Context::background(), &paths).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn count_files(ctx: &Context, paths: &[PathBuf]) -> Result<(), BoxError> {
    let mut sizes = Vec::new();
    for path in paths {
        let found = fs::metadata(path).await;
        let found = found.map_err(|error| format!("{}: {error}", path.display()))?;
        sizes.push(found.len() as usize);
    }
    let mut buffer = vec![0; sizes.iter().sum()];
    let counts = read_and_count(ctx, paths, &sizes, &mut buffer).await?;
    show(&counts);
    Ok(())
}

/// Reads each file into its part of the buffer.
async fn read_and_count<'a>(
    ctx: &Context,
    paths: &'a [PathBuf],
    sizes: &[usize],
    mut buffer: &'a mut [u8],
) -> Result<Counts<'a>, BoxError> {
    scope(ctx, async |scope| {
        let mut tasks = Vec::new();
        for (path, size) in paths.iter().zip(sizes) {
            let (slice, rest) = std::mem::take(&mut buffer).split_at_mut(*size);
            buffer = rest;
            let name = path.display().to_string();
            tasks.push(scope.task(name).spawn(read(path, slice)));
        }
        let mut counts = Counts::new();
        for (path, task) in paths.iter().zip(tasks) {
            let text = task.await?;
            let words = count(text, &mut counts);
            println!("{}: {words} words", path.display());
        }
        Ok(counts)
    })
    .await
}

/// Fills the slice from the file, and sees to it that it is text.
async fn read<'a>(path: &'a PathBuf, slice: &'a mut [u8]) -> Result<&'a str, BoxError> {
    let named = |error: BoxError| format!("{}: {error}", path.display());
    let filled = async { File::open(path).await?.read_exact(slice).await };
    filled.await.map_err(|error| named(error.into()))?;
    let text = std::str::from_utf8(slice).map_err(|error| named(error.into()))?;
    Ok(text)
}

fn count<'a>(text: &'a str, counts: &mut Counts<'a>) -> usize {
    let words = text.split(|c: char| !c.is_alphanumeric());
    let words = words.filter(|word| !word.is_empty());
    words
        .map(|word| *counts.entry(word).or_default() += 1)
        .count()
}

fn show(counts: &Counts<'_>) {
    let mut sorted: Vec<_> = counts.iter().collect();
    sorted.sort_unstable_by_key(|&(word, count)| (std::cmp::Reverse(count), word));
    for (word, count) in sorted.into_iter().take(SHOWN) {
        println!("{count:>6} {word}");
    }
    println!("{} different words", counts.len());
}
