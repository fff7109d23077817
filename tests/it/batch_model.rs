//! Random batches against a plain model: what each item does is drawn, and what must come of it is told without workers.

use std::sync::Arc;
use std::task::Poll;

use errgroup::{Batch, BoxError, Context, batch, batch_stream};
use futures::{Stream, StreamExt, stream};
use proptest::prelude::*;
use proptest::test_runner::Config;

use crate::batch_support::*;
use crate::group_support::*;
use crate::support::Log;

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Done,
    Fails,
    Panics,
}

#[derive(Clone, Copy, Debug)]
struct Script {
    /// How often it wakes itself first.
    turns: usize,
    end: End,
    /// How often its source is not ready before it.
    late: usize,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Exact,
    Unsized,
    /// Is woken by another task.
    Slow,
    /// Wakes itself.
    Hasty,
}

#[derive(Clone, Debug)]
struct Case {
    scripts: Vec<Script>,
    limit: usize,
    kind: Kind,
    way: Way,
    /// How often the consumer of the stream does something else between two results.
    consumer: usize,
}

fn script(trouble: u32) -> impl Strategy<Value = Script> {
    let end = prop_oneof![
        40 => Just(End::Done),
        trouble => Just(End::Fails),
        trouble => Just(End::Panics),
    ];
    let late = prop_oneof![2 => Just(0), 1 => 0..4_usize];
    (0..6_usize, end, late).prop_map(|(turns, end, late)| Script { turns, end, late })
}

fn case() -> impl Strategy<Value = Case> {
    let kind = prop::sample::select(vec![Kind::Exact, Kind::Unsized, Kind::Slow, Kind::Hasty]);
    let scripts = prop_oneof![
        prop::collection::vec(script(0), 0..40),
        prop::collection::vec(script(2), 0..40),
    ];
    let way = prop::sample::select(WAYS.to_vec());
    (scripts, 1..8_usize, kind, way, 0..8_usize).prop_map(
        |(scripts, limit, kind, way, consumer)| Case {
            scripts,
            limit,
            kind,
            way,
            consumer,
        },
    )
}

/// What happened, as the items tell.
#[derive(Clone)]
struct Seen {
    pulled: Tally,
    done: Tally,
    /// Failures and panics, in the order of time.
    troubles: Log<(usize, End)>,
    inside: Arc<Gauge>,
    alive: Arc<()>,
}

impl Seen {
    fn new() -> Self {
        Self {
            pulled: Tally::default(),
            done: Tally::default(),
            troubles: Log::new(),
            inside: Arc::default(),
            alive: Arc::default(),
        }
    }
}

type Item = (usize, Script, Arc<()>);

fn items(scripts: &[Script], seen: &Seen) -> impl Iterator<Item = Item> + Send + 'static + use<> {
    let (pulled, alive) = (seen.pulled.clone(), seen.alive.clone());
    let scripts = scripts.to_vec();
    scripts
        .into_iter()
        .map(move |script| (pulled.add(), script, alive.clone()))
}

fn slow(
    scripts: &[Script],
    seen: &Seen,
    is_hasty: bool,
) -> impl Stream<Item = Item> + Send + 'static + use<> {
    let mut items = items(scripts, seen);
    let mut delays: Vec<usize> = scripts.iter().map(|script| script.late).rev().collect();
    stream::poll_fn(move |cx| {
        match delays.last_mut() {
            Some(late) if *late > 0 => {
                *late -= 1;
                let waker = cx.waker().clone();
                if is_hasty {
                    waker.wake();
                } else {
                    tokio::spawn(async move { waker.wake() });
                }
                return Poll::Pending;
            }
            _ => drop(delays.pop()),
        }
        Poll::Ready(items.next())
    })
}

async fn play(item: Item, seen: Seen) -> Result<usize, BoxError> {
    let (index, script, _alive) = item;
    let _inside = seen.inside.enter();
    turns(script.turns).await;
    if script.end != End::Done {
        seen.troubles.push((index, script.end));
    }
    match script.end {
        End::Done => {
            seen.done.add();
            Ok(index)
        }
        End::Fails => Err(index.to_string().into()),
        End::Panics => std::panic::resume_unwind(Box::new(index)),
    }
}

