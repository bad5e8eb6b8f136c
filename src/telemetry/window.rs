//! How much of something is told in a while, and how much is only counted.

use std::time::{Duration, Instant};

/// How many were told in the present while, and how many were not.
#[derive(Debug)]
pub struct Window {
    /// When the present while began.
    pub since: Instant,
    n_told: usize,
    /// How many were left out since one was told.
    pub left_out: u64,
}

impl Window {
    /// One that begins now.
    pub fn new(now: Instant) -> Window {
        Window { since: now, n_told: 0, left_out: 0 }
    }

    /// How many were left out since the last one, if this one is told: `max` are, `within` this
    /// time.
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
