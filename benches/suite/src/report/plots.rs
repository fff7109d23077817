//! The plots, as SVG.

mod axis;
mod lines;
mod rows;

use std::error::Error;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::budget;
use super::markdown::Plot;
use crate::harness::OURS;
use crate::results::{Comparison, Results, Scaling};
use crate::rows::name;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn<T = ()> = Result<T, Box<dyn Error>>;

const INK: RGBColor = RGBColor(0x22, 0x26, 0x2b);
const FAINT: RGBColor = RGBColor(0x6b, 0x72, 0x7a);
const GRID: RGBColor = RGBColor(0xe3, 0xe6, 0xe9);
const BLUE: RGBColor = RGBColor(0x0b, 0x5c, 0xd6);
const RED: RGBColor = RGBColor(0xd0, 0x2f, 0x2f);

/// Contenders' colours, the same in all plots.
const COLOURS: [(&str, RGBColor); 12] = [
    (OURS, BLUE),
    (name::NAMED, RGBColor(0x86, 0xb4, 0xf5)),
    (name::BARE, RGBColor(0x30, 0x34, 0x3a)),
    (name::JOIN_SET, RGBColor(0xe0, 0x8a, 0x00)),
    (name::TRACKER, RGBColor(0xc2, 0x35, 0x2b)),
    (name::TOKEN, RGBColor(0xc2, 0x35, 0x2b)),
    (name::UNORDERED, RGBColor(0x8a, 0x4f, 0xc4)),
    (name::SEMAPHORE, RGBColor(0x30, 0x34, 0x3a)),
    (name::BUFFER_UNORDERED, RGBColor(0x8a, 0x4f, 0xc4)),
    (name::BUFFERED, RGBColor(0xe0, 0x8a, 0x00)),
    (name::SLEEP, RGBColor(0x30, 0x34, 0x3a)),
    (name::CLOCK, RGBColor(0x8a, 0x8f, 0x96)),
];

/// Go, and whoever comes new.
const OTHER: RGBColor = RGBColor(0x00, 0x9a, 0x8a);

/// Writes all plots for which there are results.
pub fn write(results: &Results, dir: &Path) -> Drawn<Vec<Plot>> {
    let mut plots = Vec::new();
    let ratios = budget::ratios(results);
    if !ratios.is_empty() {
        let shows = "errgroup's time over its peers', with the budgets";
        rows::budgets(&dir.join("budgets.svg"), shows, &ratios)?;
        plots.push(Plot {
            file: "budgets.svg",
            shows,
        });
    }
    for (sections, file, shows) in SECTIONS {
        let of_section = |row: &&Comparison| sections.contains(&&*row.section);
        let rows: Vec<&Comparison> = results.comparisons.iter().filter(of_section).collect();
        if !rows.is_empty() {
            rows::costs(&dir.join(file), shows, &rows)?;
            plots.push(Plot { file, shows });
        }
    }
    for (axes, file, shows) in SCALINGS {
        let of_axes = |plot: &&Scaling| axes.contains(&&*plot.axis);
        let panels: Vec<&Scaling> = results.scaling.iter().filter(of_axes).collect();
        if !panels.is_empty() {
            lines::panels(&dir.join(file), shows, &panels)?;
            plots.push(Plot { file, shows });
        }
    }
    Ok(plots)
}

type Choice = (&'static [&'static str], &'static str, &'static str);

/// Sections in one plot.
const SECTIONS: [Choice; 3] = [
    (
        &["spawn + wait"],
        "spawn.svg",
        "Spawn and wait: time per task",
    ),
    (
        &["failure", "context"],
        "context.svg",
        "Failure and contexts: time per operation",
    ),
    (&["batch"], "batch.svg", "Batches: time per item"),
];

/// Axes in one plot.
const SCALINGS: [Choice; 3] = [
    (
        &["tasks"],
        "scaling-tasks.svg",
        "Spawn and wait: time per task as the tasks grow in number",
    ),
    (
        &["children", "depth"],
        "scaling-contexts.svg",
        "Trees of contexts: time per context as the tree grows",
    ),
    (
        &["threads"],
        "scaling-threads.svg",
        "Contention: processor time per operation, several threads on one object",
    ),
];

fn colour(name: &str) -> RGBColor {
    let found = COLOURS.iter().find(|(named, _)| *named == name);
    found.map_or(OTHER, |(_, colour)| *colour)
}

/// A white page with a headline and a line below it.
fn page<'a>(path: &'a Path, size: (i32, i32), headline: &str, below: &str) -> Drawn<Area<'a>> {
    let area = SVGBackend::new(path, (size.0 as u32, size.1 as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    write_text(&area, headline, (16, 24), (17, INK), HPos::Left)?;
    write_text(&area, below, (16, 44), (12, FAINT), HPos::Left)?;
    Ok(area)
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

fn write_line(area: &Area<'_>, points: Vec<(i32, i32)>, colour: RGBColor, width: u32) -> Drawn {
    Ok(area.draw(&PathElement::new(points, colour.stroke_width(width)))?)
}

fn write_dot(area: &Area<'_>, at: (i32, i32), radius: i32, colour: RGBColor) -> Drawn {
    Ok(area.draw(&Circle::new(at, radius, colour.filled()))?)
}

/// The contenders' names beside dots in their colours, in one line.
fn write_legend(area: &Area<'_>, names: &[&str], at: (i32, i32)) -> Drawn {
    let (mut x, y) = at;
    for name in names {
        write_dot(area, (x, y), 4, colour(name))?;
        write_text(area, name, (x + 9, y), (12, INK), HPos::Left)?;
        x += 34 + name.chars().count() as i32 * 6;
    }
    Ok(())
}

/// Names in the order in which they first appear.
fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut distinct = Vec::new();
    for name in names {
        if !distinct.contains(&name) {
            distinct.push(name);
        }
    }
    distinct
}
