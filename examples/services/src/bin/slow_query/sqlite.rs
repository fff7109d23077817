//! SQLite runs in the thread that asks it. That thread cannot be dropped, but the query can be interrupted from another.

use errgroup::{BoxError, Context, Group};
use rusqlite::{Connection, ErrorCode};

/// Counts to twenty thousand million, one at a time.
const SLOW: &str = "
    WITH RECURSIVE number(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM number WHERE i < 20000000000)
    SELECT max(i) FROM number";

pub async fn run(ctx: &Context) -> Result<i64, BoxError> {
    Group::run(ctx, async |group| {
        let answer = group.task("query").spawn_blocking(|ctx| query(&ctx));
        Ok(answer.await?)
    })
    .await
}

fn query(ctx: &Context) -> Result<i64, BoxError> {
    let database = Connection::open_in_memory()?;
    // An interrupt hits the statements that are running, and those that begin before all of these have ended. With one
    // that stands at its first row there is no moment at which it hits nothing.
    let mut standing = database.prepare("SELECT 1 UNION SELECT 2")?;
    let mut rows = standing.query([])?;
    rows.next()?;

    let interrupt = database.get_interrupt_handle();
    let _on_done = ctx.on_done(move |_| {
        println!("sqlite: interrupting the query");
        interrupt.interrupt();
    });
    println!("sqlite: the query begins");
    match database.query_row(SLOW, [], |row| row.get(0)) {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
            println!("sqlite: {error}");
            Err(ctx.err().map_or(error.into(), Into::into))
        }
        answer => Ok(answer?),
    }
}
