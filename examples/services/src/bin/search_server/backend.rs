//! Three search engines inside this process. How long each takes is fixed; what it finds depends on the query alone.

use std::fmt::{self, Display};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use errgroup::Context;
use serde::Serialize;

use crate::request::SearchError;

pub struct Backend {
    pub name: &'static str,
    latency: Duration,
    is_broken: bool,
    is_buggy: bool,
    documents: &'static [&'static str],
    pub alive: Alive,
}

#[derive(Serialize)]
pub struct Hit {
    backend: &'static str,
    document: &'static str,
}

/// Counts what is going on; a clone counts with it.
#[derive(Clone, Default)]
pub struct Alive(Arc<AtomicUsize>);

/// Counted until it is dropped.
pub struct One(Alive);

const TITLES: &[&str] = &["Rust in Action", "The Go Programming Language"];
const PAGES: &[&str] = &["rust: futures are inert until polled", "go: context"];
const ARCHIVE: &[&str] = &["2015: Rust 1.0", "2012: Go 1"];

pub fn all(step: Duration, broken: Option<&str>, buggy: Option<&str>) -> Vec<Arc<Backend>> {
    let backends = [
        ("titles", 1, TITLES),
        ("pages", 3, PAGES),
        ("archive", 10, ARCHIVE),
    ];
    let backend = |(name, steps, documents)| Backend {
        name,
        latency: step * steps,
        is_broken: broken == Some(name),
        is_buggy: buggy == Some(name),
        documents,
        alive: Alive::default(),
    };
    backends.map(backend).map(Arc::new).into()
}

impl Backend {
    pub async fn search(&self, ctx: &Context, words: &str) -> Result<Vec<Hit>, SearchError> {
        let _alive = self.alive.one();
        if self.is_broken {
            return Err(SearchError::Backend(self.name));
        }
        assert!(!self.is_buggy, "the backend {:?} has a bug", self.name);
        ctx.sleep(self.latency).await?;
        Ok(self.matches(&words.to_lowercase()))
    }

    fn matches(&self, words: &str) -> Vec<Hit> {
        let is_match = |document: &&&str| document.to_lowercase().contains(words);
        let matches = self.documents.iter().filter(is_match);
        matches
            .map(|document| Hit {
                backend: self.name,
                document,
            })
            .collect()
    }
}

impl Alive {
    pub fn one(&self) -> One {
        self.0.fetch_add(1, Ordering::Relaxed);
        One(self.clone())
    }
}

impl Display for Alive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.load(Ordering::Relaxed).fmt(f)
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
