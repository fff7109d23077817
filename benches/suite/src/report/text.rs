//! Figures as text, and what is printed while a run goes on.

use std::fmt::Write;

use crate::results::{Budget, Contender, Row, Summary, Unit};

/// What an operation costs, with its unit if that is time.
pub fn cost(unit: Unit, cost: f64) -> String {
    match unit {
        Unit::Time => time(cost),
        _ => number(cost),
    }
}

/// Nanoseconds, with the unit that suits them.
pub fn time(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{} ns", number(ns)),
        ns if ns < 1e6 => format!("{} µs", number(ns / 1e3)),
        ns => format!("{} ms", number(ns / 1e6)),
    }
}

/// Three digits, or all before the point.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size == 0.0 || size >= 99.95 => whole(value),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// No digits behind the point, groups of three before it.
pub fn whole(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Two digits behind the point, three for a small one.
pub fn ratio(value: f64) -> String {
    match value < 0.0995 {
        true => format!("{value:.3}"),
        false => format!("{value:.2}"),
    }
}

/// The median, with the quartiles if there are several rounds: half of them lie between these.
pub fn ratio_with_noise(ratios: Summary) -> String {
    let median = ratio(ratios.median);
    match ratios.lower_quartile < ratios.upper_quartile {
        true => format!(
            "{median} ({}–{})",
            ratio(ratios.lower_quartile),
            ratio(ratios.upper_quartile)
        ),
        false => median,
    }
}

pub fn verdict(row: &Row, budget: &Budget) -> &'static str {
    if row.is_met(budget) { "met" } else { "missed" }
}

/// A row, when it was measured.
pub fn row(row: &Row) -> String {
    let mut text = format!("{:>2} {}\n", row.number, row.title());
    for contender in &row.contenders {
        let beside = match contender.name == row.ours().name {
            true => row
                .budgets
                .iter()
                .find(|budget| budget.against.is_none())
                .map(|budget| ceiling(row, budget)),
            false => Some(over(row, contender)),
        };
        let median = cost(row.unit, contender.cost().median);
        let _ = writeln!(
            text,
            "   {:<34} {median:>9}  {}",
            contender.name,
            beside.unwrap_or_default()
        );
    }
    text
}

/// Ours over a peer, and the budget if there is one.
fn over(row: &Row, peer: &Contender) -> String {
    let ratios = row.ours().over(peer);
    let text = format!("ratio {}", ratio_with_noise(ratios));
    let mut budgets = row.budgets.iter();
    match budgets.find(|budget| budget.against.as_deref() == Some(&peer.name)) {
        Some(budget) => format!("{text:<24} {}", ceiling(row, budget)),
        None => text,
    }
}

fn ceiling(row: &Row, budget: &Budget) -> String {
    format!("≤ {}: {}", at_most(row, budget), verdict(row, budget))
}

/// A ratio, a time, or a count with its unit.
pub fn at_most(row: &Row, budget: &Budget) -> String {
    if budget.against.is_none() && row.unit == Unit::Time {
        return time(budget.at_most);
    }
    let at_most = match budget.at_most {
        large if large >= 1_000.0 => whole(large),
        small => small.to_string(),
    };
    match budget.against {
        Some(_) => at_most,
        None => format!("{at_most} {}", row.unit.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::{number, ratio, time};

    #[test]
    fn figures_have_three_digits() {
        assert_eq!(
            [0.0, 1.234, 12.34, 123.4, 37_208.0].map(number),
            ["0", "1.23", "12.3", "123", "37,208"]
        );
        assert_eq!(
            [1.3, 999.0, 1_310.0, 2.5e6].map(time),
            ["1.30 ns", "999 ns", "1.31 µs", "2.50 ms"]
        );
        assert_eq!(
            [0.0329, 0.0994, 0.0996, 1.15].map(ratio),
            ["0.033", "0.099", "0.10", "1.15"]
        );
    }
}
