//! A bound on events in an interval: some are let through, the others are counted.

use std::time::{Duration, Instant};

/// The number of events that were let through in the present interval, and of those left out.
#[derive(Debug)]
pub struct Window {
    /// The time at which the present interval began.
    pub since: Instant,
    n_told: usize,
    /// The number of events left out since one was let through.
    pub left_out: u64,
}

impl Window {
    /// A window that begins now.
    pub fn new(now: Instant) -> Window {
        Window { since: now, n_told: 0, left_out: 0 }
    }

    /// The number of events left out since the last one, if this one is let through: `max` are,
    /// in each interval of `within`.
    pub fn turn(&mut self, now: Instant, within: Duration, max: usize) -> Option<u64> {
        if now.saturating_duration_since(self.since) >= within {
            (self.since, self.n_told) = (now, 0);
        }
        if self.n_told >= max {
            self.left_out += 1;
            return None;
        }
        self.n_told += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}
