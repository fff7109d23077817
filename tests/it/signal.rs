//! Contexts that signals end, in processes of their own: this very test binary, run for one `scenario`.
//!
//! Where a scenario has to show that a signal came to nothing, it sends that itself, to its own thread: then the handler
//! has run when `raise` returns. A signal sent from outside may be handled late, even after one that was sent later.

use std::env;
use std::future::pending;
use std::io::stdin;
#[cfg(target_os = "linux")]
use std::io::{Write, stderr};
use std::os::unix::process::ExitStatusExt;
#[cfg(target_os = "linux")]
use std::process::Stdio;
use std::process::{Command, id};
use std::thread;
use std::time::Duration;

use errgroup::{BoxError, Context, ContextError, Group, Reason, Signals};
use rustix::process::{Resource, Rlimit, Signal, getpid, kill_process, setrlimit};
use signal_hook::consts::*;
use signal_hook::low_level::raise;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::process::{Outcome, Process};

const SCENARIO: &str = "ERRGROUP_TEST_SCENARIO";
const SIGNAL: &str = "ERRGROUP_TEST_SIGNAL";
const PROCESS_1: &str = "ERRGROUP_TEST_PROCESS_1";

/// The highest number there is.
const LAST: i32 = if cfg!(target_os = "linux") { 64 } else { 31 };

fn background() -> Context {
    Context::background()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

fn quiet() -> Signals {
    Signals::new().second_kills(false)
}

// A process for a scenario.

#[test]
#[ignore = "no test: the others run it, as a process"]
fn scenario() {
    let Ok(name) = env::var(SCENARIO) else { return };
    match name.as_str() {
        "ended" => ended(),
        "sent before polled" => sent_before_polled(),
        "deaf" => deaf(),
        "callback hangs" => callback_hangs(),
        "second comes to nothing" => second_comes_to_nothing(),
        "drained" => drained(),
        "drained without a runtime" => drained_without_a_runtime(),
        "drained twice" => drained_twice(),
        "dropped during callback" => dropped_during_callback(),
        "dropped" => dropped(),
        "ignored" => ignored(),
        "child kept" => child_kept(),
        "several" => several(),
        "next takes second" => next_takes_second(),
        "derived from ended" => derived_from_ended(),
        "ended otherwise" => ended_otherwise(),
        "runtimes" => runtimes(),
        "listener before" => runtime().block_on(listener_before()),
        "listener after" => runtime().block_on(listener_after()),
        "groups" => runtime().block_on(groups()),
        "sent twice" => sent_twice(),
        "sent after drop" => sent_after_drop(),
        "two kinds at once" => two_kinds_at_once(),
        "survived" => survived(&Signals::of([kind()])),
        "survived with option off" => survived(&Signals::of([kind()]).second_kills(false)),
        other => panic!("no scenario {other:?}"),
    }
}

fn start(scenario: &str) -> Process {
    start_by(
        &mut Command::new(env::current_exe().expect("a path")),
        scenario,
    )
}

fn start_by(command: &mut Command, scenario: &str) -> Process {
    command.args(["signal::scenario", "--exact", "--ignored", "--nocapture"]);
    Process::start(command.env(SCENARIO, scenario))
}

/// What a scenario does when it has no more to do.
fn hang() -> ! {
    loop {
        thread::park();
    }
}

fn wait_for_test() {
    stdin().read_line(&mut String::new()).expect("a line");
}

fn await_end(ctx: &Context) {
    let error = ctx.done_blocking(None).expect("an end");
    println!("{:?}: {error}", error.reason());
}

#[track_caller]
fn assert_killed(outcome: &Outcome, signal: Signal) {
    assert_eq!(
        outcome.status.signal(),
        Some(signal.as_raw()),
        "{outcome:#?}"
    );
}

/// Returns when the signals raised before have been dealt with.
///
/// Signals are read in rounds, from the lowest to the highest. The highest may be read in a round that had passed the
/// others before they came. Then the lower one is read in another round, after them.
fn let_pass() {
    for number in [LAST, LAST - 1] {
        let ctx = background().with_signal(SignalKind::from_raw(number));
        raise(number).unwrap();
        ctx.unwrap().done_blocking(None);
    }
}

// The tests, each after the scenario that it runs.

fn ended() {
    let ctx = background().with_signals().unwrap();
    println!("ready");
    await_end(&ctx);
    hang();
}

#[test]
fn first_signal_then_ended_with_its_name() {
    for (signal, name) in [(Signal::INT, "SIGINT"), (Signal::TERM, "SIGTERM")] {
        let mut process = start("ended");
        process.wait_for("ready");
        process.send(signal);
        let line = process.wait_for("Signal");
        let text = format!("Signal: cancelled: a signal was received: {name}");
        assert!(line.ends_with(&text), "{line}");
    }
}

#[test]
fn second_signal_then_killed_by_it() {
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::TERM)] {
        let mut process = start("ended");
        process.wait_for("ready");
        process.send(first);
        process.wait_for("Signal:");
        process.send(second);
        assert_killed(&process.finish(), second);
    }
}

