//! `search_server`, asked by a real HTTP client, and by plain sockets where that has to misbehave.

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use errgroup::{BoxError, Group, Task};
use reqwest::{Client, RequestBuilder};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::watch;

use crate::support::{Finished, Program, as_process_1, patient, say, wait_until};

/// Backends that take longer than any test: ten minutes a step, and nothing but a cancel ends them.
const ENDLESS: &[&str] = &["--step-ms", "600000", "--max-timeout-ms", "36000000"];

const PROGRAM: &str = env!("CARGO_BIN_EXE_search_server");

struct Server {
    program: Program,
    address: String,
    client: Client,
}

impl Server {
    async fn start(args: &[&str]) -> Self {
        Self::start_by(Command::new(PROGRAM), args).await
    }

    /// As process 1 of a namespace, if that is allowed.
    async fn start_as_process_1(args: &[&str]) -> Option<Self> {
        let mut server = Self::start_by(as_process_1(PROGRAM)?, args).await;
        server.program.aim_at_child();
        Some(server)
    }

    async fn start_by(mut command: Command, args: &[&str]) -> Self {
        let mut program = Program::start(command.args(args));
        let address = program.line("listening on http://").await;
        // A connection for each request: it ends with it.
        let client = Client::builder().pool_max_idle_per_host(0).no_proxy();
        Self {
            program,
            address,
            client: client.build().expect("a client"),
        }
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("http://{}{path}", self.address))
    }

    async fn search(&self, query: &str) -> (u16, String) {
        answer(self.get(&format!("/search?{query}"))).await
    }

    /// A connection that has sent `request`.
    async fn send(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address)
            .await
            .expect("a connection");
        stream
            .write_all(request.as_bytes())
            .await
            .expect("it is sent");
        stream
    }

    /// What `/debug/tasks` says.
    async fn tasks(&self) -> HashMap<String, usize> {
        let (status, text) = answer(self.get("/debug/tasks")).await;
        assert_eq!(status, 200, "{text}");
        let counts = text.lines().filter_map(|line| line.split_once(' '));
        counts
            .map(|(name, count)| (name.to_owned(), count.parse().expect("a count")))
            .collect()
    }

    async fn wait_for(&self, name: &str, count: usize) -> Duration {
        let what = format!("there are {count} {name}");
        wait_until(&what, async || self.tasks().await[name] == count).await
    }

    /// Waits until there is no request, no backend at work, and no connection but the one that asks.
    async fn wait_for_nothing(&self) -> Duration {
        wait_until("nothing is alive", async || {
            let tasks = self.tasks().await;
            ["requests", "titles", "pages", "archive"]
                .iter()
                .all(|&name| tasks[name] == 0)
                && tasks["connections"] == 1
        })
        .await
    }

    async fn stop(self) -> Finished {
        self.program.signal(Signal::TERM);
        self.program.finish().await
    }

    /// Stops it, and finds that it had nothing left to do.
    async fn stop_idle(self, received: usize, answered: usize) -> String {
        let finished = self.stop().await;
        finished.assert_exit(0);
        assert_eq!(finished.stdout, counts(received, answered));
        finished.stderr
    }
}

async fn answer(request: RequestBuilder) -> (u16, String) {
    let response = patient("an answer", request.send()).await.expect("one");
    let status = response.status().as_u16();
    (status, response.text().await.expect("text"))
}

fn counts(received: usize, answered: usize) -> [String; 3] {
    [
        "stopped".to_owned(),
        format!("received {received}"),
        format!("answered {answered}"),
    ]
}

// Answers.

