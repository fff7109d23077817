//! What the feature `tracing` tells a subscriber.

use std::collections::HashMap;
use std::fmt::{Debug, Write};
use std::future::pending;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use errgroup::{BoxError, Child, Context, Group, Restart, Supervisor};
use tokio::task::yield_now;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

type Unit = Result<(), BoxError>;

/// A span or an event.
#[derive(Clone, Debug, Default)]
struct Recorded {
    what: &'static str,
    level: Option<Level>,
    /// By name, as text.
    fields: HashMap<&'static str, String>,
    /// The name of the span that it is in, or follows from.
    parent: Option<String>,
    follows: Option<String>,
}

/// A subscriber that writes down what it is told.
#[derive(Clone, Default)]
struct Recorder(Arc<State>);

#[derive(Default)]
struct State {
    next: AtomicU64,
    spans: Mutex<HashMap<u64, Recorded>>,
    events: Mutex<Vec<Recorded>>,
    entered: Mutex<Vec<u64>>,
    /// How often each span was entered.
    entries: Mutex<HashMap<u64, usize>>,
}

struct Fields<'a>(&'a mut HashMap<&'static str, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = String::new();
        write!(text, "{value:?}").unwrap();
        self.0.insert(field.name(), text);
    }
}

impl Recorder {
    fn name(&self, id: u64) -> String {
        let spans = self.0.spans.lock().unwrap();
        let span = &spans[&id];
        let name = span.fields.get("name").cloned().unwrap_or_default();
        format!("{} {name}", span.what)
    }

    fn current(&self) -> Option<u64> {
        self.0.entered.lock().unwrap().last().copied()
    }

    fn span(&self, what: &str, name: &str) -> (Recorded, usize) {
        let spans = self.0.spans.lock().unwrap();
        let is_it = |span: &Recorded| {
            span.what == what && span.fields.get("name").is_some_and(|found| found == name)
        };
        let (id, span) = spans
            .iter()
            .find(|(_, span)| is_it(span))
            .expect("such a span");
        let entries = self.0.entries.lock().unwrap();
        (span.clone(), entries.get(id).copied().unwrap_or(0))
    }

    fn take_events(&self) -> Vec<Recorded> {
        std::mem::take(&mut self.0.events.lock().unwrap())
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "errgroup" || metadata.target() == "test"
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed) + 1;
        let mut fields = HashMap::new();
        attributes.record(&mut Fields(&mut fields));
        let parent = attributes.parent().map(Id::into_u64);
        let parent = parent.or_else(|| self.current().filter(|_| attributes.is_contextual()));
        let span = Recorded {
            what: attributes.metadata().name(),
            level: Some(*attributes.metadata().level()),
            fields,
            parent: parent.map(|id| self.name(id)),
            follows: None,
        };
        self.0.spans.lock().unwrap().insert(id, span);
        Id::from_u64(id)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, span: &Id, follows: &Id) {
        let name = self.name(follows.into_u64());
        let mut spans = self.0.spans.lock().unwrap();
        spans.get_mut(&span.into_u64()).unwrap().follows = Some(name);
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = HashMap::new();
        event.record(&mut Fields(&mut fields));
        let parent = event.parent().map(Id::into_u64).or_else(|| self.current());
        self.0.events.lock().unwrap().push(Recorded {
            what: event.metadata().name(),
            level: Some(*event.metadata().level()),
            fields,
            parent: parent.map(|id| self.name(id)),
            follows: None,
        });
    }

    fn enter(&self, id: &Id) {
        self.0.entered.lock().unwrap().push(id.into_u64());
        *self
            .0
            .entries
            .lock()
            .unwrap()
            .entry(id.into_u64())
            .or_default() += 1;
    }

    fn exit(&self, id: &Id) {
        let left = self.0.entered.lock().unwrap().pop();
        assert_eq!(left, Some(id.into_u64()));
    }
}

fn recorded(body: impl AsyncFnOnce(Recorder)) {
    let recorder = Recorder::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    tracing::subscriber::with_default(recorder.clone(), || {
        runtime.block_on(body(recorder));
        drop(runtime);
    });
}

async fn settle() {
    for _ in 0..8 {
        yield_now().await;
    }
}

#[test]
fn spans_of_group_and_task_have_name_id_place_and_the_spawners_span_as_parent() {
    recorded(async |recorder| {
        let request = tracing::info_span!(target: "test", "request", name = "7");
        let (group, id, line) = request.in_scope(|| {
            let group: Group = Group::builder().name("api").build();
            let task = group.task("db").spawn(async {
                yield_now().await;
                Ok(())
            });
            (group, task.id(), line!() - 4)
        });
        group.task("elsewhere").spawn(async {
            tracing::info!(target: "test", "inside");
            Ok(())
        });
        let blocking = group.task("thread").spawn_blocking(|_| Ok(()));
        settle().await;
        let (api, _) = recorder.span("group", "\"api\"");
        assert_eq!(api.parent.as_deref(), Some("request \"7\""));
        assert!(api.fields["location"].starts_with(file!()));
        assert!(api.fields.contains_key("id"));
        let (db, entries) = recorder.span("task", "\"db\"");
        assert_eq!(db.parent.as_deref(), Some("request \"7\""));
        assert_eq!(db.follows.as_deref(), Some("group \"api\""));
        assert_eq!(format!("#{}", db.fields["id"]), id.to_string());
        assert!(
            db.fields["location"].starts_with(&format!("{}:{line}:", file!())),
            "{db:?}"
        );
        // Two polls, and the drop.
        assert_eq!(entries, 3);
        let (elsewhere, _) = recorder.span("task", "\"elsewhere\"");
        assert_eq!(elsewhere.parent, None);
        let events = recorder.take_events();
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].parent.as_deref(), Some("task \"elsewhere\""));
        blocking.await.unwrap();
    });
}

