//! Snapshots: what is in them, and the trees that are drawn of them.

use std::future::pending;
use std::sync::mpsc;
use std::time::Duration;

use errgroup::{
    BoxError, Context, Diagnosis, Group, Reason, Snapshot, TaskKind, TaskSnapshot, TaskState, What,
    dump_all,
};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::task::yield_now;
use tokio::time::sleep;

type Unit = Result<(), BoxError>;

const SECOND: Duration = Duration::from_secs(1);

/// A dump of the process sees the tasks of all tests, and for how long a task has waited is not known where it was seen before
/// that. So tests that dump run beside none that want to know.
static DUMPS: RwLock<()> = RwLock::const_new(());

/// Nobody dumps the process meanwhile.
pub(crate) async fn undisturbed() -> RwLockReadGuard<'static, ()> {
    DUMPS.read().await
}

/// Nobody is disturbed by a dump of the process.
pub(crate) async fn alone() -> RwLockWriteGuard<'static, ()> {
    DUMPS.write().await
}

/// A tree with ids numbered from 1 as they come, and without the places, which move.
pub(crate) fn plain(tree: &str) -> String {
    let mut ids: Vec<&str> = Vec::new();
    let mut lines = Vec::new();
    for line in tree.lines() {
        let (head, place) = line.rsplit_once("  ").expect("a place at the end");
        assert!(
            place.contains("snapshot") || place.contains("context background"),
            "{line}"
        );
        let mut plain = String::new();
        let mut parts = head.split('#');
        plain.push_str(parts.next().unwrap());
        for part in parts {
            let end = part
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(part.len());
            let (id, rest) = part.split_at(end);
            let number = ids
                .iter()
                .position(|known| *known == id)
                .unwrap_or_else(|| {
                    ids.push(id);
                    ids.len() - 1
                });
            plain.push_str(&format!("#{}{rest}", number + 1));
        }
        lines.push(plain);
    }
    lines.join("\n")
}

/// The place that a text names.
fn line_of(text: &str, before: &str) -> String {
    let (_, place) = text.split_once(before).expect("it names a place");
    place.split_once(')').expect("in brackets").0.to_owned()
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
    let _undisturbed = undisturbed().await;
    let outer: Group = Group::builder().name("api").build();
    let middle: Group = Group::builder()
        .context(outer.context())
        .name("request")
        .build();
    let timed = middle.context().with_timeout(90 * SECOND);
    let inner: Group = Group::builder()
        .context(&timed)
        .name("query")
        .limit(1)
        .build();
    outer.task("accept").spawn(pending::<Unit>());
    middle.task("parse").spawn_with(deaf);
    inner.task("db").spawn(pending::<Unit>());
    inner.spawn(pending::<Unit>());
    settle().await;
    sleep(SECOND).await;

    let tree = outer.snapshot();
    assert_eq!(
        plain(&tree.to_string()),
        r#"group "api" #1 running 1s  live 1
├─ task "accept" #2 idle ≥ 1s
└─ group "request" #3 running 1s  live 1
   ├─ task "parse" #4 idle ≥ 1s
   └─ group "query" #5 running 1s  ends in 1m29s  live 1/1  queued 1  EVERY SLOT IS HELD BY A TASK THAT WAITS (≥ 1s): FOR A QUEUED ONE?
      ├─ task "db" #6 idle ≥ 1s  holds a slot
      └─ task #7 queued ≥ 0ms"#
    );
    assert_eq!(
        plain(&format!("{:#}", middle.snapshot())),
        r#"group "request" #1 running 1s  live 1
|- task "parse" #2 idle >= 1s
`- group "query" #3 running 1s  ends in 1m29s  live 1/1  queued 1  EVERY SLOT IS HELD BY A TASK THAT WAITS (>= 1s): FOR A QUEUED ONE?
   |- task "db" #4 idle >= 1s  holds a slot
   `- task #5 queued >= 0ms"#
    );
}

