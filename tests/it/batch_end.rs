//! G6, G7, G9, G17 of batches: the parent's end, deadlines, and a future or stream that is dropped.

use std::sync::Arc;
use std::time::Duration;

use errgroup::{BoxError, Context, ContextError, Group, Reason, batch, batch_stream};
use futures::{StreamExt, stream};
use tokio::time::Instant;

use crate::batch_support::*;
use crate::group_support::*;
use crate::support::{Log, advance_without_timers, ms, no_leaks, panic_text};

async fn ok(_ctx: Context, _item: usize) -> Unit {
    Ok(())
}

fn why(error: BoxError) -> ContextError {
    *error.downcast().expect("the context's end")
}

fn ended() -> Context {
    let (parent, handle) = Context::background().with_cancel();
    handle.cancel_with("closing time");
    parent
}

on_both_runtimes! {
    async fn g9_parent_ended_before_then_nothing_is_pulled_and_the_error_says_why() {
        for way in WAYS {
            let (items, pulled) = counted(10);
            let end = way.run(batch(items, 2).context(&ended()), ok).await;
            assert!(why(end.unwrap_err()).to_string().contains("closing time"), "{way:?}");
            assert_eq!(pulled.get(), 0, "{way:?}");
        }
    }

    async fn g7_parent_ended_before_and_the_source_is_empty_then_ok() {
        for way in WAYS {
            let empty = std::iter::empty();
            assert!(way.run(batch(empty, 2).context(&ended()), ok).await.is_ok(), "{way:?}");
        }
    }

    async fn g7_parent_ends_then_the_items_are_cut_short_and_no_other_starts() {
        for way in WAYS {
            let (parent, handle) = Context::background().with_cancel();
            let (items, pulled) = counted(100);
            let inside = Arc::new(Gauge::default());
            let gauge = inside.clone();
            let run = way.run(batch(items, 4).context(&parent), move |_, _| {
                holding(gauge.enter(), pend())
            });
            let run = tokio::spawn(async move { (run.await, inside.now()) });
            until(|| pulled.get() == 4).await;
            handle.cancel_with("closing time");
            let (end, inside) = run.await.unwrap();
            assert!(why(end.unwrap_err()).to_string().contains("closing time"), "{way:?}");
            assert_eq!((inside, pulled.get()), (0, 4), "{way:?}");
        }
    }

    async fn g7_parent_ends_while_the_workers_wait_for_the_source_then_the_error_says_why() {
        for way in WAYS {
            let (parent, handle) = Context::background().with_cancel();
            let (feed, stream) = feed();
            let gates = Gates::new(3);
            (0..3).for_each(|item| feed.put(item));
            gates.open_all();
            let batch = batch_stream(stream, 2).context(&parent);
            let run = tokio::spawn(way.run(batch, pass(&gates)));
            until(|| gates.done() == 3 && feed.polls() >= 4).await;
            handle.cancel();
            assert_eq!(why(run.await.unwrap().unwrap_err()).reason(), Reason::Cancelled);
            // The stream's waker outlives the batch.
            feed.send(3);
            feed.close();
        }
    }

    async fn g7_last_item_is_done_as_the_parent_ends_then_ok() {
        for (way, limit) in WAYS.into_iter().flat_map(|way| [1, 2, 5].map(|limit| (way, limit))) {
            if way == Way::Stream && limit > 1 {
                // Another worker may wait for room at that very moment.
                continue;
            }
            let (parent, handle) = Context::background().with_cancel();
            let handle = Arc::new(handle);
            let left = Tally::default();
            let run = way.run(batch(0..9, limit).context(&parent), move |_, _| {
                let (handle, left) = (handle.clone(), left.clone());
                async move {
                    if left.add() == 8 {
                        handle.cancel();
                    }
                    Ok::<_, BoxError>(())
                }
            });
            assert!(run.await.is_ok(), "{way:?}, limit {limit}");
            assert!(parent.is_done());
        }
    }

    async fn g6_future_dropped_midway_then_all_is_cut_short_and_nothing_is_pulled() {
        for way in WAYS {
            let (items, pulled) = counted(100);
            let (inside, seen) = (Arc::new(Gauge::default()), Log::new());
            let (gauge, log) = (inside.clone(), seen.clone());
            let mut run = Box::pin(way.run(batch(items, 4), move |ctx: Context, _| {
                let log = log.clone();
                let tell = OnDrop::new(move || log.push(ctx.err().map(|end| end.reason())));
                holding((gauge.enter(), tell), pend())
            }));
            assert!(poll(&mut run).is_pending());
            until(|| inside.now() == 4).await;
            drop(run);
            until(|| tasks() == 0).await;
            assert_eq!((inside.now(), pulled.get()), (0, 4), "{way:?}");
            assert_eq!(seen.take(), [Some(Reason::GroupDropped); 4], "{way:?}");
        }
    }

    async fn g6_stream_dropped_midway_then_nothing_else_is_pulled_and_the_source_is_gone() {
        let alive = Arc::new(());
        let count = alive.clone();
        let pulled = Tally::default();
        let tally = pulled.clone();
        let items = (0..100).map(move |_| (tally.add(), count.clone()));
        let mut results = Box::pin(batch(items, 4).map_stream(|_, item| async move {
            Ok::<_, BoxError>(item)
        }));
        for _ in 0..3 {
            results.next().await.unwrap().unwrap();
        }
        drop(results);
        until(|| tasks() == 0 && Arc::strong_count(&alive) == 1).await;
        assert!((3..=3 + 4).contains(&pulled.get()));
    }

    async fn group_of_the_batch_fails_then_the_batch_is_cut_short() {
        for way in WAYS {
            let group: Group = Group::new();
            let inside = Arc::new(Gauge::default());
            let gauge = inside.clone();
            let task = group.spawn_with(move |ctx| async move {
                way.run(batch(0..9, 3).context(&ctx), move |_, _| {
                    holding(gauge.enter(), pend())
                })
                .await
            });
            until(|| inside.now() == 3).await;
            drop(group.spawn(fail("sibling")));
            assert_eq!(group.await.unwrap_err().to_string(), "sibling");
            assert_eq!(inside.now(), 0);
            assert_eq!(cancelled(task).await.reason(), Reason::TaskFailed);
        }
    }

    async fn batch_in_a_group_fails_then_that_is_its_tasks_error() {
        let group: Group = Group::new();
        let ctx = group.context().clone();
        drop(group.task("index").spawn_with(|ctx| async move {
            batch(0..9, 3).context(&ctx).for_each(|_, _| fail("boom")).await
        }));
        assert_eq!(group.await.unwrap_err().to_string(), "boom");
        assert_eq!(ctx.err().unwrap().task(), Some("index"));
        no_leaks(&ctx);
    }

    async fn item_sees_values_and_deadline_of_the_parent_and_a_context_that_ends_with_the_batch() {
        let parent = Context::background().with_value(7_u32).with_timeout(Duration::from_secs(60));
        let deadline = parent.deadline();
        let run = batch(0..1, 3).context(&parent).map(move |ctx, _| async move {
            assert_eq!((ctx.value::<u32>(), ctx.deadline()), (Some(&7), deadline));
            Ok::<_, BoxError>(ctx)
        });
        let ctx = run.await.unwrap().remove(0);
        assert_eq!(ctx.err().unwrap().reason(), Reason::GroupFinished);
        assert!(!parent.is_done());
    }
}

