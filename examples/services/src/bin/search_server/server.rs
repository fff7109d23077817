//! The server: its connections, how it stops, and what it counts.

use std::fmt::{self, Display};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::{Query, State};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use errgroup::{Context, Group, Straggler, dump_all};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::backend::{Alive, Backend};
use crate::request;

/// How long a connection that is idle at the stop has for a request that is on its way.
const LINGER: Duration = Duration::from_millis(100);

/// How long the requests that outlive the drain have to say so.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What the requests share.
pub struct Server {
    pub backends: Vec<Arc<Backend>>,
    pub max_timeout: Duration,
    /// Of which each request's context is a child.
    pub requests: Context,
    pub counts: Counts,
}

#[derive(Default)]
pub struct Counts {
    pub connections: Alive,
    pub requests: Alive,
    pub received: AtomicUsize,
    pub answered: AtomicUsize,
}

/// What the server came to.
pub struct Summary {
    pub aborted: Vec<Straggler>,
    server: Arc<Server>,
}

impl Server {
    /// Serves until `ctx` is stopping; then finishes what it has accepted, until `ctx` ends after the drain.
    pub async fn run(
        listener: TcpListener,
        backends: Vec<Arc<Backend>>,
        max_timeout: Duration,
        ctx: &Context,
        drain: Duration,
    ) -> Summary {
        let connections: Group = Group::builder()
            .context(ctx)
            .name("connections")
            .isolated() // one bad connection is one bad connection
            .on_failure(|failure| log(failure))
            .build();
        let server = Arc::new(Self {
            backends,
            max_timeout,
            requests: ctx.clone(),
            counts: Counts::default(),
        });
        server.accept(listener, &connections).await;
        let shutdown = connections.stop().drain(drain).grace(LAST_WORDS).await;
        Summary {
            aborted: shutdown.stragglers,
            server,
        }
    }

    async fn accept(self: &Arc<Self>, listener: TcpListener, connections: &Group) {
        let app = self.app();
        let serve = |stream, peer| self.serve(connections, stream, peer, app.clone());
        let stopping = connections.context().stopping();
        while let Ok(accepted) = stopping.run(listener.accept()).await {
            match accepted {
                Ok((stream, peer)) => serve(stream, peer),
                // Out of file descriptors, most likely: it gets better when a connection ends.
                Err(_) => drop(stopping.sleep(LINGER).await),
            }
        }
        // What the kernel has accepted for us is served, too.
        let waiting = backlog(listener).unwrap_or_default();
        waiting
            .into_iter()
            .for_each(|(stream, peer)| serve(stream, peer));
    }

    fn app(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/search", get(request::handle))
            .route("/debug/tasks", get(tasks))
            .with_state(Arc::clone(self))
    }

    /// What is alive, and what there was so far.
    fn count(&self) -> String {
        let counts = &self.counts;
        let mut text = format!(
            "connections {}\nrequests {}\n",
            counts.connections, counts.requests
        );
        for backend in &self.backends {
            text += &format!("{} {}\n", backend.name, backend.alive);
        }
        text + &format!("{counts}\n")
    }

    fn serve(
        self: &Arc<Self>,
        connections: &Group,
        stream: TcpStream,
        peer: SocketAddr,
        app: Router,
    ) {
        let alive = self.counts.connections.one();
        let task = connections.task(format!("connection from {peer}"));
        task.spawn_with(|ctx| async move {
            let _alive = alive;
            Ok(connection(&ctx, stream, app).await?)
        });
    }
}

/// Serves one connection. hyper drops the handler when the client closes it. An error is the client's: it went away, or
/// does not speak HTTP. A panic is a handler's.
async fn connection(ctx: &Context, stream: TcpStream, app: Router) -> hyper::Result<()> {
    let service = TowerToHyperService::new(app);
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service)
    );
    let finish = async {
        ctx.stopping_done().await;
        sleep(LINGER).await;
    };
    tokio::select! {
        // First, so that a request that has arrived is seen before the connection is told to finish.
        biased;
        served = connection.as_mut() => return served,
        () = finish => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

/// The connections that stand in the listener's queue.
fn backlog(listener: TcpListener) -> io::Result<Vec<(TcpStream, SocketAddr)>> {
    let listener = listener.into_std()?;
    let mut connections = Vec::new();
    while let Ok((stream, peer)) = listener.accept() {
        stream.set_nonblocking(true)?;
        connections.push((TcpStream::from_std(stream)?, peer));
    }
    Ok(connections)
}

/// How `/debug/tasks` is to be answered.
#[derive(Deserialize)]
struct Asked {
    #[serde(default, rename = "as")]
    form: Form,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Form {
    /// What is alive, and what there was so far: a number a line.
    #[default]
    Counts,
    /// Who is alive, and what they are doing.
    Tree,
    Json,
    /// A page that draws it and refreshes itself.
    Page,
}

/// `GET /debug/tasks`: what is alive, the connection that asks included.
async fn tasks(State(server): State<Arc<Server>>, Query(asked): Query<Asked>) -> Response {
    match asked.form {
        Form::Counts => server.count().into_response(),
        Form::Tree => format!("{}\n", dump_all()).into_response(),
        Form::Json => Json(dump_all()).into_response(),
        Form::Page => Html(include_str!("tasks.html")).into_response(),
    }
}

/// Writes a line in the log.
pub fn log(line: impl Display) {
    // In one piece, so that no panic's report comes in between. Unlike `eprintln!`, this does not panic when nobody reads
    // the log.
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

impl Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for straggler in &self.aborted {
            writeln!(f, "{straggler}")?;
        }
        write!(f, "stopped\n{}", self.server.counts)
    }
}

impl Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let received = self.received.load(Ordering::Relaxed);
        let answered = self.answered.load(Ordering::Relaxed);
        write!(f, "received {received}\nanswered {answered}")
    }
}
