//! A service that polls an HTTP API each second, and whose caller waits until it has stopped.
//!
//! ```sh
//! cargo run --example poll_service --features signal
//! ```
//!
//! Stop it with Ctrl-C. It polls an API of its own on loopback, or the one at an address given as the argument.
//!
//! A poll may be cut at any time: [`Context::run`] drops it, and with it the connection. It has a deadline, too. Either
//! way the poller learns why, and only the end of its own context ends it.

use std::net::SocketAddr;
use std::time::Duration;

use errgroup::{BoxError, Context, Group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::interval;

const EVERY: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(3);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let ctx = Context::background().with_signals()?;
    let group: Group = Group::with_context(&ctx);
    let api: SocketAddr = match std::env::args().nth(1) {
        Some(address) => address.parse()?,
        None => {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let address = listener.local_addr()?;
            group.task("api").spawn(serve(listener));
            address
        }
    };
    println!("polling {api}");
    let poller = group.task("poller").spawn_with(move |ctx| poll(ctx, api));

    println!("stopping: {}", group.context().done().await);
    group.stop().grace(TIMEOUT).await.result()?;
    println!("stopped: {} answers", poller.await?);
    Ok(())
}

/// Polls until the context ends; returns how many answers there were.
async fn poll(ctx: Context, api: SocketAddr) -> Result<u32, BoxError> {
    let mut tick = interval(EVERY);
    let mut answers = 0;
    while ctx.run(tick.tick()).await.is_ok() {
        match ctx.with_timeout(TIMEOUT).run(status(api)).await {
            Ok(Ok(status)) => {
                answers += 1;
                println!("answer {answers}: {status}");
            }
            Ok(Err(error)) => println!("no answer: {error}"), // the next poll may have one
            Err(why) => println!("gave up waiting: {why}"),
        }
    }
    Ok(answers)
}

async fn status(api: SocketAddr) -> Result<String, BoxError> {
    let mut api = TcpStream::connect(api).await?;
    let request = b"GET /status HTTP/1.1\r\nhost: loopback\r\nconnection: close\r\n\r\n";
    api.write_all(request).await?;
    let mut response = String::new();
    api.read_to_string(&mut response).await?;
    let (_, body) = response.split_once("\r\n\r\n").ok_or("no HTTP")?;
    Ok(body.trim().to_owned())
}

/// The API: says "up" to whatever it is asked.
async fn serve(listener: TcpListener) -> Result<(), BoxError> {
    loop {
        let (mut client, _) = listener.accept().await?;
        let _ = client.read(&mut [0; 1024]).await?;
        let response = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nup\n";
        client.write_all(response).await?;
    }
}
