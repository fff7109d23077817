//! Go, measured in the same run: one process for each number of threads, which does a round whenever it is asked to.

use std::cell::RefCell;
use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use crate::runtime::Operation;

/// The directory of the Go program.
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/go");

pub struct Go {
    pub version: String,
    /// With one thread and with two.
    processes: [Rc<RefCell<Process>>; 2],
}

struct Process {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Go {
    /// Builds and starts the program with `$GO`, else the `go` of the path; why not, if that fails.
    pub fn start() -> Result<Self, String> {
        let go = env::var_os("GO").unwrap_or_else(|| "go".into());
        let go = Path::new(&go);
        let version = run(Command::new(go).arg("version"))?;
        let program = build(go)?;
        let start = |threads| {
            let process = Process::start(&program, threads).map_err(|error| error.to_string())?;
            Ok::<_, String>(Rc::new(RefCell::new(process)))
        };
        Ok(Self {
            version: version.trim().to_owned(),
            processes: [start(1)?, start(2)?],
        })
    }

    /// What the program calls so, with as many threads.
    pub fn operation(&self, operation: &'static str, threads: usize) -> Operation {
        let process = self.processes[threads - 1].clone();
        Box::new(move |n| {
            let answer = process.borrow_mut().ask(operation, n);
            answer.expect("the Go program answers")
        })
    }
}

fn build(go: &Path) -> Result<PathBuf, String> {
    let dir = env::temp_dir().join(format!("errgroup-bench-{}", std::process::id()));
    let program = dir.join("bench");
    let mut command = Command::new(go);
    command.current_dir(SOURCE).args(["build", "-o"]);
    run(command.arg(&program).arg("."))?;
    Ok(program)
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

impl Process {
    fn start(program: &Path, threads: usize) -> io::Result<Self> {
        let mut child = Command::new(program)
            .env("GOMAXPROCS", threads.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let missing = || io::Error::other("a pipe is missing");
        let ask = child.stdin.take().ok_or_else(missing)?;
        let answers = BufReader::new(child.stdout.take().ok_or_else(missing)?);
        Ok(Self {
            child,
            ask,
            answers,
        })
    }

    fn ask(&mut self, operation: &str, n: usize) -> io::Result<Duration> {
        writeln!(self.ask, "{operation} {n}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let nanos = line.trim().parse().map_err(io::Error::other)?;
        Ok(Duration::from_nanos(nanos))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It is idle: nothing is lost.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Go {
    fn drop(&mut self) {
        let dir = env::temp_dir().join(format!("errgroup-bench-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(dir);
    }
}
