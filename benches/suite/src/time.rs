//! Times, in rounds that alternate: A B C, C B A, B C A, A C B, … What slows the machine for a while meets all contenders
//! alike.
//!
//! In each round a contender does its work twice and the second time is measured: it finds the heap as it leaves it itself.
//! In one that another left it takes up to twice as long, if that one frees in another order than it allocates.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use crate::go::Go;
use crate::results;
use crate::rows::Row;

/// How long to measure.
#[derive(Clone)]
pub struct Effort {
    /// For all rounds of one row together, within `rounds`.
    pub time: Duration,
    pub rounds: RangeInclusive<u32>,
}

impl Effort {
    pub fn full() -> Self {
        Self {
            time: Duration::from_secs(6),
            rounds: 15..=61,
        }
    }

    /// For development: the figures are not to be quoted.
    pub fn quick() -> Self {
        Self {
            time: Duration::from_millis(300),
            rounds: 3..=9,
        }
    }

    /// How many rounds, if the work takes as long as the first time.
    fn rounds(&self, first: Duration) -> u32 {
        let wanted = self.time.as_nanos() / (2 * first.as_nanos()).max(1);
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        wanted.clamp(*self.rounds.start(), *self.rounds.end())
    }
}

impl Row {
    /// Lets each contender do its work once, and then as many rounds as the effort allows.
    pub fn time(mut self, effort: &Effort, go: Option<&Go>) -> results::Row {
        if let Some((go, (operation, threads))) = go.zip(self.go) {
            self = self.peer("Go", go.operation(operation, threads));
        }
        let first = Instant::now();
        for operation in &self.operations {
            operation(self.ops);
        }
        for round in 0..effort.rounds(first.elapsed()) {
            self.round(round as usize);
        }
        self.finish()
    }

    fn round(&mut self, round: usize) {
        for contender in order(round, self.operations.len()) {
            let operation = &self.operations[contender];
            operation(self.ops);
            let cost = operation(self.ops).as_nanos() as f64 / self.ops as f64;
            let samples = &mut self.plan.contenders[contender].samples;
            samples.push((cost * 1_000.0).round() / 1_000.0);
        }
    }
}

/// Who is when in a round: each round starts with another contender, every other one goes backwards.
fn order(round: usize, contenders: usize) -> Vec<usize> {
    let first = round / 2;
    let mut order: Vec<usize> = (0..contenders)
        .map(|place| (first + place) % contenders)
        .collect();
    if !round.is_multiple_of(2) {
        order.reverse();
    }
    order
}

#[cfg(test)]
mod tests {
    use super::order;

    #[test]
    fn rounds_rotate_and_alternate_in_direction() {
        let rounds: Vec<_> = (0..4).map(|round| order(round, 3)).collect();
        assert_eq!(rounds, [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]]);
    }
}