/// However the last item falls together with the workers' turns.
#[test]
fn g7_last_of_many_ready_items_is_done_as_the_parent_ends_then_ok() {
    for way in WAYS {
        on_current_thread(async move {
            for n in 1..300 {
                let (parent, handle) = Context::background().with_cancel();
                let handle = Arc::new(handle);
                let run = way.run(batch(0..n, 1).context(&parent), move |_, item| {
                    if item == n - 1 {
                        handle.cancel();
                    }
                    std::future::ready(Ok::<_, BoxError>(()))
                });
                assert!(run.await.is_ok(), "{way:?}: {n} items");
            }
        });
    }
}

/// A worker that waits for room in the window has nothing left to do.
#[test]
fn g7_all_items_are_done_and_the_consumer_is_slow_as_the_parent_ends_then_ok() {
    on_current_thread(async {
        let (parent, handle) = Context::background().with_cancel();
        let gates = Gates::new(3);
        let batch = batch(0..3, 2).context(&parent);
        let mut results = Box::pin(batch.map_stream(pass(&gates)));
        assert!(take(&mut results).is_none());
        gates.open_all();
        idle().await;
        value(&mut results);
        idle().await;
        assert_eq!(gates.done(), 3);
        handle.cancel();
        let (values, end) = exhaust(results).await;
        assert_eq!(values.len(), 2);
        end.unwrap();
        no_leaks(&parent);
    });
}

