//! `examples/verify.rs`, run as a process on lists of trees made here, and against `sha256sum -c` where that exists.
//!
//! Nothing here depends on time, as in `checksum.rs`.

#![cfg(target_os = "linux")]

use std::ffi::OsStr;
use std::fs;
use std::process::{Command, Output};

use rustix::process::Signal;

use crate::process::Process;
use crate::sum_support::{
    BAD, Running, Tree, assert_output, broken_pipe, full_device, line, program_in, sha256sum,
    wait_until,
};

fn verify<A: AsRef<OsStr>>(tree: &Tree, args: impl IntoIterator<Item = A>) -> Command {
    program_in(tree, "verify", args)
}

/// Checks the list, with one job and with several; what comes of it is the same.
#[track_caller]
fn run(tree: &Tree, list: impl AsRef<[u8]>) -> Output {
    tree.write("LIST", list);
    let [one, more] = ["1", "3"].map(|jobs| {
        let args = ["--jobs", jobs, "LIST"];
        Running::start(&mut verify(tree, args)).finish()
    });
    assert_eq!(one.stdout, more.stdout);
    assert_eq!(one.status, more.status);
    more
}

/// The results and the status are those of `sha256sum -c --strict`, and the results are `stdout`.
#[track_caller]
fn assert_like_sha256sum(tree: &Tree, list: impl AsRef<[u8]>, stdout: &str, words: &[&str]) {
    let ours = run(tree, list);
    let status = i32::from(!words.is_empty());
    assert_output(&ours, status, stdout, words);
    if let Some(theirs) = sha256sum(tree, ["--check", "--strict", "LIST"]) {
        assert_eq!(theirs.status.code(), Some(status));
        assert_eq!(theirs.stdout, ours.stdout);
    }
}

// The results.

#[test]
fn nothing_changed_then_ok_in_the_order_of_the_list() {
    let tree = Tree::with(&[("a", "1"), ("b c", ""), ("d/é", "2")]);
    tree.write("chunks", vec![b'x'; 1_000_001]);
    let list = [
        line("chunks", vec![b'x'; 1_000_001]),
        line("d/é", "2"),
        line("a", "1"),
        line("b c", ""),
        line("a", "1"),
    ];
    let expected = "chunks: OK\nd/é: OK\na: OK\nb c: OK\na: OK\n";
    assert_like_sha256sum(&tree, list.concat(), expected, &[]);
}

#[test]
fn changed_missing_or_unreadable_then_failed() {
    let tree = Tree::with(&[("a", "1"), ("changed", "new"), ("z", "2")]);
    fs::create_dir(tree.path().join("directory")).expect("a directory");
    let list = ["a", "changed", "missing", "directory", BAD, "z"].map(|name| match name {
        "z" => line(name, "2"),
        _ => line(name, "1"),
    });
    let expected = format!(
        "a: OK\nchanged: FAILED\nmissing: FAILED open or read\ndirectory: FAILED open or read\n\
         {BAD}: FAILED open or read\nz: OK\n"
    );
    let words = [
        "\"missing\": No such file",
        "\"directory\": Is a directory",
        "Input/output error",
        "verify: 4 of 6 files failed\n",
    ];
    assert_like_sha256sum(&tree, list.concat(), &expected, &words);
}

#[test]
fn list_of_checksum_from_pipe_then_ok() {
    let tree = Tree::with(&[("a", "1"), ("b/c", "2"), ("d\\\ne\r", "3"), ("f\\", "4")]);
    let mut checksum = program_in(&tree, "checksum", ["."])
        .spawn()
        .expect("it starts");
    let list = checksum.stdout.take().expect("it is piped");
    let output = Running::start(verify(&tree, [""; 0]).stdin(list)).finish();
    assert!(checksum.wait().expect("it runs").success());
    let expected = "./a: OK\n./b/c: OK\n\\./d\\\\\\ne\\r: OK\n./f\\: OK\n";
    assert_output(&output, 0, expected, &[]);
}

#[test]
fn many_files_then_all_in_order() {
    let tree = Tree::new();
    let names: Vec<String> = (0..2_000).map(|n| format!("{}/{n}", n % 50)).collect();
    for name in &names {
        tree.write(name, name);
    }
    let list: Vec<_> = names.iter().map(|name| line(name, name)).collect();
    let expected: String = names.iter().map(|name| format!("{name}: OK\n")).collect();
    assert_like_sha256sum(&tree, list.concat(), &expected, &[]);
}

// Names.

#[test]
fn name_with_newline_then_escaped() {
    let tree = Tree::with(&[("a\nb", "1"), ("c\\\n", "2"), ("e\r\n", "3")]);
    let list = [(r"a\nb", "1"), (r"c\\\n", "2"), (r"e\r\n", "other")]
        .map(|(name, contents)| [b"\\".to_vec(), line(name, contents)].concat());
    let expected = "\\a\\nb: OK\n\\c\\\\\\n: OK\n\\e\\r\\n: FAILED\n";
    assert_like_sha256sum(&tree, list.concat(), expected, &["1 of 3 files failed"]);
}

// Not compared: which of these `sha256sum` escapes in its results depends on its version.
#[test]
fn name_with_backslash_or_return_then_as_it_is() {
    let tree = Tree::with(&[("a\\b", "1"), ("c\rd", "2"), ("e", "3")]);
    let list = [(r"a\\b", "1"), (r"c\rd", "2"), ("e", "3")]
        .map(|(name, contents)| [b"\\".to_vec(), line(name, contents)].concat());
    assert_output(
        &run(&tree, list.concat()),
        0,
        "a\\b: OK\nc\rd: OK\ne: OK\n",
        &[],
    );
}

