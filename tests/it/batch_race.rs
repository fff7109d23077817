//! `first_ok` and `quorum`: who wins, what becomes of the others, and what is told when nobody does.

use std::future::Future;
use std::panic::resume_unwind;
use std::process::Command;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use errgroup::{BoxError, Context, Failures, Group, Reason, batch, batch_stream};
use tokio::time::{Instant, sleep};

use crate::batch_support::*;
use crate::group_support::*;
use crate::support::{Carrier, Log, ms, no_leaks};

/// An item's script: how long it takes, and how it ends.
type Item = (u64, Result<u32, &'static str>);

async fn play(_ctx: Context, (millis, end): Item) -> Result<u32, &'static str> {
    sleep(ms(millis)).await;
    end
}

async fn timed<F: Future>(future: F) -> (F::Output, Duration) {
    let begin = Instant::now();
    (future.await, begin.elapsed())
}

fn texts<E: std::fmt::Display>(failures: &Failures<E>) -> Vec<(Option<usize>, String)> {
    let texts = failures
        .iter()
        .map(|failed| (failed.index(), failed.error().to_string()));
    texts.collect()
}

// ---- who wins

#[test]
fn items_succeed_then_the_first_in_time_wins() {
    on_current_thread(async {
        let items = [(30, Ok(0)), (10, Err("early")), (20, Ok(2)), (25, Ok(3))];
        let (first, after) = timed(batch(items, 4).first_ok(play)).await;
        assert_eq!((first.unwrap(), after), (2, ms(20)));
    });
}

#[test]
fn items_succeed_then_a_quorum_has_the_first_in_time_in_that_order() {
    on_current_thread(async {
        let items = [
            (30, Ok(0)),
            (10, Ok(1)),
            (20, Err("no")),
            (5, Ok(3)),
            (99, Ok(4)),
        ];
        let (values, after) = timed(batch(items, 5).quorum(3, play)).await;
        assert_eq!((values.unwrap(), after), (vec![3, 1, 0], ms(30)));
    });
}

/// Items that end at once come in blocks: the rest of one is not started.
#[test]
fn item_of_a_block_succeeds_then_nothing_of_it_starts_after_it() {
    on_current_thread(async {
        let started = Tally::default();
        let tally = started.clone();
        let first = batch(0..10_000, 1_000).first_ok(move |_, item| {
            tally.add();
            async move { if item == 500 { Ok(item) } else { Err(item) } }
        });
        assert_eq!(first.await.unwrap(), 500);
        assert_eq!(started.get(), 501);
    });
}

on_both_runtimes! {
    /// All of them wait: before the race is over, and not when it is dropped.
    async fn item_succeeds_then_the_others_are_dropped_before_it_returns() {
        for n in [1, 2] {
            let alive = Arc::new(());
            let count = alive.clone();
            let items = (0..50).map(move |item| (item, count.clone()));
            let inside = Arc::new(Gauge::default());
            let gauge = inside.clone();
            let values = batch(items, 8).quorum(n, move |_, (item, alive)| {
                let inside = gauge.enter();
                async move {
                    let _inside = inside;
                    match item {
                        0..6 => pend().await?,
                        _ => turns(item).await,
                    }
                    Ok::<_, BoxError>(alive)
                }
            });
            let mut values = Box::pin(values);
            let values = std::future::poll_fn(|cx| values.as_mut().poll(cx)).await.unwrap();
            // The future itself is still there.
            assert_eq!(inside.now(), 0);
            assert_eq!((values.len(), Arc::strong_count(&alive)), (n, 1 + n));
        }
    }

    async fn source_never_ends_then_the_first_success_ends_it() {
        let (items, pulled) = counted(usize::MAX);
        let first = batch(items, 4).first_ok(|_, item| async move {
            if item == 100 { Ok(item) } else { Err(item) }
        });
        assert_eq!(first.await.unwrap(), 100);
        assert!((101..=101 + 4).contains(&pulled.get()));
    }

    async fn nobody_succeeds_then_all_errors_are_told_once_each() {
        let result = batch(0..100, 7).first_ok(|_, item| async move {
            turns(item % 3).await;
            Err::<(), _>(item)
        });
        let failures = result.await.unwrap_err();
        assert_eq!((failures.len(), failures.ended()), (100, None));
        assert!(failures.iter().all(|failed| failed.index() == Some(*failed.error())));
        let mut errors = failures.into_errors();
        errors.sort_unstable();
        assert!(errors.into_iter().eq(0..100));
    }

    async fn item_panics_then_the_panic_is_the_races() {
        for n in [1, 2] {
            let inside = Arc::new(Gauge::default());
            let gauge = inside.clone();
            let race = batch(0..8, 4).quorum(n, move |_, item| {
                holding(gauge.enter(), async move {
                    turns(3).await;
                    match item {
                        2 => panics("boom").await,
                        _ => pend().await,
                    }
                })
            });
            assert_eq!(panic_of(race).await, "boom");
            assert_eq!(inside.now(), 0);
        }
    }

    /// The values that are there already are dropped.
    async fn quorum_is_dropped_midway_then_nothing_is_left() {
        let alive = Arc::new(());
        let count = alive.clone();
        let done = Tally::default();
        let tally = done.clone();
        let mut race = Box::pin(batch(0..8, 4).quorum(3, move |_, item| {
            let (alive, done) = (count.clone(), tally.clone());
            async move {
                if item > 1 {
                    pend().await?;
                }
                done.add();
                Ok::<_, BoxError>(alive)
            }
        }));
        assert!(poll(&mut race).is_pending());
        until(|| done.get() == 2).await;
        drop(race);
        until(|| Arc::strong_count(&alive) == 1 && tasks() == 0).await;
    }
}

