//! The front: notes come in, the state of things goes out. Each connection is a task of the child's own group.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use errgroup::{
    BoxError, ChildState, ChildStatus, Context, Group, Ready, SupervisorHandle, dump_all,
};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::Daemon;
use crate::pool::Job;

/// Out of file descriptors, most likely: it gets better when a connection ends.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until it is to stop, and then what was accepted.
pub async fn run(ctx: Context, ready: Ready, daemon: Arc<Daemon>) -> Result<(), BoxError> {
    let listener = daemon.listener()?;
    ready.notify();
    let mut connections: Group = Group::builder()
        .context(&ctx)
        .name("connections")
        .isolated() // one bad connection is one bad connection
        .on_failure(|failure| eprintln!("{failure}"))
        .build();
    let linger = daemon.args.linger_ms;
    accept(listener, &connections, linger, app(daemon.clone())).await;
    // It is to stop: the port is closed before the connections have been served.
    *daemon.listener.lock().unwrap() = None;
    connections.wait().await
}

fn app(daemon: Arc<Daemon>) -> Router {
    Router::new()
        .route("/notes", post(note))
        .route("/healthz", get(health))
        .route("/debug/supervisor", get(children))
        .route("/debug/tasks", get(tasks))
        .with_state(daemon)
}

async fn accept(listener: TcpListener, connections: &Group, linger: Duration, app: Router) {
    let mut closing = pin!(closing(connections.context(), linger));
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut closing => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (task, app) = (
                    connections.task(format!("connection from {peer}")),
                    app.clone(),
                );
                task.spawn_with(move |ctx| serve(ctx, stream, peer, linger, app));
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// Ends so long after the stop begins, and no later than the drain.
async fn closing(ctx: &Context, linger: Duration) {
    ctx.stopping_done().await;
    let _ = ctx.sleep(linger).await;
}

/// Serves one connection: from the stop on no further request, and to the end of the drain at most.
async fn serve(
    ctx: Context,
    stream: TcpStream,
    peer: SocketAddr,
    linger: Duration,
    app: Router,
) -> Result<(), BoxError> {
    let service = TowerToHyperService::new(app);
    let mut http = http1::Builder::new();
    let connection = http
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let served = async {
        tokio::select! {
            served = connection.as_mut() => return served,
            () = closing(&ctx, linger) => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    };
    match ctx.run(served).await {
        Ok(served) => Ok(served?),
        Err(end) => {
            eprintln!("connection from {peer} was cut: {end}");
            Err(end.into())
        }
    }
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

/// Who is alive, and what they are doing.
async fn tasks() -> String {
    format!("{}\n", dump_all())
}

impl Daemon {
    fn listener(&self) -> Result<TcpListener, BoxError> {
        let listener = self.listener.lock().unwrap();
        let listener = listener.as_ref().ok_or("the port has been closed")?;
        Ok(TcpListener::from_std(listener.try_clone()?)?)
    }

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
