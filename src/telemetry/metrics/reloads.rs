//! How the configuration was read last.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

static HAS_FAILED: AtomicBool = AtomicBool::new(false);
static SUCCEEDED_AT: AtomicU64 = AtomicU64::new(0);

/// See above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Last {
    /// Whether what was read last runs.
    pub is_successful: bool,
    /// When what runs was read, in seconds since 1970.
    pub succeeded_at: u64,
}

/// What was read runs.
pub fn succeeded() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    SUCCEEDED_AT.store(now.as_secs(), Ordering::Relaxed);
    HAS_FAILED.store(false, Ordering::Relaxed);
}

/// What was read does not run, or in part only.
pub fn failed() {
    HAS_FAILED.store(true, Ordering::Relaxed);
}

/// See above.
pub fn last() -> Last {
    Last {
        is_successful: !HAS_FAILED.load(Ordering::Relaxed),
        succeeded_at: SUCCEEDED_AT.load(Ordering::Relaxed),
    }
}
