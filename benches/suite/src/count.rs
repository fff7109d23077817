//! Counts, which repeat whatever else the machine does: instructions, allocations, bytes.
//!
//! Each operation runs in a program of its own, with two run lengths; the difference is divided by the operations between
//! them. What both runs cost alike drops out: the program's start, a parent, the runtime's queues. So it is with code:
//! two programs, one with more distinct spawns.

use std::process::Command;

use crate::alloc::Allocated;
use crate::results::{self, Unit};
use crate::rows::{self, Row};
use crate::runtime::Operation;
use crate::text::SPAWNS;

/// Divisible by five, for five places in turn; just below powers of two, up to which vectors grow.
const LENGTHS: [usize; 2] = [500, 2_000];

/// Heaps on which `op` does what it is asked to, one after the other.
pub const HEAPS: usize = 3;

/// Where cargo has put the programs beside this one.
pub struct Programs {
    pub op: &'static str,
    pub allocated: &'static str,
    /// With few and with many distinct spawns: ours, and the peer's.
    pub text: [[&'static str; 2]; 2],
}

impl Row {
    /// Counts what each contender does; why not, if a program for that is missing.
    pub fn count(mut self, programs: &Programs) -> Result<results::Row, String> {
        for contender in 0..self.operations.len() {
            let count = self.count_of(contender, programs)?;
            self.plan.contenders[contender].samples.push(count);
        }
        Ok(self.finish())
    }

    fn count_of(&self, contender: usize, programs: &Programs) -> Result<f64, String> {
        let operation = self.operation_name(contender);
        let run = |n| match self.plan.unit {
            Unit::Time | Unit::Code => unreachable!("no operation's count"),
            Unit::Instructions => instructions(programs.op, &operation, n),
            unit => allocated(programs.allocated, &operation, n).map(|counted| counted.of(unit)),
        };
        let ([few, many], between) = match self.plan.unit {
            Unit::Code => (programs.text[contender].map(text), SPAWNS),
            _ => (LENGTHS.map(run), LENGTHS[1] - LENGTHS[0]),
        };
        Ok((many? - few?) / between as f64)
    }
}

impl Allocated {
    fn of(self, unit: Unit) -> f64 {
        match unit {
            Unit::Allocations => self.allocations as f64,
            Unit::Held => self.live as f64,
            _ => self.bytes as f64,
        }
    }
}

/// The operation of a program's arguments, `<row> / <contender>`, and how often to do it. The others are not freed: what
/// the allocator does depends on the holes that it finds.
pub fn asked() -> Option<(&'static Operation, usize)> {
    let mut arguments = std::env::args().skip(1);
    let (asked, n) = (arguments.next()?, arguments.next()?);
    let operations = Vec::leak(rows::operations().collect());
    let (_, operation) = operations.iter().find(|(name, _)| *name == asked)?;
    Some((operation, n.parse().ok()?))
}

/// The instructions of a whole run, on the average heap.
fn instructions(op: &str, operation: &str, n: usize) -> Result<f64, String> {
    let n = n.to_string();
    let callgrind = [
        "--tool=callgrind",
        "--callgrind-out-file=/dev/null",
        op,
        operation,
        &n,
    ];
    let (_, report) = run("valgrind", &callgrind)?;
    let collected = report
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let instructions = collected.and_then(|(_, count)| count.trim().parse::<f64>().ok());
    let instructions =
        instructions.ok_or_else(|| format!("callgrind, on {operation:?} {n}, said: {report}"))?;
    Ok(instructions / HEAPS as f64)
}

fn allocated(program: &str, operation: &str, n: usize) -> Result<Allocated, String> {
    let (counted, _) = run(program, &[operation, &n.to_string()])?;
    serde_json::from_str(&counted).map_err(|error| format!("{operation:?} {n}: {error}"))
}

/// The bytes of a program's code.
fn text(program: &str) -> Result<f64, String> {
    let (sections, _) = run("size", &["-A", program])?;
    let text = sections.lines().find_map(|line| line.strip_prefix(".text"));
    let bytes = text.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    bytes.ok_or_else(|| format!("size said: {sections}"))
}

/// What a program writes to its two outputs.
fn run(program: &str, arguments: &[&str]) -> Result<(String, String), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    match output.status.success() {
        true => Ok((stdout, stderr)),
        false => Err(format!(
            "{program} {arguments:?}: {}, {stderr}",
            output.status
        )),
    }
}
