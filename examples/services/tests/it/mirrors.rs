//! `mirrors`, against mirrors that live in the test.

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinHandle;

use crate::support::{Finished, Program, patient};

const FILE: &[u8] = b"what is downloaded";

/// Longer than the test has patience.
const NEVER: &str = "3600000";

/// What a mirror answers to each request; then it waits until the client goes away.
struct Mirror {
    url: String,
    /// Ends when the first client has gone.
    gone: JoinHandle<()>,
}

impl Mirror {
    async fn start(answer: impl Into<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let address = listener.local_addr().expect("an address");
        let answer = answer.into();
        Self {
            url: format!("http://{address}/file"),
            gone: tokio::spawn(async move {
                let (mut client, _) = listener.accept().await.expect("a client");
                let mut buffer = [0; 4096];
                let read = client.read(&mut buffer).await.expect("a request");
                assert_ne!(read, 0, "a client that asks");
                client.write_all(&answer).await.expect("a reader");
                // An error is as good as an end.
                while client.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
            }),
        }
    }

    async fn with(body: &[u8]) -> Self {
        Self::start(answer(body, body.len())).await
    }

    /// Announces the whole file, and stops in the middle of it.
    async fn stuck() -> Self {
        Self::start(answer(&FILE[..4], FILE.len())).await
    }

    async fn silent() -> Self {
        Self::start(Vec::new()).await
    }
}

fn answer(body: &[u8], announced: usize) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {announced}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// The program, which downloads to a directory of its own.
struct Download {
    program: Program,
    directory: TempDir,
}

impl Download {
    fn start(stagger: &str, mirrors: &[&Mirror]) -> Self {
        let directory = TempDir::new().expect("a directory");
        let mut command = Command::new(env!("CARGO_BIN_EXE_mirrors"));
        command.args(["--stagger-ms", stagger, "--timeout-ms", NEVER]);
        command.args(["--sha256", &format!("{:X}", Sha256::digest(FILE))]);
        command.arg("--output").arg(directory.path().join("file"));
        command.args(mirrors.iter().map(|mirror| &mirror.url));
        Self {
            program: Program::start(&mut command),
            directory,
        }
    }

    async fn finish(self) -> (Finished, TempDir) {
        (self.program.finish().await, self.directory)
    }
}

fn files(directory: &TempDir) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory.path()).expect("it is there");
    entries
        .map(|entry| entry.expect("it is there").path())
        .collect()
}

#[tokio::test]
async fn first_are_silent_and_stuck_then_the_third_wins_and_they_are_cut() {
    let mirrors = [
        Mirror::silent().await,
        Mirror::stuck().await,
        Mirror::with(FILE).await,
    ];
    let (finished, directory) = Download::start("250", &mirrors.each_ref()).finish().await;
    finished.assert_exit(0);
    let [silent, stuck, good] = mirrors.map(|mirror| (mirror.url, mirror.gone));
    let out = &finished.stdout;
    let asked = [&silent, &stuck, &good].map(|mirror| format!("asking: {}", mirror.0));
    assert_eq!(out[..3], asked);
    let cut: Vec<_> = out[3..5]
        .iter()
        .filter_map(|line| line.strip_prefix("cut: "))
        .collect();
    assert!(
        cut.contains(&&*format!("{} after 0 bytes", silent.0)),
        "{out:?}"
    );
    let stuck_after = format!("{} after ", stuck.0);
    let received = cut.iter().find_map(|line| line.strip_prefix(&stuck_after));
    let won = format!("won: {}, {} bytes in ", good.0, FILE.len());
    assert!(out[5].starts_with(&won), "{out:?}");
    // On a busy machine it may not have come to it.
    if received.expect("it is cut") == "4 bytes" {
        let left = FILE.len() - 4;
        let saved = format!("not downloaded: {left} bytes of the others");
        assert!(
            out[6].starts_with("saved: ") && out[6].ends_with(&saved),
            "{out:?}"
        );
    }
    assert_eq!(files(&directory), [directory.path().join("file")]);
    assert_eq!(
        fs::read(directory.path().join("file")).expect("it is there"),
        FILE
    );
    for (_, gone) in [silent, stuck, good] {
        patient("the client goes away", gone)
            .await
            .expect("no panic");
    }
}

/// Long before the stagger.
#[tokio::test]
async fn sum_is_wrong_then_the_next_is_asked_at_once() {
    let (bad, good) = (
        Mirror::with(b"something else!!!!").await,
        Mirror::with(FILE).await,
    );
    let (finished, directory) = Download::start(NEVER, &[&bad, &good]).finish().await;
    finished.assert_exit(0);
    let failed = format!("failed: {}: its SHA-256 is ", bad.url);
    assert!(
        finished.stdout[1].starts_with(&failed),
        "{:?}",
        finished.stdout
    );
    assert_eq!(files(&directory), [directory.path().join("file")]);
}

#[tokio::test]
async fn no_mirror_has_it_then_every_failure_is_listed_and_nothing_is_left() {
    let missing = Mirror::start(*b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
    let bad = Mirror::with(b"something else!!!!").await;
    let (finished, directory) = Download::start(NEVER, &[&missing, &bad]).finish().await;
    finished.assert_exit(1);
    let lines: Vec<_> = finished.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    let first = format!("mirrors: item 0 of \"mirrors\" failed: {}: ", missing.url);
    assert!(
        lines[0].starts_with(&first) && lines[0].contains("404"),
        "{lines:?}"
    );
    let second = format!("item 1 of \"mirrors\" failed: {}: its SHA-256 is ", bad.url);
    assert!(lines[1].starts_with(&second), "{lines:?}");
    assert!(files(&directory).is_empty());
}

#[tokio::test]
async fn signal_comes_then_the_download_is_cut_and_nothing_is_left() {
    let stuck = Mirror::stuck().await;
    let mut download = Download::start(NEVER, &[&stuck]);
    download.program.line("asking: ").await;
    download.program.signal(Signal::TERM);
    let (finished, directory) = download.finish().await;
    finished.assert_exit(1);
    assert!(finished.stderr.contains("SIGTERM"), "{}", finished.stderr);
    assert!(files(&directory).is_empty());
}

#[tokio::test]
async fn its_own_mirrors_then_the_good_one_wins() {
    let directory = TempDir::new().expect("a directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_mirrors"));
    command.args(["--stagger-ms", "20"]);
    let program = Program::start(command.current_dir(directory.path()));
    let finished = program.finish().await;
    finished.assert_exit(0);
    let cut = finished
        .stdout
        .iter()
        .filter(|line| line.starts_with("cut: "));
    assert_eq!(cut.count(), 2);
    assert_eq!(files(&directory), [directory.path().join("mirrored")]);
}
