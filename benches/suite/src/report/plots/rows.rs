//! Plots of rows: a label on the left, dots on a logarithmic axis.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::axis::LogAxis;
use super::{Area, BLUE, Drawn, FAINT, GRID, INK, RED};
use super::{colour, distinct, page, write_dot, write_legend, write_line, write_text};
use crate::report::budget::BudgetRow;
use crate::report::text::{ratio, round_time};
use crate::results::Comparison;

const WIDTH: i32 = 1120;
const RIGHT: i32 = WIDTH - 60;
const TOP: i32 = 92;
const STEP: i32 = 22;
const FOOT: i32 = 34;

/// Inside of a budget.
const BAND: RGBColor = RGBColor(0xdc, 0xee, 0xdc);

/// One line for each budget: the ratio, its quartiles, and the band inside which it is met.
pub fn budgets(path: &Path, headline: &str, rows: &[BudgetRow]) -> Drawn {
    let left = 610;
    let below = "lower is better; the band is the budget, a dot the median of the rounds, its line the quartiles; \
                 blue: met, red: missed";
    let area = page(path, (WIDTH, height(rows.len())), headline, below)?;
    let values = rows.iter().flat_map(|row| {
        [
            row.value.lower_quartile,
            row.value.upper_quartile,
            row.at_most,
        ]
    });
    let axis = LogAxis::around(values.chain([1.0]), (left, RIGHT));
    grid(&area, &axis, rows.len(), |ratio| ratio.to_string())?;
    for (place, row) in rows.iter().enumerate() {
        budget(&area, &axis, line_of(place), row)?;
    }
    Ok(area.present()?)
}

fn budget(area: &Area<'_>, axis: &LogAxis, y: i32, row: &BudgetRow) -> Drawn {
    let (left, right) = axis.pixels();
    let colour = if row.is_met() { BLUE } else { RED };
    let limit = axis.at(row.at_most);
    area.draw(&Rectangle::new(
        [(left, y - 7), (limit, y + 7)],
        BAND.filled(),
    ))?;
    write_line(area, vec![(limit, y - 8), (limit, y + 8)], FAINT, 2)?;
    let label = format!("{} / {}", row.work, row.against);
    write_text(area, &label, (left - 10, y), (12, INK), HPos::Right)?;
    let quartiles = [row.value.lower_quartile, row.value.upper_quartile];
    write_line(
        area,
        quartiles.map(|value| (axis.at(value), y)).to_vec(),
        colour,
        3,
    )?;
    write_dot(area, (axis.at(row.value.median), y), 5, colour)?;
    write_text(
        area,
        &ratio(row.value.median),
        (right + 12, y),
        (12, colour),
        HPos::Left,
    )
}

/// One line for each comparison: a dot for each contender's median.
pub fn costs(path: &Path, headline: &str, rows: &[&Comparison]) -> Drawn {
    let left = 480;
    let below = "lower is better; logarithmic axis; a dot is the median of the rounds";
    let area = page(path, (WIDTH, height(rows.len())), headline, below)?;
    let names = rows.iter().flat_map(|row| &row.contenders);
    write_legend(
        &area,
        &distinct(names.map(|contender| &*contender.name)),
        (22, 66),
    )?;
    let axis = LogAxis::around(medians(rows), (left, RIGHT));
    grid(&area, &axis, rows.len(), round_time)?;
    for (place, row) in rows.iter().enumerate() {
        cost(&area, &axis, line_of(place), row)?;
    }
    Ok(area.present()?)
}

fn medians(rows: &[&Comparison]) -> impl Iterator<Item = f64> + Clone {
    let medians = |row: &&Comparison| -> Vec<f64> {
        let contenders = row.contenders.iter();
        contenders
            .map(|contender| row.cost(contender).median)
            .collect()
    };
    rows.iter().flat_map(medians)
}

fn cost(area: &Area<'_>, axis: &LogAxis, y: i32, row: &Comparison) -> Drawn {
    let (left, right) = axis.pixels();
    write_text(
        area,
        &row.full_title(),
        (left - 10, y),
        (12, INK),
        HPos::Right,
    )?;
    write_line(area, vec![(left, y), (right, y)], GRID, 1)?;
    // Ours is the largest and lies below the others, so that all are seen where they coincide.
    for (place, contender) in row.contenders.iter().enumerate() {
        let radius = if place == 0 { 8 } else { 4 };
        let at = (axis.at(row.cost(contender).median), y);
        write_dot(area, at, radius, colour(&contender.name))?;
    }
    Ok(())
}

fn height(rows: usize) -> i32 {
    line_of(rows) + FOOT
}

fn line_of(place: usize) -> i32 {
    TOP + STEP / 2 + place as i32 * STEP
}

/// Vertical lines with their values below.
fn grid(area: &Area<'_>, axis: &LogAxis, rows: usize, text: fn(f64) -> String) -> Drawn {
    let bottom = line_of(rows) - STEP / 2;
    for tick in axis.ticks() {
        let x = axis.at(tick);
        write_line(area, vec![(x, TOP), (x, bottom)], GRID, 1)?;
        write_text(
            area,
            &text(tick),
            (x, bottom + 12),
            (11, FAINT),
            HPos::Center,
        )?;
    }
    Ok(())
}
