//! `relay`, between clients and a server that live in the test.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use errgroup::{Group, Spawner};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use crate::support::{Program, patient, say, wait_until};

/// What the server does to each byte, so that nothing can pass for an answer by chance.
const KEY: u8 = 0xA5;

struct Relay {
    program: Program,
    address: String,
    /// Those that it has open without a connection.
    idle_sockets: usize,
}

impl Relay {
    async fn start(server: &Server, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
        command.args(["--to", &server.address]).args(args);
        let mut program = Program::start(&mut command);
        let address = program.line("listening on ").await;
        let idle_sockets = program.sockets();
        Self {
            program,
            address,
            idle_sockets,
        }
    }

    async fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).await;
        stream.expect("a connection")
    }

    /// Waits until the relay has no connection.
    async fn wait_for_nothing(&self) -> Duration {
        let is_idle = async || self.program.sockets() == self.idle_sockets;
        wait_until("the relay has no connection", is_idle).await
    }

    /// Stops it when it has nothing to do. Returns its log.
    async fn stop_idle(self) -> String {
        self.wait_for_nothing().await;
        self.program.signal(Signal::TERM);
        let finished = self.program.finish().await;
        finished.assert_exit(0);
        assert_eq!(finished.stdout, ["stopped"]);
        finished.stderr
    }
}

/// Answers each byte. It lives as long as the test's runtime.
struct Server {
    address: String,
    accepted: Arc<AtomicUsize>,
    alive: Arc<AtomicUsize>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let server = Self {
            address: listener.local_addr().expect("an address").to_string(),
            accepted: Arc::default(),
            alive: Arc::default(),
        };
        let (accepted, alive) = (server.accepted.clone(), server.alive.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let alive = alive.clone();
                accepted.fetch_add(1, Ordering::Relaxed);
                alive.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    let _ = answer(stream).await;
                    alive.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        server
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    async fn wait_for_nothing(&self) {
        let is_idle = async || self.alive.load(Ordering::Relaxed) == 0;
        wait_until("the server has no connection", is_idle).await;
    }
}

async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; 10_000];
    loop {
        let n = stream.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        buffer[..n].iter_mut().for_each(|byte| *byte ^= KEY);
        stream.write_all(&buffer[..n]).await?;
    }
}

/// Sends `sent` and compares what comes back, both at once.
async fn exchange(stream: &mut TcpStream, sent: &[u8]) {
    let mut received = vec![0; sent.len()];
    let (mut read, mut write) = stream.split();
    let both = async { tokio::try_join!(write.write_all(sent), read.read_exact(&mut received)) };
    patient("the bytes", both).await.expect("they pass");
    received.iter_mut().for_each(|byte| *byte ^= KEY);
    assert!(sent == received, "other bytes came back");
}

/// Some bytes, others for each seed: a linear congruential generator.
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

async fn assert_closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    // Reset or closed in order: it is all the same to one who waits for more.
    let _ = patient("the connection ends", stream.read_to_end(&mut rest)).await;
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn thousand_connections_64_at_a_time_then_same_bytes_and_nothing_alive() {
    let server = Server::start().await;
    let relay = Relay::start(&server, &["--limit", "64"]).await;
    let start = Instant::now();
    let clients = Group::builder().limit(64).run(async |clients: Spawner| {
        for seed in 0..1000 {
            let address = relay.address.clone();
            clients.slot().await?.spawn(async move {
                let mut stream = TcpStream::connect(address).await?;
                exchange(&mut stream, &bytes(seed, seed as usize * 7919 % 100_000)).await;
                Ok(())
            });
        }
        Ok(())
    });
    patient("the clients", clients).await.expect("no failure");
    say(&format!(
        "relay: 1,000 connections in {:?}",
        start.elapsed()
    ));

    let took = relay.wait_for_nothing().await;
    say(&format!("relay: nothing was alive {took:?} after the last"));
    server.wait_for_nothing().await;
    assert_eq!(server.accepted(), 1000);
    let log = relay.stop_idle().await;
    assert_eq!(log.matches("the client closed it").count(), 1000, "{log}");
}

#[tokio::test]
async fn connection_above_the_limit_then_waits_for_room() {
    let server = Server::start().await;
    let relay = Relay::start(&server, &["--limit", "2"]).await;
    let (mut first, mut second) = (relay.connect().await, relay.connect().await);
    exchange(&mut first, b"one").await;
    exchange(&mut second, b"two").await;
    let mut third = relay.connect().await;
    // Enough for the relay to accept it, if it did.
    for _ in 0..200 {
        exchange(&mut first, b"more").await;
    }
    assert_eq!(server.accepted(), 2);
    drop(first);
    exchange(&mut third, b"three").await;
    assert_eq!(server.accepted(), 3);
    drop((second, third));
    relay.stop_idle().await;
}

#[tokio::test]
async fn client_closes_then_both_closed_whatever_the_server_does() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let relay = Relay::start(&deaf(&listener), &[]).await;
    let mut client = relay.connect().await;
    client.write_all(b"last words").await.expect("sent");
    let (mut server, _) = patient("a connection", listener.accept())
        .await
        .expect("one");
    drop(client);
    // The server still has its end open, and reads on.
    relay.wait_for_nothing().await;
    let mut received = Vec::new();
    let read = patient("all of it", server.read_to_end(&mut received)).await;
    read.expect("it ends in order");
    assert_eq!(received, b"last words");
    relay.stop_idle().await;
}