#[test]
fn decisions_of_a_supervisor_are_events() {
    recorded(async |recorder| {
        let (ctx, stop) = Context::background().with_cancel();
        let supervisor: Supervisor = Supervisor::builder().context(&ctx).name("api").build();
        let db = Child::new("db", async |_ctx| Err("refused".into()));
        let run = supervisor.child(db.restart(Restart::Temporary)).run();
        let ended = tokio::join!(run, async {
            settle().await;
            stop.cancel();
        });
        ended.0.unwrap();
        let events = recorder.take_events().into_iter();
        let events: Vec<_> = events
            .filter(|event| event.fields.contains_key("child"))
            .map(|event| {
                assert_eq!(event.fields["child"], "\"db\"");
                (event.level.unwrap(), event.fields["message"].clone())
            })
            .collect();
        let expected = [
            (Level::INFO, r#"supervisor "api": child "db" starts"#),
            (
                Level::WARN,
                r#"supervisor "api": child "db" failed: refused"#,
            ),
        ];
        assert_eq!(
            events,
            expected.map(|(level, text)| (level, text.to_owned()))
        );
    });
}

#[test]
fn failure_panic_and_end_are_events_of_the_group() {
    recorded(async |recorder| {
        let group: Group = Group::builder().name("isolated").isolated().build();
        group
            .task("db")
            .spawn(async { Err::<(), _>("refused".into()) });
        group.task("bug").spawn(async {
            std::panic::resume_unwind(Box::new("lost count"));
            #[allow(unreachable_code, reason = "it says what the task would return")]
            Unit::Ok(())
        });
        settle().await;
        let events = recorder.take_events();
        let texts: Vec<_> = events
            .iter()
            .map(|event| event.fields["message"].as_str())
            .collect();
        assert!(
            texts[0].starts_with("task \"db\" failed: refused (spawned at "),
            "{texts:?}"
        );
        assert!(
            texts[1].starts_with("task \"bug\" panicked: lost count (spawned at"),
            "{texts:?}"
        );
        for event in &events {
            assert_eq!(event.level, Some(Level::ERROR));
            assert_eq!(event.parent.as_deref(), Some("group \"isolated\""));
        }
        group.cancel_with("enough");
        let events = recorder.take_events();
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].fields["reason"], "GroupCancelled");
        assert!(events[0].fields["message"].contains("the context has ended: cancelled"));
        assert!(events[0].fields["message"].contains("enough"));
        assert_eq!(events[0].level, Some(Level::INFO));
    });
}

#[test]
fn end_of_the_parent_is_an_event_of_the_group() {
    recorded(async |recorder| {
        let (ctx, cancel) = Context::background().with_cancel();
        let _group: Group = Group::builder().context(&ctx).name("below").build();
        cancel.cancel();
        let events = recorder.take_events();
        assert_eq!(events[0].parent.as_deref(), Some("group \"below\""));
        assert_eq!(events[0].fields["reason"], "Cancelled");
    });
}

#[test]
fn stragglers_are_warned_of() {
    recorded(async |recorder| {
        let group: Group = Group::builder().name("stopped").build();
        group
            .task("deaf")
            .spawn_with(async |_| pending::<Unit>().await);
        settle().await;
        let shutdown = group.stop().grace(Duration::from_secs(1)).await;
        assert_eq!(shutdown.stragglers.len(), 1);
        drop(shutdown);
        let mut warned: Group = Group::builder()
            .name("waited for")
            .on_stragglers(|_| {})
            .patience(Duration::from_secs(1))
            .build();
        warned.task("slow").spawn_with(async |_| {
            tokio::time::sleep(Duration::from_secs(5)).await;
            Ok(())
        });
        settle().await;
        warned.cancel();
        warned.wait().await.unwrap();
        let events = recorder.take_events();
        let mut warnings = events
            .iter()
            .filter(|event| event.level == Some(Level::WARN));
        let deaf = warnings.next().unwrap();
        assert_eq!(deaf.fields["name"], "\"deaf\"");
        assert_eq!(deaf.fields["diagnosis"], "NotPolledSince");
        assert_eq!(deaf.fields["was_aborted"], "true");
        assert_eq!(deaf.parent.as_deref(), Some("group \"stopped\""));
        let slow = warnings.next().unwrap();
        assert_eq!(slow.fields["name"], "\"slow\"");
        assert_eq!(slow.parent.as_deref(), Some("group \"waited for\""));
        assert!(warnings.next().is_none());
    });
}

/// A subscriber that panics harms nobody but its own task.
#[test]
fn subscriber_panics_at_an_end_and_the_end_goes_on() {
    struct Panics;
    impl Subscriber for Panics {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target() == "errgroup" && metadata.is_event()
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, _: &Event<'_>) {
            panic!("a subscriber's");
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    tracing::subscriber::with_default(Panics, || {
        runtime.block_on(async {
            let mut group: Group = Group::new();
            group.spawn(async { Err::<(), _>("the task's".into()) });
            let error = group.wait().await.unwrap_err();
            assert_eq!(error.to_string(), "the task's");
            assert!(group.is_empty());
        });
    });
}
