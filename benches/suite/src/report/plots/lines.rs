//! Plots of lines: cost per operation as something grows, both axes logarithmic, one panel for each thing measured.

use std::path::Path;

use plotters::style::text_anchor::HPos;

use super::axis::LogAxis;
use super::{Area, Drawn, FAINT, GRID, INK};
use super::{colour, distinct, page, write_dot, write_legend, write_line, write_text};
use crate::report::text::round_time;
use crate::results::{Scaling, Series};

const WIDTH: i32 = 1120;
const COLUMNS: usize = 2;
const PANEL: (i32, i32) = (545, 300);
const TOP: i32 = 92;

/// Inside of a panel: left, right, top, bottom.
const MARGINS: [i32; 4] = [70, 20, 30, 42];

pub fn panels(path: &Path, headline: &str, panels: &[&Scaling]) -> Drawn {
    let lines = panels.len().div_ceil(COLUMNS) as i32;
    let below = "lower is better; both axes logarithmic; a point is the median of the rounds";
    let area = page(path, (WIDTH, TOP + lines * PANEL.1), headline, below)?;
    let names = panels.iter().flat_map(|panel| &panel.series);
    write_legend(
        &area,
        &distinct(names.map(|series| &*series.name)),
        (22, 66),
    )?;
    for (place, scaling) in panels.iter().enumerate() {
        let (column, line) = ((place % COLUMNS) as i32, (place / COLUMNS) as i32);
        panel(
            &area,
            scaling,
            (column * PANEL.0 + 10, TOP + line * PANEL.1),
        )?;
    }
    Ok(area.present()?)
}

/// The two axes of a panel.
struct Axes {
    x: LogAxis,
    y: LogAxis,
}

fn panel(area: &Area<'_>, scaling: &Scaling, (left, top): (i32, i32)) -> Drawn {
    let axes = Axes::of(scaling, (left, top));
    let title = format!("{}, per {}", scaling.title, scaling.unit);
    write_text(
        area,
        &title,
        (left + MARGINS[0], top + 14),
        (13, INK),
        HPos::Left,
    )?;
    axes.draw(area, scaling)?;
    for series in scaling.series.iter().rev() {
        axes.draw_series(area, series)?;
    }
    Ok(())
}

impl Axes {
    fn of(scaling: &Scaling, (left, top): (i32, i32)) -> Self {
        let points = scaling.series.iter().flat_map(|series| &series.points);
        let sizes = points.clone().map(|point| point.x as f64);
        let (least, most) = (
            sizes.clone().fold(f64::INFINITY, f64::min),
            sizes.fold(1.0, f64::max),
        );
        let costs = points.map(|point| point.cost());
        let [before, after, above, below] = MARGINS;
        Self {
            x: LogAxis::between(
                (least / 1.1, most * 1.1),
                (left + before, left + PANEL.0 - after),
            ),
            y: LogAxis::around(costs, (top + PANEL.1 - below, top + above)),
        }
    }

    fn draw(&self, area: &Area<'_>, scaling: &Scaling) -> Drawn {
        let ((left, right), (bottom, top)) = (self.x.pixels(), self.y.pixels());
        for tick in self.y.ticks() {
            let y = self.y.at(tick);
            write_line(area, vec![(left, y), (right, y)], GRID, 1)?;
            write_text(
                area,
                &round_time(tick),
                (left - 8, y),
                (11, FAINT),
                HPos::Right,
            )?;
        }
        for point in scaling
            .series
            .iter()
            .take(1)
            .flat_map(|series| &series.points)
        {
            let x = self.x.at(point.x as f64);
            write_line(area, vec![(x, top), (x, bottom)], GRID, 1)?;
            write_text(
                area,
                &size(point.x),
                (x, bottom + 12),
                (11, FAINT),
                HPos::Center,
            )?;
        }
        write_text(
            area,
            &scaling.axis,
            ((left + right) / 2, bottom + 28),
            (12, FAINT),
            HPos::Center,
        )
    }

    fn draw_series(&self, area: &Area<'_>, series: &Series) -> Drawn {
        let colour = colour(&series.name);
        let points = series.points.iter();
        let points: Vec<_> = points
            .map(|point| (self.x.at(point.x as f64), self.y.at(point.cost())))
            .collect();
        write_line(area, points.clone(), colour, 2)?;
        points
            .into_iter()
            .try_for_each(|at| write_dot(area, at, 4, colour))
    }
}

/// `100`, `1k`, `1M`.
fn size(value: u64) -> String {
    match value {
        value if value >= 1_000_000 => format!("{}M", value / 1_000_000),
        value if value >= 1_000 => format!("{}k", value / 1_000),
        value => value.to_string(),
    }
}
