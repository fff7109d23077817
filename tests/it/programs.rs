//! The small programs of `examples/`, run as processes: what they did, and that they left nothing running.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;

use rustix::process::Signal;

use crate::process::{Outcome, Process, program};

const TERM: &str = "stopping: cancelled: a signal was received: SIGTERM";

fn start(name: &str, args: &[&str]) -> Process {
    Process::start(&mut program(name, args))
}

fn run(name: &str, args: &[&str]) -> Outcome {
    start(name, args).finish()
}

/// The number in `text` that follows `label`.
#[track_caller]
fn number(text: &str, label: &str) -> usize {
    let (_, rest) = text.split_once(label).expect("the label is there");
    let end = rest.find(|c: char| !c.is_ascii_digit());
    let digits = &rest[..end.unwrap_or(rest.len())];
    digits.parse().expect("a number follows")
}

// worker

#[test]
fn worker_cancelled_then_owner_has_its_result() {
    let outcome = run("worker", &[]);
    outcome.assert_code(0);
    outcome.assert_line("stopping: cancelled: the owner has seen enough (at examples/worker.rs:");
    let rounds = outcome.count("worker: round");
    assert!(rounds > 0);
    let last = outcome.lines.last().expect("it prints");
    assert_eq!(number(last, "stopped after round "), rounds, "{outcome:#?}");
}

// sync_service

#[test]
fn sync_service_signalled_then_finishes_the_batch_in_hand() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut service = start("sync_service", &[]);
        service.wait_for("batch 2: begun");
        service.send(signal);
        let outcome = service.finish();
        outcome.assert_code(0);
        outcome.assert_line("stopping: cancelled: a signal was received: SIG");
        assert_eq!(outcome.count("begun"), outcome.count("finished"));
        assert_eq!(
            outcome.lines.last().expect("it prints"),
            "stopped: no batch was cut"
        );
    }
}