#[tokio::test(start_paused = true)]
async fn places_are_those_of_the_calls() {
    let _undisturbed = undisturbed().await;
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
    let _undisturbed = undisturbed().await;
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
    let set = line_of(&drawn, "set at ");
    assert_eq!(
        drawn.replace(&set, "HERE"),
        r#"context
└─ group "request" #1 cancelled 2.1s ago: deadline exceeded (1s, set at HERE)  live 3  1 cut short
   ├─ task "deaf" #2 IGNORES CANCEL (not polled since)
   ├─ task "slow" #3 SLOW TO STOP (polled 3 times since)
   └─ task "thread" #4 RUNS ON (on a blocking thread)"#
    );
    leave.send(()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn parents_failure_seen_from_a_grandchild_names_the_task_and_its_place() {
    let _undisturbed = undisturbed().await;
    let outer: Group = Group::new();
    let middle: Group = Group::with_context(outer.context());
    let inner: Group = Group::builder()
        .context(middle.context())
        .name("inner")
        .build();
    inner.task("deaf").spawn_with(deaf);
    settle().await;
    let failed = Unit::Err("connection refused".into());
    let spawned = line!() + 1;
    outer.task("db").spawn(async { failed });
    settle().await;

    let tree = inner.snapshot();
    let end = tree.groups().next().unwrap().end().expect("it has ended");
    assert_eq!(end.reason(), Reason::TaskFailed);
    assert_eq!(end.ago(), Some(Duration::ZERO));
    let drawn = tree.to_string();
    let column = line_of(&drawn, &format!("{}:{spawned}:", file!()));
    assert_eq!(
        plain(&drawn.replace(&format!("{}:{spawned}:{column}", file!()), "HERE")),
        r#"group "inner" #1 cancelled 0ms ago: task "db" failed: connection refused (spawned at HERE)  live 1
└─ task "deaf" #2 IGNORES CANCEL (not polled since)"#
    );
}

/// An end takes a group out of its parent's list.
#[tokio::test(start_paused = true)]
async fn ended_group_with_a_straggler_is_found_from_above_with_the_way_to_it() {
    let _undisturbed = undisturbed().await;
    let (ctx, _handle) = Context::background().with_cancel();
    let (request, cancel) = ctx.with_cancel();
    let (_beside, _other) = request.with_cancel();
    let deadline = request.with_timeout(SECOND);
    let group: Group = Group::builder().context(&deadline).name("request").build();
    group.task("deaf").spawn_with(deaf);
    let idle: Group = Group::builder().context(&deadline).name("idle").build();
    settle().await;
    cancel.cancel();

    let tree = ctx.tree();
    let items: Vec<_> = tree
        .items()
        .iter()
        .map(|item| (item.parent(), item.what()))
        .collect();
    let [root, above, between, found, last] = &items[..] else {
        panic!("{tree}");
    };
    assert!(matches!(root, (None, What::ContextSnapshot(context)) if context.end().is_none()));
    assert!(matches!(above, (Some(0), What::ContextSnapshot(context)) if context.end().is_some()));
    assert!(
        matches!(between, (Some(1), What::ContextSnapshot(context)) if context.end().is_some())
    );
    assert!(
        matches!(found, (Some(2), What::GroupSnapshot(group)) if group.name() == Some("request"))
    );
    assert!(matches!(last, (Some(3), What::TaskSnapshot(task)) if task.name() == Some("deaf")));
    // From the ended context itself, and from beside it.
    assert_eq!(deadline.tree().stragglers().count(), 1);
    assert_eq!(_beside.tree().items().len(), 1);
    drop(idle);
}

#[tokio::test(start_paused = true)]
async fn group_below_a_merged_context_is_shown_once_and_found_through_either_parent() {
    let _undisturbed = undisturbed().await;
    let (first, _one) = Context::background().with_cancel();
    let (second, end) = Context::background().with_cancel();
    let (top, _top) = first.with_cancel();
    let group: Group = Group::with_context(&top.merge(&second));
    group.task("deaf").spawn_with(deaf);
    settle().await;
    for ctx in [&first, &top, &second] {
        assert_eq!(ctx.tree().groups().count(), 1);
    }
    end.cancel();
    for ctx in [&first, &top, &second] {
        assert_eq!(ctx.tree().stragglers().count(), 1, "{}", ctx.tree());
    }
}

#[tokio::test(start_paused = true)]
async fn group_dropped_inside_another_is_shown_below_it_while_its_tasks_live() {
    let _undisturbed = undisturbed().await;
    let outer: Group = Group::builder().name("outer").build();
    let ctx = outer.context().clone();
    let (leave, left) = mpsc::channel::<()>();
    outer.spawn(async move {
        let inner: Group = Group::builder().context(&ctx).name("inner").build();
        let (tell, running) = mpsc::channel();
        inner.spawn_blocking(move |_| {
            tell.send(()).unwrap();
            left.recv().unwrap();
            Ok(())
        });
        running.recv().unwrap();
        Ok(())
    });
    settle().await;
    let tree = outer.snapshot();
    let names: Vec<_> = tree.groups().map(|group| group.name().unwrap()).collect();
    assert_eq!(names, ["outer", "inner"]);
    let inner = tree.groups().nth(1).unwrap();
    assert_eq!(inner.end().unwrap().reason(), Reason::GroupDropped);
    assert_eq!(tree.tasks().count(), 1);
    leave.send(()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn dump_has_every_group_once_below_the_one_above_it() {
    let _alone = alone().await;
    let name = "dump_has_every_group";
    let outer: Group = Group::builder().name(name).build();
    let mut deep = outer.context().clone();
    // Deeper than a group looks for one above when it is made.
    for _ in 0..20 {
        let (below, handle) = deep.with_cancel();
        handle.detach();
        deep = below;
    }
    let inner: Group = Group::builder().context(&deep).name("dumped below").build();
    inner.spawn_with(deaf);
    let apart: Group = Group::builder()
        .context(&Context::todo())
        .name("dumped apart")
        .build();
    let parent_of = |dump: &Snapshot, name: &str| {
        let is_it =
            |what: &What| matches!(what, What::GroupSnapshot(group) if group.name() == Some(name));
        let mut found = dump.items().iter().filter(|item| is_it(item.what()));
        let mut next = found.next().expect("it is there").parent();
        assert!(found.next().is_none(), "once");
        let mut above = Vec::new();
        while let Some(place) = next {
            let item = &dump.items()[place];
            if let What::GroupSnapshot(group) = item.what() {
                above.push(group.name().unwrap_or_default().to_owned());
            }
            next = item.parent();
        }
        above
    };
    let dump = dump_all();
    assert_eq!(parent_of(&dump, name), [""; 0]);
    assert_eq!(parent_of(&dump, "dumped apart"), [""; 0]);
    assert_eq!(parent_of(&dump, "dumped below"), [name]);
    // It has ended with a straggler, and what was above it is gone.
    settle().await;
    drop((outer, deep));
    let dump = Context::background().tree();
    assert!(dump.groups().all(|group| group.name() != Some(name)));
    assert_eq!(parent_of(&dump, "dumped below"), [""; 0]);
    drop((inner, apart));
    settle().await;
    let gone = dump_all();
    assert!(
        gone.groups()
            .all(|group| !group.name().unwrap_or_default().starts_with("dumped "))
    );
}

#[test]
fn chain_of_many_contexts_is_shown_and_drawn() {
    /// Each level of a recursion would take more than ten bytes of the test's two megabytes.
    const DEPTH: usize = 200_000;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (root, cancel) = Context::background().with_cancel();
        let mut ctx = root.clone();
        for _ in 0..DEPTH {
            let (below, handle) = ctx.with_cancel();
            handle.detach();
            ctx = below;
        }
        let group: Group = Group::with_context(&ctx);
        group.spawn_with(deaf);
        settle().await;
        let live = root.tree();
        assert_eq!(live.contexts().count(), DEPTH + 1);
        assert_eq!(live.to_string().lines().count(), 3);
        cancel.cancel();
        let ended = root.tree();
        assert_eq!(ended.contexts().count(), DEPTH + 1);
        assert_eq!(ended.stragglers().count(), 1);
        let drawn = ended.to_string();
        assert!(drawn.contains("IGNORES CANCEL"), "{drawn}");
    });
}

/// Each with a context beside it, so that every level is drawn.
#[tokio::test(start_paused = true)]
async fn deep_tree_is_drawn_to_some_depth_and_the_rest_counted() {
    let _undisturbed = undisturbed().await;
    let (root, _handle) = Context::background().with_cancel();
    let mut ctx = root.clone();
    let mut beside = Vec::new();
    for _ in 0..200 {
        let (left, right) = (ctx.with_cancel(), ctx.with_cancel());
        beside.push(left.clone());
        right.1.detach();
        ctx = right.0;
    }
    let drawn = root.tree().to_string();
    assert!(drawn.contains("└─ … 304 below"), "{drawn}");
    let lines = drawn.lines();
    assert!(lines.clone().count() < 110 && lines.clone().all(|line| line.len() < 400));
}

#[tokio::test(start_paused = true)]
async fn of_many_tasks_the_stragglers_and_the_oldest_are_drawn_and_all_are_kept() {
    let _undisturbed = undisturbed().await;
    let group: Group = Group::new();
    for number in 0..100 {
        group
            .task(format!("task {number}"))
            .spawn(pending::<Unit>());
    }
    let inner: Group = Group::builder()
        .context(group.context())
        .name("ended")
        .build();
    inner.spawn_with(deaf);
    settle().await;
    inner.cancel();
    let tree = group.snapshot();
    assert_eq!(tree.tasks().count(), 101);
    let drawn = plain(&tree.to_string().replace("more", "more  snapshot"));
    let lines: Vec<_> = drawn.lines().collect();
    assert_eq!(lines.len(), 1 + 20 + 1 + 1, "{drawn}");
    assert!(
        lines[1].contains("ended") && lines[2].contains("IGNORES CANCEL"),
        "{drawn}"
    );
    assert!(
        lines[3].contains("task 0") && lines[21].contains("task 18"),
        "{drawn}"
    );
    assert_eq!(lines[22], "└─ … 81 more");
}

#[tokio::test(start_paused = true)]
async fn limited_group_tells_who_holds_and_who_waits() {
    let _undisturbed = undisturbed().await;
    let group: Group = Group::builder().limit(2).build();
    group.task("a").spawn(pending::<Unit>());
    group.task("b").spawn_with(async |_| {
        // Goes on now and then.
        for _ in 0..1_000 {
            sleep(10 * SECOND).await;
        }
        Ok(())
    });
    group.task("c").spawn(pending::<Unit>());
    let spawner = group.spawner();
    let waits = line!() + 1;
    let slot = tokio::spawn(async move { spawner.slot().await.map(|_| ()) });
    settle().await;
    let tree = group.snapshot();
    let seen = tree.groups().next().unwrap();
    assert_eq!(
        (seen.limit(), seen.live(), seen.queued(), seen.slots_held()),
        (Some(2), 3, 1, 2)
    );
    let places: Vec<_> = seen
        .waits_for_slots()
        .iter()
        .map(|place| place.line())
        .collect();
    assert_eq!(places, [waits]);
    let holds: Vec<_> = tree.tasks().map(|task| task.holds_slot()).collect();
    assert_eq!(holds, [true, true, false]);
    assert_eq!(task(&tree, "c").state(), TaskState::Queued);
    assert_eq!(seen.stalled(), Some(Duration::ZERO));
    // One of the two goes on: then it is not known that nobody does.
    sleep(15 * SECOND).await;
    let stalled = |group: &Group| group.snapshot().groups().next().unwrap().stalled();
    assert_eq!(stalled(&group), None);
    sleep(3 * SECOND).await;
    assert_eq!(stalled(&group), Some(3 * SECOND));
    // With room for one more there is nobody to wait for.
    group.set_limit(Some(3));
    group.set_limit(Some(4));
    settle().await;
    assert_eq!(stalled(&group), None);
    slot.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn states_of_tasks_are_told_apart() {
    let _undisturbed = undisturbed().await;
    let group: Group = Group::new();
    let (tell, told) = mpsc::channel();
    let spawner = group.spawner();
    group.task("waits").spawn(pending::<Unit>());
    group.task("polled").spawn_with(async move |_| {
        yield_now().await;
        tell.send(spawner.snapshot()).unwrap();
        yield_now().await;
        pending::<Unit>().await
    });
    let before = group.snapshot();
    assert_eq!(task(&before, "waits").state(), TaskState::NotPolled);
    assert_eq!(
        (task(&before, "waits").polls(), task(&before, "waits").age()),
        (0, Duration::ZERO)
    );
    settle().await;
    // From inside the task's second poll.
    let inside = told.recv().unwrap();
    assert_eq!(
        task(&inside, "polled").state(),
        TaskState::Running(Duration::ZERO)
    );
    assert_eq!(task(&inside, "polled").polls(), 2);
    // It was listed before it first waited: nobody knows how long ago that was.
    assert_eq!(task(&inside, "waits").state(), TaskState::Waiting(None));

    sleep(SECOND).await;
    let first = group.snapshot();
    assert_eq!(
        task(&first, "waits").state(),
        TaskState::Waiting(Some(SECOND))
    );
    assert_eq!(task(&first, "waits").kind(), TaskKind::Dropped);
    assert_eq!(task(&first, "polled").kind(), TaskKind::Cooperative);
    assert_eq!(task(&first, "polled").polls(), 3);
    assert_eq!(task(&first, "polled").state(), TaskState::Waiting(None));
    assert_eq!(task(&first, "polled").age(), SECOND);
    sleep(SECOND).await;
    let second = group.snapshot();
    assert_eq!(
        task(&second, "polled").state(),
        TaskState::Waiting(Some(SECOND))
    );
    assert!(second.stragglers().next().is_none());
}

#[tokio::test(start_paused = true)]
async fn counts_of_ended_tasks_are_told() {
    let _undisturbed = undisturbed().await;
    let group: Group = Group::builder().isolated().build();
    group.spawn(async { Ok(()) });
    group.spawn(async { Ok(()) });
    group.spawn(async { Err::<(), _>("bad".into()) });
    group.spawn(pending::<Unit>()).abort();
    settle().await;
    let tree = group.snapshot();
    let seen = tree.groups().next().unwrap();
    let ended = seen.ended();
    assert_eq!((ended.completed, ended.failed, ended.aborted), (2, 1, 1));
    assert_eq!(
        (ended.panicked, ended.cut_short, ended.never_started),
        (0, 0, 0)
    );
    assert!(seen.is_isolated());
    assert!(
        tree.to_string()
            .contains("2 completed, 1 failed, 1 aborted"),
        "{tree}"
    );
}

/// Names that end a string, a line, a label, a tag, a comment.
const HOSTILE: [&str; 9] = [
    "say \"hi\"",
    "two\nlines\r\tand a tab",
    "[brackets] {braces} (parentheses) <b>tags</b> |pipes|",
    "\u{1b}[31mred\u{0}\u{202e}drawkcab",
    "back\\slash\\",
    "#quot; &amp; %% ;end",
    "`markdown` **bold** _it_",
    "end",
    "grün 組 🦀",
];

async fn hostile() -> Snapshot {
    let group: Group = Group::builder().name("x\"]\n\\").build();
    for name in HOSTILE {
        group.task(name).spawn(pending::<Unit>());
    }
    group.task("long ".repeat(2_000)).spawn_with(deaf);
    settle().await;
    let inner: Group = Group::with_context(group.context());
    inner.spawn_with(deaf);
    settle().await;
    inner.cancel_with("why\n\"quoted\" <i>\u{1b}");
    group.snapshot()
}

#[tokio::test(start_paused = true)]
async fn hostile_names_stay_on_their_lines_in_the_tree() {
    let _undisturbed = undisturbed().await;
    let tree = hostile().await;
    let items = tree.items().len();
    for drawn in [tree.to_string(), format!("{tree:#}")] {
        assert_eq!(drawn.lines().count(), items, "{drawn}");
        assert!(
            drawn.chars().all(|char| char == '\n' || !char.is_control()),
            "{drawn}"
        );
        assert!(!drawn.contains('\u{202e}'));
        assert!(
            drawn.lines().all(|line| line.chars().count() < 500),
            "{drawn}"
        );
        assert!(drawn.contains(r#"task "say \"hi\"""#), "{drawn}");
        assert!(drawn.contains(r#"why\n"quoted" <i>\u{1b}"#), "{drawn}");
    }
    assert!(format!("{tree:#}").is_ascii());
    // Whole in the data.
    let names = tree.tasks().filter_map(|task| task.name());
    assert_eq!(names.map(str::len).max(), Some(10_000));
    assert_eq!(task(&tree, HOSTILE[3]).name(), Some(HOSTILE[3]));
}

#[tokio::test(start_paused = true)]
async fn hostile_names_are_harmless_in_dot_and_mermaid() {
    let _undisturbed = undisturbed().await;
    let tree = hostile().await;
    let items = tree.items().len();
    let dot = tree.to_dot();
    // A header of three lines, a node for each item, an edge for each but the first, and the end.
    assert_eq!(dot.lines().count(), 3 + items + items - 1 + 1, "{dot}");
    for line in dot.lines().filter(|line| line.contains("label=")) {
        let (_, label) = line.split_once("label=\"").unwrap();
        let mut rest = label.chars();
        // To the quote that ends it: no other is bare.
        while let Some(char) = rest.next() {
            match char {
                '\\' => drop(rest.next()),
                '"' => break,
                _ => {}
            }
        }
        let rest = rest.as_str();
        assert!(
            rest == "];" || rest.starts_with(", ") && rest.ends_with("];"),
            "{line}"
        );
    }
    let mermaid = tree.to_mermaid();
    assert_eq!(
        mermaid.lines().count(),
        1 + items + items - 1 + 3,
        "{mermaid}"
    );
    for line in mermaid.lines().filter(|line| line.contains(":::")) {
        let (head, label) = line.split_once("[\"").unwrap();
        let (label, class) = label.rsplit_once("\"]:::").unwrap();
        let is_word = |text: &str| text.trim().chars().all(|char| char.is_ascii_alphanumeric());
        assert!(is_word(head) && is_word(class), "{line}");
        let label = label.replace("<br/>", "");
        assert!(
            !label.contains(['"', '<', '>', '`', '[', ']', '&', '\\', '|']),
            "{line}"
        );
    }
}

/// `dot` itself, where it is installed.
#[tokio::test(start_paused = true)]
async fn graphviz_takes_the_drawing() {
    let _undisturbed = undisturbed().await;
    let dot = hostile().await.to_dot();
    let started = std::process::Command::new("dot")
        .arg("-Tsvg")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn();
    let Ok(mut child) = started else {
        eprintln!("skipped: `dot` is not installed (Debian's package graphviz)");
        return;
    };
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, dot.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("</svg>"));
}

#[cfg(feature = "serde")]
#[tokio::test(start_paused = true)]
async fn json_round_trips_and_tells_its_version() {
    let _undisturbed = undisturbed().await;
    let tree = hostile().await;
    let json = serde_json::to_string(&tree).unwrap();
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["format_version"], 1);
    let items = value["items"].as_array().unwrap();
    assert_eq!(items.len(), tree.items().len());
    assert_eq!(items[1]["parent"], 0);
    assert_eq!(items[1]["what"]["task"]["name"], HOSTILE[0]);
    let back: Snapshot = serde_json::from_str(&json).unwrap();
    assert_eq!(serde_json::to_string(&back).unwrap(), json);
    assert_eq!(back.to_string(), tree.to_string());
    assert_eq!(
        (back.to_dot(), back.to_mermaid()),
        (tree.to_dot(), tree.to_mermaid())
    );
}

#[cfg(feature = "serde")]
#[test]
fn json_of_another_version_or_in_no_order_is_refused() {
    let read = |json: &str| {
        serde_json::from_str::<Snapshot>(json)
            .map(|_| ())
            .unwrap_err()
            .to_string()
    };
    assert!(read(r#"{"format_version":2,"items":[]}"#).contains("format 2"));
    let task = r#"{"parent":0,"what":{"context":{"place":null,"remaining":null,"end":null}}}"#;
    let json = format!(r#"{{"format_version":1,"items":[{task}]}}"#);
    assert!(read(&json).contains("before its parent"));
}

/// A cause whose text nobody asks for is not asked.
#[tokio::test(start_paused = true)]
async fn causes_are_told_when_the_tree_is_drawn_and_may_panic() {
    let _undisturbed = undisturbed().await;
    #[derive(Debug)]
    struct Cause(mpsc::Sender<()>);
    impl std::fmt::Display for Cause {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            self.0.send(()).unwrap();
            panic!("no text");
        }
    }
    impl std::error::Error for Cause {}
    let (tell, told) = mpsc::channel();
    let group: Group = Group::new();
    group.spawn_with(deaf);
    settle().await;
    group.cancel_with(Cause(tell));
    let tree = group.snapshot();
    assert!(told.try_recv().is_err(), "not yet");
    assert!(tree.to_string().contains("whose text panics"), "{tree}");
    assert!(told.try_recv().is_ok());
}

#[tokio::test(start_paused = true)]
async fn diagnosis_is_that_of_the_task_and_not_its_neighbours() {
    let _undisturbed = undisturbed().await;
    let group: Group = Group::new();
    let (wake, woken) = tokio::sync::oneshot::channel::<()>();
    group.task("woken").spawn_with(async |_| {
        let _ = woken.await;
        pending::<Unit>().await
    });
    group.task("deaf").spawn_with(deaf);
    settle().await;
    group.cancel();
    let told = |group: &Group, name: &str| task(&group.snapshot(), name).diagnosis();
    assert_eq!(told(&group, "woken"), Some(Diagnosis::NotPolledSince));
    wake.send(()).unwrap();
    settle().await;
    assert_eq!(
        told(&group, "woken"),
        Some(Diagnosis::PolledStillRunning(1))
    );
    assert_eq!(told(&group, "deaf"), Some(Diagnosis::NotPolledSince));
}

/// Who waits for a slot has a place in the registry, and no polls to be counted.
#[tokio::test(start_paused = true)]
async fn many_wait_for_slots_during_the_end_then_only_the_task_is_a_straggler() {
    let _undisturbed = undisturbed().await;
    let group: Group = Group::builder().limit(1).build();
    group.spawn_with(deaf);
    let waiting: Vec<_> = (0..100)
        .map(|_| {
            let spawner = group.spawner();
            tokio::spawn(async move { spawner.slot().await.map(drop) })
        })
        .collect();
    settle().await;
    let tree = group.snapshot();
    assert_eq!(tree.groups().next().unwrap().waits_for_slots().len(), 100);
    group.cancel();
    assert_eq!(group.snapshot().stragglers().count(), 1);
    for waiting in waiting {
        assert!(waiting.await.unwrap().is_err());
    }
}
