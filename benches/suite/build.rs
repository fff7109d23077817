//! Hands the versions of the compiler and of the peers to the program, which writes them beside what it measures.

use std::env;
use std::path::PathBuf;
use std::process::Command;

const PACKAGES: [&str; 4] = ["errgroup", "tokio", "tokio-util", "futures"];

fn main() {
    println!("cargo:rustc-env=BENCH_RUSTC={}", rustc());
    let lock = lock_file();
    println!("cargo:rerun-if-changed={}", lock.display());
    let lock = std::fs::read_to_string(lock).unwrap_or_default();
    for package in PACKAGES {
        let variable = package.to_uppercase().replace('-', "_");
        println!(
            "cargo:rustc-env=BENCH_{variable}={}",
            locked(&lock, package)
        );
    }
}

fn rustc() -> String {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    match Command::new(rustc).arg("--version").output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(_) => "unknown".to_owned(),
    }
}

fn lock_file() -> PathBuf {
    let suite = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let places = suite.ancestors().map(|dir| dir.join("Cargo.lock"));
    places
        .into_iter()
        .find(|lock| lock.exists())
        .unwrap_or_default()
}

/// The version that stands below the package's name in the lock file.
fn locked(lock: &str, package: &str) -> String {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name).skip(1);
    let version = lines
        .next()
        .and_then(|line| line.strip_prefix("version = "));
    version.unwrap_or("unknown").trim_matches('"').to_owned()
}
