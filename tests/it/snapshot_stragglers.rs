//! Who outlives the end of its context, and why: each diagnosis where it is right, and where its neighbour is right instead.

use std::future::{Future, pending};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use errgroup::{BoxError, Context, Diagnosis, Group, Snapshot, Spawner, TaskSnapshot, TaskState};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{advance, sleep};

use crate::group_support::current_thread;

type Unit = Result<(), BoxError>;

const SECOND: Duration = Duration::from_secs(1);

async fn settle() {
    for _ in 0..8 {
        yield_now().await;
    }
}

fn task<'a>(snapshot: &'a Snapshot, name: &str) -> &'a TaskSnapshot {
    let mut tasks = snapshot.tasks();
    let found = tasks.find(|task| task.name() == Some(name));
    found.unwrap_or_else(|| panic!("no task {name:?} in\n{snapshot}"))
}

fn told(group: &Group, name: &str) -> Option<Diagnosis> {
    task(&group.snapshot(), name).diagnosis()
}

/// Runs `body` on a paused clock, with the handle of another runtime that has a thread of its own and one for blocking tasks.
fn beside_another_runtime<F: Future<Output = ()>>(body: impl FnOnce(Handle) -> F) {
    let other = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    let handle = other.handle().clone();
    let (stop, stopped) = oneshot::channel::<()>();
    let driver = thread::spawn(move || {
        let _ = other.block_on(stopped);
        other.shutdown_background();
    });
    current_thread().block_on(body(handle));
    stop.send(()).unwrap();
    driver.join().unwrap();
}

/// Waits for another runtime's thread.
fn until_it_waits(group: &Group, name: &str) {
    while !matches!(task(&group.snapshot(), name).state(), TaskState::Waiting(_)) {
        thread::yield_now();
    }
}

/// A poll that another thread ends. It says when it has begun.
fn blocking_poll() -> (impl FnOnce() + Send, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (tell, begun) = mpsc::channel();
    let (leave, left) = mpsc::channel();
    let block = move || {
        tell.send(()).unwrap();
        left.recv().unwrap();
    };
    (block, begun, leave)
}

#[test]
fn in_one_poll_since_before_the_end_then_it_blocks_and_a_neighbour_was_not_polled() {
    beside_another_runtime(async |other| {
        let group: Group = Group::builder().runtime(other).build();
        let (block, begun, leave) = blocking_poll();
        group
            .task("deaf")
            .spawn_with(async |_| pending::<Unit>().await);
        group.task("blocks").spawn(async move {
            block();
            Ok(())
        });
        begun.recv().unwrap();
        // Behind the other, and never polled.
        group.task("behind").spawn(pending::<Unit>());
        group.cancel();
        assert_eq!(told(&group, "blocks"), None, "too early to say");
        advance(SECOND).await;
        assert_eq!(
            told(&group, "blocks"),
            Some(Diagnosis::BlockingPoll(SECOND))
        );
        assert_eq!(told(&group, "deaf"), Some(Diagnosis::NotPolledSince));
        let tree = group.snapshot().to_string();
        let lines = [
            "IGNORES CANCEL (not polled since)",
            "BLOCKS ITS THREAD (in one poll ≥ 1s)",
        ];
        lines
            .iter()
            .for_each(|line| assert!(tree.contains(line), "{tree}"));
        assert!(
            tree.contains("\"behind\"") && tree.contains("WAITS FOR ITS RUNTIME"),
            "{tree}"
        );
        leave.send(()).unwrap();
    });
}

#[test]
fn in_a_poll_begun_since_the_end_then_it_blocks_only_once_it_was_seen_to_last() {
    beside_another_runtime(async |other| {
        let group: Group = Group::builder().runtime(other).build();
        let (block, begun, leave) = blocking_poll();
        group.task("late").spawn_with(async move |ctx| {
            ctx.done().await;
            block();
            pending::<Unit>().await
        });
        until_it_waits(&group, "late");
        group.cancel();
        begun.recv().unwrap();
        advance(SECOND).await;
        // It may be a short one.
        assert_eq!(told(&group, "late"), Some(Diagnosis::PolledStillRunning(1)));
        let seen = group.snapshot();
        assert_eq!(
            task(&seen, "late").state(),
            TaskState::Running(Duration::ZERO)
        );
        advance(2 * SECOND).await;
        assert_eq!(
            told(&group, "late"),
            Some(Diagnosis::BlockingPoll(2 * SECOND))
        );
        // It comes to an await: now it waits.
        leave.send(()).unwrap();
        while told(&group, "late") != Some(Diagnosis::PolledStillRunning(1)) {
            thread::yield_now();
        }
        assert!(matches!(
            task(&group.snapshot(), "late").state(),
            TaskState::Waiting(_)
        ));
    });
}

