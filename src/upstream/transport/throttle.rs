//! How fast a stream may say what nobody waits for. Whoever reads it rests when that is
//! too much, so that the one who writes is held up, and nothing is lost.

use std::time::{Duration, Instant};

use crate::limits::{UNASKED_MESSAGES_MAX, UNASKED_MESSAGES_WITHIN};

/// Bytes that cost as much as one message.
const BYTES_PER_MESSAGE: usize = 4096;
/// The same, of what is no message at all, such as comments: there is no reason for many.
const IDLE_BYTES_PER_MESSAGE: usize = 1024;

/// Of one stream.
pub(crate) struct Throttle {
    since: Instant,
    spent: usize,
}

impl Default for Throttle {
    fn default() -> Throttle {
        Throttle { since: Instant::now(), spent: 0 }
    }
}

impl Throttle {
    /// A message of so many bytes that answers nothing was read.
    pub(crate) fn heard(&mut self, bytes: usize) {
        self.spend(Instant::now(), 1 + bytes / BYTES_PER_MESSAGE);
    }

    /// So many bytes were read that belong to no message.
    pub(crate) fn idled(&mut self, bytes: usize) {
        self.spend(Instant::now(), bytes / IDLE_BYTES_PER_MESSAGE);
    }

    /// How long nothing is to be read, if too much was.
    pub(crate) fn rest(&mut self) -> Option<Duration> {
        self.rest_at(Instant::now())
    }

    fn spend(&mut self, now: Instant, cost: usize) {
        if now.duration_since(self.since) >= UNASKED_MESSAGES_WITHIN {
            (self.since, self.spent) = (now, 0);
        }
        self.spent = self.spent.saturating_add(cost);
    }

    fn rest_at(&mut self, now: Instant) -> Option<Duration> {
        if self.spent <= UNASKED_MESSAGES_MAX {
            return None;
        }
        let left = (self.since + UNASKED_MESSAGES_WITHIN).saturating_duration_since(now);
        (self.since, self.spent) = (now + left, 0);
        Some(left).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_usual_never_rests_and_a_flood_does() {
        let start = Instant::now();
        let mut throttle = Throttle { since: start, spent: 0 };
        throttle.spend(start, UNASKED_MESSAGES_MAX);
        assert_eq!(throttle.rest_at(start), None);
        throttle.spend(start, 1);
        assert_eq!(throttle.rest_at(start), Some(UNASKED_MESSAGES_WITHIN));
        let next = start + UNASKED_MESSAGES_WITHIN;
        throttle.spend(next, UNASKED_MESSAGES_MAX);
        assert_eq!(throttle.rest_at(next), None);
        throttle.spend(next + UNASKED_MESSAGES_WITHIN, UNASKED_MESSAGES_MAX);
        assert_eq!(throttle.rest_at(next + UNASKED_MESSAGES_WITHIN), None);
    }
}