fn sent_before_polled() {
    let ctx = background().with_signals().unwrap();
    kill_process(getpid(), Signal::TERM).unwrap();
    runtime().block_on(async { println!("{}", ctx.done().await) });
}

#[test]
fn signal_before_first_poll_then_ended() {
    let outcome = start("sent before polled").finish();
    outcome.assert_line("SIGTERM");
    outcome.assert_code(0);
}

fn deaf() {
    runtime().block_on(async {
        let ctx = background().with_signals().unwrap();
        println!("ready");
        while !ctx.is_done() {
            std::hint::spin_loop();
        }
        println!("{:?}", ctx.err());
    });
}

#[test]
fn signal_during_loop_that_never_yields_then_seen() {
    let mut process = start("deaf");
    process.wait_for("ready");
    process.send(Signal::INT);
    let outcome = process.finish();
    outcome.assert_line("SIGINT");
    outcome.assert_code(0);
}

fn callback_hangs() {
    let ctx = background().with_signals().unwrap();
    let on_done = ctx.on_done(|_| {
        println!("hanging");
        hang();
    });
    println!("ready");
    await_end(&ctx);
    drop(on_done);
    hang();
}

#[test]
fn second_signal_during_hanging_callback_then_killed() {
    let mut process = start("callback hangs");
    process.wait_for("ready");
    process.send(Signal::INT);
    process.wait_for("hanging");
    process.send(Signal::INT);
    assert_killed(&process.finish(), Signal::INT);
}

fn second_comes_to_nothing() {
    let ctx = quiet().derive(&background()).unwrap();
    raise(SIGINT).unwrap();
    await_end(&ctx);
    raise(SIGINT).unwrap();
    let_pass();
    println!("survived");
    drop(ctx);
    raise(SIGINT).unwrap();
    hang();
}

#[test]
fn second_signal_with_option_off_then_nothing_until_drop() {
    let outcome = start("second comes to nothing").finish();
    outcome.assert_line("survived");
    assert_killed(&outcome, Signal::INT);
}

fn dropped_during_callback() {
    let ctx = quiet().derive(&background()).unwrap();
    let on_done = ctx.on_done(|_| {
        println!("hanging");
        hang();
    });
    println!("ready");
    wait_for_test();
    assert!(ctx.is_done());
    drop(on_done);
    drop(ctx);
    println!("dropped");
    hang();
}

#[test]
fn dropped_while_its_end_still_runs_then_killed() {
    let mut process = start("dropped during callback");
    process.wait_for("ready");
    process.send(Signal::INT);
    process.wait_for("hanging");
    process.tell("drop it");
    process.wait_for("dropped");
    process.send(Signal::INT);
    assert_killed(&process.finish(), Signal::INT);
}

