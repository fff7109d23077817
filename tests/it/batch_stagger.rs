//! `stagger`: the next item starts when one has failed, or the delay has passed.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use errgroup::{BoxError, Context, Reason, batch, batch_stream};
use futures::FutureExt;
use tokio::time::{Instant, sleep};

use crate::batch_support::*;
use crate::group_support::*;
use crate::support::{Log, ms};

/// Notes when items start, in milliseconds since it was made.
#[derive(Clone)]
struct Starts(Instant, Log<(usize, u128)>);

impl Starts {
    fn new() -> Self {
        Self(Instant::now(), Log::new())
    }

    fn note(&self, item: usize) {
        self.1.push((item, self.0.elapsed().as_millis()));
    }

    /// When the items have started; they have in order.
    fn take(&self) -> Vec<u128> {
        let starts = self.1.take();
        assert!(starts.iter().map(|(item, _)| *item).eq(0..starts.len()));
        starts.into_iter().map(|(_, at)| at).collect()
    }
}

/// Runs items that take so long, and succeed or fail, and tells when each has started.
async fn starts(limit: usize, delay: u64, items: Vec<(u64, bool)>) -> Vec<u128> {
    let starts = Starts::new();
    let log = starts.clone();
    let items = items.into_iter().enumerate();
    let settled =
        batch(items, limit)
            .stagger(ms(delay))
            .settle(move |_, (item, (takes, is_ok))| {
                log.note(item);
                async move {
                    sleep(ms(takes)).await;
                    if is_ok { Ok(()) } else { Err(()) }
                }
            });
    settled.await.unwrap();
    starts.take()
}

const OK: bool = true;
const FAILS: bool = false;

#[test]
fn items_are_slow_then_one_starts_after_each_delay() {
    on_current_thread(async {
        assert_eq!(
            starts(9, 250, vec![(9_999, OK); 4]).await,
            [0, 250, 500, 750]
        );
    });
}

#[test]
fn item_fails_then_the_next_starts_at_once_and_the_delay_counts_from_there() {
    on_current_thread(async {
        let items = vec![(100, FAILS), (9_999, OK), (9_999, OK), (9_999, OK)];
        assert_eq!(starts(9, 250, items).await, [0, 100, 350, 600]);
    });
}

#[test]
fn items_fail_at_once_then_all_start_at_once() {
    on_current_thread(async {
        assert_eq!(starts(9, 250, vec![(0, FAILS); 20]).await, [0; 20]);
    });
}

#[test]
fn two_fail_at_one_time_then_two_start() {
    on_current_thread(async {
        let mut items = vec![(400, FAILS), (150, FAILS)];
        items.extend([(9_999, OK); 3]);
        assert_eq!(starts(9, 250, items).await, [0, 250, 400, 400, 650]);
    });
}

#[test]
fn item_succeeds_then_the_next_waits_for_the_delay() {
    on_current_thread(async {
        assert_eq!(starts(9, 250, vec![(100, OK); 3]).await, [0, 250, 500]);
    });
}

#[test]
fn limit_is_reached_then_an_item_whose_time_has_come_starts_as_soon_as_there_is_room() {
    on_current_thread(async {
        let items = vec![(600, OK), (600, OK), (600, OK), (600, OK)];
        assert_eq!(starts(2, 250, items).await, [0, 250, 600, 850]);
        // Both reasons at once.
        assert_eq!(starts(1, 250, vec![(600, FAILS); 3]).await, [0, 600, 1200]);
    });
}

#[test]
fn delay_is_zero_then_it_is_none() {
    on_current_thread(async {
        assert_eq!(starts(3, 0, vec![(100, OK); 4]).await, [0, 0, 0, 100]);
    });
}

#[test]
fn delay_is_for_ever_then_only_a_failure_starts_the_next() {
    on_current_thread(async {
        let starts = Starts::new();
        let log = starts.clone();
        let race = batch(0..9, 9)
            .stagger(Duration::MAX)
            .first_ok(move |_, item| {
                log.note(item);
                async move {
                    sleep(ms(1_000)).await;
                    if item == 2 { Ok(item) } else { Err(item) }
                }
            });
        assert_eq!(race.await.unwrap(), 2);
        assert_eq!(starts.take(), [0, 1_000, 2_000]);
    });
}

