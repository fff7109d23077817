//! PostgreSQL runs in another process, which goes on with a query whatever becomes of the one that asked. It stops when
//! a second connection asks it to.

use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use errgroup::{BoxError, Context, Group};
use tokio::time::timeout;
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::{CancelToken, Client, Config, Error, NoTls, Row};

/// Counts the pairs of ten thousand numbers and a million.
const SLOW: &str = "
    SELECT count(*) FROM generate_series(1, 10000) AS i, generate_series(1, 1000000) AS j";

/// How long the database has to cancel the query.
const CANCEL: Duration = Duration::from_secs(5);

/// How long it has before it is asked again.
const AGAIN: Duration = Duration::from_millis(100);

pub async fn run(ctx: &Context, url: &str) -> Result<i64, BoxError> {
    let mut config: Config = url.parse()?;
    config.application_name("slow_query");
    // The end of `ctx` is not that of the connections: what the database has to say about it comes through them.
    let connections: Group = Group::with_context(&ctx.without_cancel());
    let client = ctx.run(connect(&config, &connections)).await??;
    let pid: i32 = client
        .query_one("SELECT pg_backend_pid()", &[])
        .await?
        .get(0);

    println!("postgres: the query begins in backend {pid}");
    let answer = query(ctx, &client).await;

    let cleanup = ctx.without_cancel().with_timeout(CANCEL);
    let state = state(&client, pid, &config, &connections);
    let state = cleanup.run(state).await??;
    println!("postgres: pg_stat_activity has backend {pid} as {state}");

    // Each connection ends with its client.
    drop(client);
    connections.await?;
    answer
}

async fn connect(config: &Config, connections: &Group) -> Result<Client, Error> {
    let (client, connection) = config.connect(NoTls).await?;
    connections.spawn(async { Ok(connection.await?) });
    Ok(client)
}

/// What a second connection sees the backend do.
async fn state(
    client: &Client,
    pid: i32,
    config: &Config,
    connections: &Group,
) -> Result<String, Error> {
    // Answered when the backend has done with the query, so that the state is what became of it.
    client.batch_execute("").await?;
    let observer = connect(config, connections).await?;
    let state = "SELECT state FROM pg_stat_activity WHERE pid = $1";
    Ok(observer.query_one(state, &[&pid]).await?.get(0))
}

async fn query(ctx: &Context, client: &Client) -> Result<i64, BoxError> {
    // Lent to `run`, and not given away: dropped, it would leave the query behind, and not say how it ended.
    let mut query = pin!(client.query_one(SLOW, &[]));
    let end = match ctx.run(query.as_mut()).await {
        Ok(answer) => return Ok(answer?.get(0)),
        Err(end) => end,
    };
    println!("postgres: cancelling the query");
    let cleanup = ctx.without_cancel().with_timeout(CANCEL);
    match cleanup.run(cancel(client.cancel_token(), query)).await?? {
        Ok(answer) => Ok(answer.get(0)),
        Err(error) if error.code() == Some(&SqlState::QUERY_CANCELED) => {
            let message = error.as_db_error().map_or("", DbError::message);
            println!("postgres: {message}");
            Err(end.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Asks the database until the query has ended: the request is for whatever the backend does when it arrives, which may
/// be nothing yet.
async fn cancel(
    token: CancelToken,
    mut query: Pin<&mut impl Future<Output = Result<Row, Error>>>,
) -> Result<Result<Row, Error>, Error> {
    loop {
        token.cancel_query(NoTls).await?;
        if let Ok(outcome) = timeout(AGAIN, query.as_mut()).await {
            return Ok(outcome);
        }
    }
}
