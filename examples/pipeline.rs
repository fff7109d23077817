//! A pipeline of a producer, two stages and a collector, with backpressure. An error in a stage ends both sides of it.
//!
//! ```sh
//! cargo run --example pipeline
//! ```
//!
//! With `--bad N` line N is no number: the parser fails, the producer does not hang on a full channel, the collector does
//! not on an empty one, and the error is what `wait` returns.
//!
//! A neighbour's end closes the channel between the two. That is no error: it was the neighbour's, or there was none.
//! Reported as one, it could come before the neighbour's own and hide it.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use errgroup::{BoxError, Group};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// What each channel holds: a stage that is faster than the next waits.
const CAPACITY: usize = 4;
const LINES: usize = 10_000;

#[tokio::main]
async fn main() -> ExitCode {
    let bad = std::env::args().skip_while(|arg| arg != "--bad").nth(1);
    let bad = bad.and_then(|line| line.parse().ok());
    let produced = Arc::new(AtomicUsize::new(0));

    let result = run(bad, produced.clone()).await;
    println!("lines produced: {}", produced.load(Ordering::Relaxed));
    match result {
        Ok((sum, ahead)) => {
            println!("sum: {sum}; the producer was at most {ahead} lines ahead");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("pipeline: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Starts the stages, and returns when all of them have ended.
async fn run(bad: Option<usize>, produced: Arc<AtomicUsize>) -> Result<(u64, usize), BoxError> {
    let mut group = Group::new();
    let (lines, to_parse) = channel(CAPACITY);
    let (numbers, to_square) = channel(CAPACITY);
    let (squares, to_collect) = channel(CAPACITY);
    let producer = produce(bad, lines, produced.clone());
    group.task("produce").spawn(producer);
    group.task("parse").spawn(parse(to_parse, numbers));
    group.task("square").spawn(square(to_square, squares));
    let collector = collect(to_collect, produced);
    let collected = group.task("collect").spawn(collector);

    let result = group.wait().await;
    println!("stages left: {}", group.len());
    result?;
    Ok(collected.await?)
}

async fn produce(
    bad: Option<usize>,
    lines: Sender<String>,
    produced: Arc<AtomicUsize>,
) -> Result<(), BoxError> {
    for n in 1..=LINES {
        let line = if bad == Some(n) {
            "oops".to_owned()
        } else {
            n.to_string()
        };
        if lines.send(line).await.is_err() {
            break;
        }
        produced.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

async fn parse(mut lines: Receiver<String>, numbers: Sender<u64>) -> Result<(), BoxError> {
    while let Some(line) = lines.recv().await {
        let number = line.parse().map_err(|error| format!("{line:?}: {error}"))?;
        if numbers.send(number).await.is_err() {
            break;
        }
    }
    Ok(())
}

async fn square(mut numbers: Receiver<u64>, squares: Sender<u64>) -> Result<(), BoxError> {
    while let Some(number) = numbers.recv().await {
        if squares.send(number * number).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// The sum, and how far the producer was ahead at most.
async fn collect(
    mut squares: Receiver<u64>,
    produced: Arc<AtomicUsize>,
) -> Result<(u64, usize), BoxError> {
    let (mut sum, mut count, mut ahead) = (0, 0, 0);
    while let Some(square) = squares.recv().await {
        sum += square;
        count += 1;
        ahead = ahead.max(produced.load(Ordering::Relaxed).saturating_sub(count));
    }
    Ok((sum, ahead))
}