#[test]
fn name_not_utf8_or_with_blanks_then_as_it_is() {
    let tree = Tree::with(&[(" ", "1"), ("*", "2")]);
    let list = [line(" ", "1"), line("*", "2"), line(b"\xff", "3")].concat();
    let expected = b" : OK\n*: OK\n\xff: FAILED open or read\n";
    let output = run(&tree, &list);
    assert_output(&output, 1, expected, &["\"\\xFF\": No such file"]);
    if let Some(theirs) = sha256sum(&tree, ["--check", "LIST"]) {
        assert_eq!(theirs.stdout, expected);
    }
}

// The list.

#[test]
fn other_forms_of_a_sum_then_read() {
    let tree = Tree::with(&[("a", "1")]);
    let sum = String::from_utf8(line("a", "1")).expect("ASCII");
    let upper = sum.to_uppercase().replace("  A", "  a");
    let binary = sum.replace("  ", " *");
    let list = format!("# a comment\n\n{upper}{binary}{}", sum.trim_end());
    assert_like_sha256sum(&tree, list, "a: OK\na: OK\na: OK\n", &[]);
}

#[test]
fn line_that_is_no_sum_then_named_and_the_rest_checked() {
    let tree = Tree::with(&[("a", "1"), ("b", "2")]);
    let sum = String::from_utf8(line("a", "1")).expect("ASCII");
    let bad = [
        "no sum\n".to_owned(),
        sum.replacen(|digit: char| digit.is_ascii_digit(), "g", 1),
        sum[1..].to_owned(),
        sum.replace("  a", "  "),
        sum.replace("  a", " a"),
        format!("\\{}", sum.replace("  a", "  a\\")),
        format!("\\{}", sum.replace("  a", "  \\x")),
    ];
    for bad in bad {
        let list = [sum.as_bytes(), b"# 2\n", bad.as_bytes(), &line("b", "2")].concat();
        let words = ["verify: line 3 of the list is no SHA-256 sum\n"];
        assert_like_sha256sum(&tree, list, "a: OK\nb: OK\n", &words);
    }
}

#[test]
fn no_sum_at_all_then_exit_1() {
    for list in ["", "\n", "# only this\n"] {
        assert_like_sha256sum(&Tree::new(), list, "", &["verify: no sum in the list\n"]);
    }
}

#[test]
fn list_missing_then_exit_1() {
    let tree = Tree::new();
    let output = Running::start(&mut verify(&tree, ["missing"])).finish();
    assert_output(&output, 1, "", &["verify: \"missing\": No such file"]);
}

// The arguments, and standard output.

#[test]
fn bad_arguments_then_usage_and_exit_2() {
    let tree = Tree::with(&[("LIST", "")]);
    let bad: [&[&str]; 6] = [
        &["--jobs", "0"],
        &["--jobs", "-1"],
        &["--jobs", "many"],
        &["--jobs"],
        &["--unknown"],
        &["LIST", "LIST"],
    ];
    for args in bad {
        let output = Running::start(&mut verify(&tree, args)).finish();
        assert_output(&output, 2, "", &["error:", "Usage: verify"]);
    }
}

#[test]
fn any_number_of_jobs_then_same_results() {
    let tree = Tree::with(&[("a", "1")]);
    tree.write("LIST", line("a", "1").repeat(100));
    for jobs in ["2", "100", "100000", &usize::MAX.to_string()] {
        let output = Running::start(&mut verify(&tree, ["--jobs", jobs, "LIST"])).finish();
        assert_output(&output, 0, "a: OK\n".repeat(100), &[]);
    }
}

#[test]
fn broken_pipe_then_quiet_end() {
    let tree = Tree::with(&[("a", "1")]);
    tree.huge("huge");
    tree.write("LIST", [line("a", "1"), line("huge", "")].concat());
    for jobs in ["1", "2"] {
        let mut command = verify(&tree, ["--jobs", jobs, "LIST"]);
        let output = Running::start(command.stdout(broken_pipe())).finish();
        assert_output(&output, 0, "", &[]);
    }
}

#[test]
fn full_disk_then_exit_1() {
    let tree = Tree::with(&[("a", "1")]);
    tree.write("LIST", line("a", "1"));
    let output = Running::start(verify(&tree, ["LIST"]).stdout(full_device())).finish();
    assert_output(&output, 1, "", &["standard output", "No space left"]);
}

// In the middle.

#[test]
fn signal_while_all_lanes_hash_then_exit_130() {
    let tree = Tree::with(&[("a", "1")]);
    tree.huge("huge");
    tree.huge("vast");
    let list = [line("a", "1"), line("huge", ""), line("vast", "")];
    tree.write("LIST", list.concat());
    for (jobs, files) in [("1", 1), ("2", 2)] {
        let running = Running::start(&mut verify(&tree, ["--jobs", jobs, "LIST"]));
        let is_busy = || {
            let read = running.positions(&tree);
            read.len() == files && read.iter().all(|&read| read > 100_000)
        };
        wait_until("all lanes are hashing", is_busy);
        running.interrupt();
        let words = ["verify: cancelled: a signal was received: SIGINT\n"];
        assert_output(&running.finish(), 130, "a: OK\n", &words);
    }
}

#[test]
fn result_is_printed_while_the_next_is_hashed() {
    let tree = Tree::with(&[("a", "1")]);
    tree.huge("huge");
    tree.write("LIST", [line("a", "1"), line("huge", "")].concat());
    let mut running = Process::start(&mut verify(&tree, ["LIST"]));
    running.wait_for("a: OK");
    running.send(Signal::TERM);
    let outcome = running.finish();
    outcome.assert_code(130);
    assert_eq!(outcome.lines, ["a: OK"]);
}
