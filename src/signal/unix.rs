//! The process's signals: who takes one, and what becomes of those that nobody takes.
//!
//! A process has one disposition a signal, so there is one [`Catcher`], which is never given up. It installs a handler
//! for a signal when the first context asks for it, and never takes it away again: others may have come to rely on the
//! chain that signal-hook keeps. Instead it does itself what the default would have done ([`take_default`]).
//!
//! Invariants:
//!
//! 1. A signal is caught before the context that asked for it exists. One that arrives in between is taken by nobody,
//!    as if it had arrived before the call.
//! 2. A context takes one signal, whichever of its kinds comes first, ended or not; `Watch::has_taken` is set under the
//!    catcher's lock, in the order in which the signals are read. So of two signals only the first is taken, however
//!    far the ending of the context has come.
//! 3. A watch knows its node only weakly: a context that is gone takes nothing and keeps nothing from its default.
//! 4. The thread that decides runs no foreign code: no waker, callback or destructor. Those run on a thread of their own
//!    for each signal taken, so that what hangs there cannot keep the next signal from killing.
//! 5. While a context is being ended here, that thread's share in its node is no sign that the context still exists.
//!    `is_held` and the share change together under the lock. Otherwise a program that is told of the end, and drops the
//!    context at once, would for a moment still keep the signal from its default.
//! 6. A signal that was handled or ignored before us (`Origin::Theirs`) is never given its default.
//! 7. Otherwise a signal that ends a process by default ends this one: by the signal where signal-hook can put the
//!    default back, else with the exit status by which a shell reports it.
//!
//! Lock order: none; no node's lock is taken under the catcher's.
//!
//! Why not a task on `tokio::signal`? It would be as deaf as its runtime, which a second Ctrl-C is there to end, and it
//! dies with its runtime. Tokio's handler cannot be told from the application's, either.
//!
//! Why not decide in the handler, with signal-hook's conditional default? Its one flag cannot say "no context of several
//! has a use for this", and a list cannot be changed under a handler.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::panic::Location;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use signal_hook::consts::FORBIDDEN;
use signal_hook::iterator::{Handle, Signals as Arrivals};
use signal_hook::low_level::{emulate_default_handler, exit, signal_name};
use tokio::signal::unix::SignalKind;

use super::Signals;
use crate::context::{Context, Node};

/// Numbers from here on are beyond any system's, and beyond what signal-hook's iterator takes.
const NUMBERS: i32 = 128;

/// The realtime signals that the C library leaves to programs, where they are known.
const REALTIME: Option<RangeInclusive<i32>> = if cfg!(not(target_os = "linux")) {
    None
} else if cfg!(target_env = "gnu") {
    Some(34..=64)
} else if cfg!(target_env = "musl") {
    Some(35..=64)
} else {
    None
};

/// Dead watches are looked for when there are more than twice as many as were alive the last time, and this.
const SLACK: usize = 16;

static CATCHER: Mutex<Option<Catcher>> = Mutex::new(None);

struct Catcher {
    arrivals: Handle,
    /// The signals caught so far. An entry is made once, and asks for the origin before the handler is installed.
    origins: HashMap<i32, Origin>,
    /// In the order of derivation.
    watches: Vec<Watch>,
    tidy_at: usize,
}

/// Whose a signal was before us.
#[derive(Clone, Copy, PartialEq)]
enum Origin {
    Default,
    Theirs,
}

/// A context and the signals it is for.
struct Watch {
    node: Weak<Node>,
    kinds: Vec<SignalKind>,
    second_kills: bool,
    /// `None`: the signal ends the context.
    drain: Option<Duration>,
    /// Never cleared.
    has_taken: bool,
    /// Whether a `Taker` has a share in the node. Read and changed under the catcher's lock, hence relaxed.
    is_held: Arc<AtomicBool>,
}

/// A context that takes a signal, on its way to being ended.
struct Taker {
    node: Arc<Node>,
    drain: Option<Duration>,
    is_held: Arc<AtomicBool>,
}

