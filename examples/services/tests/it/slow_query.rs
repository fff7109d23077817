//! `slow_query`, against SQLite inside it, and against a PostgreSQL server of the test's own.

use rustix::process::Signal;
use tokio::process::Command;
use tokio_postgres::{Client, NoTls};

use crate::postgres::Postgres;
use crate::support::{Program, say, wait_until};

/// Longer than the test has patience.
const NEVER: &str = "3600";

fn slow_query(timeout: &str, url: Option<&str>) -> Program {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slow_query"));
    command.args(["--timeout", timeout]);
    command.env_remove("DATABASE_URL");
    command.envs(url.map(|url| ("DATABASE_URL", url)));
    Program::start(&mut command)
}

#[tokio::test]
async fn sqlite_timeout_then_interrupted() {
    let finished = slow_query("0.5", None).finish().await;
    finished.assert_exit(124);
    let expected = [
        "sqlite: the query begins",
        "sqlite: interrupting the query",
        "sqlite: interrupted",
    ];
    assert_eq!(finished.stdout, expected);
    let stderr = &finished.stderr;
    assert!(stderr.contains("deadline exceeded (500ms"), "{stderr}");
}

#[tokio::test]
async fn sqlite_signal_then_interrupted() {
    for (signal, name) in [(Signal::INT, "SIGINT"), (Signal::TERM, "SIGTERM")] {
        let mut program = slow_query(NEVER, None);
        program.line("sqlite: the query begins").await;
        program.signal(signal);
        let finished = program.finish().await;
        finished.assert_exit(130);
        let expected = ["sqlite: interrupting the query", "sqlite: interrupted"];
        assert_eq!(finished.stdout, expected);
        assert!(finished.stderr.contains(name), "{}", finished.stderr);
    }
}

/// Wherever the end falls: before the query, at its begin, or in it.
#[tokio::test]
async fn sqlite_timeout_at_any_moment_then_interrupted() {
    for microseconds in (0..4000).step_by(100) {
        let timeout = format!("0.{microseconds:06}");
        slow_query(&timeout, None).finish().await.assert_exit(124);
    }
}

// One test, since a server costs some seconds.
#[tokio::test]
async fn postgres_end_then_query_gone_in_pg_stat_activity() {
    let Some(server) = Postgres::start().await else {
        return;
    };
    let (observer, connection) = tokio_postgres::connect(&server.url, NoTls)
        .await
        .expect("a connection");
    tokio::spawn(connection);

    // That it is there, and that a client which only goes away leaves it behind.
    let mut program = slow_query(NEVER, Some(&server.url));
    program.line("postgres: the query begins").await;
    wait_for_active(&observer, 1).await;
    program.signal(Signal::KILL);
    assert!(!program.finish().await.status.success());
    assert_eq!(active(&observer).await, 1, "nobody has cancelled it");
    let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'slow_query'";
    observer.execute(terminate, &[]).await.expect("terminated");
    wait_for_active(&observer, 0).await;

    for (signal, name) in [(Signal::INT, "SIGINT"), (Signal::TERM, "SIGTERM")] {
        let mut program = slow_query(NEVER, Some(&server.url));
        program.line("postgres: the query begins").await;
        wait_for_active(&observer, 1).await;
        program.signal(signal);
        let finished = program.finish().await;
        finished.assert_exit(130);
        assert!(finished.stderr.contains(name), "{}", finished.stderr);
        assert_cancelled(&finished.stdout);
        assert_eq!(active(&observer).await, 0);
    }

    // The connection itself can take longer than such a timeout.
    for timeout in ["0", "0.01", "0.5"] {
        let finished = slow_query(timeout, Some(&server.url)).finish().await;
        finished.assert_exit(124);
        wait_for_active(&observer, 0).await;
    }
    drop(observer);
    let log = server.stop();
    let cancels = log.matches("canceling statement due to user request");
    assert!(cancels.count() >= 2, "{log}");
}

#[tokio::test]
async fn no_postgres_then_exit_1() {
    let url = "host=127.0.0.1 port=1 user=nobody dbname=none";
    slow_query(NEVER, Some(url)).finish().await.assert_exit(1);
}

#[track_caller]
fn assert_cancelled(stdout: &[String]) {
    assert_eq!(stdout[0], "postgres: cancelling the query");
    assert!(stdout[1].contains("user request"), "{stdout:?}");
    assert!(stdout[2].ends_with(" as idle"), "{stdout:?}");
    assert_eq!(stdout.len(), 3, "{stdout:?}");
}

async fn wait_for_active(observer: &Client, count: i64) {
    let what = format!("pg_stat_activity has {count} active");
    let took = wait_until(&what, async || active(observer).await == count).await;
    if count == 0 {
        say(&format!("slow_query: {what} after {took:?}"));
    }
}

/// How many slow queries the server is working at.
async fn active(observer: &Client) -> i64 {
    let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'slow_query' AND state = 'active'";
    observer.query_one(count, &[]).await.expect("a row").get(0)
}
