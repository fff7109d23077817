//! The drawing for Mermaid: a flowchart.

use std::fmt::Write;

use super::Snapshot;
use super::label::{Charset, Look, label, look};
use super::plan::lines;

pub(super) fn draw(snapshot: &Snapshot) -> String {
    let mut mermaid = String::from("flowchart LR\n");
    for (number, line) in lines(snapshot).iter().enumerate() {
        let label = label(snapshot, line, Charset::Unicode);
        let label: Vec<String> = label.iter().map(|part| escaped(part)).collect();
        let class = match look(snapshot, line) {
            Look::Context => "context",
            Look::Group => "group",
            Look::Task => "task",
            Look::Straggler => "straggler",
            Look::More => "more",
        };
        // Writing into a string does not fail.
        let _ = writeln!(
            mermaid,
            "  n{number}[\"{}\"]:::{class}",
            label.join("<br/>")
        );
        if let Some(parent) = line.parent {
            let _ = writeln!(mermaid, "  n{parent} --> n{number}");
        }
    }
    mermaid.push_str("  classDef context stroke-dasharray: 4\n");
    mermaid.push_str("  classDef group stroke-width: 3px\n");
    mermaid.push_str("  classDef straggler fill: #ffcccc\n");
    mermaid
}

/// For a quoted text, in which Mermaid takes `#35;` for a character, and what it may take for markup must not stand.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '"' | '#' | '&' | '<' | '>' | '`' | '\\' | ';' | '*' | '_' | '~' | '$' | '%' | '{'
            | '}' | '[' | ']' | '(' | ')' | '|' | '@' => {
                // Writing into a string does not fail.
                let _ = write!(escaped, "#{};", u32::from(char));
            }
            _ => escaped.push(char),
        }
    }
    escaped
}
