//! Repeats one operation, for callgrind: `op '<row> / <contender>' <n>`.

use std::process::ExitCode;

use errgroup_bench::{count, rows};

fn main() -> ExitCode {
    let Some((operation, n)) = count::asked() else {
        eprintln!("usage: op <operation> <n>, with an operation of");
        rows::operations().for_each(|(operation, _)| eprintln!("  {operation}"));
        return ExitCode::FAILURE;
    };
    operation(n);
    ExitCode::SUCCESS
}
