//! The same operation on several threads at once.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::runtime::Operation;

/// 1, 2, 4 and 8 threads, and twice as many until each core has one.
pub fn numbers() -> Vec<usize> {
    let doubled = std::iter::successors(Some(1), |threads| Some(threads * 2));
    doubled
        .take_while(|&threads| threads <= cores().max(8))
        .collect()
}

pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Processor time instead of time: what an operation costs, not how many run beside it.
pub fn processor_time(threads: usize, operation: Operation) -> Operation {
    let at_once = threads.min(cores()) as u32;
    Box::new(move |n| operation(n) * at_once)
}

/// Does `f` `n` times on `threads` threads together, from the first thread's start to the last one's end.
pub fn contend(threads: usize, n: usize, f: impl Fn() + Sync) -> Duration {
    let barrier = Barrier::new(threads);
    let run = || {
        barrier.wait();
        let start = Instant::now();
        (0..n / threads).for_each(|_| f());
        (start, Instant::now())
    };
    let spans: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        let ended = running.into_iter().map(|thread| thread.join());
        ended.map(|span| span.expect("no thread panics")).collect()
    });
    let first = spans.iter().map(|(start, _)| *start).min();
    let last = spans.iter().map(|(_, end)| *end).max();
    last.zip(first)
        .map_or(Duration::ZERO, |(last, first)| last - first)
}
