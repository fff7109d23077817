//! Results in the order of the items, and the window of `map_stream`: at most `limit` ahead of what was yielded.

use errgroup::{BoxError, Context, batch, batch_stream};
use futures::StreamExt;

use crate::batch_support::*;
use crate::group_support::*;
use crate::support::Log;

/// Takes longer or shorter from item to item.
async fn double(_ctx: Context, item: usize) -> Result<usize, BoxError> {
    turns(item * 7 % 5).await;
    Ok(item * 2)
}

fn doubled(n: usize) -> Vec<usize> {
    (0..n).map(|item| item * 2).collect()
}

on_both_runtimes! {
    async fn map_of_unequal_items_gives_results_in_input_order() {
        for n in [0, 1, 2, 200] {
            let results = batch(0..n, 7).map(double).await;
            assert_eq!(results.unwrap(), doubled(n), "an iterator of {n}");
            let items = unsized_hint(0..n);
            let results = batch_stream(futures::stream::iter(items), 7).map(double);
            assert_eq!(results.await.unwrap(), doubled(n), "a stream of {n}");
        }
    }

    async fn map_stream_of_unequal_items_yields_in_input_order() {
        for n in [0, 1, 2, 200] {
            let (results, end) = exhaust(batch(0..n, 7).map_stream(double)).await;
            assert_eq!(results, doubled(n));
            end.unwrap();
        }
    }

    async fn for_each_runs_every_item_once() {
        let seen = Log::new();
        let log = seen.clone();
        let done = batch(0..200, 7).for_each(move |ctx, item| {
            log.push(item);
            async move { double(ctx, item).await.map(drop) }
        });
        done.await.unwrap();
        let mut seen = seen.take();
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..200));
    }

    async fn items_end_backwards_then_map_gives_them_forwards() {
        let gates = Gates::new(8);
        let pass = gates.clone();
        let results = tokio::spawn(batch(0..8, 8).map(move |_, item| {
            let pass = pass.clone().pass(item);
            async move { pass.await.map(|()| item) }
        }));
        until(|| gates.started() == 8).await;
        for gate in (0..8).rev() {
            gates.open(gate);
            until(|| gates.done() == 8 - gate).await;
        }
        assert!(results.await.unwrap().unwrap().into_iter().eq(0..8));
    }

    async fn items_end_backwards_then_map_stream_yields_them_forwards() {
        let gates = Gates::new(8);
        let mut results = Box::pin(batch(0..8, 8).map_stream({
            let gates = gates.clone();
            move |_, item| {
                let pass = gates.clone().pass(item);
                async move { pass.await.map(|()| item) }
            }
        }));
        assert!(take(&mut results).is_none());
        until(|| gates.started() == 8).await;
        for gate in (1..8).rev() {
            gates.open(gate);
            until(|| gates.done() == 8 - gate).await;
            assert!(take(&mut results).is_none());
        }
        gates.open(0);
        assert!(exhaust(results).await.0.into_iter().eq(0..8));
    }
}

#[test]
fn map_stream_not_polled_then_nothing_starts() {
    on_current_thread(async {
        let (items, pulled) = counted(10);
        let results = batch(items, 2).map_stream(double);
        idle().await;
        assert_eq!((pulled.get(), tasks()), (0, 0));
        drop(results);
    });
}

#[test]
fn consumer_stops_then_exactly_limit_items_are_ahead_of_what_it_has() {
    for ahead in [1, 2, 5, 16] {
        on_current_thread(async move {
            let (items, pulled) = counted(30);
            let mut results = Box::pin(batch(items, ahead).map_stream(double));
            assert!(take(&mut results).is_none());
            for yielded in 0..30 {
                idle().await;
                assert_eq!(pulled.get(), 30.min(yielded + ahead), "after {yielded}");
                assert_eq!(value(&mut results), yielded * 2);
            }
            idle().await;
            assert!(take(&mut results).unwrap().is_none());
        });
    }
}

/// A result waits in the place of its item: what has ended counts like what runs.
#[test]
fn first_item_is_slow_then_the_others_fill_the_window_and_wait() {
    on_current_thread(async {
        let (items, pulled) = counted(20);
        let gates = Gates::new(20);
        (1..20).for_each(|gate| gates.open(gate));
        let mut results = Box::pin(batch(items, 4).map_stream(pass(&gates)));
        assert!(take(&mut results).is_none());
        idle().await;
        assert_eq!((pulled.get(), gates.done()), (4, 3));
        assert!(take(&mut results).is_none());

        gates.open(0);
        idle().await;
        // Its end alone makes no room: nothing was yielded.
        assert_eq!((pulled.get(), gates.done()), (4, 4));
        value(&mut results);
        idle().await;
        assert_eq!(pulled.get(), 5);
        (1..5).for_each(|_| value(&mut results));
        idle().await;
        assert_eq!(pulled.get(), 9);
    });
}

