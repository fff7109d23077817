//! To be weighed: a hundred and ten distinct spawns into a group.

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let owner = &errgroup::Group::new();
    errgroup_bench::hundred!(errgroup_bench::ours::distinct, owner);
    errgroup_bench::ten!(errgroup_bench::ours::distinct, owner);
}
