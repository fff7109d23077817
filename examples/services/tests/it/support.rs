//! A service as a process; waiting for conditions.

use std::fs;
use std::io::{self, Write};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// More than anything here takes, and far less than what the tests cancel would take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A process, killed if the test fails before it ends.
pub struct Program {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: JoinHandle<String>,
    /// Who is sent signals, if not the process itself.
    target: Option<Pid>,
}

/// What a process came to.
pub struct Finished {
    pub status: ExitStatus,
    /// What had not been read before.
    pub stdout: Vec<String>,
    pub stderr: String,
}

impl Program {
    pub fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).kill_on_drop(true);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let stdout = child.stdout.take().expect("it is piped");
        let mut stderr = child.stderr.take().expect("it is piped");
        Self {
            child,
            stdout: BufReader::new(stdout).lines(),
            // Read all the while, so that the program never waits for room.
            stderr: tokio::spawn(async move {
                let mut text = String::new();
                let read = stderr.read_to_string(&mut text).await;
                read.expect("the log is text");
                text
            }),
            target: None,
        }
    }

    /// From now on signals go to its only child: it runs the service in a namespace.
    pub fn aim_at_child(&mut self) {
        let pid = self.pid().as_raw_nonzero();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let child = children.expect("it is running").trim().parse();
        self.target = Pid::from_raw(child.expect("one child"));
    }

    /// The next line of its output that begins with `prefix`; returns what follows that.
    pub async fn line(&mut self, prefix: &str) -> String {
        while let Some(line) = patient(prefix, self.stdout.next_line())
            .await
            .expect("text")
        {
            if let Some(rest) = line.strip_prefix(prefix) {
                return rest.to_owned();
            }
        }
        panic!("it ended without a line that begins with {prefix:?}");
    }

    pub fn signal(&self, signal: Signal) {
        let target = self.target.unwrap_or_else(|| self.pid());
        kill_process(target, signal).expect("it is running");
    }

    pub async fn finish(mut self) -> Finished {
        let mut stdout = Vec::new();
        while let Some(line) = patient("it ends", self.stdout.next_line())
            .await
            .expect("text")
        {
            stdout.push(line);
        }
        Finished {
            status: patient("it ends", self.child.wait())
                .await
                .expect("a status"),
            stdout,
            stderr: patient("its log ends", self.stderr).await.expect("a log"),
        }
    }

    /// How many sockets it has open.
    pub fn sockets(&self) -> usize {
        let open = fs::read_dir(format!("/proc/{}/fd", self.pid().as_raw_nonzero()));
        let open = open.expect("it is running").flatten();
        open.filter_map(|fd| fs::read_link(fd.path()).ok())
            .filter(|target| target.to_string_lossy().starts_with("socket:"))
            .count()
    }

    fn pid(&self) -> Pid {
        let pid = self.child.id().expect("it is running");
        Pid::from_raw(pid.cast_signed()).expect("a process")
    }
}

impl Finished {
    #[track_caller]
    pub fn assert_exit(&self, code: i32) {
        let Self {
            status,
            stdout,
            stderr,
        } = self;
        assert_eq!(status.code(), Some(code), "{status}: {stdout:?}, {stderr}");
    }
}

/// Awaits what is to come, but not for ever.
pub async fn patient<F: Future>(what: &str, future: F) -> F::Output {
    let output = timeout(PATIENCE, future).await;
    output.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// Polls for a condition. Returns how long that took.
pub async fn wait_until(what: &str, mut is_so: impl AsyncFnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !is_so().await {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        sleep(Duration::from_millis(1)).await;
    }
    start.elapsed()
}

/// Prints a line although the test passes.
pub fn say(line: &str) {
    // `println!` is captured.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Runs a program as process 1 of a namespace, as in a container. `None` where that is not allowed.
///
/// `unshare` ends as its child does.
pub fn as_process_1(program: &str) -> Option<Command> {
    let unshare = |way: &[&str]| {
        let mut unshare = std::process::Command::new("unshare");
        unshare.args(way).args(["--pid", "--fork", "--kill-child"]);
        unshare
    };
    let ways: [&[&str]; 2] = [&[], &["--user", "--map-root-user"]];
    let is_allowed = |way: &[&str]| {
        let probe = unshare(way).arg("true").stderr(Stdio::null()).status();
        probe.is_ok_and(|status| status.success())
    };
    let Some(way) = ways.into_iter().find(|way| is_allowed(way)) else {
        say("skipped: no PID namespace is allowed here");
        return None;
    };
    let mut command = unshare(way);
    command.arg(program);
    Some(command.into())
}
