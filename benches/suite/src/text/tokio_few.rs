//! To be weighed: ten distinct spawns.

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let owner = &();
    errgroup_bench::ten!(errgroup_bench::text::tokio, owner);
}