#[test]
fn consumer_stops_then_the_stream_is_not_polled() {
    on_current_thread(async {
        let (feed, stream) = feed();
        (0..20).for_each(|item| feed.put(item));
        let mut results = Box::pin(batch_stream(stream, 3).map_stream(double));
        assert!(take(&mut results).is_none());
        for yielded in 0..17 {
            idle().await;
            assert_eq!(feed.polls(), yielded + 3);
            feed.wake();
            idle().await;
            assert_eq!(feed.polls(), yielded + 3, "woken for nothing");
            value(&mut results);
        }
    });
}

#[test]
fn every_item_is_out_then_the_stream_is_not_polled() {
    for way in WAYS {
        on_current_thread(async move {
            let (feed, stream) = feed();
            let gates = Gates::new(5);
            (0..5).for_each(|item| feed.put(item));
            let run = tokio::spawn(way.run(batch_stream(stream, 2), pass(&gates)));
            idle().await;
            assert_eq!(feed.polls(), 2, "{way:?}");
            gates.open(1);
            idle().await;
            // The window of a stream is full as long as the first item is out.
            let polls = if way == Way::Stream { 2 } else { 3 };
            assert_eq!(feed.polls(), polls, "{way:?}");
            gates.open_all();
            feed.close();
            run.await.unwrap().unwrap();
        });
    }
}

#[test]
fn next_result_comes_then_the_consumer_polled_last_is_woken() {
    on_current_thread(async {
        let gates = Gates::new(3);
        let mut results = Box::pin(batch(0..3, 3).map_stream(pass(&gates)));
        let (first, waker) = counting();
        assert!(take_with(&mut results, &waker).is_none());
        let (second, waker) = counting();
        assert!(take_with(&mut results, &waker).is_none());
        idle().await;
        gates.open(1);
        idle().await;
        assert_eq!((first.woken(), second.woken()), (0, 0), "not its turn");
        gates.open(0);
        idle().await;
        assert_eq!((first.woken(), second.woken()), (0, 1));
        value(&mut results);
        value(&mut results);
        assert!(take_with(&mut results, &waker).is_none());
        gates.open(2);
        idle().await;
        assert!(second.woken() > 1);
        value(&mut results);
        assert!(matches!(take(&mut results), Some(None)));
    });
}

#[test]
fn last_worker_ends_then_the_consumer_is_woken_for_the_end() {
    on_current_thread(async {
        let (feed, stream) = feed();
        let mut results = Box::pin(batch_stream(stream, 2).map_stream(double));
        assert!(take(&mut results).is_none());
        feed.send(0);
        idle().await;
        assert_eq!(value(&mut results), 0);
        let (woken, waker) = counting();
        assert!(take_with(&mut results, &waker).is_none());
        feed.close();
        idle().await;
        assert!(woken.woken() > 0);
        assert!(matches!(take(&mut results), Some(None)));
    });
}

#[test]
fn item_fails_then_the_results_before_it_come_first_and_the_error_last() {
    on_current_thread(async {
        let (items, pulled) = counted(20);
        let results = batch(items, 3).map_stream(|_, item| async move {
            match item {
                4 => Err(BoxError::from("boom")),
                _ => Ok(item),
            }
        });
        let (values, end) = exhaust(results).await;
        assert_eq!(values, [0, 1, 2, 3]);
        assert_eq!(end.unwrap_err().to_string(), "boom");
        assert!(pulled.get() <= 4 + 3);
    });
}

/// What ended after the one that failed is not yielded, even if its result is there.
#[test]
fn item_fails_after_later_ones_have_ended_then_those_are_dropped() {
    on_current_thread(async {
        let gates = Gates::new(3);
        let dropped = Tally::default();
        let tally = dropped.clone();
        let mut results = Box::pin(batch(0..3, 3).map_stream({
            let gates = gates.clone();
            move |_, item| {
                let (pass, tally) = (gates.clone().pass(item), tally.clone());
                async move {
                    pass.await?;
                    match item {
                        0 => Err(BoxError::from("boom")),
                        _ => Ok(OnDrop::new(move || {
                            tally.add();
                        })),
                    }
                }
            }
        }));
        assert!(take(&mut results).is_none());
        idle().await;
        gates.open(2);
        idle().await;
        gates.open(0);
        let end = results.next().await.unwrap();
        assert_eq!(end.err().unwrap().to_string(), "boom");
        assert_eq!(dropped.get(), 1);
        assert!(results.next().await.is_none());
    });
}