#[tokio::test]
async fn search_then_hits_of_all_backends() {
    let server = Server::start(&["--step-ms", "1"]).await;
    let hits = r#"[{"backend":"titles","document":"Rust in Action"},{"backend":"pages","document":"rust: futures are inert until polled"},{"backend":"archive","document":"2015: Rust 1.0"}]"#;
    assert_eq!(server.search("q=rust").await, (200, hits.to_owned()));
    assert_eq!(server.search("q=no+such").await, (200, "[]".to_owned()));
    server.wait_for_nothing().await;
    let log = server.stop_idle(2, 2).await;
    assert_eq!(log.lines().filter(|line| line.ends_with(" 200")).count(), 2);
}

#[tokio::test]
async fn bad_request_then_400() {
    let server = Server::start(ENDLESS).await;
    let too_long = format!("q={}", "x".repeat(101));
    for query in ["", "q=", "other=1", &too_long] {
        assert_eq!(server.search(query).await.0, 400, "{query:?}");
    }
    for timeout in ["", "soon", "-1", "1.5"] {
        let request = server.get("/search?q=rust").header("x-timeout-ms", timeout);
        assert_eq!(answer(request).await.0, 400, "{timeout:?}");
    }
    server.wait_for_nothing().await;
}

#[tokio::test]
async fn backend_fails_then_502_and_others_stop() {
    let server = Server::start(&[ENDLESS, &["--broken", "pages"]].concat()).await;
    let text = "the backend \"pages\" failed\n".to_owned();
    assert_eq!(server.search("q=rust").await, (502, text));
    server.wait_for_nothing().await;
    let log = server.stop_idle(1, 1).await;
    assert!(log.contains(" 502 "), "{log}");
}

#[tokio::test]
async fn deadline_then_504() {
    let server = Server::start(ENDLESS).await;
    for timeout in ["0", "1", "50"] {
        let request = server.get("/search?q=rust").header("x-timeout-ms", timeout);
        let text = "deadline exceeded\n".to_owned();
        assert_eq!(answer(request).await, (504, text), "{timeout}");
    }
    server.wait_for_nothing().await;
    let log = server.stop_idle(3, 3).await;
    assert!(log.contains(" 504 deadline exceeded (50ms"), "{log}");
}

#[tokio::test]
async fn deadline_above_the_cap_then_capped() {
    let server = Server::start(&["--step-ms", "600000", "--max-timeout-ms", "20"]).await;
    let request = server
        .get("/search?q=rust")
        .header("x-timeout-ms", "999999999");
    assert_eq!(answer(request).await.0, 504);
    assert_eq!(server.search("q=rust").await.0, 504, "without the header");
    server.wait_for_nothing().await;
}

// Who is alive, and what they are doing.

#[tokio::test]
async fn tasks_asked_for_as_tree_json_or_page_then_shown_as_such() {
    let server = Server::start(ENDLESS).await;
    let searching = server
        .send("GET /search?q=rust HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    server.wait_for("archive", 1).await;
    let shown = async |form: &str| {
        let (status, text) = answer(server.get(&format!("/debug/tasks?as={form}"))).await;
        assert_eq!(status, 200, "{text}");
        text
    };
    let tree = shown("tree").await;
    for part in [
        "group \"connections\"",
        "─ task \"connection from 127.0.0.1:",
        "request.rs:",
    ] {
        assert!(tree.contains(part), "{part} in {tree}");
    }
    let json = shown("json").await;
    assert!(
        json.starts_with("{\"format_version\":1,\"items\":[{\"parent\":null"),
        "{json}"
    );
    assert!(json.contains("\"name\":\"connections\""), "{json}");
    let page = shown("page").await;
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("/debug/tasks?as=json"));
    assert_eq!(answer(server.get("/debug/tasks?as=else")).await.0, 400);
    drop(searching);
    server.wait_for_nothing().await;
}