#[test]
fn blocking_task_with_a_thread_is_told_from_one_that_waits_for_it() {
    beside_another_runtime(async |other| {
        /// Looks at its group when it is dropped.
        struct Looks(Spawner, Arc<Mutex<Option<Snapshot>>>);
        impl Drop for Looks {
            fn drop(&mut self) {
                self.1.lock().unwrap().get_or_insert(self.0.snapshot());
            }
        }
        let group: Group = Group::builder().runtime(other).build();
        let (block, begun, leave) = blocking_poll();
        group.task("runs").spawn_blocking(move |_| {
            block();
            Ok(())
        });
        begun.recv().unwrap();
        let seen = Arc::new(Mutex::new(None));
        let looks = Looks(group.spawner(), seen.clone());
        group.task("first").spawn_blocking(move |_| {
            drop(looks);
            Ok(())
        });
        group.task("second").spawn_blocking(|_| Ok(()));
        let live = group.snapshot();
        assert_eq!(
            task(&live, "runs").state(),
            TaskState::Running(Duration::ZERO)
        );
        assert_eq!(task(&live, "second").state(), TaskState::WaitsForThread);
        // The end drops one after the other those that have no thread.
        group.cancel();
        let during = seen.lock().unwrap().take().expect("it was dropped");
        assert_eq!(
            task(&during, "second").diagnosis(),
            Some(Diagnosis::WaitsForThread)
        );
        assert_eq!(
            task(&during, "runs").diagnosis(),
            Some(Diagnosis::BlockingThread)
        );
        let after = group.snapshot();
        let names: Vec<_> = after
            .stragglers()
            .map(|task| task.name().unwrap())
            .collect();
        assert_eq!(names, ["runs"]);
        leave.send(()).unwrap();
    });
}

#[tokio::test(start_paused = true)]
async fn polled_since_is_told_from_not_polled_since() {
    let group: Group = Group::new();
    let (wake, woken) = oneshot::channel::<()>();
    group.task("woken").spawn_with(async |_| {
        let _ = woken.await;
        pending::<Unit>().await
    });
    group
        .task("deaf")
        .spawn_with(async |_| pending::<Unit>().await);
    group.task("busy before").spawn_with(async |_| {
        sleep(SECOND).await;
        sleep(SECOND).await;
        pending::<Unit>().await
    });
    sleep(3 * SECOND).await;
    group.cancel();
    assert_eq!(told(&group, "woken"), Some(Diagnosis::NotPolledSince));
    wake.send(()).unwrap();
    settle().await;
    assert_eq!(
        told(&group, "woken"),
        Some(Diagnosis::PolledStillRunning(1))
    );
    assert_eq!(told(&group, "deaf"), Some(Diagnosis::NotPolledSince));
    assert_eq!(told(&group, "busy before"), Some(Diagnosis::NotPolledSince));
    assert_eq!(task(&group.snapshot(), "busy before").polls(), 3);
}

/// A snapshot of one group takes nothing of another, however it looks for what has ended below its own.
#[tokio::test(start_paused = true)]
async fn snapshot_of_a_group_then_another_has_not_been_looked_at() {
    let _undisturbed = crate::snapshot::undisturbed().await;
    let (group, other): (Group, Group) = (Group::new(), Group::new());
    group.task("waits").spawn(async {
        yield_now().await;
        pending::<Unit>().await
    });
    settle().await;
    assert_eq!(other.snapshot().tasks().count(), 0);
    advance(SECOND).await;
    let state = |group: &Group| task(&group.snapshot(), "waits").state();
    assert_eq!(state(&group), TaskState::Waiting(None));
    advance(SECOND).await;
    assert_eq!(state(&group), TaskState::Waiting(Some(SECOND)));
}

/// A key of the registry that another task had does not take over its polls.
#[tokio::test(start_paused = true)]
async fn place_used_again_counts_anew() {
    let group: Group = Group::new();
    for _ in 0..3 {
        group.spawn(async {
            settle().await;
            Ok(())
        });
    }
    settle().await;
    settle().await;
    assert!(group.is_empty());
    group.task("new").spawn(pending::<Unit>());
    assert_eq!(task(&group.snapshot(), "new").state(), TaskState::NotPolled);
    settle().await;
    assert_eq!(task(&group.snapshot(), "new").polls(), 1);
}