/// Two threads come out of the poll of their item at the same time. One value is too late, and dropped by the race.
#[test]
fn two_succeed_at_once_then_the_value_of_one_is_dropped_before_it_returns() {
    on_multi_thread(async {
        for _ in 0..20 {
            let alive = Arc::new(());
            let count = alive.clone();
            let barrier = Arc::new(Barrier::new(2));
            let first = batch(0..2, 2).first_ok(move |_, _| {
                let (alive, barrier) = (count.clone(), barrier.clone());
                async move {
                    barrier.wait();
                    Ok::<_, BoxError>(alive)
                }
            });
            let first = first.await.unwrap();
            assert_eq!(Arc::strong_count(&alive), 2);
            drop(first);
        }
    });
}

// ---- when it cannot be reached

#[test]
fn too_many_have_failed_then_the_quorum_fails_at_once() {
    on_current_thread(async {
        let items = [
            (10, Err("a")),
            (50, Ok(1)),
            (20, Ok(2)),
            (30, Err("d")),
            (99, Ok(4)),
        ];
        let (result, after) = timed(batch(items, 5).quorum(4, play)).await;
        let failures = result.unwrap_err();
        assert_eq!(after, ms(30));
        let expected = [(Some(0), "a".to_owned()), (Some(3), "d".to_owned())];
        assert_eq!(texts(&failures), expected);
        let text = failures.to_string();
        assert_eq!(text.lines().next(), Some("1 of the 4 successes needed"));
        assert!(failures.ended().is_none());
    });
}

/// `size_hint` gives it away.
#[test]
fn quorum_is_above_the_number_of_items_then_none_starts() {
    on_current_thread(async {
        let (items, pulled) = counted(3);
        let result = batch(items, 8).quorum(4, |_, item| async move { Ok::<_, BoxError>(item) });
        let failures = result.await.unwrap_err();
        assert!(failures.is_empty() && failures.ended().is_none());
        assert_eq!(failures.to_string(), "4 successes needed, of 3 items");
        assert_eq!(pulled.get(), 0);
        let one = batch([1], 1).quorum(2, |_, item| async move { Ok::<_, BoxError>(item) });
        assert_eq!(
            one.await.unwrap_err().to_string(),
            "2 successes needed, of 1 item"
        );
    });
}

