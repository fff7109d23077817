//! Measures `errgroup` beside its peers.
//!
//! - [`ours`], [`peers`]: what is measured, one function for each operation, over the same [`jobs`];
//! - [`rows`]: who meets whom, on what, with which budget;
//! - [`time`], [`count`]: the two ways to measure a row, in rounds that alternate, or counted in a program of its own;
//! - [`results`]: the one file that a run writes;
//! - [`report`]: the tables and the plots made of it.
//!
//! The programs: `peers` (`cargo bench`) runs all of it, `op` repeats one operation, `allocated` counts what it allocates,
//! and those in `text` are weighed.

pub mod alloc;
pub mod count;
pub mod go;
pub mod jobs;
pub mod machine;
pub mod ours;
pub mod peers;
pub mod report;
pub mod results;
pub mod rows;
pub mod runtime;
pub mod text;
pub mod threads;
pub mod time;
