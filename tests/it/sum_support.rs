//! Programs run as processes in trees made here, and `sha256sum` beside them where that exists.
//!
//! `PATIENCE` only turns a process that hangs into a failure.

#![cfg(target_os = "linux")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::process::program;

/// More than any of these runs takes, and far less than it takes to hash `HUGE` bytes.
const PATIENCE: Duration = Duration::from_secs(60);

/// The size of a file that costs no disk, and that nobody hashes to its end.
const HUGE: u64 = 1 << 40;

/// A file that can be opened, and then not be read.
pub(crate) const BAD: &str = "/proc/self/mem";

// The process.

/// An example to be run in the tree.
pub(crate) fn program_in<A: AsRef<OsStr>>(
    tree: &Tree,
    name: &str,
    args: impl IntoIterator<Item = A>,
) -> Command {
    let mut command = program(name, args);
    command
        .current_dir(tree.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A process, killed if the test fails before it ends.
pub(crate) struct Running(Option<Child>);

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(Some(command.spawn().expect("the program starts")))
    }

    fn pid(&self) -> Pid {
        Pid::from_child(self.0.as_ref().expect("it is running"))
    }

    pub(crate) fn finish(mut self) -> Output {
        let pid = self.pid();
        let child = self.0.take().expect("it is running");
        let (output, finished) = mpsc::channel();
        thread::spawn(move || output.send(child.wait_with_output()));
        let Ok(output) = finished.recv_timeout(PATIENCE) else {
            let _ = kill_process(pid, Signal::KILL);
            panic!("still running after {PATIENCE:?}");
        };
        output.expect("its output can be read")
    }

    /// Sends SIGINT, once it is caught: before that, it would kill.
    pub(crate) fn interrupt(&self) {
        let is_caught = || {
            let caught = self.status("SigCgt:");
            let caught = u64::from_str_radix(&caught, 16).expect("a mask");
            caught & (1 << (Signal::INT.as_raw() - 1)) != 0
        };
        wait_until("SIGINT is caught", is_caught);
        kill_process(self.pid(), Signal::INT).expect("it is running");
    }

    /// How far each regular file that the process has open in `tree` has been read.
    pub(crate) fn positions(&self, tree: &Tree) -> Vec<u64> {
        let process = PathBuf::from(format!("/proc/{}", self.pid()));
        let open = fs::read_dir(process.join("fd"))
            .expect("it is running")
            .flatten();
        let here = fs::canonicalize(tree.path()).expect("the tree exists");
        let is_file = |file: PathBuf| file.starts_with(&here) && file.is_file();
        open.filter(|fd| fs::read_link(fd.path()).is_ok_and(is_file))
            .filter_map(|fd| fs::read_to_string(process.join("fdinfo").join(fd.file_name())).ok())
            .map(|info| field(&info, "pos:").parse().expect("a number"))
            .collect()
    }

    pub(crate) fn status(&self, name: &str) -> String {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()));
        field(&status.expect("it is running"), name)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The first word after `name` in a file of `/proc`.
fn field(text: &str, name: &str) -> String {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    let value = value.and_then(|value| value.split_whitespace().next());
    value.expect("the field exists").to_owned()
}

pub(crate) fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

// The trees.

pub(crate) struct Tree(TempDir);

impl Tree {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    /// `files` are paths with contents.
    pub(crate) fn with(files: &[(&str, &str)]) -> Self {
        let tree = Self::new();
        for (path, contents) in files {
            tree.write(path, contents);
        }
        tree
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, path: impl AsRef<Path>, contents: impl AsRef<[u8]>) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().expect("it is in the tree")).expect("a directory");
        fs::write(path, contents).expect("a file");
    }

    pub(crate) fn huge(&self, name: &str) {
        let file = File::create(self.path().join(name)).expect("a file");
        file.set_len(HUGE).expect("a sparse file");
    }

    pub(crate) fn link(&self, target: &str, name: &str) {
        symlink(target, self.path().join(name)).expect("a link");
    }

    /// `false` if there is no program to make one.
    pub(crate) fn fifo(&self, name: &str) -> bool {
        match Command::new("mkfifo").arg(self.path().join(name)).status() {
            Ok(status) => status.success(),
            Err(_) => false,
        }
    }

    /// A tree with directories, an empty file, one of several chunks, and files whose order is not that of the walk.
    pub(crate) fn mixed() -> Self {
        let tree = Self::with(&[
            ("a/b", "deep"),
            ("a.txt", "beside"),
            ("a/empty", ""),
            ("B", "upper"),
            ("a b/c/d/e", "deeper"),
            ("é", "not ASCII"),
        ]);
        tree.write("chunks", vec![b'x'; 1_000_001]);
        tree
    }
}

// What is expected.

pub(crate) fn line(path: impl AsRef<[u8]>, contents: impl AsRef<[u8]>) -> Vec<u8> {
    let mut line = format!("{:x}  ", Sha256::digest(contents)).into_bytes();
    line.extend_from_slice(path.as_ref());
    line.push(b'\n');
    line
}

/// The run ended with `status`, and printed `stdout`; `stderr` has all of `words`, or is empty if there are none.
#[track_caller]
pub(crate) fn assert_output(
    output: &Output,
    status: i32,
    stdout: impl AsRef<[u8]>,
    words: &[&str],
) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        output.status.code(),
        Some(status),
        "{}, stderr: {stderr}",
        output.status
    );
    assert_eq!(text(&output.stdout), text(stdout.as_ref()));
    assert!(
        words.iter().all(|word| stderr.contains(word)),
        "{words:?} in: {stderr}"
    );
    assert_eq!(stderr.is_empty(), words.is_empty(), "stderr: {stderr}");
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string().replace("\\n", "\n")
}

/// Runs `sha256sum`; `None` if there is none, or another than GNU's.
pub(crate) fn sha256sum<A: AsRef<OsStr>>(
    tree: &Tree,
    args: impl IntoIterator<Item = A>,
) -> Option<Output> {
    let version = Command::new("sha256sum").arg("--version").output().ok()?;
    if !version.stdout.windows(3).any(|word| word == b"GNU") {
        return None;
    }
    let mut command = Command::new("sha256sum");
    let output = command.args(args).current_dir(tree.path()).output();
    Some(output.expect("sha256sum runs"))
}

/// A file that takes nothing.
pub(crate) fn full_device() -> File {
    let file = File::options().write(true).open("/dev/full");
    file.expect("a full device")
}

/// The writing end of a stream that nobody reads any more.
pub(crate) fn broken_pipe() -> OwnedFd {
    let (reader, writer) = UnixStream::pair().expect("a pair of sockets");
    drop(reader);
    writer.into()
}
