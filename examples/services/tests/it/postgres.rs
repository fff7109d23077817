//! A private PostgreSQL server, from the programs of Debian's package, on a socket in a temporary directory.

use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;
use tokio_postgres::NoTls;

use crate::support::{PATIENCE, say, wait_until};

/// Stopped when it is dropped.
pub struct Postgres {
    pub url: String,
    server: Child,
    directory: TempDir,
}

impl Postgres {
    /// Starts a server. Says so and returns `None` if there is none on this machine; fails instead, if
    /// `REQUIRE_POSTGRES` is set.
    pub async fn start() -> Option<Self> {
        match (programs(), user()) {
            (Some(programs), Some(user)) => Some(Self::start_with(&programs, user).await),
            _ if env::var_os("REQUIRE_POSTGRES").is_some() => panic!("{MISSING}"),
            _ => {
                say(&format!("SKIPPED the test against PostgreSQL: {MISSING}"));
                None
            }
        }
    }

    async fn start_with(programs: &Path, user: Option<(u32, u32)>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        if let Some((uid, gid)) = user {
            chown(path, Some(uid), Some(gid)).expect("root may");
        }
        let command = |program| {
            let mut command = Command::new(programs.join(program));
            if let Some((uid, gid)) = user {
                command.uid(uid).gid(gid);
            }
            command.arg("-D").arg(path.join("data")).current_dir(path);
            command.stdin(Stdio::null());
            command
        };
        let init = command("initdb")
            .args(["--username=postgres", "--auth=trust", "--no-sync"])
            .output()
            .expect("initdb runs");
        assert!(init.status.success(), "{init:?}");

        let log = File::create(path.join("log")).expect("a file");
        let server = command("postgres")
            .arg("-k")
            .arg(path)
            .args(["-c", "listen_addresses=", "-c", "fsync=off"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("postgres runs");
        let url = format!("host={} user=postgres dbname=postgres", path.display());
        let server = Self {
            url,
            server,
            directory,
        };
        let is_up = async || tokio_postgres::connect(&server.url, NoTls).await.is_ok();
        wait_until("PostgreSQL is up", is_up).await;
        server
    }

    /// Returns what the server has logged.
    pub fn stop(self) -> String {
        fs::read_to_string(self.directory.path().join("log")).expect("a log")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Stop at once, but in order: killed, it would leave shared memory behind.
        let _ = kill_process(Pid::from_child(&self.server), Signal::QUIT);
        let start = Instant::now();
        while matches!(self.server.try_wait(), Ok(None)) {
            if start.elapsed() > PATIENCE {
                let _ = self.server.kill();
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

const MISSING: &str =
    "no /usr/lib/postgresql/*/bin, or no user to run it (`apt-get install postgresql`)";

/// The newest version's programs.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let version = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions.map(|entry| entry.path()).max_by_key(version)?;
    let programs = newest.join("bin");
    programs.join("initdb").exists().then_some(programs)
}

/// Whom to run the server as: PostgreSQL refuses to be root. `Some(None)` stands for the user of this process.
fn user() -> Option<Option<(u32, u32)>> {
    if !geteuid().is_root() {
        return Some(None);
    }
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let entry = passwd.lines().find(|line| line.starts_with("postgres:"))?;
    let mut fields = entry.split(':').skip(2).map(|field| field.parse().ok());
    Some(Some((fields.next()??, fields.next()??)))
}
