//! Measures `errgroup` beside its peers.
//!
//! - [`work`]: what is measured, once for each contender, with the same captured state and the same drops inside;
//! - [`harness`]: rounds that alternate between the contenders;
//! - [`rows`]: which contenders meet, on what, with which budget;
//! - [`results`]: the one file that a run writes;
//! - [`report`]: the table and the plots made of it.
//!
//! The programs: `peers` (`cargo bench`) runs all of it, `counts` counts allocations, `ops` repeats one operation for
//! callgrind.

pub mod alloc;
pub mod counted;
pub mod counts;
pub mod go;
pub mod harness;
pub mod instructions;
pub mod jobs;
pub mod machine;
pub mod ours;
pub mod peers;
pub mod report;
pub mod results;
pub mod rows;
pub mod runtime;
pub mod work;