fn dropped() {
    let ctx = background().with_signals().unwrap();
    let clone = ctx.clone();
    drop(ctx);
    drop(clone);
    println!("dropped");
    hang();
}

#[test]
fn dropped_then_killed_by_first_signal() {
    let mut process = start("dropped");
    process.wait_for("dropped");
    process.send(Signal::TERM);
    assert_killed(&process.finish(), Signal::TERM);
}

fn ignored() {
    drop(background().with_signals().unwrap());
    raise(SIGINT).unwrap();
    let_pass();
    println!("survived");
    raise(SIGTERM).unwrap();
    hang();
}

#[test]
fn ignored_before_and_dropped_then_ignored() {
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"trap "" INT; exec "$0" "$@""#]);
    shell.arg(env::current_exe().expect("a path"));
    let outcome = start_by(&mut shell, "ignored").finish();
    outcome.assert_line("survived");
    assert_killed(&outcome, Signal::TERM);
}

fn child_kept() {
    let ctx = background().with_signals().unwrap();
    let (child, _handle) = ctx.with_cancel();
    drop(ctx);
    println!("ready");
    await_end(&child);
    drop(child);
    drop(_handle);
    println!("dropped");
    hang();
}

#[test]
fn dropped_while_child_is_kept_then_child_ended() {
    let mut process = start("child kept");
    process.wait_for("ready");
    process.send(Signal::TERM);
    process.wait_for("SIGTERM");
    process.wait_for("dropped");
    process.send(Signal::TERM);
    assert_killed(&process.finish(), Signal::TERM);
}

fn several() {
    let outer = background().with_signals().unwrap();
    let inner = outer.with_signals().unwrap();
    let int = background().with_signal(SignalKind::interrupt()).unwrap();
    let term = background().with_signal(SignalKind::terminate()).unwrap();
    println!("ready");
    for ctx in [&outer, &inner, &int] {
        await_end(ctx);
    }
    println!("term: {:?}", term.err());
    await_end(&term);
    hang();
}

#[test]
fn several_contexts_then_each_takes_its_first_signal() {
    let mut process = start("several");
    process.wait_for("ready");
    process.send(Signal::INT);
    for _ in 0..3 {
        process.wait_for("SIGINT");
    }
    process.wait_for("term: None");
    // The second for two of them: the one that is for SIGTERM alone takes it.
    process.send(Signal::TERM);
    process.wait_for("SIGTERM");
    process.send(Signal::TERM);
    assert_killed(&process.finish(), Signal::TERM);
}

fn next_takes_second() {
    let ctx = background().with_signals().unwrap();
    println!("ready");
    await_end(&ctx);
    let hurry = ctx.without_cancel().with_signals().unwrap();
    println!("stopping");
    await_end(&hurry);
    println!("hurrying");
    hang();
}

#[test]
fn context_made_after_first_signal_then_takes_second() {
    let mut process = start("next takes second");
    process.wait_for("ready");
    process.send(Signal::INT);
    process.wait_for("stopping");
    process.send(Signal::INT);
    process.wait_for("hurrying");
    process.send(Signal::INT);
    assert_killed(&process.finish(), Signal::INT);
}

fn derived_from_ended() {
    let ctx = background().with_signals().unwrap();
    println!("ready");
    await_end(&ctx);
    let late = ctx.with_signals().unwrap();
    await_end(&late);
    println!("derived");
    hang();
}

#[test]
fn context_derived_from_ended_then_takes_none() {
    let mut process = start("derived from ended");
    process.wait_for("ready");
    process.send(Signal::INT);
    process.wait_for("derived");
    process.send(Signal::INT);
    assert_killed(&process.finish(), Signal::INT);
}

