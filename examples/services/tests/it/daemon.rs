//! `daemon`: a supervised service, its parts failing one by one, stopped under load, and killed.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use errgroup::{BoxError, Context, Group};
use reqwest::Client;
use rusqlite::Connection;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinHandle;

use crate::support::{Finished, Program, as_process_1, patient, wait_until};

const DAEMON: &str = env!("CARGO_BIN_EXE_daemon");

struct Daemon {
    program: Program,
    address: String,
    client: Client,
    dir: TempDir,
}

fn database(dir: &TempDir) -> PathBuf {
    dir.path().join("notes.db")
}

impl Daemon {
    async fn start(args: &[&str]) -> Self {
        Self::start_in(TempDir::new().expect("a directory"), args).await
    }

    async fn start_in(dir: TempDir, args: &[&str]) -> Self {
        let command = Command::new(DAEMON);
        Self::start_command(dir, command, args).await
    }

    /// `None` where that is not allowed.
    async fn start_as_process_1(args: &[&str]) -> Option<Self> {
        let command = as_process_1(DAEMON)?;
        let dir = TempDir::new().expect("a directory");
        let mut daemon = Self::start_command(dir, command, args).await;
        daemon.program.aim_at_child();
        Some(daemon)
    }

    async fn start_command(dir: TempDir, mut command: Command, args: &[&str]) -> Self {
        command.arg("--database").arg(database(&dir)).args(args);
        let mut program = Program::start(&mut command);
        let address = program.line("listening on http://").await;
        let client = Client::builder().pool_max_idle_per_host(0).no_proxy();
        let daemon = Self {
            program,
            address,
            client: client.build().expect("a client"),
            dir,
        };
        wait_until("it is healthy", async || {
            daemon.status("/healthz").await == Some(200)
        })
        .await;
        daemon
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// `None` if the connection was refused or broke.
    async fn status(&self, path: &str) -> Option<u16> {
        let request = self.client.get(self.url(path));
        let response = patient("an answer", request.send()).await;
        response.ok().map(|response| response.status().as_u16())
    }

    async fn text(&self, path: &str) -> String {
        let request = self.client.get(self.url(path));
        let response = patient("an answer", request.send()).await.expect("one");
        response.text().await.expect("text")
    }

    /// How often a child was restarted.
    async fn restarts(&self, child: &str) -> u32 {
        let json = self.text("/debug/supervisor?format=json").await;
        let (_, child) = json.split_once(&format!(r#""name":"{child}""#)).unwrap();
        let (_, restarts) = child.split_once(r#""restarts":"#).unwrap();
        let digits = restarts.split([',', '}']).next().unwrap();
        digits.parse().unwrap()
    }

    /// Begins to post a note of so many bytes. When this returns, the daemon has the head and asks for the rest.
    async fn begin_to_post(&self, length: usize) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let head = format!(
            "POST /notes HTTP/1.1\r\nHost: {}\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n",
            self.address
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
        let read = patient("it asks for the rest", stream.read_exact(&mut answer));
        read.await.expect("an answer");
        assert!(answer.starts_with(b"HTTP/1.1 100 "));
        stream
    }

    /// Posts a note in a task.
    fn post_in_task(&self, text: &'static str) -> JoinHandle<Option<i64>> {
        let (client, url) = (self.client.clone(), self.url("/notes"));
        tokio::spawn(async move { post(&client, &url, text).await })
    }

    async fn is_refused(&self) -> bool {
        let connected = TcpStream::connect(&self.address).await;
        connected.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    }

    /// Posts a note; its number if it was acknowledged.
    async fn post(&self, text: &str) -> Option<i64> {
        post(&self.client, &self.url("/notes"), text).await
    }

    async fn stop(self) -> (Finished, TempDir) {
        self.program.signal(Signal::TERM);
        (self.program.finish().await, self.dir)
    }
}

async fn post(client: &Client, url: &str, text: &str) -> Option<i64> {
    let request = client.post(url).body(text.to_owned());
    let response = patient("an answer", request.send()).await.ok()?;
    match response.status().as_u16() {
        201 => response.text().await.ok()?.parse().ok(),
        _ => None,
    }
}

/// The numbers and texts of the notes in the database.
fn notes(dir: &TempDir) -> HashSet<(i64, String)> {
    let database = Connection::open(database(dir)).expect("a database");
    let mut notes = database
        .prepare("SELECT id, text FROM note")
        .expect("a table");
    let rows = notes.query_map((), |row| Ok((row.get(0)?, row.get(1)?)));
    rows.expect("rows").map(|row| row.expect("a row")).collect()
}

/// Posts notes from several clients until one is not acknowledged; returns those that were.
struct Load {
    acknowledged: Arc<Mutex<HashSet<(i64, String)>>>,
    group: Group,
}

impl Load {
    fn start(daemon: &Daemon) -> Self {
        let acknowledged = Arc::new(Mutex::new(HashSet::new()));
        let group: Group = Group::new();
        for client in 0..8 {
            let (acknowledged, http) = (acknowledged.clone(), daemon.client.clone());
            let url = daemon.url("/notes");
            group.spawn(async move {
                for n in 0.. {
                    let text = format!("note {n} of client {client}");
                    let Some(id) = post(&http, &url, &text).await else {
                        break;
                    };
                    acknowledged.lock().unwrap().insert((id, text));
                }
                Ok(())
            });
        }
        Self {
            acknowledged,
            group,
        }
    }

    async fn until(&self, count: usize) {
        let what = format!("{count} notes are acknowledged");
        wait_until(&what, async || {
            self.acknowledged.lock().unwrap().len() >= count
        })
        .await;
    }

    async fn end(self) -> HashSet<(i64, String)> {
        patient("the clients see the end", self.group.into_future())
            .await
            .unwrap();
        std::mem::take(&mut self.acknowledged.lock().unwrap())
    }
}

/// The places of these lines, which have to be there in this order.
#[track_caller]
fn assert_order(log: &str, lines: &[&str]) {
    let mut rest = log;
    for line in lines {
        let place = rest.find(line);
        let place = place.unwrap_or_else(|| panic!("no {line:?} in its place: {log}"));
        rest = &rest[place + line.len()..];
    }
}

#[tokio::test]
async fn started_then_ready_in_order_and_stopped_in_reverse() {
    let daemon = Daemon::start(&[]).await;
    assert_eq!(daemon.post("one").await, Some(1));
    let text = daemon.text("/debug/supervisor").await;
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with(r#""writer" ready since "#), "{text}");
    assert!(lines[5].starts_with(r#""poller" running since "#), "{text}");
    let json = daemon.text("/debug/supervisor?format=json").await;
    assert!(
        json.contains(r#"{"name":"http","state":"ready","for_ms":"#),
        "{json}"
    );

    let (finished, dir) = daemon.stop().await;
    finished.assert_exit(0);
    assert_eq!(finished.stdout.last().unwrap(), "stopped");
    assert_order(
        &finished.stderr,
        &[
            r#"child "writer" starts"#,
            r#"child "writer" is ready"#,
            r#"child "workers" starts"#,
            r#"child "http" starts"#,
            r#"supervisor "daemon": stopping"#,
            r#"child "http" is to stop"#,
            r#"child "http" has stopped"#,
            r#"child "hangup" has stopped"#,
            r#"child "poller" has stopped"#,
            r#"child "upstream" has stopped"#,
            r#"child "workers" has stopped"#,
            r#"child "writer" is to stop"#,
            r#"child "writer" has stopped"#,
        ],
    );
    assert_eq!(notes(&dir).len(), 1);
}

/// An upstream on loopback.
async fn upstream(
    ctx: Context,
    listener: TcpListener,
    answers: Arc<AtomicUsize>,
) -> Result<(), BoxError> {
    loop {
        let (mut stream, _) = ctx.run(listener.accept()).await??;
        stream.write_all(b"fine").await?;
        answers.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn upstream_dies_and_comes_back_then_only_the_poller_is_restarted() {
    let dir = TempDir::new().expect("a directory");
    let settings = dir.path().join("settings");
    fs::write(&settings, "5").unwrap();
    let settings = settings.to_str().unwrap().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answers = Arc::new(AtomicUsize::new(0));

    let mut group: Group = Group::new();
    let up = group.spawn(upstream(group.context().clone(), listener, answers.clone()));
    let mut daemon = Daemon::start_in(
        dir,
        &["--upstream", &address.to_string(), "--settings", &settings],
    )
    .await;
    daemon.program.line("polling every 5ms").await;
    daemon.program.line("polled fine").await;

    up.abort();
    assert!(up.await.is_err());
    wait_until("the poller is under backoff", async || {
        let text = daemon.text("/debug/supervisor").await;
        text.contains(r#""poller" backing off"#) && text.contains("refused")
    })
    .await;
    assert_eq!(daemon.post("while it is away").await, Some(1));
    wait_until("it was restarted several times", async || {
        daemon.restarts("poller").await >= 3
    })
    .await;

    let before = answers.load(Ordering::SeqCst);
    let listener = TcpListener::bind(address).await.unwrap();
    let _up = group.spawn(upstream(group.context().clone(), listener, answers.clone()));
    wait_until("it is polled again", async || {
        answers.load(Ordering::SeqCst) > before + 2
    })
    .await;
    assert_eq!(daemon.status("/healthz").await, Some(200));
    let text = daemon.text("/debug/supervisor").await;
    let others = text.lines().filter(|line| !line.starts_with(r#""poller""#));
    assert!(
        others.clone().all(|line| line.ends_with(", 0 restarts")),
        "{text}"
    );
    assert_eq!(others.count(), 5);
    daemon.stop().await.0.assert_exit(0);
    group.cancel();
    group.wait().await.unwrap();
}

#[tokio::test]
async fn hung_up_then_the_poller_alone_is_restarted_with_new_settings() {
    let dir = TempDir::new().expect("a directory");
    let settings = dir.path().join("settings");
    fs::write(&settings, "100").unwrap();
    let path = settings.to_str().unwrap().to_owned();
    let mut daemon = Daemon::start_in(dir, &["--settings", &path]).await;
    daemon.program.line("polling every 100ms").await;
    fs::write(&settings, "200").unwrap();
    daemon.program.signal(Signal::HUP);
    daemon.program.line("polling every 200ms").await;
    let (finished, _dir) = daemon.stop().await;
    finished.assert_exit(0);
    let log = finished.stderr;
    assert_eq!(log.matches(r#"child "poller" starts"#).count(), 2, "{log}");
    let starts = log.matches(" starts\n").count();
    assert_eq!(starts, 5 + 2, "{log}");
}

#[tokio::test]
async fn workers_panic_then_restarted_and_beyond_the_intensity_it_gives_up_with_the_last_error() {
    let args = ["--buggy", "--intensity", "2", "--period-ms", "600000"];
    let daemon = Daemon::start(&args).await;
    for restarts in 1..=2 {
        assert_eq!(daemon.post("poison").await, None);
        wait_until("it was restarted, and is up again", async || {
            daemon.restarts("workers").await == restarts
                && daemon.status("/healthz").await == Some(200)
        })
        .await;
    }
    assert_eq!(daemon.post("good").await, Some(1));
    assert_eq!(daemon.post("poison").await, None);
    let finished = daemon.program.finish().await;
    finished.assert_exit(1);
    let last = finished.stderr.lines().last().unwrap();
    assert!(
        last.starts_with(r#"error: supervisor "daemon" gave up: child "workers" ended"#),
        "{last}"
    );
    assert!(last.contains("panicked: a worker has a bug"), "{last}");
    assert_order(
        &finished.stderr,
        &[
            r#"child "workers" makes the supervisor give up"#,
            r#"child "http" has stopped"#,
            r#"child "writer" has stopped"#,
        ],
    );
    assert_eq!(notes(&daemon.dir).len(), 1);
}

#[tokio::test]
async fn terminated_under_load_then_what_was_acknowledged_is_written_and_nothing_runs_on() {
    terminated_under_load(Daemon::start(&LOADED).await).await;
}

/// As Kubernetes stops a pod.
#[tokio::test]
async fn terminated_under_load_as_process_1_then_the_same() {
    if let Some(daemon) = Daemon::start_as_process_1(&LOADED).await {
        terminated_under_load(daemon).await;
    }
}

const LOADED: [&str; 4] = ["--work-ms", "2", "--drain-ms", "60000"];

async fn terminated_under_load(daemon: Daemon) {
    let load = Load::start(&daemon);
    load.until(100).await;
    let tree = daemon.text("/debug/tasks").await;
    assert!(tree.contains(r#"group "connections""#), "{tree}");
    assert!(
        tree.contains(r#"task "connection from 127.0.0.1:"#),
        "{tree}"
    );
    let (finished, dir) = daemon.stop().await;
    finished.assert_exit(0);
    let acknowledged = load.end().await;
    let written = notes(&dir);
    assert!(acknowledged.len() >= 100);
    let lost: Vec<_> = acknowledged.difference(&written).collect();
    assert!(lost.is_empty(), "{lost:?}");
    // It says so itself if anybody is left: a connection, a worker, a poller.
    let log = finished.stderr;
    for unwanted in ["aborted", "left behind", "was cut"] {
        assert!(!log.contains(unwanted), "{unwanted}: {log}");
    }
}

#[tokio::test]
async fn terminated_during_a_request_then_it_is_answered() {
    let daemon = Daemon::start(&["--drain-ms", "60000"]).await;
    let mut late = daemon.begin_to_post("late".len()).await;
    daemon.program.signal(Signal::TERM);
    // Although the one that was accepted is still served.
    wait_until("the port is closed", async || daemon.is_refused().await).await;
    late.write_all(b"late").await.unwrap();
    let mut answer = String::new();
    let read = patient("an answer", late.read_to_string(&mut answer));
    read.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 Created\r\n"), "{answer}");
    let finished = daemon.program.finish().await;
    finished.assert_exit(0);
    assert_eq!(notes(&daemon.dir).len(), 1);
}

#[tokio::test]
async fn lingers_longer_than_the_drain_then_it_stops_with_the_drain() {
    let args = ["--linger-ms", "600000", "--drain-ms", "100"];
    let daemon = Daemon::start(&args).await;
    let (finished, _dir) = daemon.stop().await;
    finished.assert_exit(0);
}

#[tokio::test]
async fn write_never_returns_then_its_thread_is_left_behind_and_named_and_the_process_ends() {
    let args = ["--buggy", "--drain-ms", "100", "--grace-ms", "100"];
    let mut daemon = Daemon::start(&args).await;
    let jam = daemon.post_in_task("jam");
    daemon.program.line("the writer is jammed").await;
    let (finished, _dir) = daemon.stop().await;
    finished.assert_exit(2);
    assert_eq!(jam.await.unwrap(), None);
    assert_order(
        &finished.stderr,
        &[
            r#"child "writer" did not stop within its grace, and is aborted"#,
            r#"task "writer""#,
            "left behind",
        ],
    );
}

#[tokio::test]
async fn gives_up_while_a_write_never_returns_then_the_writer_is_named_after_the_error() {
    let times = ["--drain-ms", "100", "--grace-ms", "100"];
    let args = [&["--buggy", "--intensity", "0"], &times[..]].concat();
    let mut daemon = Daemon::start(&args).await;
    let jam = daemon.post_in_task("jam");
    daemon.program.line("the writer is jammed").await;
    assert_eq!(daemon.post("poison").await, None);
    let finished = daemon.program.finish().await;
    finished.assert_exit(1);
    assert_eq!(jam.await.unwrap(), None);
    assert_order(
        &finished.stderr,
        &[
            r#"child "workers" makes the supervisor give up"#,
            r#"error: supervisor "daemon" gave up: child "workers" ended"#,
            r#"task "writer""#,
        ],
    );
}

#[tokio::test]
async fn half_a_request_at_the_stop_then_cut_at_the_end_of_the_drain_and_named() {
    let daemon = Daemon::start(&["--drain-ms", "100"]).await;
    let mut hung = TcpStream::connect(&daemon.address).await.unwrap();
    hung.write_all(b"POST /notes HTTP/1.1\r\n").await.unwrap();
    let connection = format!("connection from {}", hung.local_addr().unwrap());
    wait_until("it is served", async || {
        daemon.text("/debug/tasks").await.contains(&connection)
    })
    .await;
    let (finished, _dir) = daemon.stop().await;
    // The child has stopped in time.
    finished.assert_exit(0);
    assert_order(
        &finished.stderr,
        &[
            r#"child "http" is to stop within 100ms"#,
            &format!("{connection} was cut: "),
            r#"child "http" has stopped"#,
            r#"child "writer" has stopped"#,
        ],
    );
    let mut rest = Vec::new();
    let _ = patient("the connection ends", hung.read_to_end(&mut rest)).await;
    assert!(rest.is_empty());
}

#[tokio::test]
async fn worker_does_not_stop_then_aborted_after_the_grace_and_named_and_the_rest_is_written() {
    let args = ["--buggy", "--drain-ms", "100", "--grace-ms", "100"];
    let mut daemon = Daemon::start(&args).await;
    let stuck = daemon.post_in_task("stuck");
    daemon.program.line("a worker is stuck").await;
    assert_eq!(daemon.post("good").await, Some(1));
    let (finished, dir) = daemon.stop().await;
    finished.assert_exit(2);
    assert_eq!(stuck.await.unwrap(), None);
    assert_order(
        &finished.stderr,
        &[
            " was cut: ",
            r#"child "http" has stopped"#,
            r#"child "workers" did not stop within its grace, and is aborted"#,
            r#"child "writer" has stopped"#,
            r#"task "workers""#,
        ],
    );
    assert!(
        !finished.stderr.contains("left behind"),
        "{}",
        finished.stderr
    );
    assert_eq!(notes(&dir).len(), 1);
}

#[tokio::test]
async fn killed_in_the_middle_and_started_again_then_what_was_acknowledged_is_there() {
    let daemon = Daemon::start(&[]).await;
    let load = Load::start(&daemon);
    load.until(100).await;
    daemon.program.signal(Signal::KILL);
    let Daemon { program, dir, .. } = daemon;
    let finished = program.finish().await;
    assert_eq!(finished.status.signal(), Some(9));
    let acknowledged = load.end().await;

    let daemon = Daemon::start_in(dir, &[]).await;
    let id = daemon.post("after").await.expect("it is written");
    let (finished, dir) = daemon.stop().await;
    finished.assert_exit(0);
    let written = notes(&dir);
    let lost: Vec<_> = acknowledged.difference(&written).collect();
    assert!(lost.is_empty(), "{lost:?}");
    assert!(written.contains(&(id, "after".to_owned())));
}

#[tokio::test]
async fn stopping_then_unhealthy_while_the_port_is_still_open() {
    let daemon = Daemon::start(&["--linger-ms", "60000", "--drain-ms", "600000"]).await;
    daemon.program.signal(Signal::TERM);
    wait_until("it says that it is stopping", async || {
        daemon.status("/healthz").await == Some(503)
    })
    .await;
    // It does not wait for the minute: a second signal kills it.
    daemon.program.signal(Signal::TERM);
    let finished = daemon.program.finish().await;
    assert!(finished.status.signal().is_some() || finished.status.code() == Some(143));
}