#[tokio::test]
async fn client_half_closes_then_both_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let relay = Relay::start(&deaf(&listener), &[]).await;
    let mut client = relay.connect().await;
    client.write_all(b"question").await.expect("sent");
    client.shutdown().await.expect("half-closed");
    let (mut server, _) = patient("a connection", listener.accept())
        .await
        .expect("one");
    let mut received = Vec::new();
    let read = patient("all of it", server.read_to_end(&mut received)).await;
    read.expect("it ends in order");
    assert_eq!(received, b"question");
    assert_closed(&mut client).await;
    relay.stop_idle().await;
}

#[tokio::test]
async fn server_closes_then_client_has_all_that_it_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let relay = Relay::start(&deaf(&listener), &[]).await;
    let mut client = relay.connect().await;
    let (mut server, _) = patient("a connection", listener.accept())
        .await
        .expect("one");
    let sent = bytes(7, 3_000_000);
    let (send, mut received) = (sent.clone(), Vec::new());
    let sending = tokio::spawn(async move { server.write_all(&send).await });
    let read = patient("all of it", client.read_to_end(&mut received)).await;
    read.expect("it ends in order");
    assert!(received == sent, "{} of {}", received.len(), sent.len());
    sending.await.expect("no panic").expect("sent");
    let log = relay.stop_idle().await;
    assert!(log.contains("the server closed it"), "{log}");
}

/// A server that only the test itself accepts for.
fn deaf(listener: &TcpListener) -> Server {
    Server {
        address: listener.local_addr().expect("an address").to_string(),
        accepted: Arc::default(),
        alive: Arc::default(),
    }
}

#[tokio::test]
async fn no_server_then_client_closed_and_relay_goes_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let relay = Relay::start(&deaf(&listener), &["--limit", "1"]).await;
    drop(listener);
    for _ in 0..3 {
        assert_closed(&mut relay.connect().await).await;
    }
    let log = relay.stop_idle().await;
    assert_eq!(log.matches("the server: ").count(), 3, "{log}");
}

/// With one connection at a time, one that kept its slot would be the last.
#[tokio::test]
async fn connection_reset_then_logged_and_relay_goes_on() {
    let server = Server::start().await;
    let relay = Relay::start(&server, &["--limit", "1"]).await;
    for _ in 0..3 {
        let mut client = relay.connect().await;
        exchange(&mut client, b"before").await;
        client.set_zero_linger().expect("an option");
        drop(client);
    }
    let mut client = relay.connect().await;
    exchange(&mut client, b"after").await;
    drop(client);
    let log = relay.stop_idle().await;
    assert_eq!(log.matches("failed: the client: ").count(), 3, "{log}");
}

#[tokio::test]
async fn connection_panics_then_closed_and_logged_and_others_go_on() {
    let server = Server::start().await;
    let relay = Relay::start(&server, &["--limit", "2", "--poison", "boom"]).await;
    let mut bystander = relay.connect().await;
    exchange(&mut bystander, b"before").await;
    for _ in 0..3 {
        let mut client = relay.connect().await;
        client.write_all(b"boom").await.expect("sent");
        assert_closed(&mut client).await;
    }
    exchange(&mut bystander, b"after").await;
    exchange(&mut relay.connect().await, b"another").await;
    drop(bystander);
    server.wait_for_nothing().await;
    let log = relay.stop_idle().await;
    let panics = r#"" panicked: the client sent poison (spawned at "#;
    assert_eq!(log.matches(panics).count(), 3, "{log}");
}

#[tokio::test]
async fn idle_then_closed() {
    let server = Server::start().await;
    let relay = Relay::start(&server, &["--idle-ms", "100"]).await;
    let mut client = relay.connect().await;
    exchange(&mut client, b"and then nothing").await;
    assert_closed(&mut client).await;
    server.wait_for_nothing().await;
    let log = relay.stop_idle().await;
    assert!(log.contains("nothing moved for 100ms"), "{log}");
}

#[tokio::test]
async fn sigterm_then_refused_and_connection_goes_on_to_its_end() {
    let server = Server::start().await;
    let relay = Relay::start(&server, &["--grace-ms", "60000"]).await;
    let mut client = relay.connect().await;
    exchange(&mut client, b"before").await;
    relay.program.signal(Signal::TERM);
    wait_until("connections are refused", async || {
        TcpStream::connect(&relay.address).await.is_err()
    })
    .await;
    exchange(&mut client, b"after").await;
    drop(client);
    let finished = relay.program.finish().await;
    finished.assert_exit(0);
    assert_eq!(finished.stdout, ["stopped"]);
}

#[tokio::test]
async fn connection_outlives_the_grace_then_aborted_and_named() {
    let server = Server::start().await;
    let relay = Relay::start(&server, &["--grace-ms", "1"]).await;
    let mut client = relay.connect().await;
    exchange(&mut client, b"before").await;
    relay.program.signal(Signal::INT);
    let finished = relay.program.finish().await;
    finished.assert_exit(1);
    let peer = client.local_addr().expect("an address");
    let named = finished.stdout[0].as_str();
    assert!(
        named.contains(&format!("connection from {peer}")) && named.contains("aborted"),
        "{named}"
    );
    assert_closed(&mut client).await;
    server.wait_for_nothing().await;
}

#[tokio::test]
async fn elsewhere_than_loopback_then_exit_2() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
    let program = Program::start(command.args(["--to", "192.0.2.1:80"]));
    let finished = program.finish().await;
    finished.assert_exit(2);
    assert!(
        finished.stderr.contains("not on loopback"),
        "{}",
        finished.stderr
    );
}
