//! What the docs of `Supervisor` say that its peers have not, as far as no other file shows it.

use std::time::Duration;

use errgroup::{Child, ChildState, Context, Ready};

use crate::supervisor_support::{End, Stage, builder, idle, paused, run};
use crate::support::advance;

const SEC: Duration = Duration::from_secs(1);

/// OTP's supervisor is one process, which waits in both cases.
#[test]
fn one_takes_its_time_to_start_and_one_to_stop_then_others_are_restarted_and_commands_answered() {
    paused(async {
        let stage = Stage::new();
        let stubborn = Child::new("stubborn", async |ctx: Context| {
            ctx.done().await;
            tokio::time::sleep(100 * SEC).await;
            Ok(())
        });
        let late = Child::with_ready("late", async |ctx: Context, ready: Ready| {
            tokio::time::sleep(20 * SEC).await;
            ready.notify();
            ctx.done().await;
            Ok(())
        });
        let children = [
            stage.child("a"),
            stubborn.grace(200 * SEC),
            late,
            stage.child("last"),
        ];
        let running = run(builder(), children).await;
        let handle = running.handle.clone();
        let stopped = tokio::spawn({
            let handle = handle.clone();
            async move { handle.stop("stubborn").await }
        });
        idle().await;
        let under_way = || ["stubborn", "late"].map(|name| running.state(name));
        let both = [ChildState::Stopping, ChildState::Starting];
        assert_eq!(under_way(), both);
        assert_eq!(stage.took(), ["+a"], "the last one is held up");

        stage.end("a", End::Fail);
        idle().await;
        assert_eq!(stage.took(), ["-a", "+a"], "restarted");
        handle.restart("a").await.unwrap();
        handle.add(stage.child("b")).await.unwrap();
        idle().await;
        assert_eq!(stage.took(), ["-a", "+a", "+b"]);
        assert_eq!(under_way(), both, "they still are");
        assert!(!stopped.is_finished());

        advance(20 * SEC).await;
        idle().await;
        assert_eq!(stage.took(), ["+last"]);
        stopped.await.unwrap().unwrap();
        running.end().await.unwrap();
    });
}

/// A table that names tests which there are not says nothing.
#[test]
fn tests_that_the_docs_name_are_there() {
    let read = |path: &str| {
        let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    };
    let docs = read("src/supervisor.rs");
    let named: Vec<_> = docs
        .split('`')
        .filter_map(|quoted| quoted.split_once("::"))
        .filter(|(file, _)| file.starts_with("supervisor_"))
        .collect();
    assert_eq!(named.len(), 7);
    for (file, test) in named {
        let source = read(&format!("tests/it/{file}.rs"));
        assert!(source.contains(&format!("fn {test}()")), "{file}::{test}");
    }
}
