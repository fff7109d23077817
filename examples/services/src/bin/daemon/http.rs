//! The front: notes come in, the state of things goes out.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use errgroup::{BoxError, ChildState, ChildStatus, Context, Ready, SupervisorHandle};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::Daemon;
use crate::pool::Job;

/// Serves until it is to stop, and then what was accepted.
pub async fn run(ctx: Context, ready: Ready, daemon: Arc<Daemon>) -> Result<(), BoxError> {
    let listener = tokio::net::TcpListener::from_std(daemon.listener.try_clone()?)?;
    ready.notify();
    let (stopping, linger) = (ctx.stopping(), daemon.args.linger_ms);
    let close = async move {
        stopping.done().await;
        sleep(linger).await;
    };
    let router = Router::new()
        .route("/notes", post(note))
        .route("/healthz", get(health))
        .route("/debug/supervisor", get(children))
        .with_state(daemon);
    let serve = axum::serve(listener, router).with_graceful_shutdown(close);
    Ok(ctx.run(serve.into_future()).await??)
}

async fn note(State(daemon): State<Arc<Daemon>>, text: String) -> Response {
    let (done, is_done) = oneshot::channel();
    // Both channels outlive the children that read from them.
    let sent = daemon.pool.outbox.send(Job { text, done }).await;
    match (sent, is_done.await) {
        (Ok(()), Ok(id)) => (StatusCode::CREATED, id.to_string()).into_response(),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "it was not written").into_response(),
    }
}

async fn health(State(daemon): State<Arc<Daemon>>) -> (StatusCode, &'static str) {
    match daemon.supervisors().iter().all(SupervisorHandle::is_all_up) {
        true => (StatusCode::OK, "all are up"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not all are up"),
    }
}

#[derive(Deserialize)]
struct Format {
    format: Option<String>,
}

#[derive(Serialize)]
struct Shown {
    name: String,
    state: String,
    for_ms: u128,
    restarts: u64,
    retry_in_ms: Option<u128>,
    failures: Vec<String>,
}

async fn children(State(daemon): State<Arc<Daemon>>, Query(query): Query<Format>) -> Response {
    let supervisors = daemon.supervisors();
    if query.format.as_deref() != Some("json") {
        let text: String = supervisors.iter().map(ToString::to_string).collect();
        return text.into_response();
    }
    let children = supervisors.iter().flat_map(SupervisorHandle::children);
    Json(children.map(Shown::new).collect::<Vec<_>>()).into_response()
}

impl Daemon {
    fn supervisors(&self) -> Vec<SupervisorHandle> {
        let upstream = self.upstream.lock().unwrap().clone();
        self.supervisor
            .get()
            .cloned()
            .into_iter()
            .chain(upstream)
            .collect()
    }
}

impl Shown {
    fn new(child: ChildStatus) -> Self {
        let now = Instant::now();
        let millis = |time: Duration| time.as_millis();
        Self {
            name: child.name,
            state: child.state.to_string(),
            for_ms: millis(now.duration_since(child.since)),
            restarts: child.restarts,
            retry_in_ms: match child.state {
                ChildState::BackingOff { until } => Some(millis(until.duration_since(now))),
                _ => None,
            },
            failures: child.failures.iter().map(ToString::to_string).collect(),
        }
    }
}