/// What becomes of a signal.
#[must_use]
enum Fate {
    /// These contexts take it.
    Taken(Vec<Taker>),
    /// A context that lets no second signal through is in its way, or it is for others to handle.
    Dropped,
    Default,
}

pub(super) fn derive(
    signals: &Signals,
    parent: &Context,
    location: &'static Location<'static>,
) -> io::Result<Context> {
    with_catcher(|catcher| catcher.catch(&signals.kinds))??;
    let node = super::derive_node(signals, parent, location);
    if !node.is_done() {
        let watch = Watch {
            node: Arc::downgrade(&node),
            kinds: signals.kinds.clone(),
            second_kills: signals.second_kills,
            drain: signals.drain,
            has_taken: false,
            is_held: Arc::default(),
        };
        with_catcher(|catcher| catcher.enter(watch))?;
    }
    Ok(parent.with_node(node))
}

fn with_catcher<T>(f: impl FnOnce(&mut Catcher) -> T) -> io::Result<T> {
    let mut catcher = lock();
    if catcher.is_none() {
        // A failure is not kept: the next call tries again.
        *catcher = Some(Catcher::start()?);
    }
    Ok(f(catcher.as_mut().expect("it was just started")))
}

fn lock() -> MutexGuard<'static, Option<Catcher>> {
    CATCHER.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Catcher {
    fn start() -> io::Result<Self> {
        let arrivals = Arrivals::new([0_i32; 0])?;
        let handle = arrivals.handle();
        spawn(move || watch(arrivals))?;
        Ok(Self {
            arrivals: handle,
            origins: HashMap::new(),
            watches: Vec::new(),
            tidy_at: SLACK,
        })
    }

    fn catch(&mut self, kinds: &[SignalKind]) -> io::Result<()> {
        for kind in kinds {
            let number = kind.as_raw_value();
            if !(1..NUMBERS).contains(&number) || FORBIDDEN.contains(&number) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("{} cannot be caught", name(number)),
                ));
            }
            if !self.origins.contains_key(&number) {
                let origin = Origin::of(number);
                self.arrivals.add_signal(number)?;
                self.origins.insert(number, origin);
            }
        }
        Ok(())
    }

    fn enter(&mut self, watch: Watch) {
        if self.watches.len() >= self.tidy_at {
            self.watches.retain(Watch::is_alive);
            self.tidy_at = 2 * self.watches.len() + SLACK;
        }
        self.watches.push(watch);
    }

    fn receive(&mut self, number: i32) -> Fate {
        self.watches.retain(Watch::is_alive);
        let mut takers = Vec::new();
        let mut is_kept = false;
        for watch in &mut self.watches {
            if watch.kinds.iter().any(|kind| kind.as_raw_value() == number) {
                is_kept |= !watch.second_kills;
                takers.extend(watch.take());
            }
        }
        match self.origins.get(&number) {
            _ if !takers.is_empty() => Fate::Taken(takers),
            Some(Origin::Default) if !is_kept => Fate::Default,
            _ => Fate::Dropped,
        }
    }
}

impl Watch {
    /// Whether the context exists (invariant 5).
    fn is_alive(&self) -> bool {
        let ours = usize::from(self.is_held.load(Ordering::Relaxed));
        self.node.strong_count() > ours
    }

    /// The context, if it exists and this is its first signal.
    fn take(&mut self) -> Option<Taker> {
        if self.has_taken {
            return None;
        }
        self.has_taken = true;
        let node = self.node.upgrade()?;
        self.is_held.store(true, Ordering::Relaxed);
        Some(Taker {
            node,
            drain: self.drain,
            is_held: self.is_held.clone(),
        })
    }
}

impl Taker {
    fn end(self, name: &str) {
        super::end(&self.node, self.drain, name);
        let catcher = lock();
        self.is_held.store(false, Ordering::Relaxed);
        let last = Arc::into_inner(self.node);
        drop(catcher);
        // Its destructor may run foreign code.
        drop(last);
    }
}

