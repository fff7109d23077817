//! The words of a line: what an item is, what it is doing, where it comes from.
//!
//! Names and the texts of errors are foreign: they are escaped, so that each stays on its line, and cut.

use std::fmt::Write;
use std::time::Duration;

use super::plan::{Line, Shows};
use super::{
    BatchSnapshot, ContextSnapshot, EndSnapshot, EndedTasks, GroupSnapshot, Place, ScopeSnapshot,
    Snapshot, TaskKind, TaskSnapshot, TaskState, What,
};
use crate::batch::SourceState;
use crate::error::Reason;
use crate::group::Diagnosis;

/// So many characters are shown of a name, and of a text.
const NAME: usize = 60;
const TEXT: usize = 200;

/// So many of a batch's waiting items are shown.
const ITEMS: usize = 5;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Charset {
    Unicode,
    Ascii,
}

/// How a line is to be drawn.
pub(super) enum Look {
    Context,
    Group,
    Task,
    Straggler,
    More,
}

pub(super) fn look(snapshot: &Snapshot, line: &Line) -> Look {
    let Shows::Item(place) = line.shows else {
        return Look::More;
    };
    match &snapshot.items[place].what {
        What::ContextSnapshot(_) => Look::Context,
        What::GroupSnapshot(_) | What::BatchSnapshot(_) | What::ScopeSnapshot(_) => Look::Group,
        What::TaskSnapshot(task) if task.is_straggler() => Look::Straggler,
        What::TaskSnapshot(_) => Look::Task,
    }
}

/// The parts of a line.
pub(super) fn label(snapshot: &Snapshot, line: &Line, charset: Charset) -> Vec<String> {
    let place = match line.shows {
        Shows::Item(place) => place,
        Shows::More(count) => return vec![format!("{} {count} more", charset.ellipsis())],
        Shows::Below(count) => return vec![format!("{} {count} below", charset.ellipsis())],
    };
    match &snapshot.items[place].what {
        What::ContextSnapshot(context) => charset.context(context),
        What::GroupSnapshot(group) => charset.group(group),
        What::TaskSnapshot(task) => charset.task(task),
        What::BatchSnapshot(batch) => charset.batch(batch),
        What::ScopeSnapshot(scope) => charset.scope(scope),
    }
}

