//! The writer: notes into SQLite, several in a transaction, each acknowledged when it is there.

use std::sync::Arc;

use errgroup::{BoxError, Context, Group, Ready};
use rusqlite::Connection;
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::Daemon;

const BATCH: usize = 64;

/// A note to be written, and who is told when it is.
pub struct Write {
    pub text: String,
    pub written: oneshot::Sender<i64>,
}

/// The channel to the writer, which outlives it.
pub struct Writer {
    pub outbox: mpsc::Sender<Write>,
    inbox: Mutex<mpsc::Receiver<Write>>,
}

impl Writer {
    pub fn new() -> Self {
        let (outbox, inbox) = mpsc::channel(BATCH);
        Self {
            outbox,
            inbox: Mutex::new(inbox),
        }
    }
}

/// Writes until it is to stop and nothing is left: whoever could send more has ended by then.
pub async fn run(ctx: Context, ready: Ready, daemon: Arc<Daemon>) -> Result<(), BoxError> {
    let path = daemon.args.database.clone();
    let mut database = Group::run(&ctx, async |group| {
        Ok(group.spawn_blocking(move |_| open(&path)).await?)
    })
    .await?;
    ready.notify();
    let mut inbox = daemon.writer.inbox.lock().await;
    let (stopping, is_buggy) = (ctx.stopping(), daemon.args.buggy);
    loop {
        let mut writes = Vec::new();
        let received = stopping.run(inbox.recv_many(&mut writes, BATCH)).await;
        if received.is_err() {
            while let Ok(write) = inbox.try_recv() {
                writes.push(write);
            }
            if writes.is_empty() {
                return Ok(());
            }
        }
        database = Group::run(&ctx, async |group| {
            let task = group.spawn_blocking(move |_| match is_buggy && is_jam(&writes) {
                true => jam(),
                false => write(database, writes),
            });
            Ok(task.await?)
        })
        .await?;
    }
}

fn is_jam(writes: &[Write]) -> bool {
    writes.iter().any(|write| write.text == "jam")
}

/// As a disk that does not answer.
fn jam() -> ! {
    println!("the writer is jammed");
    loop {
        std::thread::park();
    }
}

fn open(path: &std::path::Path) -> Result<Connection, BoxError> {
    let database = Connection::open(path)?;
    database.pragma_update(None, "journal_mode", "wal")?;
    database.pragma_update(None, "synchronous", "full")?;
    database.execute(
        "CREATE TABLE IF NOT EXISTS note (id INTEGER PRIMARY KEY, text TEXT NOT NULL)",
        (),
    )?;
    Ok(database)
}

/// A failure leaves the notes unacknowledged: their senders are dropped.
fn write(mut database: Connection, writes: Vec<Write>) -> Result<Connection, BoxError> {
    let transaction = database.transaction()?;
    let mut written = Vec::new();
    for Write { text, written: who } in writes {
        transaction.execute("INSERT INTO note (text) VALUES (?1)", [text])?;
        written.push((who, transaction.last_insert_rowid()));
    }
    transaction.commit()?;
    for (who, id) in written {
        // Whoever asked may have gone.
        let _ = who.send(id);
    }
    Ok(database)
}
