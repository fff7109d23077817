//! RESULTS.md, and the table in README.md.

use std::fmt::Write;

use super::text::{self, ratio, ratio_with_noise};
use crate::results::{Budget, Results, Row, Unit};

/// A plot's file name and what it shows.
pub struct Plot {
    pub file: String,
    pub shows: String,
}

const INTRODUCTION: &str = "\
Lower is better everywhere. All contenders do the same work, and what one sets up and drops is part of its cost. Each \
row's number is that of the work: rows of one number vary one thing.

Times: all contenders run in one process (Go beside it), in rounds that alternate, on the same runtime instance, each \
twice in a row, of which the second time counts: it finds the heap as it leaves it itself. A time is the median of the \
rounds, per operation. A ratio is errgroup's time over the peer's in the same round, its median, with the quartiles in \
brackets: half of the rounds lie between these, and another run's median is expected there, too.

Instructions, allocations and bytes are counted, on one thread: they do not depend on the machine's speed.";

const REPRODUCE: &str = "\
```sh
cargo bench -p errgroup-bench                  # prints and writes all of this
cargo bench -p errgroup-bench -- --quick       # few rounds, to target/bench-quick
cargo bench -p errgroup-bench -- counts 1 2    # only these rows, of those that are counted; prints
cargo bench -p errgroup-bench -- times 20      # only this row, of those that are times; prints
cargo bench -p errgroup-bench -- report        # the tables and the plots again, from results.json
```

Go is measured with `$GO` or the `go` of the path, instructions are counted with valgrind; without them a line says that \
they were skipped. A quiet machine matters: the workers have to have a core each.";

/// The whole document.
pub fn document(results: &Results, plots: &[Plot]) -> String {
    let mut text = format!("# Benchmarks\n\n{}\n\n{INTRODUCTION}\n\n", machine(results));
    for line in results.skipped.iter().chain(&threads(results)) {
        let _ = writeln!(text, "{line}\n");
    }
    let _ = write!(text, "## Budgets\n\n{}\n", budgets(results));
    for Plot { file, shows } in plots {
        let _ = writeln!(text, "![{shows}](results/{file})\n");
    }
    text.push_str("## Every row\n\n");
    for section in results
        .rows
        .chunk_by(|one, next| one.section == next.section)
    {
        let _ = writeln!(text, "### {}\n", section[0].section);
        let heads = ["#", "work", "contender", "cost", "ratio", "rounds"];
        text.push_str(&header(&heads, "rllrrr"));
        section.iter().for_each(|row| contenders(&mut text, row));
        text.push('\n');
    }
    let _ = write!(text, "## Reproduce\n\n{REPRODUCE}\n");
    text
}

/// What rows with more threads than cores do not say.
fn threads(results: &Results) -> Option<String> {
    let cores = results.machine.cores;
    (cores < 8).then(|| {
        format!(
            "This machine has {cores} cores. Rows with more threads than that show what it costs when they take turns, and when \
             the holder of a lock loses its core. What more cores do at the same time could not be measured here."
        )
    })
}

/// What README.md shows: when and on what, and the rows that most users would ask for.
pub fn summary(results: &Results) -> String {
    let mut text = format!("{}\n\n", machine(results));
    text.push_str(&header(&["work", "errgroup", "times the peer's"], "lrl"));
    for row in results.rows.iter().filter(|row| row.in_readme) {
        let peers = row.contenders[1..].iter();
        let peers: Vec<String> = peers
            .map(|peer| format!("{} {}", ratio(row.ours().over(peer).median), peer.name))
            .collect();
        let _ = writeln!(
            text,
            "| {} | {} | {} |",
            row.title(),
            cost(row),
            peers.join(", ")
        );
    }
    text
}

fn cost(row: &Row) -> String {
    text::cost(row.unit, row.ours().cost().median)
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
        ". Release profile, {} run, {}.",
        results.mode, results.date
    );
    text
}

/// The table of all budgets, and how many are met.
pub fn budgets(results: &Results) -> String {
    let heads = ["#", "work", "errgroup", "peer", "", "ratio", "budget", ""];
    let mut text = header(&heads, "rlrlrrrl");
    let rows = results.rows.iter();
    let budgets: Vec<(&Row, &Budget)> = rows
        .flat_map(|row| row.budgets.iter().map(move |budget| (row, budget)))
        .collect();
    budgets
        .iter()
        .for_each(|(row, budget)| budget_row(&mut text, row, budget));
    let met = budgets
        .iter()
        .filter(|(row, budget)| row.is_met(budget))
        .count();
    let _ = writeln!(
        text,
        "\n{met} of {} budgets are met. What bounds the others: [BOUNDS.md](BOUNDS.md).",
        budgets.len()
    );
    text
}

/// A ceiling for a count itself stands beside the first peer's count.
fn budget_row(text: &mut String, row: &Row, budget: &Budget) {
    let peer = match &budget.against {
        Some(against) => row.contender(against),
        None => row.contenders.get(1),
    };
    let (name, theirs) = peer.map_or(("", String::new()), |peer| {
        (&*peer.name, text::cost(row.unit, peer.cost().median))
    });
    let ratio = budget
        .against
        .as_ref()
        .map_or(String::new(), |_| ratio_with_noise(row.value(budget)));
    let at_most = text::at_most(row, budget);
    let verdict = match row.is_met(budget) {
        true => "met",
        false => "**missed**",
    };
    let (number, title, ours) = (row.number, row.title(), cost(row));
    let _ = writeln!(
        text,
        "| {number} | {title} | {ours} | {name} | {theirs} | {ratio} | ≤ {at_most} | {verdict} |"
    );
}

fn contenders(text: &mut String, row: &Row) {
    for contender in &row.contenders {
        let is_first = std::ptr::eq(contender, row.ours());
        let (number, title, ratio) = match is_first {
            true => (row.number.to_string(), row.title(), String::new()),
            false => (
                String::new(),
                String::new(),
                ratio_with_noise(row.ours().over(contender)),
            ),
        };
        let cost = text::cost(row.unit, contender.cost().median);
        let rounds = match row.unit {
            Unit::Time => contender.samples.len().to_string(),
            _ => String::new(),
        };
        let _ = writeln!(
            text,
            "| {number} | {title} | {} | {cost} | {ratio} | {rounds} |",
            contender.name
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
