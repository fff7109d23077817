//! Workers: how many there are, what they do when there is little to do, and that nobody starves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use errgroup::{BoxError, batch, batch_stream};
use futures::stream;

use crate::batch_support::*;
use crate::group_support::*;
use crate::support::Log;

on_both_runtimes! {
    async fn as_many_items_run_at_once_as_the_limit_says() {
        for (way, limit) in WAYS.into_iter().flat_map(|way| [1, 2, 7].map(|limit| (way, limit))) {
            let (inside, pass) = (Arc::new(Gauge::default()), Gates::new(50));
            let (gauge, gates) = (inside.clone(), pass.clone());
            let run = tokio::spawn(way.run(batch(0..50, limit), move |_, item| {
                holding(gauge.enter(), gates.clone().pass(item))
            }));
            until(|| inside.now() == limit).await;
            pass.open_all();
            run.await.unwrap().unwrap();
            assert_eq!((inside.peak(), inside.now()), (limit, 0), "{way:?}");
        }
    }

    async fn limit_of_one_runs_the_items_one_after_the_other() {
        for way in WAYS {
            let seen = Log::new();
            let log = seen.clone();
            let run = way.run(batch(0..50, 1), move |_, item| {
                let log = log.clone();
                async move {
                    log.push((item, "starts"));
                    turns(item % 3).await;
                    log.push((item, "ends"));
                    Ok::<_, BoxError>(())
                }
            });
            run.await.unwrap();
            let expected = (0..50).flat_map(|item| [(item, "starts"), (item, "ends")]);
            assert!(seen.take().into_iter().eq(expected), "{way:?}");
        }
    }

    async fn some_items_are_slow_then_the_other_workers_do_all_the_rest() {
        for slow in [1, 2] {
            let gates = Gates::new(100);
            (slow..100).for_each(|gate| gates.open(gate));
            let run = tokio::spawn(batch(0..100, 3).for_each(pass(&gates)));
            until(|| (gates.started(), gates.done()) == (100, 100 - slow)).await;
            gates.open_all();
            run.await.unwrap().unwrap();
        }
    }

    async fn batches_in_items_of_a_batch() {
        let run = batch(0..5_usize, 2).map(|ctx, outer| async move {
            let inner = batch(0..outer, 2).context(&ctx);
            let inner = inner.map(move |_, inner| async move {
                turns(inner).await;
                Ok::<_, BoxError>(outer * 10 + inner)
            });
            inner.await
        });
        let expected: Vec<Vec<_>> = (0..5).map(|n| (0..n).map(|m| n * 10 + m).collect()).collect();
        assert_eq!(run.await.unwrap(), expected);
    }

    async fn item_of_an_inner_batch_fails_then_the_outer_one_fails_with_it() {
        let run = batch(0..5, 2).name("outer").for_each(|ctx, outer| async move {
            let inner = batch(0..5, 2).context(&ctx).name("inner");
            inner.for_each(move |_, inner| async move {
                match (outer, inner) {
                    (3, 3) => fail("boom").await,
                    (4, _) => pend().await,
                    _ => Ok(()),
                }
            }).await
        });
        assert_eq!(run.await.unwrap_err().to_string(), "boom");
    }

    async fn no_limit_to_speak_of() {
        for way in WAYS {
            let seen = Tally::default();
            let tally = seen.clone();
            let run = way.run(batch(0..300, usize::MAX), move |_, item: usize| {
                tally.add();
                async move {
                    turns(item % 4).await;
                    Ok::<_, BoxError>(())
                }
            });
            run.await.unwrap();
            assert_eq!(seen.get(), 300);
            until(|| tasks() == 0).await;
        }
    }
}

#[test]
fn limit_above_the_number_of_items_starts_no_idle_workers() {
    for way in WAYS {
        on_current_thread(async move {
            let (gates, most) = (Gates::new(3), Log::new());
            let (pass, log) = (pass(&gates), most.clone());
            let mut run = Box::pin(way.run(batch(0..3, 64), move |ctx, item| {
                log.push(tasks());
                pass(ctx, item)
            }));
            assert!(poll(&mut run).is_pending());
            idle().await;
            assert_eq!(gates.started(), 3, "{way:?}");
            assert!(most.take().into_iter().all(|tasks| tasks <= 1), "{way:?}");
            gates.open_all();
            run.await.unwrap();
        });
    }
}

#[test]
fn many_items_wait_then_there_is_no_task_for_each() {
    for way in WAYS {
        on_multi_thread(async move {
            let gates = Gates::new(200);
            let mut run = Box::pin(way.run(batch(0..200, 64), pass(&gates)));
            assert!(poll(&mut run).is_pending());
            until(|| gates.started() == 64).await;
            assert!(tasks() <= 2, "{way:?}: {}", tasks());
            gates.open_all();
            run.await.unwrap();
        });
    }
}

#[test]
fn source_is_slow_then_nothing_is_started_for_it() {
    for way in WAYS {
        on_current_thread(async move {
            let (_feed, stream) = feed::<()>();
            let mut run = Box::pin(way.run(batch_stream(stream, 64), |_, ()| pend()));
            assert!(poll(&mut run).is_pending());
            idle().await;
            assert!(tasks() <= 1, "{way:?}");
        });
    }
}

/// What another task of the runtime does while `n` items that are always ready are run.
async fn turns_beside(way: Way, n: usize, limit: usize) -> usize {
    let other = Tally::default();
    let tally = other.clone();
    let task = tokio::spawn(async move {
        loop {
            tally.add();
            tokio::task::yield_now().await;
        }
    });
    // In a task of its own, so that the other's turns are not those of the caller.
    let run = tokio::spawn(way.run(batch(0..n, limit), |_, _| {
        std::future::ready(Ok::<_, BoxError>(()))
    }));
    run.await.unwrap().unwrap();
    task.abort();
    other.get()
}

#[test]
fn ready_items_leave_other_tasks_their_turns() {
    for (way, limit) in WAYS
        .into_iter()
        .flat_map(|way| [1, 2].map(|limit| (way, limit)))
    {
        on_current_thread(async move {
            let few = turns_beside(way, 1, limit).await;
            let turns = turns_beside(way, 10_000, limit).await - few;
            assert!(
                turns >= 10_000 / 256 / limit,
                "{way:?}, limit {limit}: {turns}"
            );
        });
    }
}

/// Two items that are each done when the other has begun, without an await.
#[test]
fn items_run_on_several_threads() {
    for way in WAYS {
        on_multi_thread(async move {
            let inside = Tally::default();
            let run = way.run(batch(0..2, 2), move |_, _| {
                inside.add();
                let inside = inside.clone();
                async move {
                    let start = Instant::now();
                    while inside.get() < 2 {
                        if start.elapsed() > Duration::from_secs(20) {
                            return fail("it is alone").await;
                        }
                        std::thread::yield_now();
                    }
                    Ok(())
                }
            });
            run.await.unwrap();
        });
    }
}

#[test]
fn batch_prints_what_it_is() {
    let text = format!("{:?}", batch(0..3, 5).name("thumbnails"));
    assert!(
        text.contains("thumbnails") && text.contains("limit: 5"),
        "{text}"
    );
}

/// Whoever spawns one needs that.
#[test]
fn futures_and_streams_of_a_batch_are_send() {
    fn send<T: Send + 'static>(_: T) {}
    async fn f(_: errgroup::Context, _: usize) -> Unit {
        Ok(())
    }
    send(batch(0..3, 5).map(f));
    send(batch(0..3, 5).for_each(f));
    send(batch_stream(stream::pending(), 5).map_stream(f));
}
