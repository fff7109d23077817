//! Snapshots of work that is no task of its own: batches, with their workers and the items in hand, and scopes.

use std::future::{Future, pending, poll_fn};
use std::sync::{Arc, Barrier, mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use errgroup::{
    BatchSnapshot, BoxError, Context, Group, Reason, Scope, ScopeSnapshot, Snapshot, SourceState,
    Spawner, batch, batch_stream, dump_all, scope,
};
use futures::{FutureExt, StreamExt, stream};
use tokio::task::yield_now;
use tokio::time::sleep;

use crate::group_support::current_thread;
use crate::snapshot::{alone, plain, undisturbed};

type Unit = Result<(), BoxError>;

const SECOND: Duration = Duration::from_secs(1);

fn the_batch(tree: &Snapshot) -> &BatchSnapshot {
    let mut batches = tree.batches();
    let found = batches
        .next()
        .unwrap_or_else(|| panic!("no batch in\n{tree}"));
    assert!(batches.next().is_none(), "{tree}");
    found
}

fn the_scope(tree: &Snapshot) -> &ScopeSnapshot {
    let mut scopes = tree.scopes();
    let found = scopes
        .next()
        .unwrap_or_else(|| panic!("no scope in\n{tree}"));
    assert!(scopes.next().is_none(), "{tree}");
    found
}

/// Lets whoever is woken run.
async fn settle() {
    for _ in 0..8 {
        yield_now().await;
    }
}

/// Even items are done at once, odd ones never.
async fn odd_ones_wait(_ctx: Context, item: usize) -> Unit {
    match item % 2 {
        0 => Ok(()),
        _ => pending().await,
    }
}

#[tokio::test(start_paused = true)]
async fn batch_is_drawn_with_its_items_in_hand() {
    let _undisturbed = undisturbed().await;
    let group: Group = Group::builder().name("api").build();
    group.task("caller").spawn_with(async |ctx| {
        let timed = ctx.with_timeout(90 * SECOND);
        batch(0..100, 8)
            .name("fetch")
            .context(&timed)
            .for_each(odd_ones_wait)
            .await
    });
    settle().await;
    sleep(SECOND).await;
    let tree = group.snapshot();
    assert_eq!(
        plain(&tree.to_string()),
        r#"group "api" #1 running 1s  live 1
├─ task "caller" #2 idle ≥ 1s
└─ batch "fetch" #3 running  ends in 1m29s  items 8/8  waiting: [1], [3], [5], [7], [9], … 3 more  8 done  workers 1 (1 idle)  source ready"#
    );
    assert_eq!(
        plain(&format!("{tree:#}")).lines().last(),
        Some(
            r#"`- batch "fetch" #3 running  ends in 1m29s  items 8/8  waiting: [1], [3], [5], [7], [9], ... 3 more  8 done  workers 1 (1 idle)  source ready"#
        )
    );
    let seen = the_batch(&tree);
    assert_eq!(
        (seen.limit(), seen.live(), seen.done(), seen.unstarted()),
        (8, 8, 8, 0)
    );
    assert_eq!(seen.waiting(), [1, 3, 5, 7, 9, 11, 13, 15]);
    assert_eq!((seen.workers(), seen.idle(), seen.unyielded()), (1, 1, 0));
    assert_eq!(seen.source(), SourceState::Ready);
    assert_eq!(seen.place().file(), file!());
    assert_eq!(
        (seen.name(), seen.remaining()),
        (Some("fetch"), Some(89 * SECOND))
    );
    assert!(seen.end().is_none());
    // In the other drawings, too.
    for drawn in [tree.to_dot(), tree.to_mermaid()] {
        assert!(
            drawn.contains("items 8/8") && drawn.contains("8 done"),
            "{drawn}"
        );
    }
}

#[cfg(feature = "serde")]
#[tokio::test(start_paused = true)]
async fn batch_and_scope_round_trip_as_json() {
    let _undisturbed = undisturbed().await;
    let group: Group = Group::new();
    group.spawn_with(async |ctx| {
        scope(&ctx, async |scope: Scope| {
            scope.spawn(pending::<Unit>());
            let batch = batch(0..3, 2).name("a \"b\"\n]").context(scope.context());
            batch.for_each(odd_ones_wait).await
        })
        .await
    });
    settle().await;
    let tree = group.snapshot();
    let json = serde_json::to_string(&tree).unwrap();
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    let whats = value["items"].as_array().unwrap();
    let of = |kind: &str| {
        let mut found = whats.iter().map(|item| &item["what"][kind]);
        found.find(|what| !what.is_null()).unwrap()
    };
    assert_eq!(
        (&of("scope")["live"], &of("scope")["started"]),
        (&2.into(), &2.into())
    );
    assert_eq!(of("batch")["waiting"], serde_json::json!([1]));
    let back: Snapshot = serde_json::from_str(&json).unwrap();
    assert_eq!(serde_json::to_string(&back).unwrap(), json);
    assert_eq!(back.to_string(), tree.to_string());
}

#[test]
fn items_block_two_threads_then_the_batch_has_two_workers_and_none_waits() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let (ctx, _cancel) = Context::background().with_cancel();
    let (begun, go) = (Arc::new(Barrier::new(3)), Arc::new(Barrier::new(3)));
    let barriers = (begun.clone(), go.clone());
    let job = batch(0..2, 2)
        .context(&ctx)
        .name("busy")
        .for_each(move |_, _| {
            let (begun, go) = barriers.clone();
            async move {
                begun.wait();
                go.wait();
                Ok::<_, BoxError>(())
            }
        });
    let job = runtime.spawn(job);
    begun.wait();
    let tree = ctx.tree();
    go.wait();
    runtime.block_on(job).unwrap().unwrap();
    let seen = the_batch(&tree);
    assert_eq!((seen.workers(), seen.idle(), seen.live()), (2, 0, 2));
    assert_eq!(seen.waiting(), [0; 0]);
    // The second is a task of a group below.
    let parents = tree.tasks().count();
    assert_eq!((parents, tree.groups().count()), (1, 1), "{tree}");
    assert_eq!(tree.tasks().next().unwrap().name(), Some("busy"));
    // What that worker gives its items is no context of its own: `ctx`, the batch, the group and its task.
    assert_eq!(tree.to_string().lines().count(), 4, "{tree}");
    assert_eq!(ctx.tree().batches().count(), 0);
}

