//! The rows that have a budget.

use super::text::{number, time};
use crate::results::{Comparison, Count, Results, Summary};

/// A row of the budget table, met or not.
pub struct BudgetRow {
    pub work: String,
    pub against: String,
    /// Ours and the peer's, as text with their unit.
    pub ours: String,
    pub theirs: String,
    /// What the budget is a ceiling for, with the quartiles of the rounds; a count has one value only.
    pub value: Summary,
    pub at_most: f64,
}

impl BudgetRow {
    pub fn is_met(&self) -> bool {
        self.value.median <= self.at_most
    }
}

/// Every row with a budget, in the order of the results.
pub fn rows(results: &Results) -> Vec<BudgetRow> {
    let counts = results.counts.iter().filter_map(of_count);
    ratios(results).into_iter().chain(counts).collect()
}

/// Those whose budget is for a ratio.
pub fn ratios(results: &Results) -> Vec<BudgetRow> {
    results.comparisons.iter().flat_map(of_comparison).collect()
}

fn of_comparison(comparison: &Comparison) -> impl Iterator<Item = BudgetRow> {
    comparison.peers().iter().filter_map(|peer| {
        Some(BudgetRow {
            work: comparison.full_title(),
            against: peer.name.clone(),
            ours: time(comparison.cost(comparison.ours()).median),
            theirs: time(comparison.cost(peer).median),
            value: comparison.ratio(peer),
            at_most: comparison.budget(peer)?,
        })
    })
}

/// A ceiling for the count itself; a peer's stands beside it.
fn of_count(count: &Count) -> Option<BudgetRow> {
    let (ours, peer) = (count.values.first()?, count.values.get(1)?);
    Some(BudgetRow {
        work: format!("{} per {}", count.unit, count.title),
        against: peer.name.clone(),
        ours: number(ours.value),
        theirs: number(peer.value),
        value: Summary::of([ours.value]),
        at_most: count.at_most?,
    })
}
