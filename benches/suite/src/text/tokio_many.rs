//! To be weighed: a hundred and ten distinct spawns.

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let owner = &();
    errgroup_bench::hundred!(errgroup_bench::text::tokio, owner);
    errgroup_bench::ten!(errgroup_bench::text::tokio, owner);
}
