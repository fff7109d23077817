//! The tree for a terminal.

use std::fmt;

use super::Snapshot;
use super::label::{Charset, label};
use super::plan::lines;

/// What stands before a line: for a level above that goes on, or does not, and for its own.
struct Branches {
    through: &'static str,
    empty: &'static str,
    middle: &'static str,
    last: &'static str,
}

const UNICODE: Branches = Branches {
    through: "│  ",
    empty: "   ",
    middle: "├─ ",
    last: "└─ ",
};

const ASCII: Branches = Branches {
    through: "|  ",
    empty: "   ",
    middle: "|- ",
    last: "`- ",
};

pub(super) fn draw(snapshot: &Snapshot, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (branches, charset) = match f.alternate() {
        false => (UNICODE, Charset::Unicode),
        true => (ASCII, Charset::Ascii),
    };
    for (number, line) in lines(snapshot).iter().enumerate() {
        if number > 0 {
            f.write_str("\n")?;
        }
        if let Some((own, above)) = line.is_last.split_last() {
            for &is_last in above {
                f.write_str(if is_last {
                    branches.empty
                } else {
                    branches.through
                })?;
            }
            f.write_str(if *own { branches.last } else { branches.middle })?;
        }
        f.write_str(&label(snapshot, line, charset).join("  "))?;
    }
    Ok(())
}
