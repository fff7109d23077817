//! `settle`: every item's own result; and `unordered`: results in the order in which they come.

use std::sync::Arc;

use errgroup::{BoxError, Context, Reason, batch, batch_stream};
use futures::StreamExt;
use tokio::time::sleep;

use crate::batch_support::*;
use crate::group_support::*;
use crate::support::{ms, no_leaks};

async fn nap(_ctx: Context, millis: u64) -> Result<u64, BoxError> {
    sleep(ms(millis)).await;
    Ok(millis)
}

on_both_runtimes! {
    async fn items_fail_then_each_has_its_own_result_in_order_and_none_is_stopped() {
        let settled = batch(0..200_usize, 8).settle(|_, item| async move {
            turns(item % 5).await;
            if item % 3 == 0 { Err(item) } else { Ok(item) }
        });
        let expected = (0..200).map(|item| if item % 3 == 0 { Err(item) } else { Ok(item) });
        assert!(settled.await.unwrap().into_iter().eq(expected));
    }

    async fn item_panics_then_the_panic_is_resumed_and_the_rest_cut_short() {
        let inside = Arc::new(Gauge::default());
        let gauge = inside.clone();
        let settled = batch(0..8, 4).settle(move |_, item| {
            holding(gauge.enter(), async move {
                match item {
                    3 => panics("boom").await,
                    _ => pend().await,
                }
            })
        });
        assert_eq!(panic_of(settled).await, "boom");
        assert_eq!(inside.now(), 0);
    }

    async fn parent_ends_then_that_is_the_error_and_everything_is_dropped() {
        let (parent, handle) = Context::background().with_cancel();
        let alive = Arc::new(());
        let count = alive.clone();
        let done = Tally::default();
        let tally = done.clone();
        let settled = tokio::spawn(batch(0..9, 3).context(&parent).settle(move |_, item| {
            let (alive, done) = (count.clone(), tally.clone());
            async move {
                if item > 1 {
                    pend().await?;
                }
                done.add();
                if item == 0 { Ok::<_, BoxError>(alive) } else { Err("no".into()) }
            }
        }));
        until(|| done.get() == 2).await;
        handle.cancel_with("closing time");
        let end = settled.await.unwrap().unwrap_err();
        assert_eq!(end.reason(), Reason::Cancelled);
        assert!(end.to_string().contains("closing time"));
        until(|| Arc::strong_count(&alive) == 1).await;
        no_leaks(&parent);
    }
}

#[test]
fn there_are_no_items_then_there_are_no_results() {
    on_current_thread(async {
        let settled = batch(std::iter::empty(), 3).settle(|_, ()| fail("never"));
        assert!(settled.await.unwrap().is_empty());
    });
}

/// The errors need nothing but to be sent: they end nothing.
#[test]
fn errors_are_of_a_type_that_no_group_takes_then_they_are_settled() {
    on_current_thread(async {
        struct Plain(u8);
        let settled = batch([7], 1).settle(|_, item| async move { Err::<(), _>(Plain(item)) });
        let settled = settled.await.unwrap();
        assert!(matches!(settled[..], [Err(Plain(7))]));
    });
}

#[test]
fn unordered_then_results_stand_in_the_order_of_completion() {
    on_current_thread(async {
        let items = [40, 10, 30, 20];
        assert_eq!(
            batch(items, 4).unordered().map(nap).await.unwrap(),
            [10, 20, 30, 40]
        );
        assert_eq!(batch(items, 4).map(nap).await.unwrap(), items);
        // The third starts when the second has ended, at 10.
        assert_eq!(
            batch(items, 2).unordered().map(nap).await.unwrap(),
            [10, 40, 30, 20]
        );
        let settled = batch(items, 4).unordered().settle(nap).await.unwrap();
        let settled: Vec<_> = settled.into_iter().map(Result::unwrap).collect();
        assert_eq!(settled, [10, 20, 30, 40]);
    });
}

/// The first item ends last: in order nothing would be yielded before it.
#[test]
fn unordered_stream_then_each_is_yielded_as_it_completes() {
    on_current_thread(async {
        let gates = Gates::new(3);
        let opened = gates.clone();
        let mut results = Box::pin(batch(0..3, 3).unordered().map_stream(move |_, item| {
            let pass = opened.clone().pass(item);
            async move { pass.await.map(|()| item) }
        }));
        assert!(take(&mut results).is_none());
        for item in [1, 2, 0] {
            gates.open(item);
            assert_eq!(results.next().await.unwrap().unwrap(), item);
        }
        assert!(results.next().await.is_none());
    });
}

/// What is ahead of the consumer is bounded all the same.
#[test]
fn unordered_stream_is_not_polled_then_no_more_than_the_limit_is_pulled() {
    on_current_thread(async {
        let (items, pulled) = counted(100);
        let stream = batch(items, 4)
            .unordered()
            .map_stream(|_, item| async move { Ok::<_, BoxError>(item) });
        let mut stream = Box::pin(stream);
        let mut yielded = 0;
        while let Some(result) = stream.next().await {
            result.unwrap();
            yielded += 1;
            idle().await;
            assert!(pulled.get() <= yielded + 4);
        }
        assert_eq!(yielded, 100);
    });
}

/// Unlike in order, what was done before the error is all yielded.
#[test]
fn unordered_stream_fails_then_the_error_is_the_last() {
    on_current_thread(async {
        let (feed, stream) = feed();
        (0..5).for_each(|item| feed.put(item));
        let results = batch_stream(stream, 5)
            .unordered()
            .map_stream(|_, item| async move {
                match item {
                    0 => pend().await.map(|()| item),
                    4 => fail("boom").await.map(|()| item),
                    _ => Ok(item),
                }
            });
        let (values, end) = exhaust(results).await;
        assert_eq!(
            (values, end.unwrap_err().to_string()),
            (vec![1, 2, 3], "boom".to_owned())
        );
    });
}

on_both_runtimes! {
    async fn unordered_then_every_item_has_one_result() {
        let map = batch(0..500, 8).unordered().map(|_, item| async move {
            turns(item % 7).await;
            Ok::<_, BoxError>(item)
        });
        let mut values = map.await.unwrap();
        values.sort_unstable();
        assert!(values.into_iter().eq(0..500));
    }
}
