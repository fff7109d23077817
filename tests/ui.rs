//! Misuse that must not compile, and the message a user sees when it does not:
//! `tests/ui/*.rs`, each beside its `.stderr`.
//!
//! The messages are those of rustc 1.95, the one that CI uses; another version
//! may word them differently. After a change that is meant, write them anew and
//! read the difference, since each of them is part of the interface:
//!
//! ```console
//! TRYBUILD=overwrite cargo test --test ui
//! git diff tests/ui
//! ```
//!
//! trybuild normalises what it compares: the paths of this crate, of the standard
//! library and of dependencies, and line numbers outside the test's own file. It
//! cannot even out one thing: a message that points into the standard library
//! quotes it where the component rust-src is installed, and only there. So the
//! tests are written such that none does; no `.stderr` may contain `$RUST`.

#[test]
fn misuse_does_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
