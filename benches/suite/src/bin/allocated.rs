//! Repeats one operation and writes what it allocates to standard output: `allocated '<row> / <contender>' <n>`.

use std::process::ExitCode;

use errgroup_bench::alloc::{Counting, count};
use errgroup_bench::count::asked;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    let Some((operation, n)) = asked() else {
        return ExitCode::FAILURE;
    };
    let (_, allocated) = count(|| operation(n));
    println!("{}", serde_json::json!(allocated));
    ExitCode::SUCCESS
}
