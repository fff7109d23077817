//! The drawing for Graphviz.

use std::fmt::Write;

use super::Snapshot;
use super::label::{Charset, Look, label, look};
use super::plan::lines;

pub(super) fn draw(snapshot: &Snapshot) -> String {
    let mut dot = String::from(
        "digraph errgroup {\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\", fontsize=10];\n",
    );
    for (number, line) in lines(snapshot).iter().enumerate() {
        let label = label(snapshot, line, Charset::Unicode);
        let label: Vec<String> = label.iter().map(|part| escaped(part)).collect();
        let style = match look(snapshot, line) {
            Look::Context => ", style=dashed",
            Look::Group => ", style=bold",
            Look::Task => "",
            Look::Straggler => ", style=filled, fillcolor=\"#ffcccc\"",
            Look::More => ", shape=plaintext",
        };
        // Writing into a string does not fail.
        let _ = writeln!(
            dot,
            "  n{number} [label=\"{}\"{style}];",
            label.join("\\l") + "\\l"
        );
        if let Some(parent) = line.parent {
            let _ = writeln!(dot, "  n{parent} -> n{number};");
        }
    }
    dot.push_str("}\n");
    dot
}

/// For a quoted string, in which a backslash begins an escape, and an ampersand an entity.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '"' | '\\' => escaped.extend(['\\', char]),
            '&' => escaped.push_str("&amp;"),
            _ => escaped.push(char),
        }
    }
    escaped
}
