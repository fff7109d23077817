//! Foreign code inside an end: it may call anything, drop anything and panic (C6).

use std::future::{pending, ready};
use std::sync::{Arc, Mutex};
use std::task::Wake;

use errgroup::{CancelHandle, Context, DoneOwned};
use futures::FutureExt;
use tokio::runtime::{Builder, Handle};
use tokio::time::Instant;

use crate::support::{
    Carrier, Counter, Log, OnDrop, OnWake, advance, advance_without_timers, background, bomb,
    child, live, log_end, ms, panic_text, poll, reason, without_deadlock,
};

/// `top`, its children `middle` and `sibling`, and `bottom` below `middle`.
struct Family {
    contexts: [Context; 4],
    handles: [CancelHandle; 4],
}

impl Family {
    fn new() -> Arc<Self> {
        let (top, top_handle) = background().with_value("top").with_cancel();
        let (middle, middle_handle) = top.with_cancel();
        let (sibling, sibling_handle) = top.with_cancel();
        let (bottom, bottom_handle) = middle.with_cancel();
        Arc::new(Self {
            contexts: [top, middle, sibling, bottom],
            handles: [top_handle, middle_handle, sibling_handle, bottom_handle],
        })
    }

    fn middle(&self) -> &Context {
        &self.contexts[1]
    }

    /// Calls everything there is, on all of the family.
    fn use_every_method(&self) {
        for ctx in &self.contexts {
            ask(ctx);
            wait(ctx);
            derive(ctx);
            for other in &self.contexts {
                ask(&ctx.merge(other));
            }
        }
        for handle in &self.handles {
            drop(handle.clone());
            handle.clone().detach();
            handle.cancel();
            handle.cancel_with("again");
        }
        assert!(live(&self.contexts).is_empty());
    }
}

fn ask(ctx: &Context) {
    assert_eq!(ctx.is_done(), ctx.err().is_some());
    assert_eq!(ctx.check().is_err(), ctx.cause().is_some());
    assert_eq!(ctx.deadline().is_some(), ctx.remaining().is_some());
    assert_eq!(ctx.value(), Some(&"top"));
    assert!(!format!("{:?}", ctx.clone()).is_empty());
}

fn wait(ctx: &Context) {
    let waker = Counter::new();
    assert_eq!(poll(&mut ctx.done(), &waker).is_ready(), ctx.is_done());
    assert_eq!(
        poll(&mut ctx.done_owned(), &waker).is_ready(),
        ctx.is_done()
    );
    assert_eq!(ctx.done_blocking(Some(ms(0))).is_some(), ctx.is_done());
    assert_eq!(
        ctx.run(pending::<()>()).now_or_never().is_some(),
        ctx.is_done()
    );
    assert_eq!(ctx.on_done(|_| ()).stop(), !ctx.is_done());
    ctx.on_done(|_| ()).detach();
    drop(ctx.on_done(|_| ()));
}

fn derive(ctx: &Context) {
    let (below, handle) = ctx.with_cancel();
    log_end(&below, &Log::new(), ());
    handle.cancel_with("own");
    ask(&below);
    ask(&ctx.with_value(7_u8));
    ask(&ctx.without_cancel());
    if Handle::try_current().is_ok() {
        ask(&ctx.with_timeout(ms(1_000)));
        ask(&ctx.with_timeout_cause(ms(0), "own"));
        ask(&ctx.with_deadline(Instant::now()));
        ask(&ctx.with_deadline_cause(Instant::now() + ms(1_000), "own"));
        ask(&ctx.with_cancel_on(ready(())));
        ask(&ctx.with_cancel_on_cause(ready("own")));
    }
}

type Code = Box<dyn Fn() + Send + Sync>;

/// Puts code that uses every method of a family into a place, in a runtime; checks that it was run there.
fn reenter(place: impl FnOnce(&Arc<Family>, Code) + Send + 'static) {
    without_deadlock(|| {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let (family, log) = (Family::new(), Log::new());
            place(&family, code(&family, &log));
            advance(ms(10)).await;
            assert_eq!(log.take(), ["finished"]);
        });
    });
}

