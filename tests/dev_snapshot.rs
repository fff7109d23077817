//! While it is developed.
#[path = "it/process.rs"]
mod process;
#[path = "it/programs.rs"]
mod programs;
#[path = "it/snapshot.rs"]
mod snapshot;
#[path = "it/snapshot_stragglers.rs"]
mod snapshot_stragglers;