/// From inside the source, too, which a worker is asking then.
#[tokio::test]
async fn source_is_told_from_one_that_waits_is_over_or_is_being_asked() {
    let _undisturbed = undisturbed().await;
    let (ctx, _cancel) = Context::background().with_cancel();
    let (send, mut items) = tokio::sync::mpsc::unbounded_channel::<usize>();
    let (tell, told) = mpsc::channel();
    let inside = ctx.clone();
    let source = stream::poll_fn(move |cx| {
        let polled = items.poll_recv(cx);
        tell.send(the_batch(&inside.tree()).source()).unwrap();
        polled
    });
    let mut job = Box::pin(
        batch_stream(source, 2)
            .context(&ctx)
            .for_each(odd_ones_wait),
    );
    let source = || the_batch(&ctx.tree()).source();
    let mut poll = || assert!((&mut job).now_or_never().is_none());
    poll();
    assert_eq!(source(), SourceState::Waiting);
    assert!(ctx.tree().to_string().contains("source waits"));
    assert_eq!(told.try_recv(), Ok(SourceState::Pulled));
    (0..4).for_each(|item| send.send(item).unwrap());
    assert_eq!(source(), SourceState::Ready);
    poll();
    // No room for a third.
    assert_eq!(source(), SourceState::Ready);
    let (few, done) = (the_batch(&ctx.tree()).live(), the_batch(&ctx.tree()).done());
    assert_eq!((few, done), (2, 2));
}

#[tokio::test]
async fn items_run_dry_then_the_source_is_over() {
    let _undisturbed = undisturbed().await;
    let (ctx, _cancel) = Context::background().with_cancel();
    let mut job = Box::pin(batch(0..2, 3).context(&ctx).for_each(odd_ones_wait));
    assert!((&mut job).now_or_never().is_none());
    let tree = ctx.tree();
    assert_eq!(the_batch(&tree).source(), SourceState::Over);
    assert_eq!((the_batch(&tree).live(), the_batch(&tree).done()), (1, 1));
    assert!(tree.to_string().contains("source over"), "{tree}");
    drop(job);
    assert!(ctx.tree().batches().next().is_none());
}

