//! Writes into `state_dir` that failed.

use std::sync::atomic::{AtomicU64, Ordering};

static FAILED: AtomicU64 = AtomicU64::new(0);

/// One more.
pub fn count_failed() {
    FAILED.fetch_add(1, Ordering::Relaxed);
}

/// How many there were.
pub fn failed() -> u64 {
    FAILED.load(Ordering::Relaxed)
}
