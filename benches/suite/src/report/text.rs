//! Figures as text, and what is printed while a run goes on.

use std::fmt::Write;

use crate::results::{Comparison, Contender, Count, Scaling, Summary};

/// Nanoseconds, with the unit that suits them.
pub fn time(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{} ns", number(ns)),
        ns if ns < 1e6 => format!("{} µs", number(ns / 1e3)),
        ns => format!("{} ms", number(ns / 1e6)),
    }
}

/// A round number of nanoseconds, for an axis.
pub fn round_time(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{ns} ns"),
        ns if ns < 1e6 => format!("{} µs", ns / 1e3),
        ns => format!("{} ms", ns / 1e6),
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

/// The median with the quartiles: half of the rounds lie between these.
pub fn ratio_with_noise(ratios: Summary) -> String {
    format!(
        "{} ({}–{})",
        ratio(ratios.median),
        ratio(ratios.lower_quartile),
        ratio(ratios.upper_quartile)
    )
}

pub fn verdict(is_met: bool) -> &'static str {
    if is_met { "met" } else { "missed" }
}

pub fn comparison(comparison: &Comparison) -> String {
    let rounds = comparison.ours().rounds.len();
    let mut text = format!(
        "{} (per {}, {rounds} rounds)\n",
        comparison.full_title(),
        comparison.unit
    );
    line(&mut text, comparison, comparison.ours(), String::new());
    for peer in comparison.peers() {
        line(&mut text, comparison, peer, beside(comparison, peer));
    }
    text
}

fn line(text: &mut String, comparison: &Comparison, contender: &Contender, beside: String) {
    let cost = comparison.cost(contender);
    let _ = writeln!(
        text,
        "  {:<32} {:>9}  min {:>9}  {beside}",
        contender.name,
        time(cost.median),
        time(cost.min)
    );
}

/// Ours over the peer's, and the budget if there is one.
fn beside(comparison: &Comparison, peer: &Contender) -> String {
    let ratios = comparison.ratio(peer);
    let text = format!("ratio {}", ratio_with_noise(ratios));
    match comparison.budget(peer) {
        Some(at_most) => format!(
            "{text:<26} budget {at_most}: {}",
            verdict(ratios.median <= at_most)
        ),
        None => text,
    }
}

pub fn scaling(scaling: &Scaling) -> String {
    let mut text = format!("{} (per {})\n", scaling.title, scaling.unit);
    for series in &scaling.series {
        let _ = write!(text, "  {:<32}", series.name);
        for point in &series.points {
            let _ = write!(text, " {:>10}", time(point.cost()));
        }
        text.push('\n');
    }
    text
}

pub fn count(count: &Count) -> String {
    let mut text = format!("{} per {}\n", count.unit, count.title);
    for value in &count.values {
        let _ = writeln!(text, "  {:<32} {:>9}", value.name, number(value.value));
    }
    text
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