fn code(family: &Arc<Family>, log: &Log<&'static str>) -> Code {
    let (family, log) = (family.clone(), log.clone());
    Box::new(move || {
        family.use_every_method();
        log.push("finished");
    })
}

// ---- whatever it calls

#[test]
fn c6_callback_uses_every_method() {
    reenter(|family, code| {
        family.middle().on_done(move |_| code()).detach();
        family.handles[0].cancel();
    });
}

#[test]
fn c6_callback_in_the_timer_uses_every_method() {
    reenter(|family, code| {
        family
            .middle()
            .with_timeout(ms(5))
            .on_done(move |_| code())
            .detach();
    });
}

#[test]
fn c6_callback_at_once_uses_every_method() {
    reenter(|family, code| {
        family.handles[1].cancel();
        family.middle().on_done(move |_| code()).detach();
    });
}

#[test]
fn c6_waker_woken_uses_every_method() {
    reenter(|family, code| {
        let mut done = family.middle().done();
        assert!(poll(&mut done, &Arc::new(OnWake(code))).is_pending());
        family.handles[0].cancel();
    });
}

#[test]
fn c6_waker_woken_in_the_timer_uses_every_method() {
    reenter(|family, code| {
        let timed = family.middle().with_timeout(ms(5));
        let mut done = timed.done_owned();
        assert!(poll(&mut done, &Arc::new(OnWake(code))).is_pending());
        std::mem::forget(done);
    });
}

/// Waits with a waker whose only owner is the registration, so that its destructor runs when that lets go of it.
fn wait_with_last_waker<F: Fn() + Send + Sync + 'static>(
    ctx: &Context,
    waker: OnDrop<F>,
) -> DoneOwned {
    let mut done = ctx.done_owned();
    assert!(poll(&mut done, &Arc::new(waker)).is_pending());
    done
}

#[test]
fn c6_waker_dropped_by_unregistering_uses_every_method() {
    reenter(|family, code| drop(wait_with_last_waker(family.middle(), OnDrop(code))));
}

#[test]
fn c6_waker_dropped_by_its_replacement_uses_every_method() {
    reenter(|family, code| {
        let mut done = wait_with_last_waker(family.middle(), OnDrop(code));
        assert!(poll(&mut done, &Counter::new()).is_pending());
    });
}

#[test]
fn c6_waker_dropped_by_the_end_uses_every_method() {
    reenter(|family, code| {
        let _done = wait_with_last_waker(family.middle(), OnDrop(code));
        family.handles[0].cancel();
    });
}

#[test]
fn c6_callback_dropped_by_stop_uses_every_method() {
    reenter(|family, code| {
        let content = OnDrop(code);
        assert!(family.middle().on_done(move |_| drop(content)).stop());
    });
}

#[test]
fn c6_callback_dropped_unused_uses_every_method() {
    reenter(|family, code| {
        let content = OnDrop(code);
        drop(family.middle().on_done(move |_| drop(content)));
    });
}

#[test]
fn c6_value_dropped_uses_every_method() {
    reenter(|family, code| drop(child(family.middle()).with_value(OnDrop(code))));
}

#[test]
fn c6_cause_dropped_with_its_context_uses_every_method() {
    reenter(|family, code| {
        let (below, handle) = family.middle().with_cancel();
        handle.cancel_with(Carrier(OnDrop(code)));
        drop(handle);
        drop(below);
    });
}

#[test]
fn c6_cause_dropped_because_it_was_too_late_uses_every_method() {
    reenter(|family, code| {
        family.handles[1].cancel();
        family.handles[1].cancel_with(Carrier(OnDrop(code)));
    });
}

#[test]
fn c6_cause_of_an_unused_deadline_dropped_uses_every_method() {
    reenter(|family, code| {
        drop(
            family
                .middle()
                .with_timeout_cause(ms(5), Carrier(OnDrop(code))),
        )
    });
}

#[test]
fn c6_foreign_future_dropped_uses_every_method() {
    reenter(|family, code| {
        let content = OnDrop(code);
        drop(family.middle().with_cancel_on(async move {
            let _content = content;
            pending::<()>().await;
        }));
    });
}