#[tokio::test]
async fn consumer_takes_nothing_then_the_results_that_wait_for_it_are_told() {
    let _undisturbed = undisturbed().await;
    let (ctx, _cancel) = Context::background().with_cancel();
    let mut results = batch(0..10, 4)
        .context(&ctx)
        .map_stream(|_, item| async move { Ok::<_, BoxError>(item) })
        .boxed();
    assert_eq!(results.next().await.unwrap().unwrap(), 0);
    settle().await;
    let tree = ctx.tree();
    let seen = the_batch(&tree);
    assert_eq!((seen.live(), seen.unyielded()), (0, 4), "{tree}");
    assert!(
        tree.to_string().contains("4 not taken by its consumer"),
        "{tree}"
    );
}

/// The batch has ended, and one of its items goes on inside its poll.
#[tokio::test(start_paused = true)]
async fn batch_ended_during_the_poll_of_an_item_then_it_is_shown_until_it_returns() {
    let _alone = alone().await;
    let (ctx, cancel) = Context::background().with_cancel();
    let (ctx, cancel) = (&ctx, &Arc::new(std::sync::Mutex::new(Some(cancel))));
    let (tell, told) = mpsc::channel();
    let (keep, kept) = mpsc::channel();
    let (own, cancel) = (ctx.clone(), cancel.clone());
    let result = batch(0..3, 2)
        .context(ctx)
        .for_each(move |ctx, item| {
            let (own, cancel, tell, keep) =
                (own.clone(), cancel.clone(), tell.clone(), keep.clone());
            poll_fn(move |cx| {
                keep.send((cx.waker().clone(), ctx.clone())).unwrap();
                if item == 0 {
                    return Poll::Pending;
                }
                drop(cancel.lock().unwrap().take());
                tell.send((own.tree(), dump_all())).unwrap();
                Poll::Ready(Ok::<_, BoxError>(()))
            })
        })
        .await;
    assert!(result.is_err());
    let (tree, all) = told.try_recv().unwrap();
    let seen = the_batch(&tree);
    assert_eq!(seen.end().unwrap().reason(), Reason::HandleDropped);
    assert_eq!(seen.end().unwrap().ago(), Some(Duration::ZERO));
    assert_eq!((seen.live(), seen.waiting()), (2, &[0][..]));
    assert!(tree.to_string().contains("cancelled 0ms ago"), "{tree}");
    assert!(all.batches().any(|batch| batch.id() == seen.id()));
    // The waker of an item that was cut short outlives the batch, and its context: they do not keep it in the tree.
    let _kept = kept.try_recv().unwrap();
    assert_eq!(ctx.tree().batches().count(), 0);
    assert!(!dump_all().batches().any(|batch| batch.id() == seen.id()));
}

/// A source that blocks its thread is what keeps the batch: it is shown, although no item is in hand.
#[test]
fn batch_ended_while_its_source_blocks_then_it_is_shown_until_that_returns() {
    let (ctx, cancel) = Context::background().with_cancel();
    let (tell, begun) = mpsc::channel();
    let (leave, left) = mpsc::channel::<()>();
    let items = std::iter::from_fn(move || {
        tell.send(()).unwrap();
        left.recv().unwrap();
        None::<usize>
    });
    let below = ctx.clone();
    let caller = thread::spawn(move || {
        let batch = batch(items, 4).context(&below);
        current_thread().block_on(batch.for_each(odd_ones_wait))
    });
    begun.recv().unwrap();
    cancel.cancel();
    let tree = ctx.tree();
    let shown = the_batch(&tree);
    assert_eq!((shown.source(), shown.live()), (SourceState::Pulled, 0));
    assert!(shown.end().is_some());
    leave.send(()).unwrap();
    // Nothing was left of it, so it is complete.
    caller.join().unwrap().unwrap();
    assert!(ctx.tree().batches().next().is_none());
}