#[test]
fn g9_item_ends_the_context_then_no_other_is_pulled() {
    for way in WAYS {
        on_current_thread(async move {
            let (parent, handle) = Context::background().with_cancel();
            let (items, pulled) = counted(10);
            let run = way.run(batch(items, 1).context(&parent), move |_, item| {
                if item == 3 {
                    handle.cancel();
                }
                std::future::ready(Ok::<_, BoxError>(()))
            });
            assert_eq!(why(run.await.unwrap_err()).reason(), Reason::Cancelled);
            assert_eq!(pulled.get(), 4, "{way:?}");
        });
    }
}

/// The source ends the context and gives an item all the same: it is not started.
#[test]
fn g9_context_ends_while_the_source_is_polled_then_its_item_is_not_started() {
    for (way, at) in WAYS
        .into_iter()
        .flat_map(|way| [0, 1, 6].map(|at| (way, at)))
    {
        on_current_thread(async move {
            let (parent, handle) = Context::background().with_cancel();
            let items = (0..20).inspect(move |&item| {
                if item == at {
                    handle.cancel();
                }
            });
            let started = Log::new();
            let log = started.clone();
            let run = way.run(batch(items, 2).context(&parent), move |_, item| {
                log.push(item);
                std::future::ready(Ok::<_, BoxError>(()))
            });
            assert_eq!(why(run.await.unwrap_err()).reason(), Reason::Cancelled);
            let started = started.take();
            assert!(
                started.iter().all(|&item| item < at),
                "{way:?} {at}: {started:?}"
            );
        });
    }
}

#[test]
fn deadline_passes_then_waiting_items_are_cut_short_at_that_moment() {
    for way in WAYS {
        on_current_thread(async move {
            let start = Instant::now();
            let inside = Arc::new(Gauge::default());
            let gauge = inside.clone();
            let ctx = Context::background().with_timeout(ms(40));
            let run = way.run(batch(0..9, 3).context(&ctx), move |_, _| {
                holding(gauge.enter(), pend())
            });
            assert!(
                why(run.await.unwrap_err()).is_deadline_exceeded(),
                "{way:?}"
            );
            assert_eq!(
                (start.elapsed(), inside.peak(), inside.now()),
                (ms(40), 3, 0)
            );
        });
    }
}

/// No timer can run meanwhile: it is the clock that counts.
#[test]
fn deadline_passes_while_ready_items_keep_the_thread_busy_then_no_other_starts() {
    for way in WAYS {
        on_current_thread(async move {
            let ctx = Context::background().with_timeout(ms(35));
            let started = Tally::default();
            let count = started.clone();
            let run = way.run(batch(0..100, 1).context(&ctx), move |_, _| {
                count.add();
                advance_without_timers(ms(10));
                std::future::ready(Ok::<_, BoxError>(()))
            });
            assert!(
                why(run.await.unwrap_err()).is_deadline_exceeded(),
                "{way:?}"
            );
            assert_eq!(started.get(), 4, "{way:?}");
        });
    }
}