#[test]
fn sync_service_past_its_grace_then_names_what_was_cut() {
    let mut service = start("sync_service", &["100000"]);
    service.wait_for("batch 1: begun");
    service.send(Signal::TERM);
    let outcome = service.finish();
    outcome.assert_code(1);
    outcome.assert_line(TERM);
    outcome.assert_no_line("finished");
    let names = [r#"task \"sync\""#, "aborted", "examples/sync_service.rs:"];
    let is_named = names.iter().all(|name| outcome.stderr.contains(name));
    assert!(is_named, "{outcome:#?}");
}

#[test]
fn sync_service_signalled_twice_then_killed() {
    let mut service = start("sync_service", &["100000"]);
    service.wait_for("batch 1: begun");
    service.send(Signal::TERM);
    service.wait_for(TERM);
    service.send(Signal::INT);
    let outcome = service.finish();
    assert_eq!(outcome.status.signal(), Some(Signal::INT.as_raw()));
}

// poll_service

/// An API of the test's own, and the service that polls it.
fn polled() -> (TcpListener, Process) {
    let api = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = api.local_addr().expect("an address").to_string();
    let service = start("poll_service", &[&address]);
    (api, service)
}

/// Takes a poll, up to the end of its request.
fn accept(api: &TcpListener) -> TcpStream {
    let (client, _) = api.accept().expect("a poll");
    let mut lines = BufReader::new(&client).lines();
    let request = lines.next().expect("a request").expect("text");
    assert_eq!(request, "GET /status HTTP/1.1");
    while lines
        .next()
        .is_some_and(|line| !line.expect("text").is_empty())
    {}
    client
}

#[test]
fn poll_service_signalled_during_poll_then_drops_it_and_stops() {
    let (api, mut service) = polled();
    for answer in ["one", "two"] {
        let response = format!("HTTP/1.1 200 OK\r\n\r\n{answer}\n");
        accept(&api)
            .write_all(response.as_bytes())
            .expect("a reader");
        service.wait_for(answer);
    }
    let mut stalled = accept(&api);
    service.send(Signal::TERM);
    assert_eq!(stalled.read(&mut [0]).expect("no error"), 0, "it is closed");
    let outcome = service.finish();
    outcome.assert_code(0);
    outcome.assert_line(TERM);
    outcome.assert_line("gave up waiting: ");
    outcome.assert_line("stopped: 2 answers");
}

#[test]
fn poll_service_without_answer_then_gives_up_and_polls_again() {
    let (api, mut service) = polled();
    let mut stalled = accept(&api);
    service.wait_for("gave up waiting: deadline exceeded (3s, set at examples/poll_service.rs:");
    assert_eq!(stalled.read(&mut [0]).expect("no error"), 0, "it is closed");
    drop(accept(&api));
    service.wait_for("no answer: ");
    service.send(Signal::INT);
    let outcome = service.finish();
    outcome.assert_code(0);
    outcome.assert_line("stopped: 0 answers");
}

#[test]
fn poll_service_by_itself_then_serves_until_stopped() {
    let mut service = start("poll_service", &[]);
    let line = service.wait_for("polling ");
    let address = line.trim_start_matches("polling ").to_owned();
    service.wait_for("answer 1: up");
    service.send(Signal::TERM);
    service.finish().assert_code(0);
    assert!(TcpStream::connect(address).is_err(), "nobody listens");
}

// worker_pool

#[test]
fn worker_pool_signalled_then_each_job_is_done_or_handed_back() {
    let mut pool = start("worker_pool", &["1000000"]);
    pool.wait_for("job 5: done");
    pool.send(Signal::TERM);
    let outcome = pool.finish();
    outcome.assert_code(0);
    outcome.assert_line("stopped: cancelled: a signal was received: SIGTERM");
    let account = outcome.lines.last().expect("it prints");
    let done = number(account, "done: ");
    assert_eq!(outcome.count(": begun"), done, "{account}");
    assert_eq!(outcome.count(": done"), done, "{account}");
    assert_eq!(number(account, "handed back: ") + done, 1_000_000);
}

#[test]
fn worker_pool_closed_then_all_jobs_are_done() {
    let outcome = run("worker_pool", &["--close", "21"]);
    outcome.assert_code(0);
    outcome.assert_line("stopped: there are no more jobs");
    for job in 1..=21 {
        let line = format!("job {job}: done");
        assert!(outcome.lines.contains(&line), "{line}: {outcome:#?}");
    }
    outcome.assert_line("jobs: 21, done: 21, handed back: 0");
}

// party

#[test]
fn party_without_trouble_then_everyone_is_picked_up() {
    let outcome = run("party", &[]);
    outcome.assert_code(0);
    assert_eq!(outcome.count("said yes"), 4, "{outcome:#?}");
    assert_eq!(outcome.count("picked up"), 4, "{outcome:#?}");
    assert_eq!(outcome.count("the group has finished"), 3, "{outcome:#?}");
}

#[test]
fn party_with_too_few_yeses_then_called_off_for_everyone() {
    let outcome = run("party", &["few"]);
    outcome.assert_code(1);
    assert_eq!(outcome.stderr, "no party: too few yeses: 1 of 4\n");
    let told =
        r#"cancelled: task "rsvps" failed: too few yeses: 1 of 4 (spawned at examples/party.rs:"#;
    let called_off = format!("        {{}}: called off: {told}");
    for guest in ["Ann", "Bob", "Cid", "Dee"] {
        outcome.assert_line(&called_off.replace("{}", guest));
    }
    outcome.assert_line(&format!("    pickups: {told}"));
}

#[test]
fn party_with_flat_tyre_then_one_pickup_is_called_off_alone() {
    let outcome = run("party", &["flat-tyre"]);
    outcome.assert_code(0);
    outcome.assert_line("Bob: called off: cancelled: a flat tyre (at examples/party.rs:");
    assert_eq!(outcome.count("called off"), 1, "{outcome:#?}");
    assert_eq!(outcome.count("picked up"), 3, "{outcome:#?}");
}

#[test]
fn party_with_crash_then_that_is_the_error_and_all_are_told() {
    let outcome = run("party", &["crash"]);
    outcome.assert_code(1);
    assert_eq!(outcome.stderr, "no party: Bob's car has crashed\n");
    let told = r#"called off: cancelled: task "Bob" failed: Bob's car has crashed"#;
    assert_eq!(outcome.count(told), 3, "{outcome:#?}");
    let up = r#"party: cancelled: task "pickups" failed: Bob's car has crashed"#;
    outcome.assert_line(up);
}

// borrow

#[test]
fn borrow_then_words_of_all_files_are_counted() {
    let directory = tempfile::tempdir().expect("a directory");
    let [one, two] = [("one", "a rose is a rose"), ("two", "is a rose;\n")].map(|(name, text)| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    });
    let outcome = run("borrow", &[&one, &two]);
    outcome.assert_code(0);
    let lines = [
        format!("{one}: 5 words"),
        format!("{two}: 3 words"),
        "     3 a".to_owned(),
        "     3 rose".to_owned(),
        "     2 is".to_owned(),
        "3 different words".to_owned(),
    ];
    assert_eq!(outcome.lines, lines, "{outcome:#?}");
}