#[test]
fn set_twice_then_the_last_holds() {
    on_current_thread(async {
        let starts = Starts::new();
        let log = starts.clone();
        let items = batch(0..3, 3).stagger(ms(250)).stagger(ms(10));
        let map = items.map(move |_, item| {
            log.note(item);
            async { Ok::<_, BoxError>(()) }
        });
        map.await.unwrap();
        assert_eq!(starts.take(), [0, 10, 20]);
    });
}

/// In `map`, `for_each` and `map_stream` a failure ends the batch: there it is a pace.
#[test]
fn way_ends_with_the_first_failure_then_the_stagger_is_a_pace() {
    for way in WAYS {
        on_current_thread(async move {
            let starts = Starts::new();
            let log = starts.clone();
            let end = way.run(batch(0..5, 3).stagger(ms(100)), move |_, item| {
                log.note(item);
                async move {
                    match item {
                        3 => fail("boom").await,
                        _ => {
                            sleep(ms(10)).await;
                            Ok(())
                        }
                    }
                }
            });
            assert_eq!(end.await.unwrap_err().to_string(), "boom");
            assert_eq!(starts.take(), [0, 100, 200, 300], "{way:?}");
        });
    }
}

#[test]
fn quorum_is_reached_then_nothing_else_starts() {
    on_current_thread(async {
        let starts = Starts::new();
        let log = starts.clone();
        let race = batch(0..9, 9).stagger(ms(100)).quorum(2, move |_, item| {
            log.note(item);
            async move {
                sleep(ms(150)).await;
                if item == 0 { Err(item) } else { Ok(item) }
            }
        });
        // 0 at 0, 1 at 100, 2 at 150 since 0 has failed; 1 is done at 250 and 3 starts, 2 is done at 300.
        assert_eq!(race.await.unwrap(), [1, 2]);
        assert_eq!(starts.take(), [0, 100, 150, 250]);
    });
}

/// The failure that puts the quorum out of reach starts no other item.
#[test]
fn quorum_is_out_of_reach_then_nothing_else_starts() {
    on_both(|| async {
        let started = Tally::default();
        let tally = started.clone();
        let race = batch(0..4, 4)
            .stagger(Duration::from_secs(99))
            .quorum(4, move |_, item| {
                tally.add();
                async move { Err::<(), _>(item) }
            });
        assert_eq!(race.await.unwrap_err().into_errors(), [0]);
        assert_eq!(started.get(), 1);
    });
}

/// The item that waits at the gate is the last, as the source tells when it has been pulled.
#[test]
fn quorum_is_out_of_reach_for_items_at_the_gate_then_it_fails_at_once() {
    on_current_thread(async {
        let begin = Instant::now();
        let items = (0..3).filter(|item| item % 2 == 0);
        let race = batch(items, 3).stagger(ms(250)).quorum(3, |_, _| pend());
        let failures = race.await.unwrap_err();
        assert_eq!(failures.to_string(), "3 successes needed, of 2 items");
        assert_eq!(begin.elapsed(), Duration::ZERO);
    });
}

fn on_both<F: Future<Output = ()>>(body: impl Fn() -> F) {
    on_current_thread(body());
    on_multi_thread(body());
}

/// A failure that finds no item is used by the next that comes. One is, however long that takes.
#[test]
fn items_come_late_then_those_that_failed_before_let_them_start() {
    on_current_thread(async {
        let (feed, stream) = feed();
        let starts = Starts::new();
        let log = starts.clone();
        let settled = batch_stream(stream, 9)
            .stagger(ms(250))
            .settle(move |_, item: usize| {
                log.note(item);
                async move { if item < 2 { Err(()) } else { Ok(()) } }
            });
        let settled = tokio::spawn(settled);
        feed.send(0);
        feed.send(1);
        sleep(ms(1_000)).await;
        // Item 1 has failed, and none has started since: so has the time passed.
        (2..5).for_each(|item| feed.send(item));
        sleep(ms(2_000)).await;
        feed.close();
        settled.await.unwrap().unwrap();
        assert_eq!(starts.take(), [0, 0, 1_000, 1_250, 1_500]);
    });
}