/// What the caller is told: the values in their order, and how it ended.
async fn run(case: &Case, batch: Batch<Item>, seen: &Seen) -> (Vec<usize>, Unit) {
    let seen = seen.clone();
    match case.way {
        Way::Map => match batch
            .map(move |_: Context, item| play(item, seen.clone()))
            .await
        {
            Ok(values) => (values, Ok(())),
            Err(error) => (Vec::new(), Err(error)),
        },
        Way::ForEach => {
            let run = batch.for_each(move |_, item| {
                let run = play(item, seen.clone());
                async { run.await.map(drop) }
            });
            (Vec::new(), run.await)
        }
        Way::Stream => {
            let (yielded, pulled, limit) = (Tally::default(), seen.pulled.clone(), case.limit);
            let consumer = case.consumer;
            let results = batch.map_stream(move |_, item| play(item, seen.clone()));
            exhaust(results.then(move |result| {
                yielded.add();
                let (yielded, pulled) = (yielded.clone(), pulled.clone());
                async move {
                    turns(consumer).await;
                    assert!(pulled.get() <= yielded.get() + limit, "too far ahead");
                    result
                }
            }))
            .await
        }
    }
}

fn check(case: &Case) {
    on_current_thread(async {
        let seen = Seen::new();
        let limit = case.limit;
        let scripts = &case.scripts;
        let outcome = std::panic::AssertUnwindSafe(async {
            match case.kind {
                Kind::Exact => run(case, batch(items(scripts, &seen), limit), &seen).await,
                Kind::Unsized => {
                    run(
                        case,
                        batch(unsized_hint(items(scripts, &seen)), limit),
                        &seen,
                    )
                    .await
                }
                Kind::Slow => {
                    run(
                        case,
                        batch_stream(slow(scripts, &seen, false), limit),
                        &seen,
                    )
                    .await
                }
                Kind::Hasty => {
                    run(case, batch_stream(slow(scripts, &seen, true), limit), &seen).await
                }
            }
        });
        let outcome = futures::FutureExt::catch_unwind(outcome).await;

        assert_eq!(Arc::strong_count(&seen.alive), 1, "all is dropped");
        // A task of the source's may be about to wake it.
        idle().await;
        assert_eq!(tasks(), 0);
        assert_eq!(seen.inside.now(), 0);
        assert!(seen.inside.peak() <= case.limit);
        assert!(
            seen.pulled.get() <= seen.done.get() + case.limit,
            "pulled more than needed"
        );
        let troubles = seen.troubles.take();
        let expected = scripts.iter().position(|script| script.end != End::Done);
        assert_eq!(
            troubles.is_empty(),
            expected.is_none(),
            "trouble is met if there is any"
        );
        // On one thread nothing runs any more once the first is in trouble.
        assert!(troubles.len() <= 1, "{troubles:?}");
        match (troubles.first(), outcome) {
            (None, Ok((values, end))) => {
                end.unwrap();
                assert_eq!(seen.done.get(), scripts.len());
                if case.way != Way::ForEach {
                    assert!(values.into_iter().eq(0..scripts.len()));
                }
            }
            (Some((index, End::Fails)), Ok((values, end))) => {
                assert_eq!(end.unwrap_err().to_string(), index.to_string());
                assert!(values.len() <= *index);
                assert!(values.iter().copied().eq(0..values.len()), "{values:?}");
            }
            (Some((index, End::Panics)), Err(payload)) => {
                assert_eq!(payload.downcast_ref::<usize>(), Some(index));
            }
            (trouble, outcome) => panic!("{trouble:?}, but {:?}", outcome.map_err(drop)),
        }
    });
}

proptest! {
    #![proptest_config(Config { cases: 512, failure_persistence: None, ..Config::default() })]

    #[test]
    fn batch_does_what_the_model_says(case in case()) {
        check(&case);
    }
}
