//! RESULTS.md.

use std::fmt::Write;

use super::budget::{self, BudgetRow};
use super::text::{number, ratio, ratio_with_noise, time, verdict, whole};
use crate::results::{Comparison, Count, Results, Scaling, Series};

/// A plot's file name and what it shows.
pub struct Plot {
    pub file: &'static str,
    pub shows: &'static str,
}

const INTRODUCTION: &str = "\
Lower is better everywhere. All contenders run in one process (Go beside it), in rounds that alternate, on the same \
runtime instance, each twice in a row, of which the second time counts: it finds the heap as it leaves it itself. They \
do the same work: each task captures nothing unless the row says so, and what a contender sets up \
and drops is part of its time. A time is the median of the rounds, per operation. A ratio is errgroup's time over the \
peer's in the same round, its median, with the quartiles in brackets: half of the rounds lie between these, and \
another run's median is expected there, too.";

const SCALING: &str = "\
The last column is the cost at the largest size over that at the smallest. An operation does the same work at any size; \
what grows with the size is the memory that it touches. A hundred tasks or contexts lie in the first-level cache, from \
some ten thousand on they do not fit the second level, and at a million each is fetched from memory: the peers, which \
share no data structure with errgroup, grow likewise. With more threads than cores, a lock's holder can lose its core: \
a convoy behind it would show as a jump at 4 and 8 threads.";

