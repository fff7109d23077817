//! A logarithmic axis with ticks at 1, 2 and 5.

/// From values to pixels.
pub struct LogAxis {
    values: (f64, f64),
    pixels: (i32, i32),
}

impl LogAxis {
    /// An axis that reaches from the tick below all values to the tick above them.
    pub fn around(values: impl Iterator<Item = f64> + Clone, pixels: (i32, i32)) -> Self {
        let least = values.clone().fold(f64::INFINITY, f64::min);
        let most = values.fold(0.0, f64::max);
        let below = ticks_around(least).rfind(|&tick| tick <= least * 0.95);
        let above = ticks_around(most).find(|&tick| tick >= most * 1.05);
        Self {
            values: (below.unwrap_or(least), above.unwrap_or(most)),
            pixels,
        }
    }

    pub fn at(&self, value: f64) -> i32 {
        let (low, high) = (self.values.0.ln(), self.values.1.ln());
        let share = (value.ln() - low) / (high - low);
        let (from, to) = (f64::from(self.pixels.0), f64::from(self.pixels.1));
        (from + share * (to - from)).round() as i32
    }

    /// At 1, 2 and 5, or at powers of ten if those are too many.
    pub fn ticks(&self) -> Vec<f64> {
        let (low, high) = (self.values.0 * 0.999, self.values.1 * 1.001);
        let all = decades(low, high).flat_map(|decade| [1.0, 2.0, 5.0].map(|step| step * decade));
        let within: Vec<f64> = all.filter(|tick| (low..=high).contains(tick)).collect();
        match within.len() > 10 {
            true => decades(low, high)
                .filter(|tick| (low..=high).contains(tick))
                .collect(),
            false => within,
        }
    }
}

/// The powers of ten from the one below `low` to `high`.
fn decades(low: f64, high: f64) -> impl Iterator<Item = f64> {
    let (first, last) = (low.log10().floor() as i32, high.log10().floor() as i32);
    (first..=last).map(|exponent| 10_f64.powi(exponent))
}

fn ticks_around(value: f64) -> impl DoubleEndedIterator<Item = f64> {
    let decade = value.log10().floor() as i32;
    let exponents = [decade - 1, decade, decade + 1];
    exponents
        .into_iter()
        .flat_map(|exponent| [1.0, 2.0, 5.0].map(|step| step * 10_f64.powi(exponent)))
}