#[test]
fn borrow_with_a_file_that_is_no_text_then_that_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let [good, bad] = [("good", &b"good"[..]), ("bad", b"\xff")].map(|(name, bytes)| {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        path.display().to_string()
    });
    let outcome = run("borrow", &[&good, &bad]);
    outcome.assert_code(1);
    assert!(
        outcome.stderr.starts_with(&format!("{bad}: invalid utf-8")),
        "{outcome:#?}"
    );
    outcome.assert_no_line("different words");
}

// aggregate

#[test]
fn aggregate_then_all_parts() {
    let outcome = run("aggregate", &[]);
    outcome.assert_code(0);
    outcome.assert_line(r#"page: price 9.5, stock 3, reviews ["good"]"#);
}

#[test]
fn aggregate_with_failure_then_others_are_told_of_it() {
    let outcome = run("aggregate", &["--fail", "price", "--hang", "reviews"]);
    outcome.assert_code(1);
    assert_eq!(outcome.stderr, "no page: price: connection refused\n");
    outcome.assert_line(
        r#"reviews was told: cancelled: task "price" failed: price: connection refused (spawned at"#,
    );
}

#[test]
fn aggregate_with_backend_that_hangs_then_deadline() {
    let outcome = run("aggregate", &["--hang", "stock"]);
    outcome.assert_code(1);
    outcome.assert_line("stock was told: deadline exceeded (1s, set at examples/aggregate.rs:");
    assert!(outcome.stderr.starts_with("no page: deadline exceeded (1s"));
}

#[test]
fn aggregate_with_best_effort_then_what_there_is() {
    let args = ["--best-effort", "--hang", "reviews", "--fail", "stock"];
    let outcome = run("aggregate", &args);
    outcome.assert_code(0);
    outcome.assert_line(
        "page: price 9.5, no stock (stock: connection refused), no reviews (deadline exceeded (1s",
    );
}

// pipeline

#[test]
fn pipeline_then_all_lines_under_backpressure() {
    let outcome = run("pipeline", &[]);
    outcome.assert_code(0);
    outcome.assert_line("lines produced: 10000");
    outcome.assert_line("stages left: 0");
    let last = outcome.lines.last().expect("it prints");
    assert_eq!(number(last, "sum: "), 333_383_335_000);
    // Three channels of four, and one in the hands of each stage.
    assert!(number(last, "at most ") <= 3 * 4 + 3, "{last}");
}

#[test]
fn pipeline_with_bad_line_then_both_sides_end() {
    for bad in ["1", "5000", "10000"] {
        let outcome = run("pipeline", &["--bad", bad]);
        outcome.assert_code(1);
        let error = "pipeline: \"oops\": invalid digit found in string\n";
        assert_eq!(outcome.stderr, error, "{outcome:#?}");
        outcome.assert_line("stages left: 0");
        let last = outcome.lines.last().expect("it prints");
        let bad: usize = bad.parse().expect("a number");
        assert!(number(last, "produced: ") <= bad + 4 + 1, "{last}");
    }
}

// happy_eyeballs

/// A listener of the test's, and the address that it can be tried at.
fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = listener.local_addr().expect("an address").to_string();
    (listener, address)
}

/// The address of the program's own socket that is called `word`.
#[track_caller]
fn own(outcome: &Outcome, word: &str) -> String {
    let suffix = format!(" {word}");
    let mut lines = outcome.lines.iter();
    let address = lines.find_map(|line| line.strip_suffix(&suffix));
    address.expect("it is printed").to_owned()
}