impl Charset {
    fn ellipsis(self) -> &'static str {
        match self {
            Charset::Unicode => "…",
            Charset::Ascii => "...",
        }
    }

    fn at_least(self, time: Duration) -> String {
        let sign = match self {
            Charset::Unicode => "≥",
            Charset::Ascii => ">=",
        };
        format!("{sign} {}", short(time))
    }

    /// As one line, without what a terminal would take for more than a character.
    fn escaped(self, text: &str, most: usize) -> String {
        let mut escaped = String::new();
        for (number, char) in text.chars().enumerate() {
            if number == most {
                escaped.push_str(self.ellipsis());
                break;
            }
            match self {
                _ if matches!(char, '\'' | '"') => escaped.push(char),
                Charset::Unicode => escaped.extend(char.escape_debug()),
                Charset::Ascii if char.is_ascii() => escaped.extend(char.escape_debug()),
                Charset::Ascii => escaped.extend(char.escape_default()),
            }
        }
        escaped
    }

    fn place(self, place: &Place) -> String {
        self.escaped(&place.to_string(), TEXT)
    }

    fn context(self, context: &ContextSnapshot) -> Vec<String> {
        let mut head = String::from("context");
        match (&context.end, context.remaining, &context.place) {
            (Some(end), ..) => self.write_end(&mut head, end),
            (None, Some(remaining), _) => {
                let _ = write!(head, " {}", ends_in(remaining));
            }
            (None, None, None) => head.push_str(" background"),
            (None, None, Some(_)) => {}
        }
        let place = context.place.as_ref().map(|place| self.place(place));
        [head].into_iter().chain(place).collect()
    }

    fn group(self, group: &GroupSnapshot) -> Vec<String> {
        let mut head = String::from("group");
        self.write_name(&mut head, group.name());
        let _ = write!(head, " #{}", group.id);
        self.write_life(&mut head, &group.end, Some(group.age));
        let mut parts = vec![head];
        parts.extend(group.remaining.map(ends_in));
        parts.push(match group.limit {
            Some(limit) => format!("live {}/{limit}", group.slots_held),
            None => format!("live {}", group.live),
        });
        if group.queued > 0 {
            parts.push(format!("queued {}", group.queued));
        }
        parts.extend(ended(&group.ended));
        if let Some((first, more)) = group.waits_for_slots.split_first() {
            let more = match more.len() {
                0 => String::new(),
                count => format!(" and {count} more"),
            };
            parts.push(format!("waits for a slot: {}{more}", self.place(first)));
        }
        if let Some(time) = group.stalled {
            let time = self.at_least(time);
            parts.push(format!(
                "EVERY SLOT IS HELD BY A TASK THAT WAITS ({time}): FOR A QUEUED ONE?"
            ));
        }
        parts.push(self.place(&group.place));
        parts
    }

    fn batch(self, batch: &BatchSnapshot) -> Vec<String> {
        let mut head = String::from("batch");
        self.write_name(&mut head, batch.name());
        let _ = write!(head, " #{}", batch.id);
        self.write_life(&mut head, &batch.end, None);
        let mut parts = vec![head];
        parts.extend(batch.remaining.map(ends_in));
        parts.push(format!("items {}/{}", batch.live, batch.limit));
        parts.extend(self.waiting_items(&batch.waiting));
        let counts = [
            (batch.unstarted, "not started"),
            (batch.unyielded, "not taken by its consumer"),
            (batch.done, "done"),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        parts.extend(counts.map(|(count, what)| format!("{count} {what}")));
        parts.push(match batch.idle {
            0 => format!("workers {}", batch.workers),
            idle => format!("workers {} ({idle} idle)", batch.workers),
        });
        parts.push(match batch.source {
            SourceState::Ready => "source ready".to_owned(),
            SourceState::Waiting => "source waits".to_owned(),
            SourceState::Pulled => "source is being polled".to_owned(),
            SourceState::Over => "source over".to_owned(),
        });
        parts.push(self.place(&batch.place));
        parts
    }

    /// `waiting: [0], [17], … 3 more`, by index.
    fn waiting_items(self, waiting: &[usize]) -> Option<String> {
        let (shown, more) = waiting.split_at(waiting.len().min(ITEMS));
        let mut items: Vec<String> = shown.iter().map(|index| format!("[{index}]")).collect();
        if !more.is_empty() {
            items.push(format!("{} {} more", self.ellipsis(), more.len()));
        }
        (!items.is_empty()).then(|| format!("waiting: {}", items.join(", ")))
    }

    fn scope(self, scope: &ScopeSnapshot) -> Vec<String> {
        let mut head = format!("scope #{}", scope.id);
        self.write_life(&mut head, &scope.end, Some(scope.age));
        let mut parts = vec![head];
        parts.extend(scope.remaining.map(ends_in));
        parts.push(format!("live {}", scope.live));
        parts.push(format!("started {}", scope.started));
        parts.push(self.place(&scope.place));
        parts
    }

    fn task(self, task: &TaskSnapshot) -> Vec<String> {
        let mut head = String::from("task");
        self.write_name(&mut head, task.name());
        let _ = write!(head, " #{} ", task.id);
        match task.diagnosis {
            Some(diagnosis) => self.write_diagnosis(&mut head, task, diagnosis),
            None => self.write_state(&mut head, task),
        }
        let mut parts = vec![head];
        if task.holds_slot {
            parts.push("holds a slot".to_owned());
        }
        parts.push(self.place(&task.place));
        parts
    }

    fn write_name(self, head: &mut String, name: Option<&str>) {
        if let Some(name) = name {
            let name = self.escaped(name, NAME).replace('"', "\\\"");
            let _ = write!(head, " \"{name}\"");
        }
    }

    /// `running 3s`, or how it ended.
    fn write_life(self, head: &mut String, end: &Option<EndSnapshot>, age: Option<Duration>) {
        match (end, age) {
            (Some(end), _) => self.write_end(head, end),
            (None, Some(age)) => {
                let _ = write!(head, " running {}", short(age));
            }
            (None, None) => head.push_str(" running"),
        }
    }

    /// `cancelled 2.1s ago: deadline exceeded`.
    fn write_end(self, head: &mut String, end: &EndSnapshot) {
        let verb = match end.reason {
            Reason::GroupFinished => "finished",
            _ => "cancelled",
        };
        let _ = write!(head, " {verb}");
        if let Some(ago) = end.ago {
            let _ = write!(head, " {} ago", short(ago));
        }
        let text = end.text();
        let text = text.strip_prefix("cancelled").unwrap_or(&text);
        let text = self.escaped(text.trim_start_matches([':', ' ']), TEXT);
        match text.starts_with('(') {
            true => {
                let _ = write!(head, " {text}");
            }
            false => {
                let _ = write!(head, ": {text}");
            }
        }
    }

    fn write_state(self, head: &mut String, task: &TaskSnapshot) {
        let _ = match task.state {
            TaskState::Queued => write!(head, "queued {}", self.at_least(task.age)),
            TaskState::NotPolled => write!(head, "not polled yet {}", self.at_least(task.age)),
            TaskState::WaitsForThread => {
                write!(head, "waits for a thread {}", self.at_least(task.age))
            }
            TaskState::Running(_) if task.kind == TaskKind::Blocking => {
                write!(head, "on its thread {}", self.at_least(task.age))
            }
            TaskState::Running(Duration::ZERO) => write!(head, "running ({})", polls(task.polls)),
            TaskState::Running(time) => {
                write!(
                    head,
                    "in one poll {} ({})",
                    self.at_least(time),
                    polls(task.polls)
                )
            }
            TaskState::Waiting(Some(time)) => write!(head, "idle {}", self.at_least(time)),
            TaskState::Waiting(None) => write!(head, "waiting ({})", polls(task.polls)),
        };
    }

    fn write_diagnosis(self, head: &mut String, task: &TaskSnapshot, diagnosis: Diagnosis) {
        let verdict = match (diagnosis, task.kind) {
            _ if task.state == TaskState::Queued => "STILL QUEUED",
            // The group has woken it, and its runtime has not come to it.
            (Diagnosis::NotPolledSince, TaskKind::Dropped | TaskKind::Local) => {
                "WAITS FOR ITS RUNTIME"
            }
            (Diagnosis::NotPolledSince, _) if task.polls == 0 => "WAITS FOR ITS RUNTIME",
            (Diagnosis::NotPolledSince, _) => "IGNORES CANCEL",
            (Diagnosis::PolledStillRunning(_), _) => "SLOW TO STOP",
            (Diagnosis::BlockingPoll(time), _) => {
                let _ = write!(
                    head,
                    "BLOCKS ITS THREAD (in one poll {})",
                    self.at_least(time)
                );
                return;
            }
            (Diagnosis::BlockingThread, _) => "RUNS ON",
            (Diagnosis::WaitsForThread, _) => "NOT STARTED",
        };
        let _ = write!(head, "{verdict} ({diagnosis})");
    }
}

