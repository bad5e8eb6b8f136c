//! Writes into `state_dir` that failed.

use std::sync::atomic::{AtomicU64, Ordering};

static FAILED: AtomicU64 = AtomicU64::new(0);

/// Counts a failed write.
pub fn count_failed() {
    FAILED.fetch_add(1, Ordering::Relaxed);
}

/// The number of failed writes.
pub fn failed() -> u64 {
    FAILED.load(Ordering::Relaxed)
}
