//! A program run as a process: started, watched line by line, sent signals, waited for.
//!
//! Nothing depends on time: a line that the program prints says how far it is. `PATIENCE` only turns a program that
//! hangs into a failure.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
#[cfg(feature = "signal")]
use rustix::process::{WaitId, WaitIdOptions, waitid};

/// More than any of these programs takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// The programs of `examples/`.
const PROGRAMS: [&str; 13] = [
    "aggregate",
    "borrow",
    "checksum",
    "happy_eyeballs",
    "health",
    "party",
    "pipeline",
    "poll_service",
    "stuck",
    "sync_service",
    "verify",
    "worker",
    "worker_pool",
];

/// A process, killed if the test fails before it ends.
pub(crate) struct Process {
    child: Child,
    stdout: mpsc::Receiver<String>,
    stderr: Option<JoinHandle<String>>,
    /// What it has printed and the test has read.
    lines: Vec<String>,
}

/// What a process came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    pub(crate) lines: Vec<String>,
    pub(crate) stderr: String,
}

/// An example, built from the source as it is now.
pub(crate) fn program<A: AsRef<OsStr>>(name: &str, args: impl IntoIterator<Item = A>) -> Command {
    static BUILT: OnceLock<HashMap<String, PathBuf>> = OnceLock::new();
    let path = &BUILT.get_or_init(build)[name];
    let mut command = Command::new(path);
    command.args(args);
    command
}

fn build() -> HashMap<String, PathBuf> {
    let build = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--features", "signal,serde"])
        .args(PROGRAMS.iter().flat_map(|program| ["--example", program]))
        .args(["--profile", &profile(), "--message-format", "json"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo runs");
    assert!(build.status.success(), "the examples do not compile");
    let messages = String::from_utf8(build.stdout).expect("JSON is UTF-8");
    let executables = messages
        .lines()
        .filter(|message| message.contains(r#""kind":["example"]"#))
        .filter_map(|message| {
            Some(
                message
                    .split_once(r#""executable":""#)?
                    .1
                    .split_once('"')?
                    .0,
            )
        });
    executables
        .map(|path| {
            let name = Path::new(path).file_name().expect("a file");
            (name.to_string_lossy().into_owned(), path.into())
        })
        .collect()
}

/// The profile that this test was built with: the directory it lies in is `<target>/<profile>/deps`.
fn profile() -> String {
    let test = std::env::current_exe().expect("the test has a path");
    let directory = test.ancestors().nth(2).and_then(Path::file_name);
    match directory.and_then(OsStr::to_str) {
        Some("debug") => "dev".to_owned(),
        other => other.expect("the directory has a name").to_owned(),
    }
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let stdout = child.stdout.take().expect("it is piped");
        let stderr = child.stderr.take().expect("it is piped");
        Self {
            stdout: read_lines(stdout),
            stderr: Some(read_all(stderr)),
            lines: Vec::new(),
            child,
        }
    }

    /// Waits for a line with `text` in it, and returns it.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        loop {
            match self.stdout.recv_timeout(PATIENCE) {
                Ok(line) => self.lines.push(line),
                Err(_) => panic!("no line with {text:?} in {:#?}", self.lines),
            }
            let line = self.lines.last().expect("it was just pushed");
            if line.contains(text) {
                return line.clone();
            }
        }
    }

    /// Waits for a line with `text` in it, and returns those that came before it, from the last that was waited for.
    #[track_caller]
    pub(crate) fn lines_to(&mut self, text: &str) -> Vec<String> {
        let first = self.lines.len();
        self.wait_for(text);
        let last = self.lines.len() - 1;
        self.lines[first..last].to_vec()
    }

    pub(crate) fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it is running");
    }

    /// Writes a line to its standard input.
    #[cfg(feature = "signal")]
    pub(crate) fn tell(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("it is piped");
        std::io::Write::write_all(stdin, format!("{line}\n").as_bytes()).expect("it is running");
    }

    /// Waits until a signal stops it.
    #[cfg(feature = "signal")]
    #[track_caller]
    pub(crate) fn wait_until_stopped(&self) {
        // `NOWAIT` leaves an end for `finish`.
        let events = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let event = waitid(WaitId::Pid(Pid::from_child(&self.child)), events);
        let event = event.expect("it can be waited for").expect("an event");
        assert!(event.stopped(), "{event:?}");
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Outcome {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                break status;
            }
            let lines: Vec<_> = self.stdout.try_iter().collect();
            self.lines.extend(lines);
            assert!(
                start.elapsed() < PATIENCE,
                "still running after {:#?}",
                self.lines
            );
            thread::sleep(Duration::from_millis(1));
        };
        self.lines.extend(self.stdout.iter());
        let stderr = self.stderr.take().expect("it is read once");
        Outcome {
            status,
            lines: std::mem::take(&mut self.lines),
            stderr: stderr.join().expect("it can be read"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(stdout: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            let Ok(()) = sender.send(line.expect("it prints UTF-8")) else {
                break;
            };
        }
    });
    lines
}

fn read_all(mut stderr: ChildStderr) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).expect("it prints UTF-8");
        text
    })
}

impl Outcome {
    /// It ended with `code`, and said so on standard error if that is a failure.
    #[track_caller]
    pub(crate) fn assert_code(&self, code: i32) {
        assert_eq!(self.status.code(), Some(code), "{self:#?}");
        assert_eq!(self.stderr.is_empty(), code == 0, "{self:#?}");
    }

    #[track_caller]
    pub(crate) fn assert_line(&self, text: &str) {
        let is_there = self.lines.iter().any(|line| line.contains(text));
        assert!(is_there, "no line with {text:?} in {self:#?}");
    }

    #[track_caller]
    pub(crate) fn assert_no_line(&self, text: &str) {
        let is_there = self.lines.iter().any(|line| line.contains(text));
        assert!(!is_there, "a line with {text:?} in {self:#?}");
    }

    /// How many lines have `text` in them.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.lines.iter().filter(|line| line.contains(text)).count()
    }
}
