//! The rows that count instead of measuring: instructions, allocations, bytes. They repeat, whatever else the machine does.

use std::process::Command;
use std::sync::OnceLock;

use errgroup::BoxError;
use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, Runtime};

use crate::alloc::Allocated;
use crate::{ours, peers};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    Instructions,
    /// Calls of the allocator that returned memory.
    Allocations,
    /// Bytes asked for, freed ones included.
    Bytes,
    /// Bytes still held.
    Held,
}

/// What ours may be.
#[derive(Clone, Copy)]
pub enum Limit {
    /// So many times the cheapest peer's.
    Times(f64),
    Count(f64),
}

pub struct Row {
    /// In the table of budgets.
    pub number: u32,
    pub work: &'static str,
    pub unit: Unit,
    pub limit: Limit,
    pub contenders: &'static [(&'static str, Operation)],
}

/// Does something `n` times.
pub type Operation = fn(usize);

/// Two run lengths: what both cost alike (the program's start, a parent, the growth of the runtime's queues) drops out of
/// their difference.
const LENGTHS: [usize; 2] = [1_000, 5_000];

use Limit::{Count, Times};
use Unit::{Allocations, Bytes, Held, Instructions};

const OURS: &str = "errgroup";
const JOIN_SET: &str = "JoinSet, tasks check the token";
const JOIN_SET_WATCHED: &str = "JoinSet, owner watches the token";
const JOIN_SET_CHILD: &str = "JoinSet + child token, tasks watch it";
const BARE: &str = "tokio::spawn + counter";
const TRACKER: &str = "TaskTracker + token";

macro_rules! on_runtime {
    ($($name:expr => $operation:expr),* $(,)?) => {
        &[$(($name, |n| on(1, $operation(n)))),*]
    };
}

macro_rules! row {
    ($number:expr, $work:expr, $unit:expr, $limit:expr, $contenders:expr) => {
        Row {
            number: $number,
            work: $work,
            unit: $unit,
            limit: $limit,
            contenders: $contenders,
        }
    };
}

const REQUEST: &[&[(&str, Operation)]] = &[
    on_runtime![OURS => ours::requests::<0>, JOIN_SET => peers::requests::<0>, JOIN_SET_WATCHED => peers::requests_watched::<0>, JOIN_SET_CHILD => peers::requests_with_child::<0>],
    on_runtime![OURS => ours::requests::<1>, JOIN_SET => peers::requests::<1>, JOIN_SET_WATCHED => peers::requests_watched::<1>, JOIN_SET_CHILD => peers::requests_with_child::<1>],
    on_runtime![OURS => ours::requests::<3>, JOIN_SET => peers::requests::<3>, JOIN_SET_WATCHED => peers::requests_watched::<3>, JOIN_SET_CHILD => peers::requests_with_child::<3>],
    on_runtime![OURS => ours::requests::<10>, JOIN_SET => peers::requests::<10>, JOIN_SET_WATCHED => peers::requests_watched::<10>, JOIN_SET_CHILD => peers::requests_with_child::<10>],
];