/// Nobody knows before its end: then the items that have not ended are cut short.
#[test]
fn source_turns_out_to_be_short_then_the_quorum_fails_at_its_end() {
    on_current_thread(async {
        let (feed, stream) = feed();
        let dropped = Tally::default();
        let tally = dropped.clone();
        let mut race = Box::pin(batch_stream(stream, 8).quorum(3, move |_, item| {
            let tally = tally.clone();
            holding(
                OnDrop::new(move || {
                    tally.add();
                }),
                async move {
                    match item {
                        0 => Ok(item),
                        _ => std::future::pending::<Result<_, BoxError>>().await,
                    }
                },
            )
        }));
        feed.send(0);
        feed.send(1);
        assert!(poll(&mut race).is_pending());
        assert_eq!(dropped.get(), 1);
        feed.close();
        let failures = race.await.unwrap_err();
        assert_eq!((failures.len(), dropped.get()), (0, 2));
        assert_eq!(failures.to_string(), "3 successes needed, of 2 items");
    });
}

/// What a filter lets through is not known before it is pulled. Then the item in hand does not start any more.
#[test]
fn filtered_items_turn_out_to_be_too_few_then_the_quorum_fails_at_once() {
    on_current_thread(async {
        let items = (0..3).filter(|item| item % 2 == 0);
        let started = Tally::default();
        let tally = started.clone();
        let race = batch(items, 1).quorum(2, move |_, item| {
            tally.add();
            async move { Err::<(), _>(item) }
        });
        let failures = race.await.unwrap_err();
        assert_eq!((failures.len(), started.get()), (1, 1));
        assert_eq!(
            failures.to_string().lines().next(),
            Some("0 of the 2 successes needed")
        );
    });
}

#[test]
fn quorum_of_none_then_it_is_reached_at_once_and_nothing_is_pulled() {
    // Outside of a runtime, too.
    let (items, pulled) = counted(usize::MAX);
    let race = batch(items, 1).quorum(0, |_, item| async move { Ok::<_, BoxError>(item) });
    let values = futures::executor::block_on(race);
    assert!(values.unwrap().is_empty());
    assert_eq!(pulled.get(), 0);
}

#[test]
fn there_are_no_items_then_the_failures_say_so() {
    on_current_thread(async {
        let none = || std::iter::empty::<Item>();
        let exact = batch(none(), 2).first_ok(play).await.unwrap_err();
        let unknown = batch(unsized_hint(none()), 2)
            .first_ok(play)
            .await
            .unwrap_err();
        let quorum = batch(none(), 2).quorum(3, play).await.unwrap_err();
        for failures in [exact, unknown, quorum] {
            assert_eq!(failures.to_string(), "there were no items");
            assert!(failures.is_empty() && failures.ended().is_none());
        }
    });
}

// ---- what is told

#[test]
fn nobody_succeeds_then_a_line_tells_of_each_in_the_order_of_time() {
    on_current_thread(async {
        let items = [(20, Err("refused")), (10, Err("no route"))];
        let line = line!() + 1;
        let failures = batch(items, 2).first_ok(play).await.unwrap_err();
        let place = format!("{}:{line}:", file!());
        let text = failures.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].starts_with(&format!("item 1 failed: no route (batch at {place}")));
        assert!(lines[1].starts_with(&format!("item 0 failed: refused (batch at {place}")));
        for failed in &failures {
            assert_eq!((failed.name(), failed.id()), (None, None));
            assert_eq!(failed.location().line(), line);
        }
        assert_eq!(failures.into_errors(), ["no route", "refused"]);

        let named = batch(items, 2)
            .name("mirrors")
            .first_ok(play)
            .await
            .unwrap_err();
        assert!(
            named
                .to_string()
                .starts_with("item 1 of \"mirrors\" failed: no route (batch at ")
        );
        assert_eq!(named.iter().next().unwrap().name(), Some("mirrors"));
    });
}

#[test]
fn many_fail_then_ten_are_listed_and_the_others_counted() {
    on_current_thread(async {
        let result = batch(0..25, 4).first_ok(|_, item| async move { Err::<(), _>(item) });
        let text = result.await.unwrap_err().to_string();
        assert_eq!(text.lines().count(), 11);
        assert!(text.starts_with("item 0 failed: 0 (batch at "));
        assert_eq!(text.lines().last(), Some("and 15 more"));
    });
}

/// Into an error of the program's, by `?`, although `BoxError` itself is no `Error`.
#[test]
fn errors_are_boxed_then_the_failures_are_an_error_all_the_same() {
    async fn run() -> Result<(), BoxError> {
        batch(0..2, 2).first_ok(|_, _| fail("refused")).await?;
        Ok(())
    }
    on_current_thread(async {
        let error = run().await.unwrap_err();
        assert!(error.source().is_none());
        let failures = error.downcast::<Failures<BoxError>>().unwrap();
        assert_eq!(failures.len(), 2);
        assert!(format!("{failures:?}").contains("refused"));
    });
}

