//! Bounds of the program that tests stand on, as figures: who tests the program does not use the
//! library. `tests/library/figures.rs` holds them to `src/limits`.

use std::time::Duration;

pub const BACKOFF_MIN: Duration = Duration::from_millis(200);
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);
pub const CHILD_BACKOFF_MIN: Duration = Duration::from_secs(1);
pub const CHILD_BACKOFF_MAX: Duration = Duration::from_secs(300);
pub const EVENT_LOGS_BYTES_MAX: usize = 64 * 1024 * 1024;
pub const INPUT_ROUNDS_MAX: usize = 32;
pub const PAGE_BYTES_MAX: usize = 2 * 1024 * 1024;
pub const RESUMABLE_STREAMS_MAX: usize = 16;

/// Tries of one thing that may come in so long, if each wait is as short as the jitter makes it.
pub fn tries_max(time: Duration) -> usize {
    tries_between(BACKOFF_MIN, BACKOFF_MAX, time)
}

/// The same of starts of a child.
pub fn starts_max(time: Duration) -> usize {
    tries_between(CHILD_BACKOFF_MIN, CHILD_BACKOFF_MAX, time)
}

/// Tries in so long with waits that grow between these bounds.
fn tries_between(min: Duration, max: Duration, time: Duration) -> usize {
    let (mut at, mut wait, mut n) = (Duration::ZERO, min, 0);
    while at <= time {
        n += 1;
        at += wait * 3 / 4;
        wait = (wait * 2).min(max);
    }
    n
}
