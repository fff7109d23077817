//! Repeats one operation, for callgrind: `op '<row> / <contender>' <n>`.
//!
//! It does so on several heaps that others have lived in: blocks here and there, holes between them. On a fresh one glibc's
//! allocator falls into one of a few rhythms that differ by some percent, as the program's arguments happen to be long.

use std::mem::forget;
use std::process::ExitCode;

use errgroup_bench::count::{self, HEAPS};
use errgroup_bench::rows;

fn main() -> ExitCode {
    let Some((operation, n)) = count::asked() else {
        eprintln!("usage: op <operation> <n>, with an operation of");
        rows::operations().for_each(|(operation, _)| eprintln!("  {operation}"));
        return ExitCode::FAILURE;
    };
    for heap in 1..=HEAPS {
        live_in_heap(heap as u64);
        operation(n);
    }
    ExitCode::SUCCESS
}

/// Leaves about half of a thousand blocks, other ones for each number.
fn live_in_heap(mut random: u64) {
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as usize
    };
    let blocks: Vec<Vec<u8>> = (0..1_000)
        .map(|_| Vec::with_capacity(16 + next() % 1_500))
        .collect();
    let is_left = |_: &Vec<u8>| next() % 2 == 0;
    blocks.into_iter().filter(is_left).for_each(forget);
}
