//! Runs everything and writes the results, the table and the plots. `cargo bench -p errgroup-bench`.

use std::error::Error;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Parser, Subcommand};
use errgroup_bench::counted::{self, Programs};
use errgroup_bench::go::Go;
use errgroup_bench::harness::Effort;
use errgroup_bench::machine::{self, Machine, Versions};
use errgroup_bench::report::{self, text};
use errgroup_bench::results::{Count, FORMAT, Results};
use errgroup_bench::rows::Bench;
use errgroup_bench::{instructions, runtime};

/// The programs beside this one; cargo builds them for a benchmark.
const COUNTS: &str = env!("CARGO_BIN_EXE_counts");
const OPS: &str = env!("CARGO_BIN_EXE_ops");
const PROGRAMS: Programs<'static> = Programs {
    op: env!("CARGO_BIN_EXE_op"),
    allocated: env!("CARGO_BIN_EXE_allocated"),
};

/// Where a full run belongs, and a quick one.
const BENCHES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const QUICK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/bench-quick");

/// Where the README shows a full run's figures: between these two lines.
const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
const FIGURES: [&str; 2] = [
    "<!-- written by `cargo bench -p errgroup-bench` -->\n",
    "<!-- end -->\n",
];

/// Measures errgroup beside its peers; writes results.json, RESULTS.md and plots.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Option<Task>,
    /// Few rounds, small scaling runs; written to target/bench-quick unless `--out` says otherwise
    #[arg(long, global = true)]
    quick: bool,
    /// Only rows with this in their title or section (`spawn`, `failure`, `context`, `batch`, `scaling`)
    #[arg(long, global = true, default_value = "")]
    only: String,
    /// The directory for RESULTS.md, with the plots and results.json in `results` below it
    #[arg(long, global = true)]
    out: Option<PathBuf>,
    /// Given by cargo
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Clone, Subcommand)]
enum Task {
    /// Makes the table and the plots anew from results.json, without measuring
    Report,
    /// Counts allocations and bytes only, and prints them
    Counts,
    /// Counts instructions only, under callgrind, and prints them
    Instructions,
    /// Counts the rows of the table that can be counted, all or those with these numbers
    Rows { numbers: Vec<u32> },
}

fn main() -> Result<(), Box<dyn Error>> {
    let cli = Cli::parse();
    match cli.command.clone() {
        None => measure(&cli),
        Some(Task::Report) => write_report(&cli.out(), &read(&cli.out())?),
        Some(Task::Rows { numbers }) => rows(&numbers),
        Some(Task::Counts) => print_counts(allocations()?),
        Some(Task::Instructions) => print_counts(instructions::count(Path::new(OPS))?),
    }
}

fn rows(numbers: &[u32]) -> Result<(), Box<dyn Error>> {
    println!(
        "{:3} {:74} {:>9}  {:>9} {:>6} {:>7}",
        "row", "work", "errgroup", "peer", "ratio", "budget"
    );
    let wanted = |row: &&counted::Row| numbers.is_empty() || numbers.contains(&row.number);
    for row in counted::ROWS.iter().filter(wanted) {
        let counts = row.count(&PROGRAMS)?;
        print!("{}", row.print(&counts));
    }
    Ok(())
}

impl Cli {
    fn out(&self) -> PathBuf {
        let default = if self.is_partial() { QUICK } else { BENCHES };
        self.out.clone().unwrap_or_else(|| default.into())
    }

    /// Not what the documentation shows.
    fn is_partial(&self) -> bool {
        self.quick || !self.only.is_empty()
    }

    fn effort(&self) -> Effort {
        if self.quick {
            Effort::quick()
        } else {
            Effort::full()
        }
    }
}

fn measure(cli: &Cli) -> Result<(), Box<dyn Error>> {
    let results = run(cli)?;
    write(&cli.out(), &results)?;
    write_report(&cli.out(), &results)
}

fn run(cli: &Cli) -> Result<Results, Box<dyn Error>> {
    let mut skipped = Vec::new();
    let go = Go::start()
        .map_err(|why| skip(&mut skipped, "Go", &why))
        .ok();
    let version = go.as_ref().map(|go| go.version.clone());
    let mut bench = Bench::new(cli.effort(), go, cli.only.clone());
    bench.report = &|comparison| println!("{}", text::comparison(comparison));
    let comparisons = bench.compare();
    let scaling = bench.scale();
    scaling
        .iter()
        .for_each(|scaling| println!("{}", text::scaling(scaling)));
    let counts = if cli.only.is_empty() {
        counts(&mut skipped)?
    } else {
        Vec::new()
    };
    Ok(Results {
        format: FORMAT,
        mode: if cli.quick { "quick" } else { "full" }.to_owned(),
        date: machine::date(),
        machine: Machine::this(),
        versions: Versions::current(version),
        workers: runtime::WORKERS,
        comparisons,
        scaling,
        counts,
        skipped,
    })
}

fn skip(skipped: &mut Vec<String>, what: &str, why: &str) {
    let line = format!("{what} was skipped: {why}");
    println!("{line}\n");
    skipped.push(line);
}

fn counts(skipped: &mut Vec<String>) -> Result<Vec<Count>, Box<dyn Error>> {
    let mut counts = allocations()?;
    match instructions::count(Path::new(OPS)) {
        Ok(instructions) => counts.extend(instructions),
        Err(why) => skip(skipped, "counting instructions", &why),
    }
    counts
        .iter()
        .for_each(|count| println!("{}", text::count(count)));
    Ok(counts)
}

/// In a program of its own: its allocator would slow the rounds.
fn allocations() -> Result<Vec<Count>, Box<dyn Error>> {
    let output = Command::new(COUNTS).output()?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn print_counts(counts: Vec<Count>) -> Result<(), Box<dyn Error>> {
    counts
        .iter()
        .for_each(|count| println!("{}", text::count(count)));
    Ok(())
}

fn results_json(out: &Path) -> PathBuf {
    out.join("results/results.json")
}

fn read(out: &Path) -> Result<Results, Box<dyn Error>> {
    let results: Results = serde_json::from_slice(&fs::read(results_json(out))?)?;
    if results.format != FORMAT {
        return Err(format!("results.json has format {}, not {FORMAT}", results.format).into());
    }
    Ok(results)
}

fn write(out: &Path, results: &Results) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(out.join("results"))?;
    let file = BufWriter::new(File::create(results_json(out))?);
    Ok(serde_json::to_writer(file, results)?)
}

fn write_report(out: &Path, results: &Results) -> Result<(), Box<dyn Error>> {
    let plots = report::plots::write(results, &out.join("results"))?;
    fs::write(
        out.join("RESULTS.md"),
        report::markdown::document(results, &plots),
    )?;
    println!("{}", report::markdown::budgets(results));
    println!("written: RESULTS.md, results/results.json, results/*.svg");
    if out == Path::new(BENCHES) {
        write_readme(results)?;
    }
    Ok(())
}

fn write_readme(results: &Results) -> Result<(), Box<dyn Error>> {
    let readme = fs::read_to_string(README)?;
    let missing = || format!("README.md: no line {:?}", FIGURES);
    let (before, rest) = readme.split_once(FIGURES[0]).ok_or_else(missing)?;
    let (_, after) = rest.split_once(FIGURES[1]).ok_or_else(missing)?;
    let [begin, end] = FIGURES;
    let summary = report::markdown::summary(results);
    fs::write(README, format!("{before}{begin}{summary}{end}{after}"))?;
    println!("written: README.md");
    Ok(())
}