pub const ROWS: &[Row] = &[
    row!(
        1,
        "group of 0 tasks below a parent, waited for, dropped",
        Instructions,
        Times(2.5),
        REQUEST[0]
    ),
    row!(
        1,
        "the same, 1 task that waits once",
        Instructions,
        Times(1.10),
        REQUEST[1]
    ),
    row!(
        1,
        "the same, 3 tasks that wait once",
        Instructions,
        Times(1.00),
        REQUEST[2]
    ),
    row!(
        1,
        "the same, 10 tasks that wait once",
        Instructions,
        Times(0.95),
        REQUEST[3]
    ),
    row!(
        1,
        "the same, 3 tasks that wait for a oneshot",
        Instructions,
        Times(1.00),
        on_runtime![
        OURS => ours::requests_with_replies::<3>, JOIN_SET => peers::requests_with_replies::<3>]
    ),
    row!(
        2,
        "group of 3 tasks that wait once",
        Allocations,
        Count(8.0),
        REQUEST[2]
    ),
    row!(
        2,
        "group of 3 tasks that wait once",
        Bytes,
        Count(1_200.0),
        REQUEST[2]
    ),
    row!(
        3,
        "group with 5 waiting tasks from 3 places",
        Held,
        Count(1_400.0),
        on_runtime![
        OURS => ours::live_groups, "JoinSet" => peers::live_join_sets]
    ),
    row!(
        4,
        "idle group",
        Held,
        Count(350.0),
        on_runtime![OURS => ours::idle_groups, TRACKER => peers::idle_trackers]
    ),
    row!(
        4,
        "idle group whose task has ended",
        Held,
        Count(350.0),
        on_runtime![OURS => ours::used_groups, TRACKER => peers::idle_trackers]
    ),
    row!(
        4,
        "idle group, 2 workers",
        Held,
        Count(350.0),
        &[(OURS, |n| on(2, ours::idle_groups(n)))]
    ),
    row!(
        4,
        "idle group, 16 workers",
        Held,
        Count(350.0),
        &[(OURS, |n| on(16, ours::idle_groups(n)))]
    ),
    row!(
        5,
        "live task when 1 in 63 stays",
        Held,
        Count(400.0),
        on_runtime![OURS => ours::survivors, "JoinSet" => peers::survivors]
    ),
    row!(
        6,
        "one more task that waits once",
        Instructions,
        Times(1.15),
        on_runtime![
        OURS => ours::tasks, BARE => peers::bare, JOIN_SET => peers::join_set]
    ),
    row!(
        10,
        "cancelled task that passes the end on, BoxError",
        Instructions,
        Times(1.2),
        on_runtime![
        OURS => ours::cooperative::<BoxError>, TRACKER => peers::cooperative]
    ),
    row!(
        10,
        "cancelled task that passes the end on, an enum",
        Instructions,
        Times(1.7),
        on_runtime![
        OURS => ours::cooperative::<ours::Error>, TRACKER => peers::cooperative]
    ),
    row!(
        11,
        "the same, a sibling failed with 10 KiB of text",
        Instructions,
        Times(1.3),
        on_runtime![
        OURS => ours::long_error, TRACKER => peers::long_error]
    ),
    row!(
        12,
        "task queued at limit 64",
        Instructions,
        Times(1.0),
        on_runtime![
        OURS => ours::queued, "semaphore in the task" => peers::queued]
    ),
    row!(
        12,
        "slot() loop at limit 64",
        Instructions,
        Times(1.0),
        on_runtime![
        OURS => ours::slots::<64>, "acquire_owned" => peers::permits::<64>]
    ),
    row!(
        12,
        "slot() loop at limit 1",
        Instructions,
        Times(1.0),
        on_runtime![
        OURS => ours::slots::<1>, "acquire_owned" => peers::permits::<1>]
    ),
    row!(
        18,
        "task from one place",
        Allocations,
        Count(1.02),
        on_runtime![
        OURS => ours::one_place, BARE => peers::bare_at_once]
    ),
    row!(
        18,
        "task from one of five places in turn",
        Allocations,
        Count(1.02),
        on_runtime![
        OURS => ours::five_places, BARE => peers::bare_at_once]
    ),
];

/// One runtime for each number of workers, for all contenders. With one worker it is a `current_thread` one: all that is
/// counted stays on this thread.
fn on(workers: usize, operation: impl Future<Output = ()>) {
    static RUNTIMES: [OnceLock<Runtime>; 17] = [const { OnceLock::new() }; 17];
    let runtime = RUNTIMES[workers].get_or_init(|| {
        let mut builder = match workers {
            1 => Builder::new_current_thread(),
            _ => Builder::new_multi_thread(),
        };
        builder
            .worker_threads(workers)
            .enable_all()
            .build()
            .expect("a runtime can be built")
    });
    runtime.block_on(operation);
}

