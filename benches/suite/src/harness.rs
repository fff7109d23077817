//! Rounds that alternate: A B C, C B A, B C A, A C B, … What slows the machine for a while meets all contenders alike.
//!
//! In each round a contender does its work twice and the second time is measured: it finds the heap as it leaves it itself.
//! In one that another left it takes up to twice as long, if that one frees in another order than it allocates.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use crate::results;

/// The contender that is ours.
pub const OURS: &str = "errgroup";

/// How long to measure.
#[derive(Clone)]
pub struct Effort {
    /// For all rounds of one comparison together, within `rounds`.
    pub time: Duration,
    pub rounds: RangeInclusive<u32>,
    /// The largest work of a scaling run.
    pub largest: usize,
    pub scaling_rounds: u32,
}

/// Does the work once and says how long the measured part took.
type Round<'a> = Box<dyn FnMut() -> Duration + 'a>;

/// Contenders for the same work.
pub struct Contest<'a> {
    comparison: results::Comparison,
    rounds: Vec<Round<'a>>,
}

impl Effort {
    pub fn full() -> Self {
        Self {
            time: Duration::from_secs(6),
            rounds: 15..=61,
            largest: 1_000_000,
            scaling_rounds: 9,
        }
    }

    /// For development: the figures are not to be quoted.
    pub fn quick() -> Self {
        Self {
            time: Duration::from_millis(500),
            rounds: 5..=9,
            largest: 100_000,
            scaling_rounds: 3,
        }
    }

    /// How many rounds, if the work takes as long as the first time.
    fn rounds(&self, first: Duration) -> u32 {
        let wanted = self.time.as_nanos() / (2 * first.as_nanos()).max(1);
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        wanted.clamp(*self.rounds.start(), *self.rounds.end())
    }
}

impl<'a> Contest<'a> {
    /// `ops` operations, each a `unit`, in each round.
    pub fn new(section: &str, title: impl Into<String>, unit: &str, ops: usize) -> Self {
        let comparison = results::Comparison {
            section: section.to_owned(),
            title: title.into(),
            runtime: None,
            unit: unit.to_owned(),
            ops: ops as u64,
            contenders: Vec::new(),
            budgets: Vec::new(),
        };
        Self {
            comparison,
            rounds: Vec::new(),
        }
    }

    pub fn on(mut self, runtime: &str) -> Self {
        self.comparison.runtime = Some(runtime.to_owned());
        self
    }

    /// Adds our own contender; it comes first.
    pub fn ours(self, round: impl FnMut() -> Duration + 'a) -> Self {
        debug_assert!(self.rounds.is_empty());
        self.peer(OURS, round)
    }

    pub fn peer(mut self, name: &str, round: impl FnMut() -> Duration + 'a) -> Self {
        self.comparison.contenders.push(results::Contender {
            name: name.to_owned(),
            rounds: Vec::new(),
        });
        self.rounds.push(Box::new(round));
        self
    }

    /// Adds a peer with a ceiling for ours over the peer's.
    pub fn rival(mut self, name: &str, at_most: f64, round: impl FnMut() -> Duration + 'a) -> Self {
        self.comparison.budgets.push(results::Budget {
            against: name.to_owned(),
            at_most,
        });
        self.peer(name, round)
    }

    /// Lets the caller add contenders of its own.
    pub fn with(self, add: impl FnOnce(Self) -> Self) -> Self {
        add(self)
    }

    pub fn comparison(&self) -> &results::Comparison {
        &self.comparison
    }

    /// Lets each do its work once, and then runs as many rounds as the effort allows.
    pub fn run(mut self, effort: &Effort) -> results::Comparison {
        let first = Instant::now();
        for round in &mut self.rounds {
            round();
        }
        for round in 0..effort.rounds(first.elapsed()) {
            self.run_round(round as usize);
        }
        self.comparison
    }

    fn run_round(&mut self, round: usize) {
        for index in order(round, self.rounds.len()) {
            let round = &mut self.rounds[index];
            round();
            let elapsed = round();
            let rounds = &mut self.comparison.contenders[index].rounds;
            rounds.push(elapsed.as_nanos() as u64);
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