#[test]
fn deadline_passes_while_the_source_is_slow_then_the_batch_is_over() {
    for way in WAYS {
        on_current_thread(async move {
            let ctx = Context::background().with_timeout(ms(40));
            let (feed, stream) = feed();
            let run = way.run(batch_stream(stream, 3).context(&ctx), ok);
            assert!(
                why(run.await.unwrap_err()).is_deadline_exceeded(),
                "{way:?}"
            );
            assert_eq!(feed.polls(), 1);
        });
    }
}

#[test]
fn deadline_passes_while_the_consumer_is_slow_then_the_error_comes_after_what_was_ready() {
    on_current_thread(async {
        let ctx = Context::background().with_timeout(ms(40));
        let (items, pulled) = counted(20);
        let mut results = Box::pin(batch(items, 3).context(&ctx).map_stream(ok));
        assert!(take(&mut results).is_none());
        tokio::time::sleep(ms(50)).await;
        assert_eq!((pulled.get(), tasks()), (3, 0));
        let (values, end) = exhaust(results).await;
        assert_eq!(values.len(), 3);
        assert!(why(end.unwrap_err()).is_deadline_exceeded());
    });
}

#[test]
fn g6_dropped_before_the_first_poll_then_nothing_has_started() {
    on_current_thread(async {
        for way in WAYS {
            let (items, pulled) = counted(10);
            drop(way.run(batch(items, 2), ok));
            drop(way.run(batch_stream(stream::pending(), 2), ok));
            assert_eq!((pulled.get(), tasks()), (0, 0), "{way:?}");
        }
        let alive = Arc::new(());
        let items = batch([alive.clone()], 2);
        drop(items.map_stream(|_, _| async { Ok::<_, BoxError>(()) }));
        assert_eq!((Arc::strong_count(&alive), tasks()), (1, 0));
    });
}

#[test]
fn g6_dropped_after_its_end_then_nothing_happens() {
    on_current_thread(async {
        for way in WAYS {
            let mut run = Box::pin(way.run(batch(0..10, 2), ok));
            (&mut run).await.unwrap();
            assert_eq!(tasks(), 0);
            drop(run);
        }
        let mut results =
            Box::pin(batch(0..3, 2).map_stream(|ctx, _| async { Ok::<_, BoxError>(ctx) }));
        let ctx = results.next().await.unwrap().unwrap();
        while results.next().await.is_some() {}
        assert_eq!(
            (ctx.err().unwrap().reason(), tasks()),
            (Reason::GroupFinished, 0)
        );
        drop(results);
        assert_eq!(ctx.err().unwrap().reason(), Reason::GroupFinished);
    });
}

#[test]
fn item_panics_in_its_drop_after_the_future_was_dropped_then_nobody_is_hurt() {
    on_current_thread(async {
        let mut run = Box::pin(batch(0..9, 3).for_each(|_, _| pend_then_panic_in_drop("boom")));
        assert!(poll(&mut run).is_pending());
        idle().await;
        drop(run);
        idle().await;
        assert_eq!(tasks(), 0);
    });
}

#[test]
fn g17_runtime_is_shut_down_under_a_batch_then_it_ends_with_an_error() {
    for way in WAYS {
        let runtime = current_thread();
        let mut run = Box::pin(way.run(batch(0..9, 3), |_, _| pend()));
        runtime.block_on(async {
            assert!(poll(&mut run).is_pending());
            idle().await;
        });
        drop(runtime);
        let end = on_current_thread(run);
        assert!(
            why(end.unwrap_err()).to_string().contains("runtime"),
            "{way:?}"
        );
    }
}

#[test]
fn polled_outside_a_runtime_panics_and_says_so() {
    for way in WAYS {
        let text = panic_text(|| {
            let run = way.run(batch(0..9, 3), |_, _| pend());
            let _ = futures::executor::block_on(run);
        });
        assert!(text.contains("tokio runtime"), "{way:?}: {text}");
    }
}
