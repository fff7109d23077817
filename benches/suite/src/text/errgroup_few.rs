//! To be weighed: ten distinct spawns into a group.

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let owner = &errgroup::Group::new();
    errgroup_bench::ten!(errgroup_bench::ours::distinct, owner);
}
