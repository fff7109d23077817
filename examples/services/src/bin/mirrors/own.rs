//! Three mirrors on the loopback interface: the first takes connections and says nothing, the second is slow, the third good.

use std::io;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

const SIZE: usize = 4 * 1024 * 1024;
const CHUNK: usize = 16 * 1024;

/// How long a mirror takes for a chunk; `None` for one that never answers.
const PACES: [Option<Duration>; 3] = [
    None,
    Some(Duration::from_millis(100)),
    Some(Duration::from_micros(200)),
];

/// Starts them, and returns where the file is. They live as long as the runtime.
pub async fn start() -> io::Result<Vec<String>> {
    let mut urls = Vec::new();
    for pace in PACES {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        urls.push(format!("http://{}/file", listener.local_addr()?));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // A client that goes away is no concern of a mirror's.
                tokio::spawn(async move { serve(client, pace).await.ok() });
            }
        });
    }
    Ok(urls)
}

pub fn sha256() -> String {
    format!("{:x}", Sha256::digest(file()))
}

fn file() -> Vec<u8> {
    (0..SIZE).map(|n| (n % 251) as u8).collect()
}

async fn serve(mut client: TcpStream, pace: Option<Duration>) -> io::Result<()> {
    let mut request = [0; 4096];
    let mut size = client.read(&mut request).await?;
    let Some(pace) = pace else {
        while size > 0 {
            size = client.read(&mut request).await?;
        }
        return Ok(());
    };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
    client.write_all(head.as_bytes()).await?;
    for chunk in file().chunks(CHUNK) {
        client.write_all(chunk).await?;
        sleep(pace).await;
    }
    Ok(())
}