#[test]
fn happy_eyeballs_first_is_deaf_and_second_refuses_then_the_third_wins() {
    let outcome = run("happy_eyeballs", &[]);
    outcome.assert_code(0);
    let [deaf, refuses, answers] = ["deaf", "refuses", "answers"].map(|word| own(&outcome, word));
    let lines: Vec<_> = outcome.lines[3..].iter().map(String::as_str).collect();
    assert_eq!(lines.len(), 6, "{outcome:#?}");
    assert_eq!(lines[0], format!("trying {deaf}"));
    assert_eq!(lines[1], format!("trying {refuses}"));
    assert!(lines[2].starts_with(&format!("failed: {refuses}: ")));
    assert_eq!(lines[3], format!("trying {answers}"));
    // Before it goes on with the winner.
    assert!(lines[4].starts_with(&format!("closed: {deaf}, ")));
    assert!(lines[5].starts_with(&format!("connected to {answers} after ")));
    assert!(number(lines[5], " after ") >= 250);
}

#[test]
fn happy_eyeballs_first_answers_then_no_other_is_tried() {
    let ((_first, one), (second, other)) = (listener(), listener());
    let args = ["--stagger", "60000", &one, &other];
    let outcome = run("happy_eyeballs", &args);
    outcome.assert_code(0);
    assert_eq!(outcome.count("trying"), 1);
    outcome.assert_line(&format!("connected to {one} after "));
    second.set_nonblocking(true).expect("a socket");
    assert!(second.accept().is_err(), "nobody has come");
}

/// Long before the stagger: a failure starts the next at once.
#[test]
fn happy_eyeballs_all_refuse_then_every_failure_is_listed() {
    let args = ["--stagger", "3600000", "refuses", "refuses", "refuses"];
    let outcome = run("happy_eyeballs", &args);
    outcome.assert_code(1);
    let listed: Vec<_> = outcome.stderr.lines().collect();
    assert_eq!(listed.len(), 3, "{outcome:#?}");
    for (item, line) in listed.iter().enumerate() {
        let address = outcome.lines[item].trim_end_matches(" refuses");
        assert!(
            line.contains(&format!("item {item} failed: {address}: ")),
            "{line}"
        );
        assert!(
            line.contains("(batch at examples/happy_eyeballs.rs:"),
            "{line}"
        );
    }
}

#[test]
fn happy_eyeballs_all_are_deaf_then_the_deadline_ends_it() {
    let args = [
        "--stagger",
        "10",
        "--timeout",
        "300",
        "refuses",
        "deaf",
        "deaf",
    ];
    let outcome = run("happy_eyeballs", &args);
    outcome.assert_code(1);
    assert_eq!(outcome.count("closed: "), 2);
    let text = "no connection: deadline exceeded (300ms, set at examples/happy_eyeballs.rs:";
    assert!(outcome.stderr.starts_with(text), "{outcome:#?}");
    assert!(outcome.stderr.contains("\nitem 0 failed: "), "{outcome:#?}");
}

#[test]
fn happy_eyeballs_of_both_families_then_they_take_turns() {
    let addresses = ["[::1]:1", "[::1]:2", "127.0.0.1:1", "127.0.0.1:2"];
    let outcome = run("happy_eyeballs", &addresses);
    outcome.assert_code(1);
    let tried = outcome
        .lines
        .iter()
        .filter_map(|line| line.strip_prefix("trying "));
    let tried: Vec<_> = tried.collect();
    assert_eq!(tried, ["[::1]:1", "127.0.0.1:1", "[::1]:2", "127.0.0.1:2"]);
}

// health

#[test]
fn health_of_its_own_sockets_then_a_row_each_and_the_deadline_is_one_of_them() {
    let outcome = run("health", &["--timeout", "300"]);
    outcome.assert_code(1);
    assert_eq!(outcome.lines.len(), 3, "{outcome:#?}");
    assert!(
        outcome.lines[0].starts_with("web    up    "),
        "{outcome:#?}"
    );
    let late = "queue  down  deadline exceeded (300ms, set at examples/health.rs:";
    assert!(outcome.lines[1].starts_with(late), "{outcome:#?}");
    assert!(
        outcome.lines[2].starts_with("db     down  "),
        "{outcome:#?}"
    );
    assert_eq!(outcome.stderr, "2 down\n");
}