#[tokio::test(start_paused = true)]
async fn body_of_run_is_a_task_and_is_diagnosed() {
    let (ctx, cancel) = Context::background().with_cancel();
    let trees = Arc::new(Mutex::new(Vec::new()));
    let seen = trees.clone();
    let run = Group::run(&ctx, async |group: Spawner| {
        yield_now().await;
        seen.lock().unwrap().push(group.snapshot());
        pending::<Unit>().await
    });
    tokio::pin!(run);
    for _ in 0..2 {
        assert!(futures::FutureExt::now_or_never(&mut run).is_none());
    }
    let seen = trees.lock().unwrap().pop().unwrap();
    let body = seen.tasks().next().unwrap();
    assert_eq!(
        (body.state(), body.polls()),
        (TaskState::Running(Duration::ZERO), 2)
    );
    cancel.cancel();
    // Nobody polls it.
    let tree = ctx.tree();
    let body = tree.tasks().next().unwrap();
    assert_eq!(body.diagnosis(), Some(Diagnosis::NotPolledSince));
    assert!(run.await.is_err());
    assert_eq!(ctx.tree().tasks().count(), 0);
}

#[test]
fn stop_lists_each_straggler_with_its_diagnosis() {
    beside_another_runtime(async |other| {
        let group: Group = Group::builder().runtime(other).build();
        let (block, begun, leave) = blocking_poll();
        let (run, running, end) = blocking_poll();
        group
            .task("deaf")
            .spawn_with(async |_| pending::<Unit>().await);
        group.task("thread").spawn_blocking(move |_| {
            run();
            Ok(())
        });
        running.recv().unwrap();
        group.task("blocks").spawn_with(async move |ctx| {
            ctx.done().await;
            block();
            pending::<Unit>().await
        });
        until_it_waits(&group, "blocks");
        let cancel = group.spawner();
        let stop = group.stop().grace(2 * SECOND);
        tokio::pin!(stop);
        assert!(futures::FutureExt::now_or_never(&mut stop).is_none());
        begun.recv().unwrap();
        let shutdown = stop.await;
        let diagnosis = |name: &str| {
            let mut stragglers = shutdown.stragglers.iter();
            let found = stragglers
                .find(|task| task.name.as_deref() == Some(name))
                .unwrap();
            (found.diagnosis, found.was_aborted, found.to_string())
        };
        let (deaf, was_aborted, _) = diagnosis("deaf");
        assert_eq!(
            (deaf, was_aborted),
            (Some(Diagnosis::NotPolledSince), false)
        );
        let (thread, was_aborted, text) = diagnosis("thread");
        assert_eq!(
            (thread, was_aborted),
            (Some(Diagnosis::BlockingThread), false)
        );
        assert!(text.ends_with(" (on a blocking thread)"), "{text}");
        // It began since the end, and was seen twice in it: at the end of the grace, and when it would not be aborted.
        assert_eq!(
            diagnosis("blocks").0,
            Some(Diagnosis::BlockingPoll(2 * SECOND))
        );
        drop(cancel);
        leave.send(()).unwrap();
        end.send(()).unwrap();
    });
}

/// What `on_stragglers` was told: the names.
type Reports = Arc<Mutex<Vec<Vec<String>>>>;

fn impatient(time: Option<Duration>) -> (Group, Reports) {
    let reports = Reports::default();
    let told = reports.clone();
    let builder = Group::builder().on_stragglers(move |tasks| {
        assert!(
            tasks
                .iter()
                .all(|task| !task.was_aborted && task.diagnosis.is_some())
        );
        let names = tasks
            .iter()
            .map(|task| task.name.clone().unwrap().into_owned());
        told.lock().unwrap().push(names.collect());
        panic!("contained");
    });
    let group = match time {
        Some(time) => builder.patience(time).build(),
        None => builder.build(),
    };
    (group, reports)
}

fn lingers(group: &Group, time: Duration) {
    group.task("lingers").spawn_with(async move |_| {
        sleep(time).await;
        Ok(())
    });
}

