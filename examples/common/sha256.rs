//! Sums, and names as `sha256sum` prints them.

use std::io::{self, ErrorKind, Read};

use errgroup::Context;
use sha2::digest::Output;
use sha2::{Digest, Sha256};

/// What is read between two looks at the context.
const CHUNK: usize = 64 * 1024;

/// Reads the file to its end. If the context ends first, its error is inside the one returned.
pub(crate) fn digest(ctx: &Context, mut file: impl Read) -> io::Result<Output<Sha256>> {
    let mut chunk = vec![0; CHUNK];
    let mut hasher = Sha256::new();
    loop {
        ctx.check()?;
        match file.read(&mut chunk) {
            Ok(0) => return Ok(hasher.finalize()),
            Ok(n) => hasher.update(&chunk[..n]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

pub(crate) fn escape(name: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(name.len());
    for &byte in name {
        match byte {
            b'\\' => escaped.extend(b"\\\\"),
            b'\n' => escaped.extend(b"\\n"),
            b'\r' => escaped.extend(b"\\r"),
            _ => escaped.push(byte),
        }
    }
    escaped
}
