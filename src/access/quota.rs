//! Calls per minute, as a bucket that fills steadily.

use std::time::{Duration, Instant};

/// The calls that one key has left.
#[derive(Debug, Clone)]
pub struct Bucket {
    per_minute: u32,
    /// The time at which the bucket will be, or was, free of debt: each call moves it by one
    /// interval.
    free_at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub fn new(now: Instant, per_minute: u32) -> Bucket {
        let minute = Duration::from_secs(60);
        Bucket { per_minute, free_at: now.checked_sub(minute).unwrap_or(now) }
    }

    /// The same bucket if the number of calls is the same, else a full one.
    pub fn with(&self, now: Instant, per_minute: u32) -> Bucket {
        if self.per_minute == per_minute { self.clone() } else { Bucket::new(now, per_minute) }
    }

    /// True if all calls of a minute are left.
    pub fn is_full(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.free_at) >= Duration::from_secs(60)
    }

    /// The time at which the bucket will be, or was, free of debt: of two buckets, the one whose
    /// time is earlier has not been used for longer.
    pub fn free_at(&self) -> Instant {
        self.free_at
    }

    /// Takes one call.
    ///
    /// # Errors
    /// No call is left; the time until the next one.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let minute = Duration::from_secs(60);
        if self.per_minute == 0 {
            return Err(minute);
        }
        let interval = minute / self.per_minute;
        let oldest = now.checked_sub(minute).unwrap_or(now);
        let next = self.free_at.max(oldest) + interval;
        if next > now {
            return Err(next - now);
        }
        self.free_at = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_holds_so_many_calls_and_refills_steadily() {
        let start = Instant::now() + Duration::from_secs(1000);
        let mut bucket = Bucket::new(start, 60);
        for call in 0..60 {
            assert_eq!(bucket.take(start), Ok(()), "call {call}");
        }
        assert_eq!(bucket.take(start), Err(Duration::from_secs(1)));
        assert_eq!(bucket.take(start + Duration::from_secs(1)), Ok(()));
        assert!(bucket.take(start + Duration::from_secs(1)).is_err());
    }
}
