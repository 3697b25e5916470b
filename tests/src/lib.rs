//! What tests with real servers share: servers that a test owns, so that it can kill, stop and
//! starve them, the certificates that they show, packages of others, and random numbers from a seed.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

pub mod certificates;
pub mod owned;
pub mod packages;
pub mod rng;

/// The repository: cargo runs a test in the folder of its package. A path that was compiled in
/// would be that of the clone that built last, where clones share a target folder.
///
/// # Panics
/// If the test was started somewhere else.
#[must_use]
pub fn root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let root = std::env::current_dir().and_then(|package| package.join("..").canonicalize());
        root.ok()
            .filter(|root| root.join("schemas/avro").is_dir())
            .unwrap_or_else(|| panic!("start this from the folder of its package, tests/"))
    });
    &ROOT
}
