//! The plots, as SVG: for each section errgroup's cost over its peers', with the budgets.

mod axis;

use std::error::Error;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use self::axis::LogAxis;
use super::markdown::Plot;
use super::text::ratio;
use crate::results::{Budget, Results, Row};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn<T = ()> = Result<T, Box<dyn Error>>;

const INK: RGBColor = RGBColor(0x22, 0x26, 0x2b);
const FAINT: RGBColor = RGBColor(0x6b, 0x72, 0x7a);
const GRID: RGBColor = RGBColor(0xe3, 0xe6, 0xe9);
const BLUE: RGBColor = RGBColor(0x0b, 0x5c, 0xd6);
const RED: RGBColor = RGBColor(0xd0, 0x2f, 0x2f);

/// Inside of a budget.
const BAND: RGBColor = RGBColor(0xdc, 0xee, 0xdc);

const WIDTH: i32 = 1240;
const LEFT: i32 = 760;
const RIGHT: i32 = WIDTH - 60;
const TOP: i32 = 70;
const STEP: i32 = 22;
const FOOT: i32 = 34;

/// A row and its budget for a ratio.
type Line<'a> = (&'a Row, &'a Budget);

/// Writes a plot for each section for which there are ratios.
pub fn write(results: &Results, dir: &Path) -> Drawn<Vec<Plot>> {
    let mut plots = Vec::new();
    for section in results
        .rows
        .chunk_by(|one, next| one.section == next.section)
    {
        let lines: Vec<Line> = section.iter().flat_map(ratios).collect();
        let name = &section[0].section;
        let plot = Plot {
            file: format!("{name}.svg"),
            shows: format!("{name}: errgroup's cost over its peers', with the budgets"),
        };
        if !lines.is_empty() {
            draw(&dir.join(&plot.file), &plot.shows, &lines)?;
            plots.push(plot);
        }
    }
    Ok(plots)
}

fn ratios(row: &Row) -> impl Iterator<Item = Line<'_>> {
    let budgets = row.budgets.iter().filter(|budget| budget.against.is_some());
    budgets.map(move |budget| (row, budget))
}

/// One line for each budget: the ratio, its quartiles, and the band inside which it is met.
fn draw(path: &Path, headline: &str, lines: &[Line<'_>]) -> Drawn {
    let size = (WIDTH as u32, (line_of(lines.len()) + FOOT) as u32);
    let area = SVGBackend::new(path, size).into_drawing_area();
    area.fill(&WHITE)?;
    let below = "lower is better; the band is the budget, a dot the median of the rounds, its line the quartiles; \
                 blue: met, red: missed";
    write_text(&area, headline, (16, 24), (17, INK), HPos::Left)?;
    write_text(&area, below, (16, 44), (12, FAINT), HPos::Left)?;
    let values = lines.iter().flat_map(|(row, budget)| {
        let value = row.value(budget);
        [value.lower_quartile, value.upper_quartile, budget.at_most]
    });
    let axis = LogAxis::around(values.chain([1.0]), (LEFT, RIGHT));
    grid(&area, &axis, lines.len())?;
    for (place, line) in lines.iter().enumerate() {
        draw_line(&area, &axis, line_of(place), *line)?;
    }
    Ok(area.present()?)
}

fn draw_line(area: &Area<'_>, axis: &LogAxis, y: i32, (row, budget): Line<'_>) -> Drawn {
    let value = row.value(budget);
    let colour = if row.is_met(budget) { BLUE } else { RED };
    let limit = axis.at(budget.at_most);
    let band = [(LEFT, y - 7), (limit, y + 7)];
    area.draw(&Rectangle::new(band, BAND.filled()))?;
    stroke(area, [(limit, y - 8), (limit, y + 8)], FAINT, 2)?;
    let label = format!(
        "{} / {}",
        row.title(),
        budget.against.as_deref().unwrap_or_default()
    );
    write_text(area, &label, (LEFT - 10, y), (12, INK), HPos::Right)?;
    let quartiles = [value.lower_quartile, value.upper_quartile];
    stroke(area, quartiles.map(|value| (axis.at(value), y)), colour, 3)?;
    area.draw(&Circle::new((axis.at(value.median), y), 5, colour.filled()))?;
    write_text(
        area,
        &ratio(value.median),
        (RIGHT + 12, y),
        (12, colour),
        HPos::Left,
    )
}

/// Vertical lines with their values below.
fn grid(area: &Area<'_>, axis: &LogAxis, lines: usize) -> Drawn {
    let bottom = line_of(lines) - STEP / 2;
    for tick in axis.ticks() {
        let x = axis.at(tick);
        stroke(area, [(x, TOP), (x, bottom)], GRID, 1)?;
        write_text(
            area,
            &tick.to_string(),
            (x, bottom + 12),
            (11, FAINT),
            HPos::Center,
        )?;
    }
    Ok(())
}

fn line_of(place: usize) -> i32 {
    TOP + STEP / 2 + place as i32 * STEP
}

/// A line of text beside, or around, a point.
fn write_text(
    area: &Area<'_>,
    text: &str,
    at: (i32, i32),
    (size, colour): (u32, RGBColor),
    side: HPos,
) -> Drawn {
    let style = ("sans-serif", size).into_font().color(&colour);
    let style = style.pos(Pos::new(side, VPos::Center));
    Ok(area.draw(&Text::new(text.to_owned(), at, style))?)
}

fn stroke(area: &Area<'_>, ends: [(i32, i32); 2], colour: RGBColor, width: u32) -> Drawn {
    Ok(area.draw(&PathElement::new(ends.to_vec(), colour.stroke_width(width)))?)
}
