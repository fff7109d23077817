//! Repeats one operation, for callgrind: `op <row / contender> <n>`.

use std::process::ExitCode;

use errgroup_bench::counted;

fn main() -> ExitCode {
    let Some((operation, n)) = counted::asked() else {
        eprintln!("usage: op <operation> <n>, with an operation of");
        counted::operations().for_each(|(operation, _)| eprintln!("  {operation}"));
        return ExitCode::FAILURE;
    };
    operation(n);
    ExitCode::SUCCESS
}