/// The batch waits at the gate when its parent ends.
#[test]
fn parent_ends_at_the_gate_then_it_ends_there_and_nothing_starts() {
    on_current_thread(async {
        let begin = Instant::now();
        let ctx = Context::background().with_timeout(ms(100));
        let started = Tally::default();
        let tally = started.clone();
        let batch = batch(0..9, 9).context(&ctx).stagger(ms(250));
        let end = batch
            .settle(move |_, _| {
                tally.add();
                async { Ok::<_, ()>(()) }
            })
            .await
            .unwrap_err();
        assert_eq!(end.reason(), Reason::DeadlineExceeded);
        assert_eq!((begin.elapsed(), started.get()), (ms(100), 1));
    });
}

#[test]
fn future_is_dropped_at_the_gate_then_nothing_is_left() {
    on_current_thread(async {
        let alive = Arc::new(());
        let count = alive.clone();
        let items = (0..9).map(move |_| count.clone());
        let mut race = Box::pin(
            batch(items, 9)
                .stagger(ms(250))
                .first_ok(|_, item| async move { pend().await.map(|()| item) }),
        );
        assert!(poll(&mut race).is_pending());
        drop(race);
        assert_eq!(Arc::strong_count(&alive), 1);
        sleep(ms(1_000)).await;
        assert_eq!(tasks(), 0);
    });
}

/// One that waits at the gate is pulled, and counts. So the end of the items is known without a delay.
#[test]
fn items_are_pulled_at_the_gate_then_one_is_and_never_more_than_the_limit() {
    on_current_thread(async {
        let begin = Instant::now();
        let (items, pulled) = counted(4);
        let (tally, inside) = (pulled.clone(), Arc::new(Gauge::default()));
        let settled = batch(unsized_hint(items), 2)
            .stagger(ms(250))
            .settle(move |_, item| {
                assert!(tally.get() <= item + 2);
                let inside = inside.enter();
                async move {
                    sleep(ms(400)).await;
                    drop(inside);
                    Ok::<_, ()>(())
                }
            });
        let mut settled = Box::pin(settled);
        assert!(poll(&mut settled).is_pending());
        assert_eq!(pulled.get(), 2);
        settled.await.unwrap();
        // Started at 0, 250, 500 and 750, and there is no other.
        assert_eq!(begin.elapsed(), ms(1_150));
    });
}

/// The one that waits at the gate and the source that it comes from, in one go.
#[test]
fn item_at_the_gate_and_source_panic_in_their_drops_then_both_are_contained() {
    on_current_thread(async {
        let bomb = || OnDrop::new(|| quiet_panic("boom"));
        let held = bomb();
        let items = (0..9).map(move |item| {
            let _held = &held;
            (item, (item == 1).then(bomb))
        });
        let race = batch(items, 9)
            .stagger(ms(250))
            .first_ok(|_, (item, bomb)| {
                turns(3).map(move |()| {
                    drop(bomb);
                    Ok::<_, BoxError>(item)
                })
            });
        assert_eq!(race.await.unwrap(), 0);
    });
}

/// Failures on one thread start items on another; nothing is lost on the way.
#[test]
fn failures_on_two_threads_then_every_item_starts() {
    on_multi_thread(async {
        for round in 0..50 {
            let (items, pulled) = counted(100);
            let race = batch(items, 4).stagger(Duration::from_secs(86_400));
            let race = race.first_ok(move |_, item| async move {
                turns((item + round) % 3).await;
                Err::<(), _>(item)
            });
            assert_eq!(race.await.unwrap_err().len(), 100);
            assert_eq!(pulled.get(), 100);
        }
    });
}