#[tokio::test]
async fn batch_and_scope_without_a_context_above_are_found_by_a_dump() {
    let _alone = alone().await;
    let name = "found by a dump";
    let job = batch(0..2, 2).name(name).for_each(odd_ones_wait);
    let mut job = Box::pin(job);
    assert!((&mut job).now_or_never().is_none());
    let (keep, kept) = mpsc::channel();
    let line = line!() + 1;
    let mut scope = Box::pin(scope(&Context::background(), async |scope: Scope| {
        keep.send(scope).unwrap();
        pending::<Unit>().await
    }));
    assert!((&mut scope).now_or_never().is_none());
    let is_here = |tree: &Snapshot| {
        let mut scopes = tree.scopes().map(ScopeSnapshot::place);
        (
            tree.batches().any(|batch| batch.name() == Some(name)),
            scopes.any(|place| (place.file(), place.line()) == (file!(), line)),
        )
    };
    assert_eq!(is_here(&dump_all()), (true, true));
    drop((job, scope));
    assert_eq!(is_here(&dump_all()), (false, false));
    // Although somebody has its handle.
    drop(kept.recv().unwrap());
}

/// A group below a batch relies on it to be found.
#[tokio::test]
async fn group_in_an_item_of_a_batch_without_a_context_above_is_found() {
    let _alone = alone().await;
    let mut job = Box::pin(batch([()], 1).name("item with a group").for_each(
        |ctx, ()| async move {
            let group: Group = Group::builder().context(&ctx).name("in an item").build();
            group.spawn(pending::<Unit>());
            pending::<Unit>().await
        },
    ));
    assert!((&mut job).now_or_never().is_none());
    let tree = dump_all();
    let items = tree.items();
    let place = items.iter().position(|item| {
        matches!(item.what(), errgroup::What::GroupSnapshot(group) if group.name() == Some("in an item"))
    });
    let above = &items[items[place.unwrap()].parent().unwrap()];
    assert!(
        matches!(above.what(), errgroup::What::BatchSnapshot(batch) if batch.name() == Some("item with a group")),
        "{tree}"
    );
}