impl Row {
    /// The count of one operation, for each contender.
    pub fn count(&self, programs: &Programs<'_>) -> Result<Vec<f64>, String> {
        let count = |contender| self.count_of(contender, programs);
        (0..self.contenders.len()).map(count).collect()
    }

    fn count_of(&self, contender: usize, programs: &Programs<'_>) -> Result<f64, String> {
        let operation = format!("{} / {}", self.title(), self.contenders[contender].0);
        let [short, long] = LENGTHS.map(|n| match self.unit {
            Instructions => callgrind(programs.op, &operation, n),
            Allocations => allocated(programs.allocated, &operation, n)
                .map(|counted| counted.allocations as f64),
            Bytes => {
                allocated(programs.allocated, &operation, n).map(|counted| counted.bytes as f64)
            }
            Held => allocated(programs.allocated, &operation, n).map(|counted| counted.live as f64),
        });
        Ok((long? - short?) / (LENGTHS[1] - LENGTHS[0]) as f64)
    }

    /// A line for each peer.
    pub fn print(&self, counts: &[f64]) -> String {
        let mut lines = String::new();
        let ours = counts[0];
        let cheapest = counts[1..].iter().copied().fold(f64::INFINITY, f64::min);
        let title = self.title();
        if counts.len() == 1 {
            lines += &format!("{:3} {title:74} {ours:9.2}\n", self.number);
        }
        for (place, (count, (name, _))) in counts.iter().zip(self.contenders).enumerate().skip(1) {
            let ratio = ours / count;
            let limit = match self.limit {
                Times(at_most) if *count == cheapest => format!(
                    "<={at_most}{}",
                    if ratio > at_most { " MISSED" } else { "" }
                ),
                Count(at_most) if place == 1 => format!(
                    "<={at_most} in itself{}",
                    if ours > at_most { " MISSED" } else { "" }
                ),
                _ => String::new(),
            };
            lines += &format!(
                "{:3} {title:74} {ours:9.2}  {count:9.2} {ratio:6.3} {limit} ({name})\n",
                self.number
            );
        }
        lines
    }

    pub fn title(&self) -> String {
        format!("{}, {}", self.work, self.unit.name())
    }
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Instructions => "instructions",
            Allocations => "allocations",
            Bytes => "bytes in all",
            Held => "bytes held",
        }
    }
}

/// The programs that do one operation, each in a process of its own: neither finds a heap that another left.
pub struct Programs<'a> {
    pub op: &'a str,
    /// The same with a counting allocator.
    pub allocated: &'a str,
}

/// `row / contender` of all rows.
pub fn operations() -> impl Iterator<Item = (String, Operation)> {
    ROWS.iter().flat_map(|row| {
        let named = |(name, operation): &(&str, Operation)| {
            (format!("{} / {name}", row.title()), *operation)
        };
        row.contenders.iter().map(named)
    })
}

/// The operation of the arguments `<row / contender> <n>`, and how often to do it.
pub fn asked() -> Option<(Operation, usize)> {
    let mut arguments = std::env::args().skip(1);
    let (name, n) = (arguments.next()?, arguments.next()?);
    let (_, operation) = operations().find(|(operation, _)| *operation == name)?;
    Some((operation, n.parse().ok()?))
}

/// The instructions of a whole run.
fn callgrind(op: &str, operation: &str, n: usize) -> Result<f64, String> {
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(op);
    let output = command.args([operation, &n.to_string()]).output();
    let output = output.map_err(|error| format!("valgrind: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let instructions = collected.and_then(|(_, count)| count.trim().parse().ok());
    instructions.ok_or_else(|| format!("callgrind, on {operation:?} {n}, said: {text}"))
}

fn allocated(program: &str, operation: &str, n: usize) -> Result<Allocated, String> {
    let output = Command::new(program)
        .args([operation, &n.to_string()])
        .output();
    let output = output.map_err(|error| error.to_string())?;
    serde_json::from_slice(&output.stdout).map_err(|error| format!("{operation:?} {n}: {error}"))
}
