//! `examples/checksum.rs`, run as a process against trees made here, and against `sha256sum` where that exists.
//!
//! Nothing here depends on time: a process is waited for, or watched through `/proc` until it is where the test wants
//! it.

#![cfg(target_os = "linux")]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use sha2::{Digest, Sha256};

use crate::sum_support::{
    BAD, Running, Tree, assert_output, broken_pipe, full_device, line, program_in, sha256sum,
    wait_until,
};

fn checksum<A: AsRef<OsStr>>(tree: &Tree, args: impl IntoIterator<Item = A>) -> Command {
    program_in(tree, "checksum", args)
}

fn run<A: AsRef<OsStr>>(tree: &Tree, args: impl IntoIterator<Item = A>) -> Output {
    Running::start(&mut checksum(tree, args)).finish()
}

/// The output is what `sha256sum` prints for `files`, and `sha256sum --check` accepts it.
#[track_caller]
fn assert_like_sha256sum(tree: &Tree, output: &Output, mut files: Vec<OsString>) {
    files.sort();
    if let Some(theirs) = sha256sum(tree, &files) {
        assert_output(output, 0, theirs.stdout, &[]);
        let sums = Tree::new();
        sums.write("SUMS", &output.stdout);
        let check = sha256sum(
            tree,
            [OsStr::new("--check"), sums.path().join("SUMS").as_os_str()],
        );
        let check = check.expect("it has run before");
        assert!(
            check.status.success(),
            "{}",
            String::from_utf8_lossy(&check.stderr)
        );
    }
}

// The list.

#[test]
fn known_contents_then_known_sums() {
    let tree = Tree::with(&[("abc", "abc"), ("empty", "")]);
    let expected = "\
        ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  abc\n\
        e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  empty\n";
    assert_output(&run(&tree, ["empty", "abc"]), 0, expected, &[]);
}

#[test]
fn tree_then_output_of_sha256sum() {
    let tree = Tree::mixed();
    let files = ["B", "a b/c/d/e", "a.txt", "a/b", "a/empty", "chunks", "é"];
    let output = run(&tree, ["."]);
    assert_like_sha256sum(
        &tree,
        &output,
        files.map(|file| format!("./{file}").into()).to_vec(),
    );
}

#[test]
fn paths_then_sorted_by_bytes() {
    let tree = Tree::mixed();
    // By components, `a/b` would come before `a.txt`.
    let expected = [
        line("B", "upper"),
        line("a.txt", "beside"),
        line("a/b", "deep"),
        line("a/empty", ""),
        line("é", "not ASCII"),
    ];
    let output = run(&tree, ["é", "a", "B", "a.txt"]);
    assert_output(&output, 0, expected.concat(), &[]);
}

#[test]
fn no_path_then_current_directory() {
    let tree = Tree::with(&[("a/b", "1"), ("c", "2")]);
    let expected = [line("./a/b", "1"), line("./c", "2")].concat();
    assert_output(&run(&tree, [""; 0]), 0, expected, &[]);
}

#[test]
fn path_with_slash_then_printed_like_find() {
    let tree = Tree::with(&[("a/b", "1")]);
    let expected = [line("./a//b", "1"), line("a/b", "1")].concat();
    assert_output(&run(&tree, ["a/", "./a//"]), 0, expected, &[]);
}

#[test]
fn path_twice_or_overlapping_then_printed_each_time() {
    let tree = Tree::with(&[("a/b", "1")]);
    let expected = line("a/b", "1").repeat(3);
    assert_output(&run(&tree, ["a", "a/b", "a"]), 0, expected, &[]);
}

#[test]
fn empty_tree_then_nothing() {
    let tree = Tree::new();
    fs::create_dir_all(tree.path().join("a/b")).expect("a directory");
    assert_output(&run(&tree, ["."]), 0, "", &[]);
}

#[test]
fn name_with_backslash_newline_or_return_then_escaped() {
    let tree = Tree::with(&[("a\\b", "1"), ("c\nd", "2"), ("e\rf", "3"), ("g\\\n", "4")]);
    let mut expected = Vec::new();
    for (name, contents) in [
        (r"a\\b", "1"),
        (r"c\nd", "2"),
        (r"e\rf", "3"),
        (r"g\\\n", "4"),
    ] {
        expected.push(b'\\');
        expected.extend(line(format!("./{name}"), contents));
    }
    assert_output(&run(&tree, ["."]), 0, expected, &[]);
}

