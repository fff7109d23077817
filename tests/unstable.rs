//! Under `--cfg tokio_unstable`, with the feature `tracing`: the names of tasks reach tokio, whose spans tokio-console reads.
//!
//! A test binary of its own, since the cfg rebuilds every dependency: `ci/unstable.sh test`.
#![cfg(all(tokio_unstable, feature = "tracing"))]

use std::fmt;
use std::sync::{Arc, Mutex};

use errgroup::{BoxError, Group};
use tokio::task::LocalSet;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Keeps the kind, the name and the file of each span that tokio makes for a task.
#[derive(Clone, Default)]
struct Tasks(Arc<Mutex<Vec<[String; 3]>>>);

#[derive(Default)]
struct Fields([String; 3]);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let place = match field.name() {
            "kind" => 0,
            "task.name" => 1,
            "loc.file" => 2,
            _ => return,
        };
        self.0[place] = format!("{value:?}").trim_matches('"').to_owned();
    }
}

impl Subscriber for Tasks {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.name() == "runtime.spawn"
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields::default();
        span.record(&mut fields);
        let mut tasks = self.0.lock().unwrap();
        tasks.push(fields.0);
        Id::from_u64(tasks.len() as u64)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn tasks_of_all_kinds_are_spawned_then_tokio_knows_their_names() {
    let tasks = Tasks::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    tracing::subscriber::with_default(tasks.clone(), || {
        runtime.block_on(LocalSet::new().run_until(async {
            let mut group: Group = Group::new();
            group.task("future").spawn(async { Ok(()) });
            group.task("cooperative").spawn_with(async |_ctx| Ok(()));
            group.task("thread").spawn_blocking(|_ctx| Ok(()));
            group.task("local").spawn_local(async { Ok(()) });
            group.spawn(async { Ok::<_, BoxError>(()) });
            group.wait().await.unwrap();
        }));
    });
    let mut known = tasks.0.lock().unwrap().clone();
    known.sort();
    let named = |kind: &str, name: &str| [kind.to_owned(), name.to_owned(), file!().to_owned()];
    let of = |wanted: [String; 3]| known.iter().any(|task| task[..2] == wanted[..2]);
    assert!(of(named("blocking", "thread")), "{known:?}");
    assert!(of(named("local", "local")), "{known:?}");
    for name in ["future", "cooperative", ""] {
        // At the place where it was spawned, not where this crate hands it on.
        assert!(known.contains(&named("task", name)), "{known:?}");
    }
}
