//! One download, from the request to the part of the file that it writes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use errgroup::BoxError;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use reqwest::Client;
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

const TEMPLATE: &str = "{wide_bar} {bytes}/{total_bytes} {msg}";

/// What the downloads share.
pub struct Job {
    client: Client,
    output: PathBuf,
    /// In lower case.
    sha256: Option<String>,
    /// indicatif hides them unless standard error is a terminal.
    bars: MultiProgress,
    /// Bytes that were announced and not downloaded.
    left: AtomicU64,
}

/// A download. Dropped, it removes what it has written, unless that is kept.
pub struct Attempt {
    pub url: String,
    pub received: u64,
    announced: Option<u64>,
    part: PathBuf,
    bar: ProgressBar,
    state: State,
    job: Arc<Job>,
}

#[derive(PartialEq)]
enum State {
    Running,
    Failed,
    Whole,
    Kept,
}

impl Job {
    pub fn new(output: PathBuf, sha256: Option<String>) -> Self {
        Self {
            client: Client::new(),
            output,
            sha256: sha256.map(|sum| sum.to_ascii_lowercase()),
            bars: MultiProgress::new(),
            left: AtomicU64::new(0),
        }
    }

    pub fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    /// Prints a line above the bars.
    fn say(&self, line: &str) {
        self.bars.suspend(|| println!("{line}"));
    }
}

/// Downloads the file from this mirror, and checks it.
pub async fn download(job: Arc<Job>, n: usize, url: String) -> Result<Attempt, BoxError> {
    let mut attempt = Attempt::new(job, n, url);
    match attempt.run().await {
        Ok(()) => {
            attempt.state = State::Whole;
            Ok(attempt)
        }
        Err(error) => {
            attempt.state = State::Failed;
            let (job, url) = (&attempt.job, &attempt.url);
            job.say(&format!("failed: {url}: {error}"));
            Err(format!("{url}: {error}").into())
        }
    }
}

impl Attempt {
    fn new(job: Arc<Job>, n: usize, url: String) -> Self {
        let mut part = job.output.clone().into_os_string();
        part.push(format!(".part{n}"));
        job.say(&format!("asking: {url}"));
        let style = ProgressStyle::with_template(TEMPLATE).expect("it is one");
        let bar = job.bars.add(ProgressBar::new(0).with_style(style));
        bar.set_message(url.clone());
        Self {
            url,
            received: 0,
            announced: None,
            part: part.into(),
            bar,
            state: State::Running,
            job,
        }
    }

    async fn run(&mut self) -> Result<(), BoxError> {
        let request = self.job.client.get(&self.url);
        let mut response = request.send().await?.error_for_status()?;
        self.announced = response.content_length();
        self.bar.set_length(self.announced.unwrap_or_default());
        // Not by tokio's `create`, which, cut short, would create it when it has been removed.
        let mut file = File::from_std(std::fs::File::create(&self.part)?);
        let mut hasher = Sha256::new();
        while let Some(chunk) = response.chunk().await? {
            file.write_all(&chunk).await?;
            hasher.update(&chunk);
            self.received += chunk.len() as u64;
            self.bar.set_position(self.received);
        }
        file.flush().await?;
        let sum = format!("{:x}", hasher.finalize());
        match &self.job.sha256 {
            Some(expected) if *expected != sum => Err(format!("its SHA-256 is {sum}").into()),
            _ => Ok(()),
        }
    }

    /// Moves the file to its place.
    pub fn keep(mut self, output: &Path) -> io::Result<()> {
        std::fs::rename(&self.part, output)?;
        self.state = State::Kept;
        Ok(())
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        if self.state == State::Kept {
            return;
        }
        // There may be none yet.
        let _ = std::fs::remove_file(&self.part);
        if self.state == State::Running {
            let (url, received) = (&self.url, self.received);
            self.job.say(&format!("cut: {url} after {received} bytes"));
            let left = self.announced.map_or(0, |all| all - received);
            self.job.left.fetch_add(left, Ordering::Relaxed);
        }
    }
}