#[test]
fn c6_callback_cancels_ancestor_and_sibling_during_its_own_end() {
    without_deadlock(|| {
        let (family, log) = (Family::new(), Log::new());
        for (ctx, name) in family
            .contexts
            .iter()
            .zip(["top", "middle", "sibling", "bottom"])
        {
            log_end(ctx, &log, name);
        }
        let relatives = family.clone();
        family.contexts[3]
            .on_done(move |_| {
                relatives.handles[0].cancel_with("from below");
                relatives.handles[2].cancel();
            })
            .detach();
        family.handles[3].cancel_with("bottom's");
        assert_eq!(log.take(), ["bottom", "top", "middle", "sibling"]);
        assert_eq!(
            family.contexts[2].cause().unwrap().to_string(),
            "from below"
        );
        assert_eq!(family.contexts[3].cause().unwrap().to_string(), "bottom's");
    });
}

// ---- whatever it drops

#[test]
fn c6_callback_drops_contexts_futures_and_callbacks_of_the_same_end() {
    without_deadlock(|| {
        let (top, handle) = background().with_cancel();
        let waker = Counter::new();
        let mut relatives = Vec::new();
        for _ in 0..10 {
            let (below, below_handle) = child(&top).with_value(OnDrop(|| ())).with_cancel();
            let mut done = below.done_owned();
            assert!(poll(&mut done, &waker).is_pending());
            relatives.push((
                done,
                below.on_done(|_| ()),
                below.merge(&top),
                below,
                below_handle,
            ));
        }
        let relatives = Mutex::new(relatives);
        top.on_done(move |_| relatives.lock().unwrap().clear())
            .detach();
        handle.cancel();
        assert_eq!(waker.woken(), 10, "they waited when the end came");
    });
}

#[tokio::test(start_paused = true)]
async fn c6_callback_in_the_timer_drops_timers_of_the_same_moment() {
    let contexts: Vec<_> = (0..10).map(|_| background().with_timeout(ms(5))).collect();
    let first = contexts[0].clone();
    let contexts = Mutex::new(contexts);
    first
        .on_done(move |_| contexts.lock().unwrap().clear())
        .detach();
    advance(ms(5)).await;
    assert!(first.is_done());
}

#[test]
fn c6_callback_drops_the_last_context_and_the_last_handle_of_its_own_end() {
    without_deadlock(|| {
        let (top, handle) = background().with_cancel();
        let (below, below_handle) = top.with_cancel();
        let log = Log::new();
        let own = Mutex::new(Some((below.clone(), below_handle)));
        below
            .on_done(move |_| drop(own.lock().unwrap().take()))
            .detach();
        log_end(&below, &log, "still told");
        drop((top, below));
        handle.cancel();
        assert_eq!(log.take(), ["still told"]);
    });
}

// ---- if it panics

/// A top and three children whose ends are logged; the code in question sits between them.
fn witnesses() -> (CancelHandle, [Context; 3], Log<usize>) {
    let (top, handle) = background().with_cancel();
    let children = [child(&top), child(&top), child(&top)];
    let log = Log::new();
    for (index, ctx) in children.iter().enumerate() {
        log_end(ctx, &log, index);
    }
    (handle, children, log)
}

#[test]
fn c6_waker_panics_and_the_others_are_woken() {
    let (handle, [first, second, third], log) = witnesses();
    let waker = Counter::new();
    let mut waiting = [
        first.done(),
        second.done(),
        second.done(),
        second.done(),
        third.done(),
    ];
    for (index, done) in waiting.iter_mut().enumerate() {
        assert!(match index {
            2 => poll(done, &Arc::new(OnWake(|| panic!("woken")))).is_pending(),
            _ => poll(done, &waker).is_pending(),
        });
    }
    handle.cancel();
    assert_eq!(waker.woken(), 4);
    assert_eq!(log.take(), [0, 1, 2]);
}