/// The page, drawn by a browser from what it has fetched itself.
#[tokio::test]
async fn debug_tasks_page_is_opened_in_a_browser_then_it_draws_the_tree() {
    let Some(mut browser) = browser() else {
        say("skipped: no browser to open the page with (Debian's package chromium)");
        return;
    };
    let server = Server::start(ENDLESS).await;
    let searching = server
        .send("GET /search?q=rust HTTP/1.1\r\nHost: here\r\n\r\n")
        .await;
    server.wait_for("archive", 1).await;
    let profile = tempfile::tempdir().expect("a directory");
    browser
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(["--virtual-time-budget=3000", "--dump-dom"])
        .arg(format!("http://{}/debug/tasks?as=page", server.address));
    let output = patient("a page", browser.output()).await.expect("it runs");
    let page = String::from_utf8(output.stdout).expect("UTF-8");
    let said = String::from_utf8_lossy(&output.stderr);
    for part in [
        "<div class=\"group\">group \"connections\" #",
        "<div class=\"task\">task \"connection from 127.0.0.1:",
        "task \"archive\" #",
        "<span class=\"place\">",
        "request.rs:",
    ] {
        assert!(page.contains(part), "{part} in {page}, {said}");
    }
    assert!(!page.contains(">gone: "), "{page}");
    drop(searching);
    server.wait_for_nothing().await;
}

/// A browser without a window, which loads nothing but what it is told to.
fn browser() -> Option<Command> {
    let probe = std::process::Command::new("chromium")
        .arg("--version")
        .output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        return None;
    }
    let mut browser = Command::new("chromium");
    browser.kill_on_drop(true).args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]);
    Some(browser)
}

// One bad connection is one bad connection.

#[tokio::test]
async fn backend_panics_then_connection_closed_and_logged_and_server_serves_on() {
    let server = Server::start(&[ENDLESS, &["--buggy", "titles"]].concat()).await;
    for _ in 0..3 {
        let request = server.get("/search?q=rust");
        assert!(patient("the end", request.send()).await.is_err());
    }
    server.wait_for_nothing().await;
    assert_eq!(server.search("q=").await.0, 400);
    let log = server.stop_idle(4, 1).await;
    let panics = r#"" panicked: the backend "titles" has a bug (spawned at "#;
    assert_eq!(log.matches(panics).count(), 3, "{log}");
    let named = r#"task "connection from 127.0.0.1:"#;
    assert_eq!(log.matches(named).count(), 3, "{log}");
    assert_eq!(log.matches("no answer: it panicked").count(), 3, "{log}");
}

