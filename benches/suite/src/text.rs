//! Distinct spawns, for the programs whose code is weighed: [`ten!`](crate::ten) are in each of them, `SPAWNS` more in
//! those with many.

use std::hint::black_box;

use errgroup::BoxError;
use tokio::task::yield_now;

/// What [`hundred!`](crate::hundred) is.
pub const SPAWNS: usize = 100;

/// A future of its own size and code for each `N`.
pub async fn job<const N: usize>() -> Result<usize, BoxError> {
    let state = black_box([1_u8; N]);
    yield_now().await;
    Ok(state.iter().map(|&byte| usize::from(byte)).sum())
}

/// Spawns it without an owner.
pub fn tokio<const N: usize>(_: &()) {
    drop(tokio::spawn(job::<N>()));
}

/// Calls a generic function with ten numbers from a hundred on, or from as many tens as are given.
#[macro_export]
macro_rules! ten {
    ($function:path, $argument:expr) => { $crate::ten!($function, $argument, 10) };
    ($function:path, $argument:expr, $tens:literal) => {
        $crate::ten!($function, $argument, $tens; 0 1 2 3 4 5 6 7 8 9)
    };
    ($function:path, $argument:expr, $tens:literal; $($ones:literal)*) => {
        $({
            use $function as function;
            function::<{ $tens * 10 + $ones }>($argument);
        })*
    };
}

/// Calls a generic function with the numbers below a hundred.
#[macro_export]
macro_rules! hundred {
    ($function:path, $argument:expr) => { $crate::hundred!($function, $argument; 0 1 2 3 4 5 6 7 8 9) };
    ($function:path, $argument:expr; $($tens:literal)*) => {
        $($crate::ten!($function, $argument, $tens);)*
    };
}
