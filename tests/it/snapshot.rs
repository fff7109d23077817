//! Snapshots: what is in them, and the trees that are drawn of them.

use std::future::pending;
use std::sync::mpsc;
use std::time::Duration;

use errgroup::{
    BoxError, Context, Diagnosis, Group, Reason, Snapshot, TaskKind, TaskSnapshot, TaskState, What,
    dump_all,
};
use tokio::task::yield_now;
use tokio::time::sleep;

type Unit = Result<(), BoxError>;

const SECOND: Duration = Duration::from_secs(1);

/// A tree with ids numbered from 1 as they come, and without the places, which move.
pub(crate) fn plain(tree: &str) -> String {
    let mut ids: Vec<&str> = Vec::new();
    let mut lines = Vec::new();
    for line in tree.lines() {
        let (head, place) = line.rsplit_once("  ").expect("a place at the end");
        assert!(place.contains("snapshot") || place.contains("context background"), "{line}");
        let mut plain = String::new();
        let mut parts = head.split('#');
        plain.push_str(parts.next().unwrap());
        for part in parts {
            let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            let (id, rest) = part.split_at(end);
            let number = ids.iter().position(|known| *known == id).unwrap_or_else(|| {
                ids.push(id);
                ids.len() - 1
            });
            plain.push_str(&format!("#{}{rest}", number + 1));
        }
        lines.push(plain);
    }
    lines.join("\n")
}

fn task<'a>(snapshot: &'a Snapshot, name: &str) -> &'a TaskSnapshot {
    let mut tasks = snapshot.tasks();
    let found = tasks.find(|task| task.name() == Some(name));
    found.unwrap_or_else(|| panic!("no task {name:?} in\n{snapshot}"))
}

/// Lets whoever is woken run.
async fn settle() {
    for _ in 0..8 {
        yield_now().await;
    }
}

async fn deaf(_ctx: Context) -> Unit {
    pending().await
}

#[tokio::test(start_paused = true)]
async fn nested_groups_are_drawn_three_deep() {
    let outer: Group = Group::builder().name("api").build();
    let middle: Group = Group::builder().context(outer.context()).name("request").build();
    let timed = middle.context().with_timeout(90 * SECOND);
    let inner: Group = Group::builder().context(&timed).name("query").limit(1).build();
    outer.task("accept").spawn(pending::<Unit>());
    middle.task("parse").spawn_with(deaf);
    inner.task("db").spawn(pending::<Unit>());
    inner.spawn(pending::<Unit>());
    settle().await;
    sleep(SECOND).await;

    let tree = outer.snapshot();
    assert_eq!(
        plain(&tree.to_string()),
        r#"group "api" #1 running ≥ 1s  live 1
├─ task "accept" #2 idle ≥ 1s
└─ group "request" #3 running ≥ 1s  live 1
   ├─ task "parse" #4 idle ≥ 1s
   └─ context ends in 1m29s
      └─ group "query" #5 running ≥ 1s  ends in 1m29s  live 1/1  queued 1  EVERY SLOT IS HELD BY A TASK THAT WAITS (≥ 1s): FOR A QUEUED ONE?
         ├─ task "db" #6 idle ≥ 1s  holds a slot
         └─ task #7 queued ≥ 0ms"#
    );
    assert_eq!(
        plain(&format!("{:#}", middle.snapshot())),
        r#"group "request" #1 running >= 1s  live 1
|- task "parse" #2 idle >= 1s
`- context ends in 1m29s
   `- group "query" #3 running >= 1s  ends in 1m29s  live 1/1  queued 1  EVERY SLOT IS HELD BY A TASK THAT WAITS (>= 1s): FOR A QUEUED ONE?
      |- task "db" #4 idle >= 1s  holds a slot
      `- task #5 queued >= 0ms"#
    );
}

#[tokio::test(start_paused = true)]
async fn places_are_those_of_the_calls() {
    let group: Group = Group::new();
    let spawned = line!() + 1;
    group.task("a").spawn(pending::<Unit>());
    let tree = group.snapshot();
    let place = task(&tree, "a").place();
    assert_eq!((place.file(), place.line()), (file!(), spawned));
    assert!(tree.to_string().contains(&format!("{}:{spawned}", file!())));
    let made = tree.groups().next().unwrap().place();
    assert_eq!(made.line(), spawned - 2);
    assert!(made.column() > 1);
}

#[tokio::test(start_paused = true)]
async fn group_ended_by_a_deadline_then_each_straggler_is_told_from_the_others() {
    let (ctx, _handle) = Context::background().with_cancel();
    let timed = ctx.with_timeout(SECOND);
    let group: Group = Group::builder().context(&timed).name("request").build();
    group.task("clean").spawn(pending::<Unit>());
    group.task("deaf").spawn_with(deaf);
    group.task("slow").spawn_with(async |ctx| {
        ctx.done().await;
        for _ in 0..3 {
            sleep(SECOND).await;
        }
        Ok(())
    });
    let (leave, left) = mpsc::channel::<()>();
    let (tell, running) = mpsc::channel();
    group.task("thread").spawn_blocking(move |_ctx| {
        tell.send(()).unwrap();
        left.recv().unwrap();
        Ok(())
    });
    running.recv().unwrap();
    // A blocking task keeps tokio from moving a paused clock by itself.
    settle().await;
    tokio::time::advance(SECOND).await;
    settle().await;
    tokio::time::advance(SECOND).await;
    settle().await;
    tokio::time::advance(SECOND / 10 * 11).await;
    settle().await;

    let tree = ctx.tree();
    let drawn = plain(&tree.to_string());
    // The text of the end has the place where the deadline was set.
    let (head, rest) = drawn.split_once(" (1s, set at ").unwrap();
    let (_, rest) = rest.split_once(')').unwrap();
    assert_eq!(
        format!("{head}{rest}"),
        r#"context
└─ context cancelled 2.1s ago: deadline exceeded (1s, set at tests/it/snapshot.rs:0:0)
   └─ group "request" #1 cancelled 2.1s ago: deadline exceeded  live 3
      ├─ task "deaf" #2 IGNORES CANCEL (not polled since)
      ├─ task "slow" #3 SLOW TO STOP (polled 3 times since)
      └─ task "thread" #4 RUNS ON (on a blocking thread)"#
    );
    leave.send(()).unwrap();
}