#[tokio::test]
async fn no_http_then_connection_logged_and_server_serves_on() {
    let server = Server::start(&["--step-ms", "1"]).await;
    for _ in 0..3 {
        let mut stream = server.send("no HTTP\r\n\r\n").await;
        let mut answer = String::new();
        let read = patient("its end", stream.read_to_string(&mut answer)).await;
        read.expect("closed in order");
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    assert_eq!(server.search("q=rust").await.0, 200);
    let log = server.stop_idle(1, 1).await;
    assert_eq!(
        log.matches(r#"task "connection from 127.0.0.1:"#).count(),
        3,
        "{log}"
    );
    assert_eq!(log.matches(r#"" failed: "#).count(), 3, "{log}");
}

// Clients that go away.

#[tokio::test]
async fn client_disconnects_then_backends_stop() {
    let server = Server::start(ENDLESS).await;
    let stream = server
        .send("GET /search?q=rust HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await;
    for name in ["requests", "titles", "pages", "archive"] {
        server.wait_for(name, 1).await;
    }
    drop(stream);
    let took = server.wait_for_nothing().await;
    say(&format!(
        "search_server: the backends stopped {took:?} after the client had gone"
    ));
    let log = server.stop_idle(1, 0).await;
    assert!(log.contains(" 499 "), "{log}");
}

#[tokio::test]
async fn five_hundred_requests_half_abandoned_then_nothing_alive() {
    let server = Server::start(&["--step-ms", "200"]).await;
    let (abandon, abandoned) = watch::channel(false);
    let mut requests: Group<BoxError> = Group::new();
    let tasks: Vec<_> = (0..500)
        .map(|i| {
            let request = server.get("/search?q=rust");
            let mut abandoned = abandoned.clone();
            requests.spawn(async move {
                let gives_up = async {
                    match i % 2 {
                        0 => drop(abandoned.wait_for(|&abandoned| abandoned).await),
                        _ => std::future::pending().await,
                    }
                };
                tokio::select! {
                    answer = answer(request) => Ok(Some(answer.0)),
                    () = gives_up => Ok(None),
                }
            })
        })
        .collect();
    server.wait_for("received", 500).await;
    abandon.send(true).expect("somebody waits");
    patient("the clients", requests.wait())
        .await
        .expect("no failure");

    let took = server.wait_for_nothing().await;
    say(&format!(
        "search_server: nothing was alive {took:?} after the last of 500"
    ));
    let mut answered = 0;
    for task in tasks {
        let status = task.await.expect("an outcome");
        assert!(status.is_none_or(|status| status == 200), "{status:?}");
        answered += usize::from(status.is_some());
    }
    assert!(
        (250..500).contains(&answered),
        "{answered} were not abandoned"
    );
    server.stop_idle(500, answered).await;
}

// The stop.

#[tokio::test]
async fn sigterm_under_load_then_no_accepted_request_lost() {
    let server = Server::start(&["--step-ms", "5", "--grace-ms", "60000"]).await;
    let load = Load::start(&server, 200).await;
    let finished = server.stop().await;
    finished.assert_exit(0);
    let answered = load.answered().await;
    assert_eq!(finished.stdout, counts(answered, answered));
    assert!(!finished.stderr.contains(" 499 "), "{}", finished.stderr);
}

/// Clients that ask until the server is no more.
struct Load {
    clients: Group<BoxError>,
    counts: Vec<Task<usize>>,
}

impl Load {
    /// Begins, and waits until the server has answered so often.
    async fn start(server: &Server, answered: usize) -> Self {
        let clients = Group::new();
        let client = |_| {
            let request = server.get("/search?q=rust");
            clients.spawn(async move { Ok(ask(request).await) })
        };
        let counts = (0..32).map(client).collect();
        wait_until("there is load", async || {
            server.tasks().await["answered"] >= answered
        })
        .await;
        Self { clients, counts }
    }

    /// How many answers they have had.
    async fn answered(mut self) -> usize {
        patient("the clients", self.clients.wait())
            .await
            .expect("no failure");
        let mut answered = 0;
        for count in self.counts {
            answered += count.await.expect("a count");
        }
        answered
    }
}

/// Asks again and again until the server is no more. Returns how often it answered.
async fn ask(request: RequestBuilder) -> usize {
    let mut answered = 0;
    while let Ok(response) = request.try_clone().expect("no body").send().await {
        assert_eq!(response.status(), 200);
        response.text().await.expect("an answer is whole");
        answered += 1;
    }
    answered
}

/// As Kubernetes stops a pod: SIGTERM under load, to process 1.
#[tokio::test]
async fn sigterm_under_load_then_what_was_accepted_is_answered_or_cut_and_named() {
    let args = ["--step-ms", "5", "--grace-ms", "2000"];
    stop_under_load(Server::start(&args).await).await;
    if let Some(server) = Server::start_as_process_1(&args).await {
        stop_under_load(server).await;
    }
}

async fn stop_under_load(server: Server) {
    // It never sends the rest.
    let mut hung = server.send("GET /search?q=rust HTTP/1.1\r\n").await;
    let peer = hung.local_addr().expect("an address");
    let load = Load::start(&server, 100).await;
    let finished = server.stop().await;
    finished.assert_exit(1);
    let answered = load.answered().await;
    let named = finished.stdout[0].as_str();
    assert!(
        named.contains(&format!("connection from {peer}")) && named.contains("aborted"),
        "{named}"
    );
    assert_eq!(finished.stdout[1..], counts(answered, answered));
    let mut rest = Vec::new();
    let _ = patient("the connection ends", hung.read_to_end(&mut rest)).await;
    assert!(rest.is_empty());
}

#[tokio::test]
async fn second_sigterm_as_process_1_then_exits_as_a_shell_reports_it() {
    let args = [ENDLESS, &["--grace-ms", "3600000"]].concat();
    let Some(server) = Server::start_as_process_1(&args).await else {
        return;
    };
    let request = tokio::spawn(server.get("/search?q=rust").send());
    server.wait_for("archive", 1).await;
    server.program.signal(Signal::TERM);
    wait_until("connections are refused", async || {
        TcpStream::connect(&server.address).await.is_err()
    })
    .await;
    server.stop().await.assert_exit(128 + Signal::TERM.as_raw());
    assert!(request.await.expect("no panic").is_err());
}

#[tokio::test]
async fn sigterm_during_request_then_answered() {
    let server = Server::start(&["--step-ms", "100", "--grace-ms", "60000"]).await;
    let request = server.get("/search?q=rust");
    let request = tokio::spawn(answer(request));
    server.wait_for("received", 1).await;
    server.stop_idle(1, 1).await;
    assert_eq!(request.await.expect("an answer").0, 200);
}

#[tokio::test]
async fn sigterm_then_refused_and_request_ended_after_the_grace() {
    let server = Server::start(&[ENDLESS, &["--grace-ms", "1000"]].concat()).await;
    let request = tokio::spawn(answer(server.get("/search?q=rust")));
    server.wait_for("archive", 1).await;
    server.program.signal(Signal::TERM);
    wait_until("connections are refused", async || {
        TcpStream::connect(&server.address).await.is_err()
    })
    .await;
    assert!(!request.is_finished(), "it has a grace");

    let finished = server.program.finish().await;
    finished.assert_exit(0);
    assert_eq!(finished.stdout, counts(1, 1));
    assert!(
        finished.stderr.contains(" 503 cancelled: the server is"),
        "{}",
        finished.stderr
    );
    assert_eq!(
        request.await.expect("an answer"),
        (503, "cancelled\n".to_owned())
    );
}

#[tokio::test]
async fn second_sigterm_then_killed() {
    let server = Server::start(&[ENDLESS, &["--grace-ms", "3600000"]].concat()).await;
    let request = tokio::spawn(server.get("/search?q=rust").send());
    server.wait_for("archive", 1).await;
    server.program.signal(Signal::TERM);
    wait_until("connections are refused", async || {
        TcpStream::connect(&server.address).await.is_err()
    })
    .await;
    let killed = server.stop().await.status;
    assert_eq!(killed.signal(), Some(Signal::TERM.as_raw()));
    assert!(request.await.expect("no panic").is_err());
}

#[tokio::test]
async fn half_a_request_at_sigterm_then_aborted_and_named() {
    let server = Server::start(&[ENDLESS, &["--grace-ms", "1"]].concat()).await;
    let mut stream = server.send("GET /search?q=rust HTTP/1.1\r\n").await;
    let peer = stream.local_addr().expect("an address");
    // This connection, and the one that asks.
    server.wait_for("connections", 2).await;
    let finished = server.stop().await;
    finished.assert_exit(1);
    let named = finished.stdout[0].as_str();
    assert!(
        named.contains(&format!("connection from {peer}")) && named.contains("aborted"),
        "{named}"
    );
    assert_eq!(finished.stdout[1..], counts(0, 0));
    let mut rest = Vec::new();
    let _ = patient("the connection ends", stream.read_to_end(&mut rest)).await;
    assert!(rest.is_empty());
}

#[tokio::test]
async fn sigint_while_idle_then_exit_0() {
    let server = Server::start(&[]).await;
    server.program.signal(Signal::INT);
    server.program.finish().await.assert_exit(0);
}
