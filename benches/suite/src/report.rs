//! The figures for people, made of the results: text for the terminal, Markdown, plots.

pub mod markdown;
pub mod plots;
pub mod text;