#[test]
fn c6_waker_panics_when_dropped_by_the_end_and_the_others_are_woken() {
    let (handle, [_, second, _third], log) = witnesses();
    let _done = wait_with_last_waker(&second, bomb("dropped"));
    log_end(&second, &log, 10);
    handle.cancel();
    assert_eq!(log.take(), [0, 1, 10, 2]);
}

#[tokio::test(start_paused = true)]
async fn c6_waker_panics_in_the_timer_and_the_others_are_woken() {
    let (ctx, other) = (
        background().with_timeout(ms(5)),
        background().with_timeout(ms(6)),
    );
    let waker = Counter::new();
    let mut waiting = [ctx.done(), ctx.done(), other.done()];
    assert!(poll(&mut waiting[0], &Arc::new(OnWake(|| panic!("woken")))).is_pending());
    assert!(poll(&mut waiting[1], &waker).is_pending());
    assert!(poll(&mut waiting[2], &waker).is_pending());
    advance(ms(10)).await;
    assert_eq!(waker.woken(), 2);
}

#[test]
fn c6_values_panic_when_dropped_and_the_others_are_dropped() {
    let log = Log::new();
    let value = |name| {
        let (log, bomb) = (log.clone(), bomb("value dropped"));
        OnDrop(move || {
            log.push(name);
            (bomb.0)();
        })
    };
    let ctx = background()
        .with_value(value(1))
        .with_value(value(2))
        .with_value(value(3));
    assert_eq!(panic_text(|| drop(ctx)), "no panic");
    assert_eq!(log.take(), [3, 2, 1]);
}

/// A cause whose destructor panics.
fn bad_cause() -> Carrier<impl Send + Sync> {
    Carrier(bomb("cause dropped"))
}

#[test]
fn c6_causes_of_a_parent_and_its_child_panic_when_dropped_together_and_are_contained() {
    let (parent, parent_handle) = background().with_cancel();
    let (below, handle) = parent.with_cancel();
    handle.cancel_with(bad_cause());
    parent_handle.cancel_with(bad_cause());
    drop((parent, parent_handle, handle));
    assert_eq!(panic_text(|| drop(below)), "no panic");
}

#[tokio::test(start_paused = true)]
async fn c6_cause_panics_when_dropped_during_an_end_and_the_others_are_told() {
    let (top, handle) = background().with_cancel();
    let timed = top.with_timeout_cause(ms(5), bad_cause());
    let other = child(&top);
    let log = Log::new();
    log_end(&timed, &log, "timed");
    log_end(&other, &log, "other");
    // From here on the end itself is the last to know the cause.
    drop(timed);
    advance_without_timers(ms(5));
    let text = panic_text(|| handle.cancel());
    assert_eq!(log.take(), ["timed", "other"]);
    assert_eq!(text, "no panic");
}

#[test]
fn c6_waker_panics_when_replaced_or_dropped_and_the_context_stays_whole() {
    let (ctx, handle) = background().with_cancel();
    let waker = Counter::new();
    let mut replaced = wait_with_last_waker(&ctx, bomb("replaced"));
    assert_eq!(panic_text(|| poll(&mut replaced, &waker)), "replaced");
    let dropped = wait_with_last_waker(&ctx, bomb("dropped"));
    let _ = panic_text(|| drop(dropped));
    let log = Log::new();
    log_end(&ctx, &log, "told");
    handle.cancel();
    assert_eq!((waker.woken(), log.take()), (1, vec!["told"]));
    assert!(reason(&ctx).is_some());
}

/// What is woken may be dropped by its own waking.
#[test]
fn c6_waker_woken_drops_the_future_that_registered_it() {
    struct DropsDone(Mutex<Option<DoneOwned>>);
    impl Wake for DropsDone {
        fn wake(self: Arc<Self>) {
            drop(self.0.lock().unwrap().take());
        }
    }
    without_deadlock(|| {
        let (ctx, handle) = background().with_cancel();
        let waker = Arc::new(DropsDone(Mutex::new(None)));
        let mut done = ctx.done_owned();
        assert!(poll(&mut done, &waker).is_pending());
        *waker.0.lock().unwrap() = Some(done);
        handle.cancel();
        assert!(waker.0.lock().unwrap().is_none());
    });
}
