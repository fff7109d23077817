//! Counts what repeating one operation allocates, and writes it to standard output as JSON.

use std::process::ExitCode;

use errgroup_bench::alloc::{Counting, count};
use errgroup_bench::counted;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    let Some((operation, n)) = counted::asked() else {
        return ExitCode::FAILURE;
    };
    let ((), allocated) = count(|| operation(n));
    match serde_json::to_writer(std::io::stdout(), &allocated) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