fn ended_otherwise() {
    let (parent, handle) = background().with_cancel();
    let ctx = parent.with_signals().unwrap();
    handle.cancel();
    raise(SIGINT).unwrap();
    let_pass();
    assert_eq!(ctx.err().unwrap().reason(), Reason::Cancelled);
    println!("still cancelled");
    raise(SIGINT).unwrap();
    hang();
}

#[test]
fn ended_otherwise_then_first_signal_comes_to_nothing_and_second_kills() {
    let outcome = start("ended otherwise").finish();
    outcome.assert_line("still cancelled");
    assert_killed(&outcome, Signal::INT);
}

fn await_stopping(ctx: &Context) {
    let error = ctx.stopping().done_blocking(None).expect("an end");
    println!("{:?}: {error}", error.reason());
    assert!(!ctx.is_done());
    let signal = error.downcast_ref::<ContextError>().expect("a cause");
    assert_eq!(signal.reason(), Reason::Signal);
}

fn drained() {
    let signals = Signals::new().drain(Duration::from_millis(20));
    let ctx = signals.derive(&background()).unwrap();
    let early = ctx.stopping();
    println!("ready");
    runtime().block_on(async {
        println!("{}", early.done().await);
        println!("{}", ctx.done().await);
    });
    assert_eq!(early.err().unwrap().reason(), Reason::Stopping);
    assert_eq!(ctx.err().unwrap().reason(), Reason::Stopped);
}

#[test]
fn drained_then_stopping_at_the_signal_and_ended_after_the_drain_by_its_name() {
    let mut process = start("drained");
    process.wait_for("ready");
    process.send(Signal::TERM);
    let outcome = process.finish();
    outcome.assert_code(0);
    let signal = "cancelled: a signal was received: SIGTERM";
    outcome.assert_line(&format!("stopping: {signal}"));
    outcome.assert_line(&format!("stopped: the drain of 20ms is over: {signal}"));
}

fn drained_without_a_runtime() {
    let signals = Signals::new().drain(Duration::from_millis(300));
    let ctx = signals.derive(&background()).unwrap();
    raise(SIGINT).unwrap();
    await_stopping(&ctx);
    await_end(&ctx);
    // The context has had its signal.
    raise(SIGINT).unwrap();
    hang();
}

#[test]
fn drained_without_a_runtime_then_the_process_tells_and_the_second_kills() {
    let outcome = start("drained without a runtime").finish();
    outcome.assert_line("Stopping: stopping: cancelled: a signal was received: SIGINT");
    outcome.assert_line("Stopped: stopped: the drain of 300ms is over: cancelled: a signal");
    assert_killed(&outcome, Signal::INT);
}

fn drained_twice() {
    set_up();
    let signals = Signals::of([kind()]).drain(Duration::from_secs(3_600));
    let ctx = signals.derive(&background()).unwrap();
    raise(kind().as_raw_value()).unwrap();
    await_stopping(&ctx);
    raise(kind().as_raw_value()).unwrap();
    hang();
}

#[test]
fn second_during_the_drain_then_killed() {
    let outcome = start_for("drained twice", SIGTERM).finish();
    outcome.assert_line("Stopping: stopping: ");
    assert_killed(&outcome, Signal::TERM);
}

#[cfg(target_os = "linux")]
#[test]
fn second_during_the_drain_of_process_1_then_exits_as_a_shell_reports_it() {
    let Some(process) = start_as_process_1("drained twice", SIGTERM) else {
        return;
    };
    let outcome = process.finish();
    outcome.assert_line("Stopping: stopping: ");
    assert_exited_by(&outcome, SIGTERM);
}

fn runtimes() {
    let gone = runtime();
    let lost = gone.block_on(async { background().with_signals().unwrap() });
    drop(gone);
    let (first, second) = (runtime(), Runtime::new().unwrap());
    let on_first = first.block_on(async { background().with_signals().unwrap() });
    let on_second = second.block_on(async { background().with_signals().unwrap() });
    println!("ready");
    // Each waits on the other's, and the first is not even driven meanwhile.
    second.block_on(async { println!("{}", on_first.done().await) });
    first.block_on(async { println!("{}", on_second.done().await) });
    println!("{}", lost.err().unwrap());
}

