//! One request: its context, its group, its answer and its line in the log.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use errgroup::{Context, ContextError, Group, Reason};
use serde::Deserialize;

use crate::backend::{Backend, Hit, One};
use crate::server::{Counts, Server, log};

const MAX_QUERY: usize = 100;

#[derive(Deserialize)]
pub struct Params {
    #[serde(default)]
    q: String,
}

#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    #[error("{0}")]
    BadRequest(&'static str),
    #[error("the backend {0:?} failed")]
    Backend(&'static str),
    #[error("cancelled: the server is shutting down")]
    ShuttingDown,
    #[error(transparent)]
    Ended(#[from] ContextError),
}

/// `GET /search?q=`. It is dropped where it stands when the client goes away.
pub async fn handle(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
    Query(Params { q }): Query<Params>,
) -> Response {
    let entry = LogEntry::open(&server.counts, &q);
    let found = answer(&server, &headers, &q).await;
    entry.close(found.as_ref().err());
    found.map_or_else(IntoResponse::into_response, |hits| {
        Json(hits).into_response()
    })
}

async fn answer(server: &Server, headers: &HeaderMap, q: &str) -> Result<Vec<Hit>, SearchError> {
    if q.is_empty() || q.len() > MAX_QUERY {
        return Err(SearchError::BadRequest("q has to be of 1 to 100 bytes"));
    }
    let timeout = timeout(headers)?.unwrap_or(server.max_timeout);
    let ctx = server
        .requests
        .with_timeout(timeout.min(server.max_timeout));
    match search(&ctx, &server.backends, q).await {
        Err(SearchError::Ended(end)) if end.reason() == Reason::Stopped => {
            Err(SearchError::ShuttingDown)
        }
        found => found,
    }
}

fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, SearchError> {
    let Some(value) = headers.get("x-timeout-ms") else {
        return Ok(None);
    };
    let milliseconds = value.to_str().ok().and_then(|text| text.parse().ok());
    let milliseconds = milliseconds.ok_or(SearchError::BadRequest("x-timeout-ms: no number"))?;
    Ok(Some(Duration::from_millis(milliseconds)))
}

/// Asks all the backends at once. Dropping this future drops the group, which stops them.
async fn search(
    ctx: &Context,
    backends: &[Arc<Backend>],
    q: &str,
) -> Result<Vec<Hit>, SearchError> {
    Group::run(ctx, async |group| {
        let ask = |backend: &Arc<Backend>| {
            let (backend, q) = (Arc::clone(backend), q.to_owned());
            let task = group.task(backend.name);
            task.spawn_with(|ctx| async move { backend.search(&ctx, &q).await })
        };
        let tasks: Vec<_> = backends.iter().map(ask).collect();
        let mut hits = Vec::new();
        for task in tasks {
            hits.extend(task.await?);
        }
        Ok(hits)
    })
    .await
}

impl SearchError {
    fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Backend(_) => StatusCode::BAD_GATEWAY,
            Self::Ended(end) if end.is_deadline_exceeded() => StatusCode::GATEWAY_TIMEOUT,
            Self::ShuttingDown | Self::Ended(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl IntoResponse for SearchError {
    fn into_response(self) -> Response {
        // The log has the rest: where the deadline was set is nothing for a client.
        let text = match &self {
            Self::Ended(end) => end.reason().to_string(),
            Self::ShuttingDown => Reason::Cancelled.to_string(),
            error => error.to_string(),
        };
        (self.status(), text + "\n").into_response()
    }
}

/// Writes one line when the request is over: 499 if that is because nobody waits for the answer any more, and no status if
/// something panicked.
struct LogEntry<'a> {
    counts: &'a Counts,
    q: &'a str,
    start: Instant,
    outcome: String,
    _alive: One,
}

impl<'a> LogEntry<'a> {
    fn open(counts: &'a Counts, q: &'a str) -> Self {
        counts.received.fetch_add(1, Ordering::Relaxed);
        Self {
            counts,
            q,
            start: Instant::now(),
            outcome: "499 the client has gone".to_owned(),
            _alive: counts.requests.one(),
        }
    }

    fn close(mut self, error: Option<&SearchError>) {
        self.counts.answered.fetch_add(1, Ordering::Relaxed);
        self.outcome = match error {
            Some(error) => format!("{} {error}", error.status().as_u16()),
            None => "200".to_owned(),
        };
    }
}

impl Drop for LogEntry<'_> {
    fn drop(&mut self) {
        let Self { q, start, .. } = self;
        let outcome = match thread::panicking() {
            true => "no answer: it panicked",
            false => &self.outcome,
        };
        log(format_args!("{q:?} {:?} {outcome}", start.elapsed()));
    }
}