#[test]
fn loser_is_cut_short_then_its_context_says_why() {
    on_current_thread(async {
        let seen = Log::new();
        let log = seen.clone();
        let line = line!() + 1;
        let race = batch(0..3, 3).first_ok(move |ctx: Context, item| {
            let log = log.clone();
            let tell = OnDrop::new(move || log.push(ctx.err()));
            async move {
                let _tell = tell;
                match item {
                    0 => takes_turns(3).await,
                    _ => pend().await,
                }
            }
        });
        race.await.unwrap();
        let ends: Vec<_> = seen.take().into_iter().flatten().collect();
        assert_eq!(ends.len(), 2);
        for end in ends {
            assert_eq!(end.reason(), Reason::GroupCancelled);
            assert_eq!(end.location().unwrap().line(), line);
            assert!(
                end.to_string().contains("the batch has its result"),
                "{end}"
            );
        }
    });
}

// ---- deadlines, parents, runtimes

#[test]
fn deadline_passes_then_it_is_told_beside_the_failures_before_it() {
    on_current_thread(async {
        let ctx = Context::background().with_timeout(ms(15));
        let items = [(10, Err("refused")), (20, Ok(1)), (5, Ok(2))];
        let race = batch(items, 3).context(&ctx).quorum(2, play);
        let (result, after) = timed(race).await;
        let failures = result.unwrap_err();
        assert_eq!(after, ms(15));
        assert!(failures.ended().unwrap().is_deadline_exceeded());
        assert_eq!(texts(&failures), [(Some(0), "refused".to_owned())]);
        let text = failures.to_string();
        assert!(
            text.starts_with("deadline exceeded (15ms, set at "),
            "{text}"
        );
        assert_eq!(text.lines().count(), 2);
    });
}

on_both_runtimes! {
    async fn parent_ended_before_then_nothing_is_pulled_and_the_failures_say_why() {
        let (parent, handle) = Context::background().with_cancel();
        handle.cancel_with("closing time");
        let (items, pulled) = counted(10);
        let race = batch(items, 2).context(&parent).first_ok(|_, _| fail("never"));
        let failures = race.await.unwrap_err();
        assert!(failures.is_empty());
        assert!(failures.ended().unwrap().to_string().contains("closing time"));
        assert_eq!(pulled.get(), 0);
        no_leaks(&parent);
    }

    /// It was reached before the end, or at the same time: that counts.
    async fn parent_ends_as_an_item_succeeds_then_the_success_counts() {
        let (parent, handle) = Context::background().with_cancel();
        let handle = Arc::new(handle);
        let first = batch(0..4, 2).context(&parent).first_ok(move |_, item| {
            handle.cancel();
            async move { Ok::<_, BoxError>(item) }
        });
        first.await.unwrap();
        assert!(parent.is_done());
        no_leaks(&parent);
    }

    /// What ends the race is no failure of the group around it.
    async fn race_in_a_group_then_its_end_does_not_reach_the_group() {
        let mut group: Group = Group::new();
        let ctx = group.context().clone();
        let first = group.spawn(async move {
            let first = batch(0..4, 4).context(&ctx).first_ok(|_, item| async move {
                turns(item).await;
                if item == 1 { Ok(item) } else { pend().await.map(|()| item) }
            });
            let first = first.await?;
            ctx.check()?;
            Ok(first)
        });
        assert_eq!(first.await.unwrap(), 1);
        group.wait().await.unwrap();
    }
}

#[test]
fn no_runtime_then_a_panic_says_so() {
    let race = batch(0..3, 1).first_ok(|_, _| fail("never"));
    let text = crate::support::panic_text(|| futures::executor::block_on(race));
    assert!(text.contains("a batch runs on a tokio runtime"), "{text}");
}

// ---- foreign code that panics

/// A value whose destructor panics, unless another panic unwinds.
fn bomb() -> OnDrop<impl FnOnce() + Send + Sync> {
    OnDrop::new(|| quiet_panic("boom"))
}

