//! What a run found, raw: the one machine-readable file. All figures for people are computed from it.

use serde::{Deserialize, Serialize};

use crate::machine::{Machine, Versions};

/// Rises when a field changes its meaning.
pub const FORMAT: u32 = 2;

/// Ours, in every row.
pub const OURS: &str = "errgroup";

#[derive(Serialize, Deserialize)]
pub struct Results {
    pub format: u32,
    /// `full`, or `quick`: too few rounds to be quoted.
    pub mode: String,
    /// UTC, RFC 3339.
    pub date: String,
    pub machine: Machine,
    pub versions: Versions,
    pub rows: Vec<Row>,
    /// What was left out, and why.
    pub skipped: Vec<String>,
}

/// The same work, done by several contenders.
#[derive(Clone, Serialize, Deserialize)]
pub struct Row {
    /// Rows of one number vary one thing.
    pub number: u32,
    pub section: String,
    pub work: String,
    pub unit: Unit,
    /// Ours is the first.
    pub contenders: Vec<Contender>,
    pub budgets: Vec<Budget>,
    /// README.md shows it.
    pub in_readme: bool,
}

/// What a sample is, per operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// Nanoseconds: those of a round, so there are many samples. Elsewhere there is one.
    Time,
    Instructions,
    /// Calls of the allocator that returned memory.
    Allocations,
    /// Bytes asked for, freed ones included.
    Bytes,
    /// Bytes still held.
    Held,
    /// Bytes of machine code.
    Code,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct Contender {
    pub name: String,
    /// In the order of the rounds.
    pub samples: Vec<f64>,
}

/// A ceiling for a contender's cost over another's, or for the cost itself.
#[derive(Clone, Serialize, Deserialize)]
pub struct Budget {
    pub of: String,
    pub against: Option<String>,
    pub at_most: f64,
}

/// Of one contender's rounds, or of the ratios of two contenders' rounds.
#[derive(Clone, Copy)]
pub struct Summary {
    pub min: f64,
    pub lower_quartile: f64,
    pub median: f64,
    pub upper_quartile: f64,
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Unit::Time => "time",
            Unit::Instructions => "instructions",
            Unit::Allocations => "allocations",
            Unit::Bytes => "bytes in all",
            Unit::Held => "bytes held",
            Unit::Code => "bytes of code",
        }
    }
}

impl Row {
    /// What is unique among all rows.
    pub fn title(&self) -> String {
        match self.unit {
            Unit::Time => self.work.clone(),
            unit => format!("{}: {}", self.work, unit.name()),
        }
    }

    pub fn ours(&self) -> &Contender {
        &self.contenders[0]
    }

    pub fn contender(&self, name: &str) -> Option<&Contender> {
        let mut contenders = self.contenders.iter();
        contenders.find(|contender| contender.name == name)
    }

    /// What a budget is a ceiling for; not a number if a contender was left out.
    pub fn value(&self, budget: &Budget) -> Summary {
        let of = self.contender(&budget.of);
        match &budget.against {
            None => of.map_or(Summary::of([]), Contender::cost),
            Some(against) => {
                let both = of.zip(self.contender(against));
                both.map_or(Summary::of([]), |(of, against)| of.over(against))
            }
        }
    }

    pub fn is_met(&self, budget: &Budget) -> bool {
        self.value(budget).median <= budget.at_most
    }
}

impl Contender {
    /// Per operation.
    pub fn cost(&self) -> Summary {
        Summary::of(self.samples.iter().copied())
    }

    /// Its cost over another's, round by round: what slows the machine for a while slows both.
    pub fn over(&self, other: &Contender) -> Summary {
        let rounds = self.samples.iter().zip(&other.samples);
        Summary::of(rounds.map(|(ours, theirs)| ours / theirs))
    }
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
