//! The list of sums that `checksum` and `sha256sum` print, read back.

use std::ffi::OsString;

/// A line of it.
pub(crate) struct Sum {
    pub(crate) hex: Vec<u8>,
    pub(crate) name: OsString,
}

/// The sums of a list, and the numbers of the lines that are none.
pub(crate) fn parse(list: &[u8]) -> (Vec<Sum>, Vec<usize>) {
    let (mut sums, mut bad_lines) = (Vec::new(), Vec::new());
    for (line, number) in list.split(|&byte| byte == b'\n').zip(1..) {
        match Sum::parse(line) {
            Some(sum) => sums.push(sum),
            None if line.is_empty() || line.starts_with(b"#") => {}
            None => bad_lines.push(number),
        }
    }
    (sums, bad_lines)
}

impl Sum {
    /// 64 hexadecimal digits, a space, the mode (a space, or `*`), the name.
    fn parse(line: &[u8]) -> Option<Self> {
        let escaped = line.strip_prefix(b"\\");
        let (hex, rest) = escaped.unwrap_or(line).split_at_checked(64)?;
        let name = rest.strip_prefix(b"  ").or(rest.strip_prefix(b" *"))?;
        let is_sum = hex.iter().all(u8::is_ascii_hexdigit) && !name.is_empty();
        let name = match escaped {
            Some(_) => unescape(name)?,
            None => name.to_vec(),
        };
        is_sum.then_some(Self {
            hex: hex.to_vec(),
            name: os_string(name)?,
        })
    }
}

fn unescape(escaped: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = escaped.iter().copied();
    let mut name = Vec::with_capacity(escaped.len());
    while let Some(byte) = bytes.next() {
        name.push(match byte {
            b'\\' => match bytes.next()? {
                b'\\' => b'\\',
                b'n' => b'\n',
                b'r' => b'\r',
                _ => return None,
            },
            _ => byte,
        });
    }
    Some(name)
}

#[cfg(unix)]
fn os_string(name: Vec<u8>) -> Option<OsString> {
    Some(std::os::unix::ffi::OsStringExt::from_vec(name))
}

#[cfg(not(unix))]
fn os_string(name: Vec<u8>) -> Option<OsString> {
    String::from_utf8(name).ok().map(OsString::from)
}
