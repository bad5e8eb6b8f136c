//! Histograms of times, with upper bounds that are the same everywhere.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds, in microseconds: from a call that the gateway answers itself to one that takes the
/// whole of the default `timeout_ms`.
pub const BOUNDS_US: [u64; 15] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 15_000_000, 60_000_000,
];

/// A histogram with the bounds of [`BOUNDS_US`].
#[derive(Debug)]
pub struct Histogram {
    /// The number of times within each bound and over the one before; the last is over all
    /// bounds.
    counts: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

/// The counts of a histogram.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted {
    /// The number of all times.
    pub count: u64,
    /// For each bound in seconds, the number of times within it.
    pub sum: f64,
    /// For each bound in seconds, how many were within it.
    pub within: Vec<(f64, u64)>,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram::new()
    }
}

impl Histogram {
    /// An empty histogram.
    pub const fn new() -> Histogram {
        Histogram {
            counts: [const { AtomicU64::new(0) }; BOUNDS_US.len() + 1],
            sum_us: AtomicU64::new(0),
        }
    }

    /// Adds a time.
    pub fn add(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let place = BOUNDS_US.partition_point(|bound| *bound < us);
        if let Some(count) = self.counts.get(place) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// The counts so far.
    pub fn counted(&self) -> Counted {
        let mut count = 0;
        let mut within = Vec::with_capacity(BOUNDS_US.len());
        for (place, of_bound) in self.counts.iter().enumerate() {
            count += of_bound.load(Ordering::Relaxed);
            if let Some(bound) = BOUNDS_US.get(place) {
                within.push((Duration::from_micros(*bound).as_secs_f64(), count));
            }
        }
        let sum = Duration::from_micros(self.sum_us.load(Ordering::Relaxed)).as_secs_f64();
        Counted { count, sum, within }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_a_bound_is_within_it() {
        let histogram = Histogram::new();
        for us in [0, 500, 501, 60_000_000, 60_000_001] {
            histogram.add(Duration::from_micros(us));
        }
        let counted = histogram.counted();
        assert_eq!(counted.count, 5);
        assert_eq!(counted.within.first(), Some(&(0.0005, 2)));
        assert_eq!(counted.within.get(1), Some(&(0.001, 3)));
        assert_eq!(counted.within.last(), Some(&(60.0, 4)));
        assert!((counted.sum - 120.001_002).abs() < 1e-9, "{}", counted.sum);
    }
}