const REPRODUCE: &str = "\
```sh
cargo bench -p errgroup-bench               # prints and writes all of this
cargo bench -p errgroup-bench -- --quick    # few rounds, to target/bench-quick
cargo bench -p errgroup-bench -- report     # the table and the plots again, from results.json
```

Go is measured with `$GO` or the `go` of the path, instructions are counted with valgrind; without them a line says that \
they were skipped. A quiet machine matters: the workers have to have a core each.";

/// The whole document.
pub fn document(results: &Results, plots: &[Plot]) -> String {
    let mut text = format!("# Benchmarks\n\n{}\n\n{INTRODUCTION}\n\n", machine(results));
    for line in &results.skipped {
        let _ = writeln!(text, "{line}\n");
    }
    let _ = write!(text, "## Budgets\n\n{}\n", budgets(results));
    text.push_str("## Plots\n\n");
    for Plot { file, shows } in plots {
        let _ = writeln!(text, "![{shows}](results/{file})\n");
    }
    text.push_str("## Every row\n\n");
    sections(&mut text, &results.comparisons);
    let _ = write!(text, "## Scaling\n\n{SCALING}\n\n");
    results
        .scaling
        .iter()
        .for_each(|plot| scaling(&mut text, plot));
    text.push_str("## Counts\n\nThese do not depend on the machine's speed.\n\n");
    counts(&mut text, &results.counts);
    let _ = write!(text, "## Reproduce\n\n{REPRODUCE}\n");
    text
}

/// In the titles of works that the summary passes over.
const LEFT_OUT: [&str; 4] = ["current_thread", "yield", "timer", "DropGuard"];

/// What README.md shows: when and on what, and a line for each of the works that most users would ask for, where there
/// are two runtimes on the larger one.
pub fn summary(results: &Results) -> String {
    let mut text = format!("{}\n\n", machine(results));
    text.push_str(&header(&["work", "errgroup", "times the peer's"], "lrl"));
    let rows = budget::ratios(results);
    for of_work in rows.chunk_by(|one, next| one.work == next.work) {
        let BudgetRow { work, ours, .. } = &of_work[0];
        let is_left_out = |part: &&str| work.contains(part);
        if !LEFT_OUT.iter().any(is_left_out) {
            let peers: Vec<String> = of_work.iter().map(peer).collect();
            let _ = writeln!(text, "| {work} | {ours} | {} |", peers.join(", "));
        }
    }
    text
}

fn peer(row: &BudgetRow) -> String {
    format!("{} {}", ratio(row.value.median), row.against)
}

/// One paragraph: when, on what, with which versions.
fn machine(results: &Results) -> String {
    let (machine, versions) = (&results.machine, &results.versions);
    let mut text = format!(
        "{} cores of {}, {} GiB, {}. {}, tokio {}, tokio-util {}, futures {}, errgroup {}",
        machine.cores,
        machine.cpu,
        machine.memory_gib,
        machine.os,
        versions.rustc,
        versions.tokio,
        versions.tokio_util,
        versions.futures,
        versions.errgroup
    );
    if let Some(go) = &versions.go {
        let _ = write!(text, ", {go}");
    }
    let _ = write!(
        text,
        ". `multi_thread` and Go beside it have {} workers. Release profile, {} run, {}.",
        results.workers, results.mode, results.date
    );
    text
}

/// The table of all rows with a budget, and how many are met.
pub fn budgets(results: &Results) -> String {
    let rows = budget::rows(results);
    let mut text = header(
        &["work", "errgroup", "peer", "", "ratio", "budget", ""],
        "lrlrrrl",
    );
    for row in &rows {
        budget_row(&mut text, row);
    }
    let met = rows.iter().filter(|row| row.is_met()).count();
    let _ = writeln!(text, "\n{met} of {} budgets are met.", rows.len());
    text
}

fn budget_row(text: &mut String, row: &BudgetRow) {
    let value = match row.value.lower_quartile < row.value.upper_quartile {
        true => ratio_with_noise(row.value),
        // A count: nothing varies, and the budget is for the count itself.
        false => number(row.value.median),
    };
    let verdict = match row.is_met() {
        true => verdict(true).to_owned(),
        false => format!("**{}**", verdict(false)),
    };
    let (
        BudgetRow {
            work,
            ours,
            against,
            theirs,
            at_most,
            ..
        },
        value,
    ) = (row, value);
    let _ = writeln!(
        text,
        "| {work} | {ours} | {against} | {theirs} | {value} | ≤ {at_most} | {verdict} |"
    );
}

fn sections(text: &mut String, comparisons: &[Comparison]) {
    for section in comparisons.chunk_by(|one, next| one.section == next.section) {
        let _ = writeln!(text, "### {}\n", section[0].section);
        text.push_str(&header(
            &["work", "contender", "median", "minimum", "ratio", "rounds"],
            "llrrrr",
        ));
        section
            .iter()
            .for_each(|comparison| contenders(text, comparison));
        text.push('\n');
    }
}

fn contenders(text: &mut String, comparison: &Comparison) {
    for (place, contender) in comparison.contenders.iter().enumerate() {
        let cost = comparison.cost(contender);
        let (title, ratio) = match place {
            0 => (comparison.full_title(), String::new()),
            _ => (String::new(), ratio_with_noise(comparison.ratio(contender))),
        };
        let (name, rounds) = (&contender.name, contender.rounds.len());
        let (median, min) = (time(cost.median), time(cost.min));
        let _ = writeln!(
            text,
            "| {title} | {name} | {median} | {min} | {ratio} | {rounds} |"
        );
    }
}

fn scaling(text: &mut String, scaling: &Scaling) {
    let Some(first) = scaling.series.first() else {
        return;
    };
    let _ = writeln!(text, "{}, per {}:\n", scaling.title, scaling.unit);
    let sizes = first.points.iter().map(|point| whole(point.x as f64));
    let heads: Vec<String> = [scaling.axis.clone()]
        .into_iter()
        .chain(sizes)
        .chain(["growth".to_owned()])
        .collect();
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    text.push_str(&header(
        &heads,
        &format!("l{}", "r".repeat(heads.len() - 1)),
    ));
    for series in &scaling.series {
        let costs: Vec<String> = series
            .points
            .iter()
            .map(|point| time(point.cost()))
            .collect();
        let _ = writeln!(
            text,
            "| {} | {} | {} |",
            series.name,
            costs.join(" | "),
            growth(series)
        );
    }
    text.push('\n');
}

/// The cost at the last size over the cost at the first.
fn growth(series: &Series) -> String {
    let ends = series.points.first().zip(series.points.last());
    ends.map_or_else(String::new, |(first, last)| {
        format!("{:.1}", last.cost() / first.cost())
    })
}

fn counts(text: &mut String, counts: &[Count]) {
    for of_unit in counts.chunk_by(|one, next| one.unit == next.unit) {
        let unit = format!("{} per", of_unit[0].unit);
        text.push_str(&header(
            &[&unit, "contender", "count", "errgroup's over it"],
            "llrr",
        ));
        of_unit.iter().for_each(|count| values(text, count));
        text.push('\n');
    }
}

fn values(text: &mut String, count: &Count) {
    let ours = count.values.first().map_or(f64::NAN, |value| value.value);
    for (place, value) in count.values.iter().enumerate() {
        let (title, over) = match place {
            0 => (count.title.as_str(), String::new()),
            _ if value.value == 0.0 => ("", "–".to_owned()),
            _ => ("", ratio(ours / value.value)),
        };
        let _ = writeln!(
            text,
            "| {title} | {} | {} | {over} |",
            value.name,
            number(value.value)
        );
    }
}

/// The head of a table; `l` and `r` say how its columns are aligned.
fn header(heads: &[&str], columns: &str) -> String {
    let rules: Vec<&str> = columns
        .chars()
        .map(|column| if column == 'r' { "--:" } else { ":--" })
        .collect();
    format!("| {} |\n| {} |\n", heads.join(" | "), rules.join(" | "))
}
