//! The machine and the versions that the figures hold for.

use std::fs;
use std::thread::available_parallelism;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_gib: u64,
    pub os: String,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct Versions {
    pub errgroup: String,
    pub rustc: String,
    pub tokio: String,
    pub tokio_util: String,
    pub futures: String,
    pub go: Option<String>,
}

impl Machine {
    pub fn this() -> Self {
        Self {
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned()),
            cores: available_parallelism().map_or(0, usize::from),
            memory_gib: memory_gib().unwrap_or(0),
            os: os(),
        }
    }
}

impl Versions {
    pub fn current(go: Option<String>) -> Self {
        Self {
            errgroup: env!("BENCH_ERRGROUP").to_owned(),
            rustc: env!("BENCH_RUSTC").to_owned(),
            tokio: env!("BENCH_TOKIO").to_owned(),
            tokio_util: env!("BENCH_TOKIO_UTIL").to_owned(),
            futures: env!("BENCH_FUTURES").to_owned(),
            go,
        }
    }
}

/// UTC, RFC 3339, without fractions of a second.
pub fn date() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// The value of the first line `name : value`.
fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn memory_gib() -> Option<u64> {
    let total = field("/proc/meminfo", "MemTotal")?;
    let kib: u64 = total.split_whitespace().next()?.parse().ok()?;
    Some((kib + (1 << 19)) >> 20)
}

fn os() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} {}", std::env::consts::OS, release.trim())
        .trim()
        .to_owned()
}