#[test]
fn contexts_of_several_runtimes_then_all_ended() {
    let mut process = start("runtimes");
    process.wait_for("ready");
    process.send(Signal::TERM);
    let outcome = process.finish();
    assert_eq!(outcome.count("SIGTERM"), 3, "{outcome:#?}");
    outcome.assert_code(0);
}

async fn listener_before() {
    let mut listener = signal(SignalKind::interrupt()).unwrap();
    let ctx = background().with_signals().unwrap();
    raise(SIGINT).unwrap();
    listener.recv().await;
    ctx.done().await;
    raise(SIGINT).unwrap();
    listener.recv().await;
    drop(ctx);
    raise(SIGINT).unwrap();
    listener.recv().await;
    let_pass();
    println!("survived");
    // Of this one nobody has claimed anything but the context.
    raise(SIGTERM).unwrap();
    hang();
}

#[test]
fn listener_of_application_before_then_nothing_but_that_listener() {
    let outcome = start("listener before").finish();
    outcome.assert_line("survived");
    assert_killed(&outcome, Signal::TERM);
}

async fn listener_after() {
    let ctx = background().with_signals().unwrap();
    let mut listener = signal(SignalKind::interrupt()).unwrap();
    raise(SIGINT).unwrap();
    ctx.done().await;
    listener.recv().await;
    let keep = quiet().derive(&background()).unwrap();
    drop(ctx);
    raise(SIGINT).unwrap();
    listener.recv().await;
    keep.done().await;
    raise(SIGINT).unwrap();
    listener.recv().await;
    let_pass();
    println!("survived");
}

#[test]
fn listener_of_application_after_then_works_while_a_context_keeps_the_signal() {
    let outcome = start("listener after").finish();
    outcome.assert_line("survived");
    outcome.assert_code(0);
}

async fn groups() {
    let ctx = background().with_signals().unwrap();
    let mut below: Group = Group::with_context(&ctx);
    let _cut_short = below.spawn(pending::<Result<(), BoxError>>());
    let mut returning: Group = Group::with_context(&ctx);
    let (tell, started) = oneshot::channel();
    let _returns = returning.spawn_with(|ctx| async move {
        tell.send(()).unwrap();
        ctx.done().await;
        Ok(())
    });
    let mut beside: Group = Group::new();
    let _cancelled = beside.spawn(pending::<Result<(), BoxError>>());
    started.await.unwrap(); // what has not started never does
    raise(SIGTERM).unwrap();
    let error = below.wait().await.unwrap_err();
    let end = error.downcast_ref::<ContextError>();
    assert_eq!(end.map(ContextError::reason), Some(Reason::Signal));
    returning.wait().await.unwrap();
    ctx.done().await;
    beside.cancel();
    beside.wait().await.unwrap();
}

#[test]
fn g7_signal_as_parent_then_wait_fails_unless_tasks_return_or_the_owner_cancels() {
    start("groups").finish().assert_code(0);
}

// Every kind of signal, which the process sends itself; also as process 1 of a namespace, for which the system takes no
// default action. These are all that end a process by default, but for those that nobody can catch, that Rust's runtime
// ignores (SIGPIPE) or handles (SIGBUS), and of the realtime signals all but a few.

/// Those that signal-hook can give their default.
#[cfg(target_os = "linux")]
const DEADLY: [i32; 14] = [
    SIGHUP, SIGINT, SIGQUIT, SIGTRAP, SIGABRT, SIGUSR1, SIGUSR2, SIGALRM, SIGTERM, SIGXCPU,
    SIGXFSZ, SIGVTALRM, SIGPROF, SIGSYS,
];

