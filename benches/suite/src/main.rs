//! Measures every row and writes the results, the tables and the plots. `cargo bench -p errgroup-bench`.

use std::error::Error;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use errgroup_bench::count::Programs;
use errgroup_bench::go::Go;
use errgroup_bench::machine::{self, Machine, Versions};
use errgroup_bench::report::{markdown, plots, text};
use errgroup_bench::results::{self, FORMAT, Results, Unit};
use errgroup_bench::rows::{self, Row};
use errgroup_bench::time::Effort;

/// Cargo builds them for a benchmark.
const PROGRAMS: Programs = Programs {
    op: env!("CARGO_BIN_EXE_op"),
    allocated: env!("CARGO_BIN_EXE_allocated"),
    text: [
        [
            env!("CARGO_BIN_EXE_text_errgroup_few"),
            env!("CARGO_BIN_EXE_text_errgroup_many"),
        ],
        [
            env!("CARGO_BIN_EXE_text_tokio_few"),
            env!("CARGO_BIN_EXE_text_tokio_many"),
        ],
    ],
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
    task: Option<Task>,
    /// Few rounds; written to target/bench-quick
    #[arg(long, global = true)]
    quick: bool,
    /// Given by cargo
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Task {
    /// Makes the tables and the plots anew from results.json, without measuring
    Report,
    /// Measures the rows that are counted, all or those of these numbers, and prints them
    #[command(alias = "rows")]
    Counts { numbers: Vec<u32> },
    /// Measures the rows that are times, all or those of these numbers, and prints them
    Times { numbers: Vec<u32> },
}

fn main() -> Result<(), Box<dyn Error>> {
    let cli = Cli::parse();
    let effort = if cli.quick {
        Effort::quick()
    } else {
        Effort::full()
    };
    let out = Path::new(if cli.quick { QUICK } else { BENCHES });
    let mut run = Run::new(effort);
    match cli.task {
        None => {
            run.measure(|_| true);
            let results = run.results(&cli);
            write(out, &results)?;
            write_report(out, &results)?;
        }
        Some(Task::Report) => write_report(out, &read(out)?)?,
        Some(Task::Counts { numbers }) => {
            run.measure(|row| row.plan.unit != Unit::Time && is_asked(&numbers, row));
        }
        Some(Task::Times { numbers }) => {
            run.measure(|row| row.plan.unit == Unit::Time && is_asked(&numbers, row));
        }
    }
    Ok(())
}

fn is_asked(numbers: &[u32], row: &Row) -> bool {
    numbers.is_empty() || numbers.contains(&row.plan.number)
}

/// What is measured, as it comes.
struct Run {
    effort: Effort,
    go: Option<Go>,
    rows: Vec<results::Row>,
    skipped: Vec<String>,
}

impl Run {
    fn new(effort: Effort) -> Self {
        let go = Go::start();
        let mut run = Self {
            effort,
            go: None,
            rows: Vec::new(),
            skipped: Vec::new(),
        };
        match go {
            Ok(go) => run.go = Some(go),
            Err(why) => run.skip(format!("Go was skipped: {why}")),
        }
        run
    }

    fn skip(&mut self, line: String) {
        if !self.skipped.contains(&line) {
            println!("{line}");
            self.skipped.push(line);
        }
    }

    fn measure(&mut self, is_wanted: impl Fn(&Row) -> bool) {
        for row in rows::all().into_iter().filter(is_wanted) {
            let measured = match row.plan.unit {
                Unit::Time => Ok(row.time(&self.effort, self.go.as_ref())),
                unit => row
                    .count(&PROGRAMS)
                    .map_err(|why| format!("{} were not counted: {why}", unit.name())),
            };
            match measured {
                Ok(row) => {
                    print!("{}", text::row(&row));
                    self.rows.push(row);
                }
                Err(why) => self.skip(why),
            }
        }
    }

    fn results(self, cli: &Cli) -> Results {
        Results {
            format: FORMAT,
            mode: if cli.quick { "quick" } else { "full" }.to_owned(),
            date: machine::date(),
            machine: Machine::this(),
            versions: Versions::current(self.go.map(|go| go.version.clone())),
            rows: self.rows,
            skipped: self.skipped,
        }
    }
}

fn results_json(out: &Path) -> PathBuf {
    out.join("results/results.json")
}

fn read(out: &Path) -> Result<Results, Box<dyn Error>> {
    let json: serde_json::Value = serde_json::from_slice(&fs::read(results_json(out))?)?;
    match json["format"] == FORMAT {
        true => Ok(serde_json::from_value(json)?),
        false => Err(format!("results.json has format {}, not {FORMAT}", json["format"]).into()),
    }
}

fn write(out: &Path, results: &Results) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(out.join("results"))?;
    let file = BufWriter::new(File::create(results_json(out))?);
    Ok(serde_json::to_writer(file, results)?)
}

fn write_report(out: &Path, results: &Results) -> Result<(), Box<dyn Error>> {
    let plots = plots::write(results, &out.join("results"))?;
    fs::write(out.join("RESULTS.md"), markdown::document(results, &plots))?;
    println!("\n{}", markdown::budgets(results));
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
    let summary = markdown::summary(results);
    fs::write(README, format!("{before}{begin}{summary}{end}{after}"))?;
    println!("written: README.md");
    Ok(())
}
