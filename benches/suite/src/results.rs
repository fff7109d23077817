//! What a run found, raw: the one machine-readable file. All figures for people are computed from it.

use serde::{Deserialize, Serialize};

use crate::machine::{Machine, Versions};

/// Rises when a field changes its meaning.
pub const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
pub struct Results {
    pub format: u32,
    /// `full`, or `quick`: too few rounds to be quoted.
    pub mode: String,
    /// UTC, RFC 3339.
    pub date: String,
    pub machine: Machine,
    pub versions: Versions,
    /// Worker threads of `multi_thread`.
    pub workers: usize,
    pub comparisons: Vec<Comparison>,
    pub scaling: Vec<Scaling>,
    pub counts: Vec<Count>,
    /// What was left out, and why.
    pub skipped: Vec<String>,
}

/// The same work done by several contenders in alternating rounds.
#[derive(Clone, Serialize, Deserialize)]
pub struct Comparison {
    pub section: String,
    pub title: String,
    /// Where it ran: `current_thread`, `multi_thread`, or nothing.
    pub runtime: Option<String>,
    /// What one operation is: `task`, `child`, …
    pub unit: String,
    /// Operations in a round.
    pub ops: u64,
    /// `errgroup` is the first.
    pub contenders: Vec<Contender>,
    pub budgets: Vec<Budget>,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct Contender {
    pub name: String,
    /// Nanoseconds of each round, in the order of the rounds.
    pub rounds: Vec<u64>,
}

/// A ceiling for the ratio to a peer.
#[derive(Clone, Serialize, Deserialize)]
pub struct Budget {
    pub against: String,
    pub at_most: f64,
}

/// Cost per operation while the work, or the number of threads, grows.
#[derive(Clone, Serialize, Deserialize)]
pub struct Scaling {
    pub title: String,
    pub axis: String,
    pub unit: String,
    pub series: Vec<Series>,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct Series {
    pub name: String,
    pub points: Vec<Point>,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct Point {
    pub x: u64,
    /// Nanoseconds per operation of each round.
    pub rounds: Vec<f64>,
}

/// A count that does not depend on the machine's speed.
#[derive(Clone, Serialize, Deserialize)]
pub struct Count {
    pub title: String,
    /// `allocations`, `bytes` or `instructions`.
    pub unit: String,
    /// `errgroup` is the first.
    pub values: Vec<Value>,
    /// A ceiling for ours.
    pub at_most: Option<f64>,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct Value {
    pub name: String,
    pub value: f64,
}

/// Of one contender's rounds, or of the ratios of two contenders' rounds.
#[derive(Clone, Copy)]
pub struct Summary {
    pub min: f64,
    pub lower_quartile: f64,
    pub median: f64,
    pub upper_quartile: f64,
}

impl Summary {
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        Self {
            min: quantile(&sorted, 0.0),
            lower_quartile: quantile(&sorted, 0.25),
            median: quantile(&sorted, 0.5),
            upper_quartile: quantile(&sorted, 0.75),
        }
    }
}

fn quantile(sorted: &[f64], at: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let place = at * last as f64;
    let (below, above) = (
        sorted[place.floor() as usize],
        sorted[place.ceil() as usize],
    );
    below + (above - below) * place.fract()
}

impl Comparison {
    pub fn ours(&self) -> &Contender {
        &self.contenders[0]
    }

    pub fn peers(&self) -> &[Contender] {
        &self.contenders[1..]
    }

    pub fn contender(&self, name: &str) -> Option<&Contender> {
        self.contenders
            .iter()
            .find(|contender| contender.name == name)
    }

    /// Nanoseconds per operation.
    pub fn cost(&self, contender: &Contender) -> Summary {
        Summary::of(
            contender
                .rounds
                .iter()
                .map(|&ns| ns as f64 / self.ops as f64),
        )
    }

    /// Ours over the peer's, round by round: what slows the machine for a while slows both.
    pub fn ratio(&self, peer: &Contender) -> Summary {
        let pairs = self.ours().rounds.iter().zip(&peer.rounds);
        Summary::of(pairs.map(|(&ours, &theirs)| ours as f64 / theirs as f64))
    }

    pub fn budget(&self, peer: &Contender) -> Option<f64> {
        let mut budgets = self.budgets.iter();
        let budget = budgets.find(|budget| budget.against == peer.name)?;
        Some(budget.at_most)
    }

    /// The title with the runtime.
    pub fn full_title(&self) -> String {
        match &self.runtime {
            Some(runtime) => format!("{}, {runtime}", self.title),
            None => self.title.clone(),
        }
    }
}

impl Point {
    /// Nanoseconds per operation, the median of the rounds.
    pub fn cost(&self) -> f64 {
        Summary::of(self.rounds.iter().copied()).median
    }
}

#[cfg(test)]
mod tests {
    use super::Summary;

    #[test]
    fn summary_interpolates_between_values() {
        let summary = Summary::of([4.0, 1.0, 3.0, 2.0]);
        assert_eq!((summary.min, summary.median), (1.0, 2.5));
        assert_eq!(
            (summary.lower_quartile, summary.upper_quartile),
            (1.75, 3.25)
        );
    }
}