impl Origin {
    /// Asks the system whose a signal is; there is no portable way to without `unsafe`.
    fn of(number: i32) -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let has = |mask: &str| {
            let mask = status.lines().find_map(|line| line.strip_prefix(mask));
            let mask = mask.and_then(|mask| u128::from_str_radix(mask.trim(), 16).ok());
            mask.is_some_and(|mask| mask >> (number - 1) & 1 == 1)
        };
        if has("SigCgt:") || has("SigIgn:") {
            Origin::Theirs
        } else {
            Origin::Default
        }
    }
}

/// The thread that decides.
fn watch(mut arrivals: Arrivals) {
    for number in arrivals.forever() {
        let Some(fate) = lock().as_mut().map(|catcher| catcher.receive(number)) else {
            continue;
        };
        match fate {
            Fate::Taken(takers) => end(takers, number),
            Fate::Default => take_default(number),
            Fate::Dropped => {}
        }
    }
}

/// Ends the contexts, on a thread of its own (invariant 4).
fn end(takers: Vec<Taker>, number: i32) {
    let name = name(number);
    let takers = Arc::new(Mutex::new(takers));
    let end = move || {
        let takers = std::mem::take(&mut *takers.lock().unwrap_or_else(PoisonError::into_inner));
        for taker in takers {
            taker.end(&name);
        }
    };
    if spawn(end.clone()).is_err() {
        // Late is better than never.
        end();
    }
}

/// Does what the signal's default does; does not return if that ends the process (invariant 7).
///
/// Process 1 of a namespace, as in a container, takes no default action but for what itself does wrong: the system drops
/// the signal, and signal-hook, which falls back on `abort`, ends in a SIGSEGV.
///
/// Signals beyond signal-hook's table cannot be put back to their default without `unsafe`.
fn take_default(number: i32) {
    if process::id() != 1 {
        // An error: it is not in the table.
        let _ = emulate_default_handler(number);
    }
    if ends_process(number) {
        // Not `process::exit`: what that runs may wait for a thread that is stuck.
        exit(128 + number);
    }
}

/// Whether that is the signal's default action, to which the others are to do nothing and to stop.
fn ends_process(number: i32) -> bool {
    match signal_name(number) {
        Some("SIGCHLD" | "SIGCONT" | "SIGINFO" | "SIGURG" | "SIGWINCH") => false,
        Some("SIGTSTP" | "SIGTTIN" | "SIGTTOU") => false,
        // The table takes BSD's word for it.
        Some("SIGIO") => cfg!(any(target_os = "linux", target_os = "android")),
        // The rest of the table, realtime signals, and on Linux SIGPWR and SIGSTKFLT.
        _ => true,
    }
}

fn spawn(f: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = thread::Builder::new().name("errgroup-signal".to_owned());
    thread.spawn(f).map(drop)
}

fn name(number: i32) -> String {
    if let Some(name) = signal_name(number) {
        return name.to_owned();
    }
    match REALTIME {
        Some(realtime) if realtime.contains(&number) => {
            format!("SIGRTMIN+{}", number - realtime.start())
        }
        _ => format!("signal {number}"),
    }
}

// A loom model has no statics.
#[cfg(all(test, not(errgroup_loom)))]
mod tests {
    use super::*;

    #[test]
    fn contexts_dropped_then_forgotten() {
        // For no signal at all, so that this process keeps its own.
        let signals = Signals::of([]);
        let kept = signals.derive(&Context::background()).expect("a thread");
        for _ in 0..10_000 {
            drop(signals.derive(&kept).expect("a watch"));
        }
        let watches = lock().as_ref().map_or(0, |catcher| catcher.watches.len());
        assert!((1..=2 * (SLACK + 1)).contains(&watches), "{watches}");
    }
}