#[test]
fn loser_panics_in_its_drop_then_the_caller_has_the_panic_and_the_value_is_dropped() {
    on_current_thread(async {
        let alive = Arc::new(());
        let count = alive.clone();
        let race = batch(0..3, 3).first_ok(move |_, item| {
            let alive = count.clone();
            holding((item == 1).then(bomb), async move {
                match item {
                    2 => Ok::<_, BoxError>(alive),
                    _ => pend().await.map(|()| alive),
                }
            })
        });
        assert_eq!(panic_of(race).await, "boom");
        assert_eq!(Arc::strong_count(&alive), 1);
    });
}

/// Values and errors of those who lost; what was kept until the race failed; the source, the function.
#[test]
fn destructors_of_losers_panic_then_they_are_contained() {
    on_both(|| async {
        // Two succeed, one fails: one value is kept.
        let first = batch(0..3, 3).first_ok(|_, item| async move {
            turns(2 * item).await;
            if item == 0 {
                Err(bomb())
            } else {
                Ok(Carrier(bomb()))
            }
        });
        let first = first.await.unwrap_or_else(|_| panic!("one succeeds"));
        std::mem::forget(first);

        // One succeeds, which is too little.
        let quorum = batch(0..3, 3).quorum(3, |_, item| async move {
            turns(2 * item).await;
            if item == 0 { Ok(bomb()) } else { Err(bomb()) }
        });
        let Err(failures) = quorum.await else {
            panic!("it cannot be reached")
        };
        drop(failures);

        let (source_bomb, function_bomb) = (bomb(), bomb());
        let source = (0..9).inspect(move |_| {
            let _held = &source_bomb;
        });
        let none = batch(source, 1).quorum(0, move |_, _| {
            let _held = &function_bomb;
            fail("never")
        });
        assert!(none.await.unwrap().is_empty());
    });
}

/// Runs a test on both runtimes.
fn on_both<F: Future<Output = ()>>(body: impl Fn() -> F) {
    on_current_thread(body());
    on_multi_thread(body());
}

/// The future of an item that has ended is dropped while its result is at hand: both destructors panic.
#[test]
fn future_and_result_panic_in_their_drops_then_nothing_aborts() {
    const CHILD: &str = "ERRGROUP_TEST_RACE_OF_BOMBS";
    if std::env::var_os(CHILD).is_some() {
        return on_both(|| async {
            for n in [1, 2] {
                let race = batch(0..4, 4).quorum(n, |_, item| {
                    holding(bomb(), async move {
                        turns(3).await;
                        if item % 2 == 0 {
                            Ok(bomb())
                        } else {
                            Err(bomb())
                        }
                    })
                });
                assert_eq!(panic_of(race).await, "boom");
                let settle = batch(0..4, 4).settle(|_, item| {
                    holding(bomb(), async move {
                        turns(3).await;
                        if item % 2 == 0 {
                            Ok(bomb())
                        } else {
                            Err(bomb())
                        }
                    })
                });
                assert_eq!(panic_of(settle).await, "boom");
            }
        });
    }
    let name = thread::current().name().unwrap().to_owned();
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", &name]).env(CHILD, "").output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// An iterator whose `size_hint` panics before the first item.
struct BadHint;

impl Iterator for BadHint {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        Some(0)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        resume_unwind(Box::new("boom"))
    }
}

#[test]
fn size_hint_panics_then_the_caller_has_the_panic() {
    on_both(|| async {
        let race = batch(BadHint, 2).first_ok(|_, _| fail("never"));
        assert_eq!(panic_of(race).await, "boom");
    });
}

#[test]
fn hint_is_the_largest_number_then_it_bounds_nothing() {
    on_current_thread(async {
        let race = batch(0..usize::MAX, 2).quorum(usize::MAX, |_, item| async move {
            match item {
                0 => fail("first").await,
                _ => pend().await,
            }
        });
        assert!(
            poll(&mut Box::pin(race)).is_ready(),
            "one failure is too much"
        );
        let unsized_items = unsized_hint(0..usize::MAX);
        let race = batch(unsized_items, 2).quorum(usize::MAX, |_, _| pend());
        assert!(poll(&mut Box::pin(race)).is_pending());
    });
}