#[tokio::test(start_paused = true)]
async fn scope_is_drawn_with_how_many_tasks_it_has() {
    let _undisturbed = undisturbed().await;
    let group: Group = Group::builder().name("api").build();
    group.task("caller").spawn_with(async |ctx| {
        scope(&ctx.with_timeout(9 * SECOND), async |scope: Scope| {
            for number in 0..5 {
                scope.spawn(odd_ones_wait(scope.context().clone(), number));
            }
            pending::<Unit>().await
        })
        .await
    });
    settle().await;
    sleep(SECOND).await;
    let tree = group.snapshot();
    assert_eq!(
        plain(&tree.to_string()).lines().last(),
        Some("└─ scope #3 running 1s  ends in 8s  live 3  started 6")
    );
    let seen = the_scope(&tree);
    assert_eq!((seen.live(), seen.started()), (3, 6));
    assert_eq!((seen.age(), seen.remaining()), (SECOND, Some(8 * SECOND)));
    assert!(seen.end().is_none() && seen.place().file() == file!());
    // Those of a scope are no group's tasks.
    assert_eq!((tree.groups().count(), tree.tasks().count()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn scope_ended_during_the_poll_of_a_task_then_it_is_shown_until_it_returns() {
    let _undisturbed = undisturbed().await;
    let (ctx, cancel) = Context::background().with_cancel();
    let (tell, told) = mpsc::channel();
    let result: Unit = scope(&ctx, async |scope: Scope| {
        yield_now().await;
        cancel.cancel();
        tell.send((ctx.tree(), scope.context().tree())).unwrap();
        Ok(())
    })
    .await;
    drop(result);
    let (tree, own) = told.try_recv().unwrap();
    for tree in [&tree, &own] {
        assert_eq!(the_scope(tree).live(), 1);
        assert_eq!(the_scope(tree).end().unwrap().ago(), Some(Duration::ZERO));
    }
    assert_eq!(ctx.tree().scopes().count(), 0);
}

/// Whoever is told of an end may look at the tree: the groups below are told later, and are in it.
#[tokio::test(start_paused = true)]
async fn callback_of_an_end_looks_at_the_tree_then_the_groups_below_are_in_it() {
    let _alone = alone().await;
    let (ctx, cancel) = Context::background().with_cancel();
    let outer: Group = Group::builder().context(&ctx).name("outer").build();
    let inner: Group = Group::builder()
        .context(outer.context())
        .name("inner")
        .build();
    outer
        .task("first")
        .spawn_with(async |_| pending::<Unit>().await);
    inner
        .task("second")
        .spawn_with(async |_| pending::<Unit>().await);
    settle().await;
    let (tell, told) = mpsc::channel();
    let looks = |at: &Context| {
        let (tell, top) = (tell.clone(), ctx.clone());
        at.on_done(move |_| tell.send((top.tree(), dump_all())).unwrap())
    };
    let _hooks = [looks(&ctx), looks(outer.context())];
    cancel.cancel();
    for (tree, all) in told.try_iter().collect::<Vec<_>>() {
        let names: Vec<_> = tree.groups().filter_map(|group| group.name()).collect();
        assert_eq!(names, ["outer", "inner"], "{tree}");
        let names: Vec<_> = tree.tasks().filter_map(|task| task.name()).collect();
        assert_eq!(names, ["first", "second"], "{tree}");
        assert!(all.groups().any(|group| group.name() == Some("inner")));
    }
}

/// Its waker tells how a tree is when it is woken.
struct Looks(Context, mpsc::Sender<Snapshot>);

impl std::task::Wake for Looks {
    fn wake(self: Arc<Self>) {
        self.1.send(self.0.tree()).unwrap();
    }
}

/// As a callback: the first to be woken is a task of the outer group.
#[tokio::test(start_paused = true)]
async fn task_woken_by_an_end_looks_at_the_tree_then_all_groups_are_in_it() {
    let _undisturbed = undisturbed().await;
    let (ctx, cancel) = Context::background().with_cancel();
    let (tell, told) = mpsc::channel();
    let waker = std::task::Waker::from(Arc::new(Looks(ctx.clone(), tell)));
    let mut run = Box::pin(Group::run(&ctx, async |group: Spawner<BoxError>| {
        let inner: Group = Group::builder()
            .context(group.context())
            .name("inner")
            .build();
        inner
            .task("second")
            .spawn_with(async |_| pending::<Unit>().await);
        group
            .task("first")
            .spawn_with(async |_| pending::<Unit>().await);
        pending::<Unit>().await
    }));
    let mut cx = std::task::Context::from_waker(&waker);
    assert!(run.as_mut().poll(&mut cx).is_pending());
    settle().await;
    told.try_iter().for_each(drop);
    cancel.cancel();
    let trees: Vec<_> = told.try_iter().collect();
    assert!(!trees.is_empty(), "the body was woken");
    for tree in trees {
        let names: Vec<_> = tree.tasks().filter_map(|task| task.name()).collect();
        assert_eq!(
            (tree.groups().count(), &names[..]),
            (2, &["first", "second"][..]),
            "{tree}"
        );
    }
}

/// Nobody listens to the group's own context, which ends alone.
#[tokio::test(start_paused = true)]
async fn body_woken_by_the_failure_of_a_task_looks_at_the_tree_then_its_group_is_in_it() {
    let _undisturbed = undisturbed().await;
    let (ctx, _cancel) = Context::background().with_cancel();
    let (tell, told) = mpsc::channel();
    let waker = std::task::Waker::from(Arc::new(Looks(ctx.clone(), tell)));
    let mut run = Box::pin(Group::run(&ctx, async |group: Spawner<BoxError>| {
        group.spawn(async { Err::<(), _>("bad".into()) });
        pending::<Unit>().await
    }));
    let mut cx = std::task::Context::from_waker(&waker);
    assert!(run.as_mut().poll(&mut cx).is_pending());
    settle().await;
    let trees: Vec<_> = told.try_iter().collect();
    assert!(!trees.is_empty(), "the body was woken");
    for tree in trees {
        assert_eq!(tree.groups().count(), 1, "{tree}");
    }
}
