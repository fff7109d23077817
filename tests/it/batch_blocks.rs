//! Blocks: items that end at once are pulled several at a time, and nobody notices but the clock.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use errgroup::{BoxError, Context, Reason, batch};
use futures::FutureExt;

use crate::batch_support::*;
use crate::group_support::*;
use crate::support::Log;

on_both_runtimes! {
    /// Wherever in its block it is.
    async fn item_waits_then_it_holds_up_no_other() {
        for at in (0..150).step_by(7) {
            let gates = Gates::new(300);
            (0..300).filter(|gate| *gate != at).for_each(|gate| gates.open(gate));
            let run = tokio::spawn(batch(0..300, 64).for_each(pass(&gates)));
            until(|| (gates.started(), gates.done()) == (300, 299)).await;
            gates.open(at);
            run.await.unwrap().unwrap();
        }
    }

    /// Each of a group waits for the next of it: the limit has to be reached to the last.
    async fn items_wait_for_those_behind_them_then_all_are_done() {
        for (way, size) in WAYS.into_iter().flat_map(|way| [2, 3, 8].map(|size| (way, size))) {
            let gates = Gates::new(400);
            let ready = 100 / size * size;
            let run = way.run(batch(0..ready + 20 * size, size), {
                let gates = gates.clone();
                move |_, item| {
                    let gates = gates.clone();
                    async move {
                        if item >= ready && (item + 1) % size != 0 {
                            gates.clone().pass(item).await?;
                        }
                        if item > ready {
                            gates.open(item - 1);
                        }
                        Ok::<_, BoxError>(())
                    }
                }
            });
            run.await.unwrap();
        }
    }

    async fn items_are_never_pulled_beyond_the_limit() {
        for (way, most) in WAYS.into_iter().flat_map(|way| [1, 2, 5, 64, 1_000].map(|n| (way, n))) {
            let done = Tally::default();
            let (seen, ahead) = (done.clone(), Log::new());
            let log = ahead.clone();
            let items = (0..5_000_usize).inspect(move |item| {
                if item + 1 - seen.get() > most {
                    log.push(*item);
                }
            });
            let run = way.run(batch(items, most), move |_, item| {
                let done = done.clone();
                async move {
                    if item % 100 == 99 {
                        tokio::task::yield_now().await;
                    }
                    done.add();
                    Ok::<_, BoxError>(())
                }
            });
            run.await.unwrap();
            assert_eq!(ahead.take(), [0; 0], "{way:?} {most}");
        }
    }

    async fn most_items_end_at_once_and_some_wait_then_results_are_in_order() {
        async fn sometimes(_ctx: Context, item: usize) -> Result<usize, BoxError> {
            turns(if item % 37 == 0 { item % 5 } else { 0 }).await;
            Ok(item)
        }
        let results = batch(0..3_000, 16).map(sometimes).await.unwrap();
        assert!(results.into_iter().eq(0..3_000));
        let (results, end) = exhaust(batch(0..3_000, 16).map_stream(sometimes)).await;
        end.unwrap();
        assert!(results.into_iter().eq(0..3_000));
    }

    async fn item_fails_then_those_behind_it_are_dropped_before_the_caller_goes_on() {
        for way in WAYS {
            let alive = Arc::new(());
            let count = alive.clone();
            let items = (0..500).map(move |item| (item, count.clone()));
            let run = way.run(batch(items, 64), |_, (item, _alive)| async move {
                match item {
                    100 => fail("boom").await,
                    _ => Ok(()),
                }
            });
            assert_eq!(run.await.unwrap_err().to_string(), "boom", "{way:?}");
            assert_eq!(Arc::strong_count(&alive), 1, "{way:?}");
        }
    }
}

/// All items have been pulled by then, and those behind it are not done.
#[test]
fn g7_item_ends_the_context_then_those_behind_it_are_lost() {
    for (way, waits) in WAYS
        .into_iter()
        .flat_map(|way| [false, true].map(|waits| (way, waits)))
    {
        on_current_thread(async move {
            for n in [2, 10, 90, 100] {
                let (parent, handle) = Context::background().with_cancel();
                let alive = Arc::new(());
                let count = alive.clone();
                let items = (0..n).map(move |item| (item, count.clone()));
                let batch = batch(items, 64).context(&parent);
                let run = way.run(batch, move |_, (item, _alive)| {
                    let is_end = item == n - 2;
                    if is_end {
                        handle.cancel();
                    }
                    poll_fn(move |_| match is_end && waits {
                        true => Poll::Pending,
                        false => Poll::Ready(Ok::<_, BoxError>(())),
                    })
                });
                let end = run.await.unwrap_err();
                let end = end.downcast::<errgroup::ContextError>().unwrap();
                assert_eq!(end.reason(), Reason::Cancelled, "{way:?} {n}");
                assert_eq!(Arc::strong_count(&alive), 1, "{way:?} {n}");
            }
        });
    }
}

/// The error, or the panic of an item that was dropped with the worker; but no abort.
#[test]
fn item_fails_and_two_behind_it_panic_in_their_drop_then_nothing_aborts() {
    for way in WAYS {
        on_current_thread(async move {
            let items = (0..200).map(|item| {
                let bomb = (101..110).contains(&item);
                (item, bomb.then(|| OnDrop::new(|| quiet_panic("bomb"))))
            });
            let run = way.run(batch(items, 64), |_, (item, bomb)| async move {
                match item {
                    100 => fail("boom").await,
                    _ => holding(bomb, std::future::ready(Ok::<_, BoxError>(()))).await,
                }
            });
            let end = std::panic::AssertUnwindSafe(run).catch_unwind().await;
            assert!(!matches!(end, Ok(Ok(()))), "{way:?}");
        });
    }
}

#[test]
fn items_end_at_once_then_no_task_is_started_for_them() {
    for way in WAYS {
        on_current_thread(async move {
            let most = Log::new();
            let log = most.clone();
            let run = way.run(batch(0..1_000, 64), move |_, _| {
                log.push(tasks());
                std::future::ready(Ok::<_, BoxError>(()))
            });
            run.await.unwrap();
            assert!(most.take().into_iter().all(|tasks| tasks <= 1), "{way:?}");
        });
    }
}

/// It has the rest of its block behind it, and all others are done meanwhile by the other thread.
#[test]
fn item_keeps_its_thread_busy_then_the_other_thread_goes_on() {
    for way in [Way::Map, Way::ForEach] {
        on_multi_thread(async move {
            let done = Tally::default();
            let run = way.run(batch(0..3_000, 64), move |_, item| {
                let done = done.clone();
                async move {
                    let start = Instant::now();
                    while item == 300 && done.get() < 2_000 {
                        if start.elapsed() > Duration::from_secs(20) {
                            return fail("it is alone").await;
                        }
                        thread::yield_now();
                    }
                    done.add();
                    Ok(())
                }
            });
            run.await.unwrap();
        });
    }
}

/// Each shows the end of the batch to whoever kept it, whichever worker it came from.
#[test]
fn contexts_that_items_were_given_end_with_the_batch() {
    on_multi_thread(async {
        let run = batch(0..300, 8).map(|ctx, item| async move {
            turns(item % 2).await;
            Ok::<_, BoxError>(ctx)
        });
        for ctx in run.await.unwrap() {
            assert_eq!(ctx.err().unwrap().reason(), Reason::GroupFinished);
        }
    });
}
