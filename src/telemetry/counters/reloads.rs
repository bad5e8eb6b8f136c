//! The result of the last reading of the configuration.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

static HAS_FAILED: AtomicBool = AtomicBool::new(false);
static SUCCEEDED_AT: AtomicU64 = AtomicU64::new(0);

/// The result of the last reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Last {
    /// True if the configuration that was read last runs.
    pub is_successful: bool,
    /// The time at which the running configuration was read, in seconds since 1970.
    pub succeeded_at: u64,
}

/// Notes that the configuration that was read runs.
pub fn succeeded() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    SUCCEEDED_AT.store(now.as_secs(), Ordering::Relaxed);
    HAS_FAILED.store(false, Ordering::Relaxed);
}

/// Notes that the configuration that was read does not run, or in part only.
pub fn failed() {
    HAS_FAILED.store(true, Ordering::Relaxed);
}

/// The result of the last reading.
pub fn last() -> Last {
    Last {
        is_successful: !HAS_FAILED.load(Ordering::Relaxed),
        succeeded_at: SUCCEEDED_AT.load(Ordering::Relaxed),
    }
}
