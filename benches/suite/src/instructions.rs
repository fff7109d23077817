//! Instructions per operation, counted by callgrind: two run lengths, their difference divided by the operations between
//! them, so that neither the start of the program nor that of the runtime is in it.

use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::harness::OURS;
use crate::results::{Count, Value};
use crate::rows::name;
use crate::runtime::{Flavor, Rt};
use crate::work::spawn::AtOnce;
use crate::work::{batch, context, failure, spawn};

const SHORT: u64 = 2_000;
const LONG: u64 = 12_000;

struct Row {
    title: &'static str,
    contenders: &'static [Contender],
}

struct Contender {
    name: &'static str,
    /// As `ops` knows it.
    operation: &'static str,
    repeat: fn(usize) -> Duration,
}

const fn contender(
    name: &'static str,
    operation: &'static str,
    repeat: fn(usize) -> Duration,
) -> Contender {
    Contender {
        name,
        operation,
        repeat,
    }
}

/// On one thread: several would spin and wait, and no two runs be the same.
fn current<F>(round: F) -> Duration
where
    F: Future<Output = Duration> + Send + 'static,
{
    Rt::new(Flavor::CurrentThread).drive(round)
}

const ROWS: &[Row] = &[
    Row {
        title: "spawn + wait, a task that ends at once",
        contenders: &[
            contender(OURS, "spawn", |n| current(spawn::group::<AtOnce, ()>(n))),
            contender(name::BARE, "spawn-bare", |n| {
                current(spawn::bare::<AtOnce, ()>(n))
            }),
            contender(name::JOIN_SET, "spawn-join-set", |n| {
                current(spawn::join_set::<AtOnce, ()>(n))
            }),
            contender(name::TRACKER, "spawn-tracker", |n| {
                current(spawn::tracker::<AtOnce, ()>(n))
            }),
            contender(name::NAMED, "spawn-named", |n| {
                current(spawn::named::<AtOnce, ()>(n))
            }),
        ],
    },
    Row {
        title: "spawn a task that waits, first error, wait",
        contenders: &[
            contender(OURS, "fail", |n| current(failure::group(n))),
            contender(name::TRACKER, "fail-tracker", |n| {
                current(failure::tracker(n))
            }),
            contender(name::JOIN_SET, "fail-join-set", |n| {
                current(failure::join_set(n))
            }),
        ],
    },
    Row {
        title: "derive and drop a child",
        contenders: &[
            contender(OURS, "child", context::derive),
            contender(name::TOKEN, "child-token", context::derive_token),
        ],
    },
    Row {
        title: "derive, end and drop one child of many",
        contenders: &[
            contender(OURS, "end", |n| {
                context::end_children(n, context::Part::Whole)
            }),
            contender(name::TOKEN, "end-token", |n| {
                context::end_children_tokens(n, context::Part::Whole)
            }),
        ],
    },
    Row {
        title: "done(): poll once, drop",
        contenders: &[
            contender(OURS, "done", context::done),
            contender(name::TOKEN, "done-token", context::done_token),
        ],
    },
    Row {
        title: "is_done, the loop around it included",
        contenders: &[
            contender(OURS, "is-done", context::is_done),
            contender(name::TOKEN, "is-done-token", context::is_done_token),
        ],
    },
    Row {
        title: "with_timeout and drop, nobody waits",
        contenders: &[
            contender(OURS, "timeout", |n| current(context::timeout(n))),
            contender(name::SLEEP, "timeout-sleep", |n| {
                current(context::timeout_sleep(n))
            }),
        ],
    },
    Row {
        title: "with_timeout, poll done() once, drop both",
        contenders: &[
            contender(OURS, "timeout-waited", |n| {
                current(context::timeout_waited(n))
            }),
            contender(name::SLEEP, "timeout-sleep", |n| {
                current(context::timeout_sleep(n))
            }),
        ],
    },
    Row {
        title: "one item of a batch that ends at once, limit 64",
        contenders: &[
            contender(OURS, "batch", |n| current(batch::for_each::<AtOnce>(n))),
            contender(name::SEMAPHORE, "batch-semaphore", |n| {
                current(batch::semaphore::<AtOnce>(n))
            }),
            contender(name::BUFFER_UNORDERED, "batch-unordered", |n| {
                current(batch::buffer_unordered::<AtOnce>(n))
            }),
        ],
    },
];

fn contenders() -> impl Iterator<Item = &'static Contender> {
    ROWS.iter().flat_map(|row| row.contenders)
}

/// What `ops` can repeat.
pub fn operations() -> impl Iterator<Item = &'static str> {
    contenders().map(|contender| contender.operation)
}

/// Repeats an operation; `false` if there is none of that name.
pub fn repeat(operation: &str, n: usize) -> bool {
    let found = contenders().find(|contender| contender.operation == operation);
    let Some(contender) = found else { return false };
    black_box((contender.repeat)(n));
    true
}

/// Counts all rows with the program `ops`, under valgrind; why not, if that is missing.
pub fn count(ops: &Path) -> Result<Vec<Count>, String> {
    ROWS.iter().map(|row| row.count(ops)).collect()
}

impl Row {
    fn count(&self, ops: &Path) -> Result<Count, String> {
        let values = self.contenders.iter().map(|contender| contender.count(ops));
        Ok(Count {
            title: self.title.to_owned(),
            unit: "instructions".to_owned(),
            values: values.collect::<Result<_, _>>()?,
            at_most: None,
        })
    }
}

impl Contender {
    fn count(&self, ops: &Path) -> Result<Value, String> {
        let short = callgrind(ops, self.operation, SHORT)?;
        let long = callgrind(ops, self.operation, LONG)?;
        Ok(Value {
            name: self.name.to_owned(),
            value: long.saturating_sub(short) as f64 / (LONG - SHORT) as f64,
        })
    }
}

/// The instructions that a whole run takes.
fn callgrind(ops: &Path, operation: &str, n: u64) -> Result<u64, String> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(ops)
        .args([operation, &n.to_string()])
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let instructions = collected.and_then(|(_, count)| count.trim().parse().ok());
    instructions.ok_or_else(|| format!("callgrind, on `ops {operation} {n}`, said: {text}"))
}