fn ends_in(remaining: Duration) -> String {
    format!("ends in {}", short(remaining))
}

/// Those of the tasks' ends that somebody may want to look into, or nothing to say.
fn ended(ended: &EndedTasks) -> Option<String> {
    let counts = [
        (ended.completed, "completed"),
        (ended.failed, "failed"),
        (ended.panicked, "panicked"),
        (ended.cut_short, "cut short"),
        (ended.aborted, "aborted"),
        (ended.never_started, "never started"),
    ];
    let counts: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    (!counts.is_empty()).then(|| counts.join(", "))
}

fn polls(count: u32) -> String {
    match count {
        1 => "1 poll".to_owned(),
        count => format!("{count} polls"),
    }
}

/// A time of which nobody needs more than two digits: `350ms`, `2.1s`, `4m12s`, `3h05m`, `2d04h`.
fn short(time: Duration) -> String {
    let (seconds, millis) = (time.as_secs(), time.as_millis());
    match seconds {
        0 => format!("{millis}ms"),
        1..60 => {
            let tenths = time.subsec_millis() / 100;
            match tenths {
                0 => format!("{seconds}s"),
                _ => format!("{seconds}.{tenths}s"),
            }
        }
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

#[cfg(all(test, not(errgroup_loom)))]
mod tests {
    use super::{Charset, Duration, short};

    #[test]
    fn times_are_short() {
        let of = |millis| short(Duration::from_millis(millis));
        assert_eq!(of(0), "0ms");
        assert_eq!(of(350), "350ms");
        assert_eq!(of(2_000), "2s");
        assert_eq!(of(2_199), "2.1s");
        assert_eq!(of(252_000), "4m12s");
        assert_eq!(of(11_100_000), "3h05m");
        assert_eq!(of(187_200_000), "2d04h");
    }

    #[test]
    fn foreign_text_stays_on_its_line() {
        let text = "a\"b\nc\u{1b}[31m\u{202e}é";
        assert_eq!(
            Charset::Unicode.escaped(text, 60),
            "a\"b\\nc\\u{1b}[31m\\u{202e}é"
        );
        assert_eq!(
            Charset::Ascii.escaped(text, 60),
            "a\"b\\nc\\u{1b}[31m\\u{202e}\\u{e9}"
        );
        assert_eq!(Charset::Ascii.escaped("abcdef", 3), "abc...");
    }
}