#[tokio::test(start_paused = true)]
async fn wait_goes_on_for_ten_seconds_after_the_end_then_it_is_reported_once() {
    let (mut group, reports) = impatient(None);
    lingers(&group, 60 * SECOND);
    settle().await;
    group.cancel();
    {
        let wait = group.wait();
        tokio::pin!(wait);
        let within = async |time: Duration| tokio::time::timeout(time, wait.as_mut()).await;
        let mut within = within;
        assert!(within(9 * SECOND).await.is_err());
        assert_eq!(*reports.lock().unwrap(), [[""; 0]; 0]);
        assert!(within(2 * SECOND).await.is_err());
        assert_eq!(*reports.lock().unwrap(), [["lingers"]]);
        within(60 * SECOND).await.unwrap().unwrap();
    }
    assert_eq!(reports.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_when_patience_is_over_then_the_wait_that_comes_reports() {
    let (mut group, reports) = impatient(Some(SECOND));
    lingers(&group, 60 * SECOND);
    settle().await;
    group.cancel();
    sleep(5 * SECOND).await;
    assert!(reports.lock().unwrap().is_empty(), "nobody waits");
    group.wait().await.unwrap();
    assert_eq!(*reports.lock().unwrap(), [["lingers"]]);
}

#[tokio::test(start_paused = true)]
async fn all_end_in_time_or_the_context_is_live_then_nothing_is_reported() {
    let (mut group, reports) = impatient(Some(10 * SECOND));
    lingers(&group, 5 * SECOND);
    settle().await;
    group.cancel();
    group.wait().await.unwrap();
    sleep(60 * SECOND).await;
    let (mut live, live_reports) = impatient(Some(SECOND));
    lingers(&live, 60 * SECOND);
    live.wait().await.unwrap();
    assert!(reports.lock().unwrap().is_empty() && live_reports.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn only_a_guest_is_left_then_patience_reports_it() {
    let (tell, told) = mpsc::channel();
    let mut outer: Group = Group::builder()
        .on_stragglers(move |tasks| tell.send(tasks.len()).unwrap())
        .patience(SECOND)
        .build();
    let (go, wait) = mpsc::channel::<()>();
    let (started, is_started) = oneshot::channel();
    let leaving = outer.spawn_with(async move |ctx| {
        let inner: Group = Group::with_context(&ctx);
        inner.spawn_blocking(move |_| {
            started.send(()).unwrap();
            wait.recv().unwrap_err();
            Ok(())
        });
        is_started.await?;
        Ok(())
    });
    leaving.await.unwrap();
    outer.cancel();
    let mut waiting = Box::pin(outer.wait());
    assert!(futures::poll!(&mut waiting).is_pending());
    settle().await;
    advance(2 * SECOND).await;
    settle().await;
    assert_eq!(told.try_recv(), Ok(1));
    drop(go);
    waiting.await.unwrap();
}

/// Neither does the timer panic there, nor is the report lost.
#[test]
fn runtime_has_no_timer_then_patience_reports_all_the_same() {
    let runtime = Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (tell, told) = oneshot::channel();
        let tell = Mutex::new(Some(tell));
        let thread = thread::current().id();
        let mut group: Group = Group::builder()
            .on_stragglers(move |tasks| {
                let names: Vec<_> = tasks.iter().map(|task| task.name.clone()).collect();
                let tell = tell.lock().unwrap().take().unwrap();
                tell.send((names, thread::current().id())).unwrap();
            })
            .patience(Duration::from_millis(1))
            .build();
        let (go, wait) = oneshot::channel::<()>();
        group
            .task("lingers")
            .spawn_with(async move |_| Ok(wait.await?));
        settle().await;
        group.cancel();
        let waits = async { group.wait().await.unwrap() };
        let reported = async {
            let (names, on) = told.await.unwrap();
            assert_eq!(names, [Some("lingers".into())]);
            assert_eq!(on, thread, "not on the thread that all deadlines wait for");
            go.send(()).unwrap();
        };
        futures::join!(waits, reported);
    });
}

/// The timer goes with the group: it keeps nothing, and nobody is called.
#[tokio::test(start_paused = true)]
async fn group_is_dropped_before_patience_is_over_then_nothing_is_reported() {
    let (group, reports) = impatient(Some(SECOND));
    let held = Arc::clone(&reports);
    assert_eq!(Arc::strong_count(&held), 3);
    lingers(&group, 60 * SECOND);
    settle().await;
    group.cancel();
    settle().await;
    drop(group);
    settle().await;
    assert_eq!(Arc::strong_count(&held), 2, "the callback is dropped");
    sleep(5 * SECOND).await;
    assert!(reports.lock().unwrap().is_empty());
}

/// What reports is a task of the group's runtime, and that of the paused clock is the group's, not that of who ends it.
#[test]
fn context_ended_from_outside_then_patience_counts_by_the_clock_of_the_group() {
    current_thread().block_on(async {
        let (mut group, reports) = impatient(Some(3_600 * SECOND));
        lingers(&group, 7_200 * SECOND);
        settle().await;
        thread::scope(|scope| {
            scope.spawn(|| group.cancel());
        });
        group.wait().await.unwrap();
        assert_eq!(*reports.lock().unwrap(), [["lingers"]]);
    });
}