#[test]
fn health_all_up_then_success() {
    let ((_web, web), (_db, db)) = (listener(), listener());
    let args = [format!("web=tcp://{web}"), format!("db=tcp://{db}")];
    let outcome = run("health", &args.each_ref().map(String::as_str));
    outcome.assert_code(0);
    assert_eq!(outcome.count("  up    "), 2);
}

#[test]
fn health_status_is_no_success_then_down() {
    let (api, address) = listener();
    let service = start(
        "health",
        &["--timeout", "60000", &format!("web=http://{address}")],
    );
    let (mut client, _) = api.accept().expect("a check");
    client
        .write_all(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
        .expect("a reader");
    let outcome = service.finish();
    outcome.assert_code(1);
    outcome.assert_line(&format!("web  down  status 503  http://{address}/"));
}

#[test]
fn health_of_what_is_no_service_then_status_2() {
    let outcome = run("health", &["web=ftp://example"]);
    outcome.assert_code(2);
    assert_eq!(outcome.stderr, "health: no service: web=ftp://example\n");
}

// stuck

/// Sends the signal that asks for the tree until one was taken for which `is_it` holds, and returns its lines.
fn tree_of(service: &mut Process, is_it: impl Fn(&[String]) -> bool) -> Vec<String> {
    for _ in 0..1_000 {
        service.send(Signal::USR1);
        let lines = service.lines_to("end of the dump");
        if is_it(&lines) {
            return lines;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("none of the trees is it");
}

fn has_all(lines: &[String], parts: &[&[&str]]) -> bool {
    let has = |parts: &[&str]| {
        let is_it = |line: &String| parts.iter().all(|part| line.contains(part));
        lines.iter().any(is_it)
    };
    parts.iter().all(|parts| has(parts))
}

#[test]
fn stuck_asked_then_shows_what_each_task_is_doing_and_stopped_then_why_each_would_not() {
    let mut service = start("stuck", &[]);
    service.wait_for("serving");
    tree_of(&mut service, |lines| {
        has_all(
            lines,
            &[
                &["group \"service\"", "running"],
                &["├─ task \"clean\""],
                &["task \"slow\"", "idle ≥"],
                &["task \"in one poll\"", "in one poll ≥"],
                &["task \"thread\"", "on its thread ≥"],
                &[
                    "└─ group \"pool\"",
                    "live 1/1",
                    "queued 1",
                    "EVERY SLOT IS HELD",
                ],
                &["   ├─ task \"parent\"", "holds a slot"],
                &["   └─ task \"child\"", "queued ≥"],
            ],
        )
    });
    service.send(Signal::INT);
    let outcome = service.finish();
    assert_eq!(outcome.status.code(), Some(3), "{outcome:#?}");
    assert_eq!(outcome.count("by force: "), 4, "{outcome:#?}");
    let lines: &[&[&str]] = &[
        &["by force: task \"deaf\"", "aborted after", "since)"],
        &["by force: task \"slow\"", "aborted after", "times since)"],
        &[
            "by force: task \"in one poll\"",
            "still running after",
            "(in one poll for at least",
        ],
        &[
            "by force: task \"thread\"",
            "still running after",
            "(on a blocking thread)",
        ],
    ];
    assert!(has_all(&outcome.lines, lines), "{outcome:#?}");
    assert_eq!(outcome.lines.last().unwrap(), "stopped");
}

#[test]
fn stuck_draws_in_other_formats() {
    let formats = [
        ("--dot", "digraph errgroup {"),
        ("--mermaid", "flowchart LR"),
        ("--json", "{\"format_version\":1,"),
    ];
    for (format, first) in formats {
        let mut service = start("stuck", &[format]);
        service.wait_for("serving");
        service.send(Signal::USR1);
        let lines = service.lines_to("end of the dump");
        assert!(lines[0].starts_with(first), "{lines:#?}");
    }
}