#[test]
fn odd_names_then_output_of_sha256sum() {
    let tree = Tree::new();
    // Not the carriage return: GNU's escapes it only since version 9.
    let names: [&[u8]; 7] = [
        b"\\",
        b"a\nb",
        b"\xff\xfe",
        b"\xff\\\n",
        b" ",
        b"*",
        b"-\x1b[1m\t",
    ];
    let files = names.map(|name| OsString::from_vec([b"./", name].concat()));
    for file in &files {
        tree.write(file, file.as_bytes());
    }
    let output = run(&tree, ["."]);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        output
            .stdout
            .windows(5)
            .any(|bytes| bytes == b"./\xff\xfe\n"),
        "the name's own bytes"
    );
    assert_like_sha256sum(&tree, &output, files.to_vec());
}

#[test]
fn path_not_utf8_then_accepted() {
    let tree = Tree::new();
    tree.write(OsStr::from_bytes(b"\xff"), "1");
    assert_output(
        &run(&tree, [OsStr::from_bytes(b"\xff")]),
        0,
        line(b"\xff", "1"),
        &[],
    );
}

#[test]
fn any_number_of_jobs_then_same_list() {
    let tree = Tree::mixed();
    let expected = run(&tree, ["."]);
    assert_eq!(expected.status.code(), Some(0));
    for jobs in ["1", "3", "100000", &usize::MAX.to_string()] {
        assert_output(&run(&tree, ["--jobs", jobs]), 0, &expected.stdout, &[]);
    }
}

#[test]
fn many_files_on_one_job_then_all() {
    let tree = Tree::new();
    let names: Vec<String> = (0..3_000)
        .map(|n| format!("{:02}/{n:04}", n % 100))
        .collect();
    for name in &names {
        tree.write(name, name);
    }
    let mut lines: Vec<_> = names
        .iter()
        .map(|name| (format!("./{name}"), name))
        .collect();
    lines.sort();
    let expected: Vec<_> = lines.iter().map(|(path, name)| line(path, name)).collect();
    assert_output(&run(&tree, ["--jobs", "1"]), 0, expected.concat(), &[]);
}

// What is no regular file.

#[test]
fn link_found_then_not_followed() {
    let tree = Tree::with(&[("a/b", "1")]);
    tree.link("..", "a/loop");
    tree.link("b", "a/link");
    tree.link("self", "a/self");
    tree.link("nowhere", "a/dangling");
    assert_output(&run(&tree, ["."]), 0, line("./a/b", "1"), &[]);
}

#[test]
fn link_given_then_followed() {
    let tree = Tree::with(&[("a/b", "1")]);
    tree.link("..", "a/loop");
    tree.link("a/b", "file");
    tree.link("a", "directory");
    let expected = [line("directory/b", "1"), line("file", "1")].concat();
    assert_output(&run(&tree, ["file", "directory"]), 0, expected, &[]);
}

#[test]
fn link_to_itself_given_then_exit_1() {
    let tree = Tree::new();
    tree.link("self", "self");
    let words = ["\"self\"", "symbolic links"];
    assert_output(&run(&tree, ["self"]), 1, "", &words);
}

#[test]
fn fifo_or_socket_found_then_passed_over() {
    let tree = Tree::with(&[("a/b", "1")]);
    let _socket = UnixListener::bind(tree.path().join("a/socket")).expect("a socket");
    tree.fifo("a/fifo");
    assert_output(&run(&tree, ["a"]), 0, line("a/b", "1"), &[]);
}

#[test]
fn fifo_or_device_given_then_exit_1() {
    let tree = Tree::new();
    assert_output(
        &run(&tree, ["/dev/null"]),
        1,
        "",
        &["\"/dev/null\"", "regular file"],
    );
    if tree.fifo("fifo") {
        assert_output(&run(&tree, ["fifo"]), 1, "", &["\"fifo\"", "regular file"]);
    }
}

// Failures.

#[test]
fn missing_path_then_exit_1_without_list() {
    let tree = Tree::with(&[("a", "1")]);
    let output = run(&tree, ["a", "missing"]);
    assert_output(&output, 1, "", &["\"missing\"", "No such file"]);
}

#[test]
fn unreadable_file_then_exit_1_without_list() {
    let tree = Tree::with(&[("a", "1")]);
    let output = run(&tree, ["a", BAD]);
    assert_output(&output, 1, "", &[BAD, "Input/output error"]);
}

