//! Structured concurrency on tokio.
#![forbid(unsafe_code)]

mod context;
mod error;
mod group;
mod ordered_slab;
mod panic;
mod sync;
mod task;
mod wait_group;

pub use context::{CancelHandle, Context, Done, DoneOwned, OnDone};
pub use error::{BoxError, ContextError, GroupError, Reason};
pub use group::{
    Group, GroupBuilder, Shutdown, Slot, Spawner, Straggler, TaskBuilder, Wait, WaitOwned,
};
pub use task::{Task, TaskError, TaskId};
pub use wait_group::{Token, WaitGroup};
