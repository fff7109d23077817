//! Checks the health of several services at once, under one deadline, and prints a table of all of them.
//!
//! ```sh
//! cargo run --example health
//! cargo run --example health -- --timeout 2000 web=http://127.0.0.1:8080/health db=tcp://127.0.0.1:5432
//! ```
//!
//! `tcp` asks whether somebody takes connections, `http` for a status of 2xx. Up to 16 checks run at once; what has not answered
//! within `--timeout MILLISECONDS` (1,000) is down, and the deadline says so. The exit status is 0 if all are up, else 1; 2 if the
//! arguments are no services. Without any it checks three sockets of its own.
//!
//! A failed check must not stop the others: [`Batch::settle`](errgroup::Batch::settle) returns every result, in order. The
//! deadline is the checks', not the batch's: so a late one is a row of the table, and not the end of it.

use std::fmt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use errgroup::{BoxError, Context, batch};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

const AT_ONCE: usize = 16;
const TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Clone)]
struct Service {
    name: String,
    /// `host:port`
    address: String,
    /// What to ask for; `None` for `tcp`.
    path: Option<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let (timeout, services) = match parse(std::env::args().skip(1)) {
        Ok(parsed) => parsed,
        Err(error) => {
            eprintln!("health: {error}");
            return ExitCode::from(2);
        }
    };
    let checked = match services.is_empty() {
        false => check_all(timeout, services).await,
        true => check_own(timeout).await,
    };
    match checked {
        Ok(0) => ExitCode::SUCCESS,
        Ok(down) => {
            eprintln!("{down} down");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("health: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Checks all at once, prints the table, and returns how many are down.
async fn check_all(timeout: Duration, services: Vec<Service>) -> Result<usize, BoxError> {
    let deadline = Context::background().with_timeout(timeout);
    let checks = batch(services.clone(), AT_ONCE);
    let results = checks.settle(move |_ctx, service| {
        let deadline = deadline.clone();
        async move {
            let begin = Instant::now();
            deadline.run(check(&service)).await??;
            Ok::<_, BoxError>(begin.elapsed())
        }
    });
    let results = results.await?;
    let width = services.iter().map(|service| service.name.len()).max();
    let width = width.unwrap_or_default();
    for (service, result) in services.iter().zip(&results) {
        let name = &service.name;
        match result {
            Ok(took) => println!("{name:width$}  up    {} ms  {service}", took.as_millis()),
            Err(error) => println!("{name:width$}  down  {error}  {service}"),
        }
    }
    Ok(results.iter().filter(|result| result.is_err()).count())
}

async fn check(service: &Service) -> Result<(), BoxError> {
    let mut stream = TcpStream::connect(&service.address).await?;
    let Some(path) = &service.path else {
        return Ok(());
    };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        service.address
    );
    stream.write_all(request.as_bytes()).await?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await?;
    match line.split(' ').nth(1) {
        Some(status) if status.starts_with('2') => Ok(()),
        Some(status) => Err(format!("status {}", status.trim_end()).into()),
        None => Err("no HTTP".into()),
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "http://{}{path}", self.address),
            None => write!(f, "tcp://{}", self.address),
        }
    }
}

// ---- arguments

fn parse(mut args: impl Iterator<Item = String>) -> Result<(Duration, Vec<Service>), BoxError> {
    let (mut timeout, mut services) = (TIMEOUT, Vec::new());
    while let Some(arg) = args.next() {
        if arg == "--timeout" {
            let millis = args.next().ok_or("the timeout is missing")?;
            timeout = Duration::from_millis(millis.parse()?);
        } else {
            services.push(service(&arg).ok_or_else(|| format!("no service: {arg}"))?);
        }
    }
    Ok((timeout, services))
}

fn service(arg: &str) -> Option<Service> {
    let (name, url) = arg.split_once('=')?;
    let (scheme, rest) = url.split_once("://")?;
    let (address, path) = match scheme {
        "tcp" => (rest, None),
        "http" => match rest.split_once('/') {
            Some((address, path)) => (address, Some(format!("/{path}"))),
            None => (rest, Some("/".to_owned())),
        },
        _ => return None,
    };
    Some(Service {
        name: name.to_owned(),
        address: address.to_owned(),
        path,
    })
}

// ---- sockets of its own

/// One that answers, one that takes connections and never says a word, and one that refuses them.
async fn check_own(timeout: Duration) -> Result<usize, BoxError> {
    let (answers, silent) = (listen().await?, listen().await?);
    let refuses = TcpSocket::new_v4()?;
    refuses.bind(([127, 0, 0, 1], 0).into())?;
    let services = [
        format!("web=http://{}/health", answers.local_addr()?),
        format!("queue=http://{}/health", silent.local_addr()?),
        format!("db=tcp://{}", refuses.local_addr()?),
    ];
    let services = services.iter().filter_map(|arg| service(arg)).collect();
    tokio::select! {
        down = check_all(timeout, services) => down,
        end = answer(&answers) => end.map(|never| match never {}),
    }
}

async fn listen() -> Result<TcpListener, BoxError> {
    Ok(TcpListener::bind("127.0.0.1:0").await?)
}

async fn answer(listener: &TcpListener) -> Result<std::convert::Infallible, BoxError> {
    loop {
        let (mut client, _) = listener.accept().await?;
        client.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await?;
    }
}