#[test]
fn unreadable_file_during_hashing_then_hashing_stops() {
    let tree = Tree::new();
    tree.huge("huge");
    let output = run(&tree, ["--jobs", "2", "huge", BAD]);
    assert_output(&output, 1, "", &[BAD, "Input/output error"]);
}

#[test]
fn unreadable_file_during_walk_then_walk_stops() {
    let tree = Tree::new();
    tree.huge("huge");
    let output = run(&tree, ["--jobs", "1", BAD, "huge", "huge", "huge"]);
    assert_output(&output, 1, "", &[BAD]);
}

#[test]
fn directory_not_listed_then_exit_1_without_list() {
    let (tree, long) = unlistable();
    let output = run(&tree, ["."]);
    assert_output(&output, 1, "", &[&long, "File name too long"]);
}

#[test]
fn directory_not_listed_while_keep_going_then_rest_and_exit_1() {
    let (tree, long) = unlistable();
    let output = run(&tree, ["--keep-going", "."]);
    assert_output(&output, 1, line("./a", "1"), &[&long, "File name too long"]);
}

/// A tree with a file and a directory that not even root can list by its path, and the name in that path.
fn unlistable() -> (Tree, String) {
    let tree = Tree::with(&[("a", "1")]);
    let name = "d".repeat(200);
    let half: PathBuf = [&name; 12].iter().collect();
    for side in ["left", "right"] {
        fs::create_dir_all(tree.path().join(side).join(&half)).expect("a directory");
    }
    let (left, right) = (
        tree.path().join("left").join(half),
        tree.path().join("right"),
    );
    fs::rename(right, left.join("right")).expect("the path is short, only those below it are not");
    (tree, name)
}

#[test]
fn unreadable_files_while_keep_going_then_rest_and_exit_1() {
    let tree = Tree::with(&[("a", "1"), ("z/b", "2")]);
    let output = run(&tree, ["--keep-going", "a", "missing", BAD, "z"]);
    let expected = [line("a", "1"), line("z/b", "2")].concat();
    let words = ["\"missing\"", "No such file", BAD, "Input/output error"];
    assert_output(&output, 1, expected, &words);
}

#[test]
fn nothing_readable_while_keep_going_then_exit_1() {
    let tree = Tree::new();
    assert_output(
        &run(&tree, ["--keep-going", "missing"]),
        1,
        "",
        &["\"missing\""],
    );
}

#[test]
fn keep_going_without_failure_then_exit_0() {
    let tree = Tree::with(&[("a", "1")]);
    assert_output(&run(&tree, ["--keep-going", "a"]), 0, line("a", "1"), &[]);
}

#[test]
fn full_disk_then_exit_1() {
    let tree = Tree::with(&[("a", "1")]);
    let output = Running::start(checksum(&tree, ["a"]).stdout(full_device())).finish();
    assert_output(&output, 1, "", &["standard output", "No space left"]);
}

#[test]
fn broken_pipe_then_quiet_end() {
    let tree = Tree::with(&[("a", "1")]);
    let output = Running::start(checksum(&tree, ["a"]).stdout(broken_pipe())).finish();
    assert_output(&output, 0, "", &[]);
}

#[test]
fn broken_pipe_for_errors_then_same_exit() {
    let tree = Tree::new();
    let output = Running::start(checksum(&tree, ["missing"]).stderr(broken_pipe())).finish();
    assert_output(&output, 1, "", &[]);
}

// The deadline.

#[test]
fn timeout_during_hashing_then_exit_124() {
    let tree = Tree::new();
    tree.huge("huge");
    let output = run(&tree, ["--timeout", "0.05", "huge"]);
    assert_output(&output, 124, "", &["timed out after 50ms", "files done: 0"]);
}

#[test]
fn timeout_while_keep_going_then_exit_124() {
    let tree = Tree::new();
    tree.huge("huge");
    let output = run(
        &tree,
        ["--keep-going", "--timeout", "0.05", "missing", "huge"],
    );
    assert_output(&output, 124, "", &["timed out"]);
}

#[test]
fn timeout_of_nothing_then_exit_124() {
    let tree = Tree::with(&[("a", "1")]);
    let output = run(&tree, ["--timeout", "0", "a"]);
    assert_output(&output, 124, "", &["timed out", "files done: 0"]);
}

