//! Repeats one operation, for callgrind: `ops <operation> <n>`.

use std::process::ExitCode;

use errgroup_bench::instructions;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (operation, n) = (arguments.next(), arguments.next());
    let n = n.and_then(|n| n.parse().ok());
    match operation.zip(n) {
        Some((operation, n)) if instructions::repeat(&operation, n) => ExitCode::SUCCESS,
        _ => {
            eprintln!("usage: ops <operation> <n>, with an operation of");
            instructions::operations().for_each(|operation| eprintln!("  {operation}"));
            ExitCode::FAILURE
        }
    }
}