/// Those that it does not know, or takes for ignored.
#[cfg(target_os = "linux")]
const DEADLY_OTHERS: [i32; 6] = [
    SIGIO,
    Signal::STKFLT.as_raw(),
    Signal::POWER.as_raw(),
    if cfg!(target_env = "musl") { 35 } else { 34 },
    37,
    64,
];

/// Those that end no process, stop signals apart.
const HARMLESS: [i32; 4] = [SIGCHLD, SIGCONT, SIGURG, SIGWINCH];

const STOPS: [i32; 3] = [SIGTSTP, SIGTTIN, SIGTTOU];

fn kind() -> SignalKind {
    let number = env::var(SIGNAL).expect("a signal");
    SignalKind::from_raw(number.parse().expect("a number"))
}

fn start_for(scenario: &str, number: i32) -> Process {
    let mut this = Command::new(env::current_exe().expect("a path"));
    start_by(this.env(SIGNAL, number.to_string()), scenario)
}

/// Starts a scenario as process 1 of a namespace, as in a container. `None` where that is not allowed.
///
/// `unshare` ends as its child does.
#[cfg(target_os = "linux")]
fn start_as_process_1(scenario: &str, number: i32) -> Option<Process> {
    let unshare = |way: &[&str]| {
        let mut unshare = Command::new("unshare");
        unshare.args(way).args(["--pid", "--fork", "--kill-child"]);
        unshare
    };
    let ways: [&[&str]; 2] = [&[], &["--user", "--map-root-user"]];
    let Some(way) = ways.into_iter().find(|way| {
        let probe = unshare(way).arg("true").stderr(Stdio::null()).status();
        probe.is_ok_and(|status| status.success())
    }) else {
        // Not by `eprintln`, which the test harness keeps to itself when the test passes.
        writeln!(stderr(), "skipped: no PID namespace is allowed here").expect("it is open");
        return None;
    };
    let mut this = unshare(way);
    this.arg(env::current_exe().expect("a path"));
    this.env(SIGNAL, number.to_string()).env(PROCESS_1, "");
    Some(start_by(&mut this, scenario))
}

/// As a shell would report the signal.
#[cfg(target_os = "linux")]
#[track_caller]
fn assert_exited_by(outcome: &Outcome, number: i32) {
    assert_eq!(outcome.status.code(), Some(128 + number), "{outcome:#?}");
}

/// Leaves no core file, and is the process that the test wants.
fn set_up() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).unwrap();
    assert_eq!(id() == 1, env::var_os(PROCESS_1).is_some());
}

/// Sends the context its signal, and one more.
fn send_twice(ctx: &Context) {
    raise(kind().as_raw_value()).unwrap();
    await_end(ctx);
    raise(kind().as_raw_value()).unwrap();
}

fn sent_twice() {
    set_up();
    let ctx = background().with_signal(kind()).unwrap();
    send_twice(&ctx);
    hang();
}

fn sent_after_drop() {
    set_up();
    drop(background().with_signal(kind()).unwrap());
    raise(kind().as_raw_value()).unwrap();
    hang();
}

fn two_kinds_at_once() {
    set_up();
    let _ctx = background().with_signals().unwrap();
    raise(SIGINT).unwrap();
    raise(SIGTERM).unwrap();
    hang();
}

fn survived(signals: &Signals) {
    set_up();
    let ctx = signals.derive(&background()).unwrap();
    send_twice(&ctx);
    let_pass();
    println!("survived");
}

