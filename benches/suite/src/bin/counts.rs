//! Counts allocations and bytes, and writes them to standard output as JSON.

use errgroup_bench::alloc::Counting;
use errgroup_bench::counts;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> serde_json::Result<()> {
    serde_json::to_writer(std::io::stdout().lock(), &counts::all())
}
