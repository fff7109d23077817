//! Which contenders meet, on what, with which budget.
//!
//! The numbers are those of the table of budgets; from 22 on they are the budgets that the design names beside it. A
//! contender without a budget is for the reader. The commonest shapes come first.

mod batches;
mod contexts;
mod requests;
mod tasks;

use std::time::Duration;

use crate::results::{self, Budget, Contender, OURS, Unit};
use crate::runtime::Operation;

/// Operations in a round, unless the row says otherwise.
const OPS: usize = 100_000;

/// Peers, as they are named in tables.
mod name {
    pub(super) const BARE: &str = "tokio::spawn + counter";
    pub(super) const JOIN_SET: &str = "JoinSet";
    pub(super) const CHECKED: &str = "JoinSet, tasks check a token";
    pub(super) const WATCHED: &str = "JoinSet, owner watches a token";
    pub(super) const CHILD: &str = "JoinSet, tasks watch a child token";
    pub(super) const TRACKER: &str = "TaskTracker + CancellationToken";
    pub(super) const TOKEN: &str = "CancellationToken";
    pub(super) const TIMEOUT: &str = "child token + timeout + Arc";
    pub(super) const SLEEP: &str = "boxed Sleep";
    pub(super) const SEMAPHORE: &str = "Semaphore + tokio::spawn";
    pub(super) const SEMAPHORE_INSIDE: &str = "Semaphore acquired in the task";
    pub(super) const BUFFER_UNORDERED: &str = "buffer_unordered";
    pub(super) const BUFFER_UNORDERED_TIMEOUT: &str = "buffer_unordered + timeout";
    pub(super) const BUFFERED: &str = "buffered";
    pub(super) const UNORDERED: &str = "FuturesUnordered of boxed futures";
}

/// A row that is to be measured.
pub struct Row {
    /// Without samples yet.
    pub plan: results::Row,
    /// What the contenders do, in their order.
    pub operations: Vec<Operation>,
    /// How often in a round, for a row of times.
    pub ops: usize,
    /// What the Go program calls the same, and its threads.
    pub go: Option<(&'static str, usize)>,
    /// The most that ours may cost over the cheapest peer.
    over_cheapest: Option<f64>,
}

/// Every row.
pub fn all() -> Vec<Row> {
    let sections = [
        ("requests", requests::rows()),
        ("tasks", tasks::rows()),
        ("contexts", contexts::rows()),
        ("batches", batches::rows()),
    ];
    let name = |(section, rows): (&'static str, Vec<Row>)| {
        rows.into_iter().map(move |mut row| {
            row.plan.section = section.to_owned();
            row
        })
    };
    sections.into_iter().flat_map(name).collect()
}

impl Row {
    fn new(number: u32, unit: Unit, work: impl Into<String>) -> Self {
        Self {
            plan: results::Row {
                number,
                section: String::new(),
                work: work.into(),
                unit,
                contenders: Vec::new(),
                budgets: Vec::new(),
                in_readme: false,
            },
            operations: Vec::new(),
            ops: OPS,
            go: None,
            over_cheapest: None,
        }
    }

    fn timed(number: u32, work: impl Into<String>) -> Self {
        Self::new(number, Unit::Time, work)
    }

    fn ops(mut self, ops: usize) -> Self {
        self.ops = ops;
        self
    }

    /// Adds our own contender; it comes first.
    fn ours(self, operation: Operation) -> Self {
        self.peer(OURS, operation)
    }

    pub fn peer(mut self, name: impl Into<String>, operation: Operation) -> Self {
        self.plan.contenders.push(Contender {
            name: name.into(),
            samples: Vec::new(),
        });
        self.operations.push(operation);
        self
    }

    /// Adds a peer, and a ceiling for ours over it.
    fn rival(self, name: &str, at_most: f64, operation: Operation) -> Self {
        self.budget(OURS, Some(name), at_most).peer(name, operation)
    }

    /// Adds a ceiling for what ours costs by itself.
    fn at_most(self, at_most: f64) -> Self {
        self.budget(OURS, None, at_most)
    }

    /// Adds a ceiling for ours over the peer that turns out to be the cheapest.
    fn over_cheapest(mut self, at_most: f64) -> Self {
        self.over_cheapest = Some(at_most);
        self
    }

    fn budget(mut self, of: &str, against: Option<&str>, at_most: f64) -> Self {
        self.plan.budgets.push(Budget {
            of: of.to_owned(),
            against: against.map(str::to_owned),
            at_most,
        });
        self
    }

    fn go(mut self, operation: &'static str, threads: usize) -> Self {
        self.go = Some((operation, threads));
        self
    }

    fn in_readme(self) -> Self {
        self.in_readme_if(true)
    }

    fn in_readme_if(mut self, is_shown: bool) -> Self {
        self.plan.in_readme = is_shown;
        self
    }

    /// The row, when it was measured.
    pub fn finish(self) -> results::Row {
        let mut row = self.plan;
        let peers = row.contenders[1..].iter();
        let cheapest = peers.min_by(|one, other| one.cost().median.total_cmp(&other.cost().median));
        if let Some((at_most, cheapest)) = self.over_cheapest.zip(cheapest) {
            row.budgets.push(Budget {
                of: OURS.to_owned(),
                against: Some(cheapest.name.clone()),
                at_most,
            });
        }
        row
    }

    /// The operation of a contender, as the programs beside this one know it.
    pub fn operation_name(&self, contender: usize) -> String {
        format!(
            "{} / {}",
            self.plan.title(),
            self.plan.contenders[contender].name
        )
    }
}

/// The operations of all rows, with their names.
pub fn operations() -> impl Iterator<Item = (String, Operation)> {
    all().into_iter().flat_map(|mut row| {
        let operations = std::mem::take(&mut row.operations).into_iter().enumerate();
        let named: Vec<_> = operations
            .map(|(contender, operation)| (row.operation_name(contender), operation))
            .collect();
        named
    })
}

/// Not measured: the row's contenders are programs.
fn program() -> Operation {
    Box::new(|_| Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{all, operations};

    #[test]
    fn operations_have_names_of_their_own() {
        let names: Vec<String> = operations().map(|(name, _)| name).collect();
        let distinct: BTreeSet<&String> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
    }

    #[test]
    fn budgets_are_of_contenders_that_are_there() {
        for row in all() {
            let is_there = |name: &String| row.plan.contender(name).is_some();
            for budget in &row.plan.budgets {
                assert!(is_there(&budget.of), "{}", row.plan.title());
                assert!(budget.against.iter().all(is_there), "{}", row.plan.title());
            }
        }
    }

    #[test]
    fn readme_shows_ten_rows() {
        assert_eq!(all().iter().filter(|row| row.plan.in_readme).count(), 10);
    }
}