#[cfg(target_os = "linux")]
#[test]
fn second_signal_of_each_deadly_kind_then_killed_by_it() {
    for number in DEADLY {
        let outcome = start_for("sent twice", number).finish();
        assert_eq!(outcome.status.signal(), Some(number), "{outcome:#?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn second_signal_without_an_emulation_then_exited_by_it() {
    for number in DEADLY_OTHERS {
        assert_exited_by(&start_for("sent twice", number).finish(), number);
        assert_exited_by(&start_for("sent after drop", number).finish(), number);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn process_1_second_signal_of_each_deadly_kind_then_exited_by_it() {
    for number in DEADLY.into_iter().chain(DEADLY_OTHERS) {
        let Some(process) = start_as_process_1("sent twice", number) else {
            return;
        };
        assert_exited_by(&process.finish(), number);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn process_1_dropped_then_exited_by_first_signal() {
    for number in [SIGTERM, SIGINT, SIGABRT, 37] {
        let Some(process) = start_as_process_1("sent after drop", number) else {
            return;
        };
        assert_exited_by(&process.finish(), number);
    }
}

#[test]
fn two_kinds_at_once_then_one_taken_and_ended_by_the_other() {
    let outcome = start_for("two kinds at once", SIGINT).finish();
    let signal = outcome.status.signal();
    assert!(
        [Some(SIGINT), Some(SIGTERM)].contains(&signal),
        "{outcome:#?}"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn process_1_two_kinds_at_once_then_one_taken_and_exited_by_the_other() {
    let Some(process) = start_as_process_1("two kinds at once", SIGINT) else {
        return;
    };
    let outcome = process.finish();
    let code = outcome.status.code();
    assert!([Some(130), Some(143)].contains(&code), "{outcome:#?}");
}

#[test]
fn second_signal_of_harmless_kinds_then_nothing() {
    for number in HARMLESS {
        start_for("survived", number).finish().assert_code(0);
    }
}

#[test]
fn second_stop_signal_then_stopped_until_continued() {
    for number in STOPS {
        let process = start_for("survived", number);
        process.wait_until_stopped();
        process.send(Signal::CONT);
        let outcome = process.finish();
        outcome.assert_line("survived");
        outcome.assert_code(0);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn process_1_second_signal_of_harmless_and_stopping_kinds_then_nothing() {
    for number in HARMLESS.into_iter().chain(STOPS) {
        let Some(process) = start_as_process_1("survived", number) else {
            return;
        };
        process.finish().assert_code(0);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn second_signal_with_option_off_then_nothing_for_realtime_and_process_1() {
    let scenario = "survived with option off";
    start_for(scenario, 37).finish().assert_code(0);
    for number in [SIGTERM, SIGIO, 37] {
        let Some(process) = start_as_process_1(scenario, number) else {
            return;
        };
        process.finish().assert_code(0);
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn realtime_signal_then_named_after_its_distance_from_the_first() {
    for (number, name) in [(34, "SIGRTMIN+0"), (37, "SIGRTMIN+3"), (64, "SIGRTMIN+30")] {
        let line = start_for("sent twice", number).wait_for("Signal");
        let text = format!("Signal: cancelled: a signal was received: {name}");
        assert!(line.ends_with(&text), "{line}");
    }
}

// In this process: nothing is caught here.

#[test]
fn signal_that_cannot_be_caught_then_error() {
    for number in [-1, 0, 9, 11, 128, i32::MAX] {
        let error = background()
            .with_signal(SignalKind::from_raw(number))
            .unwrap_err();
        assert!(
            error.to_string().ends_with("cannot be caught"),
            "{number}: {error}"
        );
    }
    let error = background()
        .with_signal(SignalKind::from_raw(9))
        .unwrap_err();
    assert_eq!(error.to_string(), "SIGKILL cannot be caught");
    let error = background()
        .with_signal(SignalKind::from_raw(128))
        .unwrap_err();
    assert_eq!(error.to_string(), "signal 128 cannot be caught");
}

#[test]
fn parent_ended_then_context_ended_by_its_reason() {
    let (parent, handle) = background().with_cancel();
    let ctx = Signals::of([]).derive(&parent).unwrap();
    assert!(!ctx.is_done());
    handle.cancel();
    assert_eq!(ctx.err().unwrap().reason(), Reason::Cancelled);
}