#[test]
fn timeout_not_reached_then_list() {
    let tree = Tree::with(&[("a", "1")]);
    for timeout in ["1000", "1e9", "1e19"] {
        assert_output(
            &run(&tree, ["--timeout", timeout, "a"]),
            0,
            line("a", "1"),
            &[],
        );
    }
}

// The arguments.

#[test]
fn bad_arguments_then_usage_and_exit_2() {
    let tree = Tree::with(&[("a", "1")]);
    let bad: [&[&str]; 11] = [
        &["--jobs", "0"],
        &["--jobs", "-1"],
        &["--jobs", "many"],
        &["--jobs"],
        &["--timeout", "-1"],
        &["--timeout", "nan"],
        &["--timeout", "inf"],
        &["--timeout", "1e20"],
        &["--timeout", "soon"],
        &["--unknown"],
        &[""],
    ];
    for args in bad {
        assert_output(&run(&tree, args), 2, "", &["error:", "Usage: checksum"]);
    }
}

#[test]
fn help_then_exit_0() {
    let output = run(&Tree::new(), ["--help"]);
    let stdout = output.stdout.clone();
    assert!(stdout.windows(6).any(|word| word == b"Usage:"));
    assert_output(&output, 0, stdout, &[]);
}

// In the middle.

#[test]
fn sigint_during_hashing_then_exit_130() {
    let tree = Tree::with(&[("a", "1"), ("b", "2")]);
    tree.huge("huge");
    let running = Running::start(&mut checksum(&tree, ["--jobs", "1", "a", "b", "huge"]));
    let is_hashing = || running.positions(&tree).iter().any(|&read| read > 100_000);
    wait_until("the third file is being hashed", is_hashing);
    running.interrupt();
    assert_output(
        &running.finish(),
        130,
        "",
        &["interrupted", "files done: 2"],
    );
}

#[test]
fn sigint_while_keep_going_before_timeout_then_exit_130() {
    let tree = Tree::new();
    tree.huge("huge");
    let args = ["--keep-going", "--timeout", "1000", "huge", "huge", "huge"];
    let running = Running::start(&mut checksum(&tree, args));
    wait_until("a file is open", || !running.positions(&tree).is_empty());
    running.interrupt();
    assert_output(
        &running.finish(),
        130,
        "",
        &["interrupted", "files done: 0"],
    );
}

#[test]
fn two_jobs_then_two_files_open() {
    let tree = Tree::new();
    for name in ["a", "b", "c", "d"] {
        tree.huge(name);
    }
    let running = Running::start(&mut checksum(&tree, ["--jobs", "2"]));
    let are_hashing = || {
        running
            .positions(&tree)
            .iter()
            .filter(|&&read| read > 1_000_000)
            .count()
    };
    wait_until("two files are being hashed", || are_hashing() == 2);
    assert_eq!(running.positions(&tree).len(), 2, "files open at a time");
    running.interrupt();
    assert_output(&running.finish(), 130, "", &["interrupted"]);
}

#[test]
fn large_file_then_little_memory() {
    let tree = Tree::new();
    tree.huge("huge");
    let running = Running::start(&mut checksum(&tree, ["huge"]));
    let read = 64 * 1024 * 1024;
    wait_until("64 MiB are hashed", || {
        running.positions(&tree).iter().any(|&at| at > read)
    });
    let peak: u64 = running.status("VmHWM:").parse().expect("a number of KiB");
    assert!(peak * 1024 < read, "{peak} KiB");
    running.interrupt();
    assert_output(&running.finish(), 130, "", &["interrupted"]);
}

// The progress bar; that there is none in a pipe is part of every test above.

#[test]
fn terminal_then_progress_bar() -> io::Result<()> {
    let tree = Tree::with(&[("a", "1")]);
    // `script` runs its command on a terminal of its own.
    let program = checksum(&tree, [""; 0]);
    let path = Path::new(program.get_program());
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command"]);
    command
        .arg(format!("{} a", path.display()))
        .arg("/dev/null");
    command
        .env("TERM", "xterm")
        .current_dir(tree.path())
        .stdin(Stdio::null());
    let output = match command.output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        output => output?,
    };
    let terminal = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{terminal}");
    assert!(terminal.contains("1 B"), "no progress in {terminal:?}");
    assert!(
        terminal.ends_with(&format!("{:x}  a\r\n", Sha256::digest("1"))),
        "{terminal:?}"
    );
    Ok(())
}
